"""Means with bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvx.measure.bootstrap import DRAWS, difference, mean


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
