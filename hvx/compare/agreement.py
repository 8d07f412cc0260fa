"""Agreement of the explanations of two runs, question by question: Spearman's rank correlation.

Maps of any size are averaged over the cells of one grid and stored as ranks: 392 bytes for each question,
regardless of the size of its map, so that whole splits fit in memory. The correlation is NaN for a constant
map (its gradient may be zero everywhere), a run without attention, maps of different parts of the photograph,
and different tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import rankdata

from hvx.compare.join import Joined
from hvx.progress import bar

GRID = 14
"""Cells per side of the grid for heat maps, as in `hvx measure` without attention."""

_LARGEST = 180
"""Largest number of cells per side of any grid: twice the rank of a cell is stored in 16 bits."""
_VALUES = 1 << 22
"""Values of maps that are read at a time."""
_DIGITS = 12
"""Digits of a cell's mean relative to the map's largest: differences by rounding are ignored."""
_ROWS = 1 << 14
"""Questions whose correlations are computed at a time."""


def heatmap_agreement(joined: Joined, first: int = 0, second: int = 1) -> np.ndarray:
    """The rank correlation of two runs' heat maps of each common question.

    Args:
        joined: the runs.
        first, second: indices in ``joined.runs``.

    Returns:
        (n) float64 in the order of ``joined.question_ids``, −1 to 1; NaN if there is none.
    """
    if joined.apart(first, second) or not all(joined.runs[run].has_heatmaps for run in (first, second)):
        return np.full(len(joined), np.nan)
    return correlations(heatmap_ranks(joined, first), heatmap_ranks(joined, second))


def attention_agreement(joined: Joined, first: int = 0, second: int = 1) -> np.ndarray:
    """The same for the attention, summed over glimpses; all NaN if either run has none."""
    if joined.apart(first, second) or not (joined.runs[first].glimpses and joined.runs[second].glimpses):
        return np.full(len(joined), np.nan)
    return correlations(attention_ranks(joined, first), attention_ranks(joined, second))


def token_agreement(joined: Joined, first: int = 0, second: int = 1) -> np.ndarray:
    """The same for the z-scores of the tokens; NaN if tokens differ or are fewer than two."""
    return word_correlations(Words(joined, first), Words(joined, second))


def heatmap_grid(joined: Joined) -> tuple[int, int]:
    """Rows and columns on which heat maps are compared: 14×14, or fewer if a run stores smaller maps.

    At least one run must have heat maps.
    """
    sizes = [run.heatmap_size for run in joined.runs if run.has_heatmaps]
    heights, widths = zip(*sizes, strict=True)
    return min(GRID, *heights), min(GRID, *widths)


def attention_grid(joined: Joined) -> tuple[int, int]:
    """Rows and columns on which attention is compared: the smallest of the runs that have it, or fewer."""
    sizes = [run.attention_size for run in joined.runs if run.glimpses]
    return min(_LARGEST, *(rows for rows, _ in sizes)), min(_LARGEST, *(columns for _, columns in sizes))


def heatmap_ranks(joined: Joined, run: int) -> np.ndarray:
    """Ranks (n, C) of a run's heat maps over ``heatmap_grid``, as ``map_ranks`` returns them."""
    grid = heatmap_grid(joined)
    ranks = np.zeros((len(joined), grid[0] * grid[1]), np.uint16)
    for rows, maps in _read(joined, run, "heatmap", "heat maps"):
        ranks[rows] = map_ranks(maps, grid)
    return ranks


def attention_ranks(joined: Joined, run: int) -> np.ndarray:
    """Ranks (n, C) of a run's attention, summed over glimpses, over ``attention_grid``."""
    grid = attention_grid(joined)
    ranks = np.zeros((len(joined), grid[0] * grid[1]), np.uint16)
    for rows, maps in _read(joined, run, "attention", "attention"):
        ranks[rows] = map_ranks(maps.sum(1, dtype=np.float64), grid)
    return ranks


