"""How far the explanations of two runs agree, question by question: Spearman's rank correlation.

Maps of any size are brought to one grid, as means over its cells, and kept as ranks: a question takes 392
bytes whatever the size of its map, so that whole splits fit in memory. NaN stands where there is no
correlation: a map that is constant (as where its gradient is zero everywhere), a run without attention, maps
of different parts of the photograph, words that were split differently.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import rankdata

from hvx.compare.join import Joined
from hvx.progress import bar

GRID = 14
"""Cells across the grid on which heat maps are compared, as `hvx measure` does without attention."""

_LARGEST = 180
"""Cells across any grid: twice the rank of a cell is kept in 16 bits."""
_VALUES = 1 << 22
"""Of maps read at a time."""
_DIGITS = 12
"""Of a cell's mean, in parts of the map's largest: what differs by rounding alone is equal."""
_ROWS = 1 << 14
"""Questions whose correlations are computed at a time."""


def heatmap_agreement(joined: Joined, one: int = 0, other: int = 1) -> np.ndarray:
    """The rank correlation of two runs' heat maps of each common question.

    Args:
        joined: the runs.
        one, other: which of them, as places in ``joined.runs``.

    Returns:
        (n) float64 in the order of ``joined.question_ids``, −1 to 1; NaN where there is none.
    """
    if joined.apart(one, other) or not all(joined.runs[run].has_heatmaps for run in (one, other)):
        return np.full(len(joined), np.nan)
    return correlations(heatmap_ranks(joined, one), heatmap_ranks(joined, other))


def attention_agreement(joined: Joined, one: int = 0, other: int = 1) -> np.ndarray:
    """The same for the attention, summed over glimpses; all NaN if either run has none."""
    if joined.apart(one, other) or not (joined.runs[one].glimpses and joined.runs[other].glimpses):
        return np.full(len(joined), np.nan)
    return correlations(attention_ranks(joined, one), attention_ranks(joined, other))


def token_agreement(joined: Joined, one: int = 0, other: int = 1) -> np.ndarray:
    """The same for the z-scores of the tokens; NaN where tokens differ, or are fewer than two."""
    return word_correlations(Words(joined, one), Words(joined, other))


def heatmap_grid(joined: Joined) -> tuple[int, int]:
    """Rows and columns on which heat maps are compared: 14×14, or fewer where a run stores smaller maps.

    Only of runs that have heat maps, one at least.
    """
    sizes = [run.heatmap_size for run in joined.runs if run.has_heatmaps]
    heights, widths = zip(*sizes, strict=True)
    return min(GRID, *heights), min(GRID, *widths)


def attention_grid(joined: Joined) -> tuple[int, int]:
    """Rows and columns on which attention is compared: the smallest of those that have it, or less."""
    sizes = [run.attention_size for run in joined.runs if run.glimpses]
    return min(_LARGEST, *(rows for rows, _ in sizes)), min(_LARGEST, *(columns for _, columns in sizes))


def heatmap_ranks(joined: Joined, run: int) -> np.ndarray:
    """Ranks (n, C) of a run's heat maps over ``heatmap_grid``, as ``map_ranks`` returns them."""
    grid = heatmap_grid(joined)
    found = np.zeros((len(joined), grid[0] * grid[1]), np.uint16)
    for rows, maps in _read(joined, run, "heatmap", "heat maps"):
        found[rows] = map_ranks(maps, grid)
    return found


def attention_ranks(joined: Joined, run: int) -> np.ndarray:
    """Ranks (n, C) of a run's attention, summed over glimpses, over ``attention_grid``."""
    grid = attention_grid(joined)
    found = np.zeros((len(joined), grid[0] * grid[1]), np.uint16)
    for rows, maps in _read(joined, run, "attention", "attention"):
        found[rows] = map_ranks(maps.sum(1, dtype=np.float64), grid)
    return found


