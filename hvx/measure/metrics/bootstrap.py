"""Means with their uncertainty: percentile bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

DRAWS = 2000
LEVEL = 0.95
"""Of the intervals: 2.5 % of the draws are below, 2.5 % above."""

_AT_ONCE = 1 << 22
"""Number of counts in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean of ``n`` values with its interval.

    All are NaN if there are no values. The interval is NaN if there is only one group: it does not show how
    much another group would differ.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def known(self) -> bool:
        """Whether there were any values."""
        return self.n > 0

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low))


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)


def mean(values: Sequence[float] | np.ndarray, groups: Sequence[int] | np.ndarray, seed: int) -> Estimate:
    """The mean of values with its percentile bootstrap interval (Efron & Tibshirani 1993, section 13.3).

    Groups are resampled with replacement, not values (Davison & Hinkley 1997, section 3.8). Questions on one
    image share its pixels, so five of them carry less information than five questions on five images. An
    interval that treated them as independent would be too narrow.

    Args:
        values: (n) one for each question, token, …; all finite.
        groups: (n) the image of each.
        seed: of the draws; the same groups and seed give the same draws for any values.
    """
    return difference(values, groups, None, seed)


def difference(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray,
    apart: Sequence[bool] | np.ndarray | None,
    seed: int,
) -> Estimate:
    """The mean of the values marked ``apart`` minus the mean of the others, with its interval.

    The plain mean if ``apart`` is None. For a paired difference, take the mean of the differences instead.

    Args:
        values, groups, seed: as in ``mean``.
        apart: (n) which values belong to the first mean; None: all.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    marks = [np.ones(len(values), bool)]
    if apart is not None:
        marks = [np.asarray(apart, bool), ~np.asarray(apart, bool)]
    if not all(mark.any() for mark in marks):
        return NOTHING
    _, group_index = np.unique(groups, return_inverse=True)
    group_count = int(group_index.max()) + 1
    value = float(values[marks[0]].mean() - (values[marks[1]].mean() if apart is not None else 0.0))
    count = int(marks[0].sum())
    if group_count < 2:
        return Estimate(value, np.nan, np.nan, count)
    drawn = _draws(group_count, seed, [_sums(values, group_index, mark) for mark in marks])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail])
    return Estimate(value, float(low), float(high), count)


def _sums(values: np.ndarray, group_index: np.ndarray, mark: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the marked values in each group."""
    size = int(group_index.max()) + 1
    return (
        np.bincount(group_index[mark], weights=values[mark], minlength=size),
        np.bincount(group_index[mark], minlength=size).astype(np.float64),
    )


def _draws(groups: int, seed: int, parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The statistic in each draw: the first part's mean minus the second's; NaN if a part has no values."""
    pieces = []
    for multiplicities in _multiplicities(groups, seed):
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [(multiplicities @ total) / (multiplicities @ size) for total, size in parts]
        pieces.append(means[0] - means[1] if len(means) > 1 else means[0])
    return np.concatenate(pieces)


def _multiplicities(groups: int, seed: int) -> Iterable[np.ndarray]:
    """How often each draw contains each group (n, groups), a few draws at a time if they are many."""
    if DRAWS * groups <= _AT_ONCE:
        return [_cached_multiplicities(groups, seed)]
    rng, step = np.random.default_rng(seed), max(1, _AT_ONCE // groups)
    return (_drawn(rng, groups, min(step, DRAWS - start)) for start in range(0, DRAWS, step))


@lru_cache(maxsize=4)
def _cached_multiplicities(groups: int, seed: int) -> np.ndarray:
    """Of all draws: most measures are of the same images, and to draw takes far longer than to average."""
    return _drawn(np.random.default_rng(seed), groups, DRAWS)


def _drawn(rng: np.random.Generator, groups: int, count: int) -> np.ndarray:
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=count).astype(np.float64)
