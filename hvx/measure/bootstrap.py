"""Means with what they may be off by: percentile bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95
"""Of the intervals: 2.5 % of the draws lie below, 2.5 % above."""

_AT_ONCE = 1 << 22
"""Counts held in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean of ``n`` values with its interval.

    All NaN where there are no values; the interval NaN where there is but one group, which tells nothing of
    how much another one would differ.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether there was anything to take the mean of."""
        return self.n > 0

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low))


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)


def mean(values: Sequence[float] | np.ndarray, groups: Sequence[int] | np.ndarray, seed: int) -> Estimate:
    """The mean of values with its percentile bootstrap interval (Efron & Tibshirani 1993, section 13.3).

    What is drawn again, with replacement, are groups and not values (Davison & Hinkley 1997, section
    3.8): questions on one image look at the same pixels, so that five of them say less than five
    questions on five images. An interval that took them for independent would be too narrow.

    Args:
        values: (n) one for each question, token, …; all finite.
        groups: (n) the image of each.
        seed: of the draws; the same groups and seed give the same draws, whatever the values.
    """
    return difference(values, groups, None, seed)


def difference(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray,
    apart: Sequence[bool] | np.ndarray | None,
    seed: int,
) -> Estimate:
    """The mean of the values marked ``apart`` less the mean of the others, with its interval.

    Without marks, the plain mean. Of a paired difference take the mean of the differences instead.

    Args:
        values, groups, seed: as in ``mean``.
        apart: (n) which values are the first mean's.
    """
    found, own = np.asarray(values, np.float64), np.asarray(groups)
    marks = [np.ones(len(found), bool)]
    if apart is not None:
        marks = [np.asarray(apart, bool), ~np.asarray(apart, bool)]
    if not all(mark.any() for mark in marks):
        return NOTHING
    _, place = np.unique(own, return_inverse=True)
    groups_there = int(place.max()) + 1
    value = float(found[marks[0]].mean() - (found[marks[1]].mean() if apart is not None else 0.0))
    count = int(marks[0].sum())
    if groups_there < 2:
        return Estimate(value, np.nan, np.nan, count)
    drawn = _draws(groups_there, seed, [_sums(found, place, mark) for mark in marks])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail])
    return Estimate(value, float(low), float(high), count)


def _sums(values: np.ndarray, place: np.ndarray, mark: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the marked values in each group."""
    size = int(place.max()) + 1
    return (
        np.bincount(place[mark], weights=values[mark], minlength=size),
        np.bincount(place[mark], minlength=size).astype(np.float64),
    )


def _draws(groups: int, seed: int, parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The statistic in each draw: the first part's mean, less the second's; NaN where one drew nothing."""
    rng = np.random.default_rng(seed)
    pieces = []
    for start in range(0, DRAWS, step := max(1, _AT_ONCE // groups)):
        count = min(step, DRAWS - start)
        times = rng.multinomial(groups, np.full(groups, 1 / groups), size=count)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [(times @ total) / (times @ number) for total, number in parts]
        pieces.append(means[0] - means[1] if len(means) > 1 else means[0])
    return np.concatenate(pieces)
