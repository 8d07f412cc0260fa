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
"""More maps for each question come from a transformer, whose rows are not glimpses."""


def attention_of(
    visual: Sequence[Node], softmaxes: Sequence[Softmax], questions: int, tokens: int | None
) -> Tensor | None:
    """The attention maps that V was pooled with, (N, G, S, S), each summing to 1; None if none is recognized.

    It is the last softmax that V is computed from, that depends on image and words, and that sums to 1
    over S · S positions. Several softmaxes of one line, such as one for each glimpse, are concatenated.

    Args:
        visual: the nodes that computed V, or its parts.
        softmaxes: the forward's softmaxes that depend on image and words, in order.
        questions: N.
        tokens: T; a softmax over T positions is not an attention over the image. None if unknown.
    """
    ancestors = set(nodes_behind(list(visual)))
    pooling = [softmax for softmax in softmaxes if softmax.node in ancestors]
    candidates = [(softmax.line, _maps(softmax, questions, tokens)) for softmax in pooling]
    recognized = [(line, maps) for line, maps in candidates if maps is not None]
    if not recognized:
        return None
    last, shape = recognized[-1][0], recognized[-1][1].shape[2:]
    merged = torch.cat([maps for line, maps in recognized if line == last and maps.shape[2:] == shape], 1)
    return merged if merged.shape[1] <= _MOST_GLIMPSES else None


def _maps(softmax: Softmax, questions: int, tokens: int | None) -> Tensor | None:
    """A softmax as (N, G, S, S); None if it is not over a square of positions."""
    values = softmax.values.movedim(softmax.dim, -1)
    positions = values.shape[-1]
    side = isqrt(positions)
    rows = next((size for size in values.shape[:-1] if size != 1), 1)
    if side < 2 or side * side != positions or positions == tokens or rows % questions:
        return None
    return values.reshape(questions, -1, side, side)
