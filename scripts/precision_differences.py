"""Differences between explanations of the same questions, for scripts/measure_precision.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvx.compare.agreement import GRID, Words, correlations, heatmap_ranks
from hvx.compare.join import Joined
from hvx.measure.metrics.agreement import rank_correlation
from hvx.measure.metrics.bootstrap import Estimate, mean
from hvx.measure.metrics.localization import Peaks, covers, peaks

SEED = 0
MOVED = 0.05
"""Of the image's width: a maximum that is farther away has moved."""
ATTENDED = 2.0
"""The paper's threshold of z-scores."""


@dataclass(frozen=True)
class Side:
    """What a run has of the n common questions, in their order; ``margins``: p₁ − p₂ (n)."""

    maps: np.ndarray
    ranks: np.ndarray
    attention: np.ndarray | None
    z: np.ndarray
    lengths: np.ndarray
    answers: np.ndarray
    margins: np.ndarray

    @classmethod
    def of(cls, joined: Joined, run: int) -> Side:
        words, top = Words(joined, run), joined.column(run, "top_probabilities")
        return cls(
            joined.column(run, "heatmap"),
            heatmap_ranks(joined, run),
            joined.column(run, "attention") if joined.runs[run].glimpses else None,
            words.z,
            words.lengths,
            joined.column(run, "answer").astype(str),
            top[:, 0] - top[:, 1],
        )


@dataclass(frozen=True)
class Differences:
    """Of two sides, for each question that has a partner; those of z per token, where lengths are equal.

    Attributes:
        pixels, cells: rank correlations of heat maps, pixel by pixel and over 14×14 cells.
        distances: of the maxima, in shares of the side; NaN if the second map is constant.
        heights: the first map's value at the second's maximum, of its largest value.
        same_cell: whether the maxima are in the same of 14×14 cells.
        attention: ½Σ|Δα| of each glimpse.
        z, signs, crossings: |Δz|, whether the sign differs, whether one of the two |z| is above ``ATTENDED``.
        answers, margins: whether the answer differs, and the first side's p₁ − p₂.
        hits: of the questions with a region, whether each side's maximum is in it.
        images: the image of each of ``hits``.
    """

    pixels: np.ndarray
    cells: np.ndarray
    distances: np.ndarray
    heights: np.ndarray
    same_cell: np.ndarray
    attention: np.ndarray
    z: np.ndarray
    signs: np.ndarray
    crossings: np.ndarray
    answers: np.ndarray
    margins: np.ndarray
    hits: np.ndarray
    images: np.ndarray

    @property
    def moved(self) -> float:
        """Share of explanations whose maximum is farther away than ``MOVED``; NaN counts as moved."""
        return float(np.mean(~(self.distances <= MOVED)))

    @property
    def pointing(self) -> list[Estimate]:
        """The pointing game of each side, and the paired difference."""
        return [mean(values, self.images, SEED) for values in (*self.hits, self.hits[1] - self.hits[0])]


def compare(
    first: Side, second: Side, partners: np.ndarray, regions: dict[int, np.ndarray], images: np.ndarray
) -> Differences:
    """The first side's explanation of each question with the second's of its partner (−1: none)."""
    rows = np.flatnonzero((partners >= 0) & (first.maps.max((1, 2)) > first.maps.min((1, 2))))
    others = partners[rows]
    pairs = list(zip(rows.tolist(), others.tolist(), strict=True))
    tops = {row: (peaks(first.maps[row]), peaks(second.maps[other])) for row, other in pairs}
    hits = [[covers(regions[row], top) for top in tops[row]] for row in tops if row in regions]
    alike = rows[first.lengths[rows] == second.lengths[others]]
    known = np.isfinite(first.z[alike])
    one, two = first.z[alike][known], second.z[partners[alike]][known]
    attention = np.zeros(0)
    if first.attention is not None and second.attention is not None:
        attention = np.abs(first.attention[rows] - second.attention[others]).sum((2, 3)).ravel() / 2
    return Differences(
        pixels=np.array([rank_correlation(first.maps[row], second.maps[other]) for row, other in pairs]),
        cells=correlations(first.ranks[rows], second.ranks[others]),
        distances=np.array([distance(*both) for both in tops.values()]),
        heights=np.array([_height(first.maps[row], both[1]) for row, both in tops.items()]),
        same_cell=np.array([_share_a_cell(*both) for both in tops.values()]),
        attention=attention,
        z=np.abs(one - two),
        signs=np.sign(one) != np.sign(two),
        crossings=(np.abs(one) > ATTENDED) != (np.abs(two) > ATTENDED),
        answers=first.answers[rows] != second.answers[others],
        margins=first.margins[rows],
        hits=np.array(hits).reshape(-1, 2).T,
        images=images[[row for row in tops if row in regions]],
    )


def distance(first: Peaks, second: Peaks) -> float:
    """Between the nearest maxima of two maps, in shares of the side; NaN if either map is constant."""
    if first is None or second is None:
        return np.nan
    return float(np.linalg.norm(first[:, None] - second[None], axis=2).min())


def _height(heatmap: np.ndarray, points: Peaks) -> float:
    """A map's largest value at these points, of its largest value; 0 if there are none."""
    if points is None:
        return 0.0
    rows, columns = (points * heatmap.shape).astype(int).T
    return float(heatmap[rows, columns].max() / heatmap.max())


def _share_a_cell(first: Peaks, second: Peaks) -> bool:
    cells = [set(map(tuple, (points * GRID).astype(int))) for points in (first, second) if points is not None]
    return len(cells) == 2 and bool(cells[0] & cells[1])
