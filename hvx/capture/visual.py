"""Choosing the factor V if both depend on image and words: the user names where its values come from."""

from __future__ import annotations

from dataclasses import replace

from torch.autograd.graph import Node

from hvx.capture.factors import Form
from hvx.capture.graph import inputs_of
from hvx.capture.recorder import ProductRecorder
from hvx.capture.records import RecordedProduct
from hvx.errors import HvxError


def oriented(seen: RecordedProduct, visual: str | None, recorder: ProductRecorder) -> RecordedProduct:
    """The product with V and Q assigned by ``visual``; a product that is not mixed is returned unchanged.

    V is the factor with fewer steps in the graph from the output of the module or the line: after a
    cross-attention both factors depend on both.

    Args:
        seen: the product.
        visual: path of a module, or ``file:line``.
        recorder: of the forward.

    Raises:
        HvxError: no tensor was computed there, or both factors are equally near.
    """
    if seen.product.form is not Form.MIXED:
        return seen
    if visual is None:
        raise HvxError(
            f"product {seen.product}: say which factor is V by visual=, the path of a module or a file:line "
            "that its values come from"
        )
    nodes = recorder.made.get(visual, [])
    if not nodes:
        raise HvxError(f"visual '{visual}': no module of that path, and no such line, made a tensor")
    visual_steps, textual_steps = (_steps(factor.edge.node, nodes) for factor in (seen.visual, seen.textual))
    if visual_steps == textual_steps:
        raise HvxError(
            f"visual '{visual}': it is as near to one factor of {seen.product} as to the other; name a "
            "module or a line nearer to V"
        )
    if visual_steps is not None and (textual_steps is None or visual_steps < textual_steps):
        return seen
    return replace(seen, visual=seen.textual, textual=seen.visual)


def _steps(start: Node, ends: list[Node]) -> int | None:
    """Number of steps from a node back to the nearest of ``ends``; None if there is no path."""
    targets, seen, layer, steps = set(ends), {start}, [start], 0
    while layer:
        if targets.intersection(layer):
            return steps
        layer = list(
            dict.fromkeys(parent for node in layer for parent in inputs_of(node) if parent not in seen)
        )
        seen.update(layer)
        steps += 1
    return None
