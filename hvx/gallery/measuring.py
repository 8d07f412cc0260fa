"""Measures a chunk of a run's items."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hvx.compare.agreement import cell_means
from hvx.gallery.scripts import number
from hvx.gallery.workers import Measured
from hvx.measure.metrics.agreement import unit_ranks
from hvx.store.reader import Item, RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT


def measure(
    reader: RunReader, items: Sequence[Item], numbers: Sequence[int], partners: Sequence[int]
) -> Measured:
    """Measure a run's items.

    Args:
        reader: the run.
        items: items of the run.
        numbers: each item's number in the run.
        partners: for each item, the number of another question on the same image; -1 if none.
    """
    words: dict[str, tuple[int, float]] = {}
    for item in items:
        if item.token_z and not item.zero_gradient & ZERO_WORD_GRADIENT:
            _add_words(words, item)
    agreement, control = _agreements(reader, items, numbers, partners)
    unknown = [sum(item.unknown) for item in items]
    return Measured(agreement, control, [item.zero_gradient for item in items], unknown, words)


def _add_words(words: dict[str, tuple[int, float]], item: Item) -> None:
    for token, z in zip(item.tokens, item.token_z, strict=True):
        if math.isfinite(z):
            count, total = words.get(token, (0, 0.0))
            words[token] = count + 1, total + z


def _agreements(
    reader: RunReader, items: Sequence[Item], numbers: Sequence[int], partners: Sequence[int]
) -> tuple[list[float | None], list[float | None]]:
    """``select_items.agreement`` of each item, and with another question's attention on the image."""
    agreement: list[float | None] = [None] * len(items)
    control: list[float | None] = [None] * len(items)
    indices = [
        index
        for index, item in enumerate(items)
        if len(item.attention) and item.heatmap.size and not item.zero_gradient & ZERO_IMAGE_GRADIENT
    ]
    if not indices:
        return agreement, control
    attention = {n: item.attention.sum(0) for n, item in zip(numbers, items, strict=True)}
    for partner in {partners[index] for index in indices} - {-1, *attention}:
        attention[partner] = reader.value("attention", partner).sum(0)
    shape = items[indices[0]].attention.shape[1:]
    cells = np.concatenate([cell_means(items[index].heatmap[None], shape) for index in indices])
    heatmap_ranks = unit_ranks(cells)
    attention_ranks = dict(zip(attention, unit_ranks(np.stack(list(attention.values()))), strict=True))
    for index, heat_ranks in zip(indices, heatmap_ranks, strict=True):
        agreement[index] = number(heat_ranks @ attention_ranks[numbers[index]])
        if partners[index] >= 0:
            control[index] = number(heat_ranks @ attention_ranks[partners[index]])
    return agreement, control
