"""Means with bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvx.measure.metrics import bootstrap
from hvx.measure.metrics.bootstrap import DRAWS, NOTHING, difference, mean


def test_the_mean_is_the_mean_and_the_interval_holds_it() -> None:
    values = np.random.default_rng(0).normal(3, 1, 200)
    found = mean(values, range(200), 0)
    assert found.value == pytest.approx(values.mean())
    assert found.low < found.value < found.high
    assert found.n == 200


def test_the_interval_of_independent_values_is_that_of_the_central_limit() -> None:
    values = np.random.default_rng(1).normal(0, 2, 400)
    found = mean(values, range(400), 0)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_values_that_an_image_decides_count_as_one_each() -> None:
    """Ten equal values of each of 30 images know no more than 30 values do."""
    each = np.random.default_rng(2).normal(size=30)
    once, tenfold = mean(each, range(30), 0), mean(np.repeat(each, 10), np.repeat(range(30), 10), 0)
    assert tenfold.low == pytest.approx(once.low)
    assert tenfold.high == pytest.approx(once.high)
    taken_apart = mean(np.repeat(each, 10), range(300), 0)
    assert taken_apart.high - taken_apart.low < 0.5 * (once.high - once.low)


def test_the_interval_is_that_of_a_loop_over_draws() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 12, 40)
    values = rng.random(40) + groups
    means = []
    for _ in range(3000):
        drawn = rng.choice(np.unique(groups), len(np.unique(groups)))
        means.append(np.concatenate([values[groups == group] for group in drawn]).mean())
    found = mean(values, groups, 0)
    width = np.subtract(*np.quantile(means, [0.975, 0.025]))
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=0.06 * width)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=0.06 * width)


def test_a_95_percent_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for trial in range(200):
        found = mean(rng.normal(1, 1, 60), range(60), trial)
        held += found.low <= 1 <= found.high
    assert 180 <= held <= 199


def test_a_difference_of_means_has_the_draws_in_common() -> None:
    values = np.array([1.0, 5.0, 2.0, 6.0, 3.0, 7.0])
    images = [0, 0, 1, 1, 2, 2]
    found = difference(values, images, [False, True] * 3, 0)
    assert (found.value, found.n) == (4.0, 3)
    assert (found.low, found.high) == pytest.approx((4.0, 4.0))  # 4 on every image, so in every draw


def test_the_same_seed_draws_the_same() -> None:
    values = np.random.default_rng(5).random(50)
    assert mean(values, range(50), 7) == mean(values, range(50), 7)
    assert mean(values, range(50), 7) != mean(values, range(50), 8)


def test_nothing_has_no_mean_and_one_image_no_interval() -> None:
    nothing = mean([], [], 0)
    assert not nothing.known and not nothing.bounded and math.isnan(nothing.value)
    one = mean([1.0, 2.0], [4, 4], 0)
    assert one.value == 1.5 and one.known and not one.bounded
    assert not difference([1.0, 2.0], [0, 1], [True, True], 0).known


def test_many_groups_are_drawn_in_pieces_alike() -> None:
    values = np.random.default_rng(6).random(5000)
    found = mean(values, range(5000), 0)
    half = 1.96 * values.std() / math.sqrt(5000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    assert DRAWS >= 1000


def by_hand(values: list[float], groups: list[int], apart: list[bool] | None, seed: int) -> list[float]:
    """The statistic in each of 2,000 draws of groups, without draws that lack one of the means."""
    names = sorted(set(groups))
    rng = np.random.default_rng(seed)
    found = []
    for times in rng.multinomial(len(names), [1 / len(names)] * len(names), size=2000):
        drawn = [
            (value, apart is None or apart[k])
            for name, count in zip(names, times, strict=True)
            for k, value in enumerate(values)
            if groups[k] == name
            for _ in range(count)
        ]
        first, second = [v for v, mark in drawn if mark], [v for v, mark in drawn if not mark]
        if apart is None:
            found.append(sum(first) / len(first))
        elif first and second:
            found.append(sum(first) / len(first) - sum(second) / len(second))
    return found


VALUES = [1.0, 4.0, -2.0, 0.5, 7.0, 3.0, 2.5]
GROUPS = [9, 4, 4, 7, 9, 2, 7]
APART = [True, False, True, False, False, True, False]


@pytest.mark.parametrize("seed", [0, 5])
def test_both_ends_of_an_interval_are_quantiles_of_the_draws(seed: int) -> None:
    found = mean(VALUES, GROUPS, seed)
    draws = by_hand(VALUES, GROUPS, None, seed)
    assert found.value == pytest.approx(16 / 7, abs=1e-12)
    assert found.n == 7
    assert found.low == pytest.approx(np.quantile(draws, 0.025), abs=1e-12)
    assert found.high == pytest.approx(np.quantile(draws, 0.975), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 5])
def test_both_ends_of_a_differences_interval_are_quantiles_of_the_draws(seed: int) -> None:
    found = difference(VALUES, GROUPS, APART, seed)
    draws = by_hand(VALUES, GROUPS, APART, seed)
    assert len(draws) < 2000  # in some draws, one of the means is of nothing
    assert found.value == pytest.approx(2 / 3 - 14 / 4, abs=1e-12)
    assert found.n == 3
    assert found.low == pytest.approx(np.quantile(draws, 0.025), abs=1e-12)
    assert found.high == pytest.approx(np.quantile(draws, 0.975), abs=1e-12)


@pytest.mark.parametrize("at_once", [1, 4, 12, 4 * 1999, 4 * 2000])
def test_draws_in_pieces_are_those_at_once(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    whole = mean(VALUES, GROUPS, 3)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", at_once)
    assert mean(VALUES, GROUPS, 3) == whole


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (12, 3), (4 * 1999, 1999), (1 << 22, 2000)])
def test_no_more_counts_are_drawn_at_once_than_memory_is_meant_to_hold(
    monkeypatch: pytest.MonkeyPatch, at_once: int, most: int
) -> None:
    sizes: list[int] = []

    class Recorder:
        def multinomial(self, n: int, shares: np.ndarray, size: int) -> np.ndarray:
            sizes.append(size)
            return np.ones((size, n), np.int64)

    monkeypatch.setattr(bootstrap, "_AT_ONCE", at_once)
    uncached = bootstrap._cached_multiplicities.__wrapped__
    monkeypatch.setattr(bootstrap, "_cached_multiplicities", uncached)
    monkeypatch.setattr("numpy.random.default_rng", lambda seed: Recorder())
    mean(VALUES, GROUPS, 3)  # of four images
    assert sum(sizes) == 2000 and max(sizes) == most and len(sizes) == math.ceil(2000 / most)


@pytest.mark.parametrize("apart", [[False, True, True, True], [True, False, False, False]])
def test_a_difference_counts_images_that_only_one_of_its_means_has(apart: list[bool]) -> None:
    """Also where the last image is one of them."""
    values, groups = [1.0, 4.0, -2.0, 7.0], [0, 0, 1, 2]
    found, draws = difference(values, groups, apart, 2), by_hand(values, groups, apart, 2)
    assert found.low == pytest.approx(np.quantile(draws, 0.025), abs=1e-12)
    assert found.high == pytest.approx(np.quantile(draws, 0.975), abs=1e-12)


def test_two_images_are_enough_for_an_interval() -> None:
    found = mean([1.0, 3.0], [5, 6], 0)
    assert (found.value, found.low, found.high, found.n) == (2.0, 1.0, 3.0, 2)
    one = mean([1.0, 3.0], [5, 5], 0)
    assert math.isnan(one.low) and math.isnan(one.high) and one.n == 2
    assert mean([4.0], [5], 0).known and not NOTHING.known
    assert (NOTHING.n, math.isnan(NOTHING.low), math.isnan(NOTHING.high)) == (0, True, True)


def test_a_difference_on_one_image_has_a_value_and_no_interval() -> None:
    found = difference([1.0, 5.0, 2.0], [3, 3, 3], [True, False, True], 0)
    assert found.value == -3.5 and found.n == 2 and not found.bounded


def test_settings_of_the_bootstrap() -> None:
    assert (bootstrap.DRAWS, bootstrap.LEVEL) == (2000, 0.95)
