"""Classifying the factors of a product: vectors of the questions, copies of a number, gates, heads."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import torch
from torch import Tensor
from torch.autograd.graph import Node

from hvx.capture.graph import inputs_of, kind

LAYOUT = {
    "View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Transpose", "T", "Permute", "Clone",
    "Expand", "Repeat", "Alias", "Slice", "Select", "ToCopy",
}  # fmt: skip
"""Nodes that copy or rearrange values."""
_COPIES = {"Expand", "Repeat"}
_GATES = {"Sigmoid", "Softmax", "Hardsigmoid"}
_REVERSED = {"Rsub", "Sub", "Neg", "Add"}
"""Nodes that turn a gate z into 1 − z."""
_ELEMENTWISE = {
    "Tanh",
    "Relu",
    "Sigmoid",
    "Gelu",
    "Silu",
    "Elu",
    "LeakyRelu",
    "Mul",
    "Div",
    "NativeLayerNorm",
}


class Form(StrEnum):
    """The kind of a product of image and words, by the form of its factors."""

    JOINT = "joint"
    """One vector for each question."""
    GATE = "gate"
    """One vector for each question; one factor is the output of a sigmoid or a softmax."""
    MIXED = "both factors of image and words"
    """One vector for each question; the user has to say which factor is V."""
    WEIGHTED = "one number times a vector"
    """One factor is constant along the vector: it scales the other and does not join image and words."""
    LATTICE = "over a grid"
    """Over regions, grid cells or tokens: an attention."""


def form(factors: tuple[Tensor, Tensor], shape: tuple[int, ...], questions: int) -> Form:
    """The form of a product, from its factors as the model computed them.

    Args:
        factors: broadcastable to ``shape``.
        shape: of the product.
        questions: N.
    """
    rows = rows_axis(shape, questions)
    if rows is None:
        return Form.LATTICE
    axes = [axis for axis in range(rows + 1, len(shape)) if shape[axis] != 1]
    if len(axes) > 1 and not all(_of_one_vector(factor, questions) for factor in factors):
        return Form.LATTICE
    if not axes or any(_constant_along(f, axis - len(shape), shape) for f in factors for axis in axes):
        return Form.WEIGHTED if len(axes) <= 1 else Form.LATTICE
    return Form.GATE if any(map(_is_gate, factors)) else Form.JOINT


def rows_axis(shape: tuple[int, ...], questions: int) -> int | None:
    """The axis of the questions: the first of a size other than 1, as in (1, N, d); None if not N rows."""
    axis = 0
    while axis < len(shape) - 2 and shape[axis] == 1 and questions != 1:
        axis += 1
    return axis if len(shape) - axis >= 2 and shape[axis] == questions else None


def _constant_along(factor: Tensor, axis: int, shape: tuple[int, ...]) -> bool:
    """Whether a factor is constant along an axis (counted from the last) of the product."""
    if factor.ndim < -axis or (factor.shape[axis] == 1 and shape[axis] != 1):
        return True
    if factor.stride(axis) == 0:
        return True
    # Only if the graph shows a copy: a saturated activation may be constant too, depending on the dtype.
    copied = any(kind(node) in _COPIES for node in _chain(factor.grad_fn, LAYOUT))
    return copied and bool((factor.detach() == factor.detach().narrow(axis, 0, 1)).all())


def _is_gate(factor: Tensor) -> bool:
    last = list(_chain(factor.grad_fn, LAYOUT | _REVERSED))
    return bool(last) and kind(last[-1]) in _GATES


def _of_one_vector(factor: Tensor, questions: int) -> bool:
    """Whether (N, h, d / h) is a view of (N, d): heads of one vector, not regions or tokens."""
    for node in _chain(factor.grad_fn, LAYOUT | _ELEMENTWISE):
        sizes_before = getattr(node, "_saved_self_sym_sizes", None)
        if sizes_before is not None and kind(node) in {"View", "UnsafeView", "ReshapeAlias"}:
            sizes = [int(size) for size in sizes_before if size != 1 or questions == 1]
            if len(sizes) == 2 and sizes[0] == questions and questions * sizes[1] == factor.numel():
                return True
    return False


def _chain(node: Node | None, through: set[str]) -> Iterator[Node]:
    """A node and its ancestors, as long as each node is of these kinds and has one input."""
    while node is not None:
        yield node
        parents = inputs_of(node)
        if kind(node) not in through or len(parents) != 1:
            return
        node = parents[0]


def vectors(values: Tensor, shape: tuple[int, ...], questions: int) -> Tensor:
    """A factor of a joint of this shape as (N, d)."""
    return torch.broadcast_to(values, shape).reshape(questions, -1)
