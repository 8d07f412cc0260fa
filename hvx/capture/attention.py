"""Recognizing the attention over the image's positions among the softmaxes of a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor
from torch.autograd.graph import Node

from hvx.capture.graph import nodes_behind
from hvx.capture.records import Softmax

_MOST_GLIMPSES = 16
"""More maps for each question are those of a transformer, whose rows are no glimpses."""


def attention_of(
    visual: Sequence[Node], softmaxes: Sequence[Softmax], questions: int, tokens: int | None
) -> Tensor | None:
    """The attention maps that V was pooled with, (N, G, S, S), each summing to 1; None if none is recognized.

    It is the last softmax that V is computed from, that depends on image and words, and that sums to 1
    over S · S positions; several of one line, such as one for each glimpse, belong together.

    Args:
        visual: the nodes that made V, or its parts.
        softmaxes: those of the forward that depend on image and words, in order.
        questions: N.
        tokens: T, a number of positions that is not taken for the image's; None if unknown.
    """
    behind = set(nodes_behind(list(visual)))
    found = [(each.line, _maps(each, questions, tokens)) for each in softmaxes if each.node in behind]
    known = [(line, maps) for line, maps in found if maps is not None]
    if not known:
        return None
    last, shape = known[-1][0], known[-1][1].shape[2:]
    together = torch.cat([maps for line, maps in known if line == last and maps.shape[2:] == shape], 1)
    return together if together.shape[1] <= _MOST_GLIMPSES else None


def _maps(softmax: Softmax, questions: int, tokens: int | None) -> Tensor | None:
    """A softmax as (N, G, S, S); None if it is not over a square of positions."""
    values = softmax.values.movedim(softmax.dim, -1)
    positions = values.shape[-1]
    side = isqrt(positions)
    rows = next((size for size in values.shape[:-1] if size != 1), 1)
    if side < 2 or side * side != positions or positions == tokens or rows % questions:
        return None
    return values.reshape(questions, -1, side, side)
