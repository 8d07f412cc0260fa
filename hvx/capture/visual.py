"""Which factor is V, where both depend on image and words: the user says where its values come from."""

from __future__ import annotations

from dataclasses import replace

from torch.autograd.graph import Node

from hvx.capture.factors import Form
from hvx.capture.graph import inputs_of
from hvx.capture.records import Seen
from hvx.capture.watch import Watch
from hvx.errors import HvxError


def oriented(seen: Seen, visual: str | None, watch: Watch) -> Seen:
    """A product whose V is the factor that ``visual`` leads to; one that is not mixed as it is.

    V is the factor that is fewer steps of the graph away from what the module or the line made: behind a
    cross-attention both factors depend on both.

    Args:
        seen: the product.
        visual: path of a module, or ``file:line``.
        watch: of the forward.

    Raises:
        HvxError: nothing was made there, or neither factor is nearer to it.
    """
    if seen.product.form is not Form.MIXED:
        return seen
    if visual is None:
        raise HvxError(
            f"product {seen.product}: say which factor is V by visual=, the path of a module or a file:line "
            "that its values come from"
        )
    made = watch.made.get(visual, [])
    if not made:
        raise HvxError(f"visual '{visual}': no module of that path, and no such line, made a tensor")
    one, other = (_steps(each.edge.node, made) for each in (seen.visual, seen.textual))
    if one == other:
        raise HvxError(
            f"visual '{visual}': it is as near to one factor of {seen.product} as to the other; name a "
            "module or a line nearer to V"
        )
    if one is not None and (other is None or one < other):
        return seen
    return replace(seen, visual=seen.textual, textual=seen.visual)


def _steps(start: Node, ends: list[Node]) -> int | None:
    """Steps from a node back to the nearest of others; None if none leads to it."""
    wanted, seen, layer, steps = set(ends), {start}, [start], 0
    while layer:
        if wanted.intersection(layer):
            return steps
        layer = list(dict.fromkeys(each for node in layer for each in inputs_of(node) if each not in seen))
        seen.update(layer)
        steps += 1
    return None