def map_ranks(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Twice the ranks of each map's means over the cells of a grid.

    Args:
        maps: (N, H, W), each no smaller than the grid.
        grid: rows and columns.

    Returns:
        (N, C) uint16, C = rows · columns; equal means share their mean rank, which twice is a whole number. A
        constant map has zeros.
    """
    maps = maps.astype(np.float32) if maps.dtype == np.float16 else maps  # NumPy compares halves slowly
    flat = maps.reshape(len(maps), -1)
    constant = flat.min(1) == flat.max(1)
    means = cell_means(maps, grid).reshape(len(maps), -1)
    largest = np.abs(means).max(1, keepdims=True)
    means = np.round(means / np.where(largest > 0, largest, 1), _DIGITS)
    ranks: np.ndarray = np.asarray(2 * rankdata(means, axis=1), np.uint16)
    ranks[constant] = 0
    return ranks


def cell_means(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Means of maps (N, H, W) over the cells of a grid (N, rows, columns), float64.

    A pixel that lies in two cells counts in each by the share of it that lies there.
    """
    height, width = maps.shape[1:]
    if height % grid[0] == 0 and width % grid[1] == 0:
        squares = maps.reshape(len(maps), grid[0], height // grid[0], grid[1], width // grid[1])
        return squares.mean((2, 4), dtype=np.float64)
    rows, columns = _shares(grid[0], height), _shares(grid[1], width)
    lines = np.einsum("nhw,cw->nhc", maps.astype(np.float64), columns)
    return np.einsum("rh,nhc->nrc", rows, lines)


def _shares(cells: int, size: int) -> np.ndarray:
    """(cells, size): how much of each cell every pixel of a line fills."""
    step = size / cells
    starts, pixels = np.arange(cells)[:, None] * step, np.arange(size)
    inside = np.minimum(starts + step, pixels + 1) - np.maximum(starts, pixels)
    return np.clip(inside, 0, None) / step


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of ranks (n, C) with the other's same row.

    Returns:
        (n) float64; NaN where a row is constant.
    """
    found = np.full(len(one), np.nan)
    for start in range(0, len(one), _ROWS):
        rows = slice(start, start + _ROWS)
        left, right = (_centered(ranks[rows]) for ranks in (one, other))
        length = np.sqrt((left * left).sum(1) * (right * right).sum(1))
        np.divide((left * right).sum(1), length, out=found[rows], where=length > 0)
    return np.clip(found, -1, 1)


def _centered(ranks: np.ndarray) -> np.ndarray:
    values = ranks.astype(np.float64)
    return values - values.mean(1, keepdims=True)


def _read(joined: Joined, run: int, name: str, label: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Maps of a run, some at a time: their places among the common questions, and the maps."""
    reader = joined.runs[run]
    place = np.full(len(reader), -1)
    place[joined.numbers[run]] = np.arange(len(joined))
    size = max(1, _VALUES // reader.item_values(name))
    chunks, total = reader.chunks(name, size, place >= 0), reader.chunk_count(size, place >= 0)
    for first, maps in bar(chunks, f"{joined.labels[run]}: {label}", "chunk", total):
        own = place[first : first + len(maps)]
        yield own[own >= 0], maps[own >= 0]


class Words:
    """Tokens and z-scores of a run, in the order of the common questions.

    Attributes:
        texts: (n) each question's tokens as one text.
        lengths: (n) number of tokens.
        z: (n, T) float32, NaN beyond the length.
    """

    def __init__(self, joined: Joined, run: int) -> None:
        reader = joined.runs[run]
        texts = [
            "\0".join(map(str, row)).rstrip("\0")
            for _, rows in reader.chunks("tokens", _ROWS)
            for row in rows
        ]
        self.texts = np.array(texts, object)[joined.numbers[run]]
        self.lengths = joined.column(run, "length").astype(np.int64)
        self.z = joined.column(run, "token_z")


def word_correlations(one: Words, other: Words, partners: np.ndarray | None = None) -> np.ndarray:
    """The rank correlation of z-scores of two runs.

    Args:
        one, other: of the runs.
        partners: (n) the question of ``other`` that each of ``one``'s is compared with, −1: none; its tokens
            may be others, as many of them. None: the same question, whose tokens must be the same.

    Returns:
        (n) float64; NaN where tokens differ (or their number), are fewer than two, or all z are equal.
    """
    count = len(one.lengths)
    place = np.arange(count) if partners is None else partners
    fits = (place >= 0) & (one.lengths >= 2) & (one.lengths == other.lengths[place])
    if partners is None:
        fits &= np.asarray(one.texts == other.texts, bool)
    found = np.full(count, np.nan)
    for length in np.unique(one.lengths[fits]):
        rows = np.flatnonzero(fits & (one.lengths == length))
        ranks = [rankdata(z[:, :length], axis=1) for z in (one.z[rows], other.z[place[rows]])]
        found[rows] = correlations(*ranks)
    return found