def map_ranks(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Twice the ranks of each map's means over the cells of a grid.

    Args:
        maps: (N, H, W), each no smaller than the grid.
        grid: rows and columns.

    Returns:
        (N, C) uint16, C = rows · columns; equal means share their mean rank, and twice that rank is an
            integer. A constant map has zeros.
    """
    maps = maps.astype(np.float32) if maps.dtype == np.float16 else maps  # NumPy compares float16 slowly
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

    A pixel in two cells is weighted in each by the share of its area.
    """
    height, width = maps.shape[1:]
    if height % grid[0] == 0 and width % grid[1] == 0:
        squares = maps.reshape(len(maps), grid[0], height // grid[0], grid[1], width // grid[1])
        return squares.mean((2, 4), dtype=np.float64)
    rows, columns = _shares(grid[0], height), _shares(grid[1], width)
    lines = np.einsum("nhw,cw->nhc", maps.astype(np.float64), columns)
    return np.einsum("rh,nhc->nrc", rows, lines)


def _shares(cells: int, size: int) -> np.ndarray:
    """(cells, size): the share of each cell that every pixel of a line covers."""
    step = size / cells
    starts, pixels = np.arange(cells)[:, None] * step, np.arange(size)
    inside = np.minimum(starts + step, pixels + 1) - np.maximum(starts, pixels)
    return np.clip(inside, 0, None) / step


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of the rows of two arrays of ranks (n, C).

    Returns:
        (n) float64; NaN if a row is constant.
    """
    rho = np.full(len(first), np.nan)
    for start in range(0, len(first), _ROWS):
        rows = slice(start, start + _ROWS)
        left, right = (_centered(ranks[rows]) for ranks in (first, second))
        length = np.sqrt((left * left).sum(1) * (right * right).sum(1))
        np.divide((left * right).sum(1), length, out=rho[rows], where=length > 0)
    return np.clip(rho, -1, 1)


def _centered(ranks: np.ndarray) -> np.ndarray:
    values = ranks.astype(np.float64)
    return values - values.mean(1, keepdims=True)


def _read(joined: Joined, run: int, name: str, label: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Maps of a run in chunks: their indices among the common questions, and the maps."""
    reader = joined.runs[run]
    index = np.full(len(reader), -1)
    index[joined.numbers[run]] = np.arange(len(joined))
    size = max(1, _VALUES // reader.item_values(name))
    chunks, total = reader.chunks(name, size, index >= 0), reader.chunk_count(size, index >= 0)
    for first, maps in bar(chunks, f"{joined.labels[run]}: {label}", "chunk", total):
        chunk = index[first : first + len(maps)]
        yield chunk[chunk >= 0], maps[chunk >= 0]


class Words:
    """Tokens and z-scores of a run, in the order of the common questions.

    Attributes:
        texts: (n) each question's tokens, joined.
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


def word_correlations(first: Words, second: Words, partners: np.ndarray | None = None) -> np.ndarray:
    """The rank correlation of the z-scores of two runs.

    Args:
        first, second: words of the runs.
        partners: (n) the question of ``second`` that each question of ``first`` is compared with, −1: none;
            its tokens may differ, but not their number. If None, the same question, with the same tokens.

    Returns:
        (n) float64; NaN if tokens differ (or their number), are fewer than two, or all z are equal.
    """
    count = len(first.lengths)
    partner = np.arange(count) if partners is None else partners
    fits = (partner >= 0) & (first.lengths >= 2) & (first.lengths == second.lengths[partner])
    if partners is None:
        fits &= np.asarray(first.texts == second.texts, bool)
    rho = np.full(count, np.nan)
    for length in np.unique(first.lengths[fits]):
        rows = np.flatnonzero(fits & (first.lengths == length))
        ranks = [rankdata(z[:, :length], axis=1) for z in (first.z[rows], second.z[partner[rows]])]
        rho[rows] = correlations(*ranks)
    return rho
