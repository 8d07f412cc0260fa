"""The measures of maps, on maps whose answer is known: perfect, inverted, uniform, shifted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import spearmanr

from hvx.measure.metrics.agreement import rank_correlations
from hvx.measure.metrics.faithfulness import SHARES, area, blurred, curves, ranks
from hvx.measure.metrics.localization import attended, energy_inside, enlarged, overlap, points_inside
from hvx.measure.metrics.scores import cropped

SIDE = 40


def region() -> np.ndarray:
    inside = np.zeros((SIDE, SIDE), bool)
    inside[4:12, 10:18] = True
    return inside


PERFECT = region().astype(float)
INVERTED = 1 - PERFECT
UNIFORM = np.ones((SIDE, SIDE))
SHIFTED = np.roll(PERFECT, 4, axis=1)
"""Half inside, half beside."""


# Localization


def test_all_of_a_perfect_maps_energy_is_inside_and_none_of_an_inverted_ones() -> None:
    assert energy_inside(PERFECT, region()) == 1
    assert energy_inside(INVERTED, region()) == 0
    assert energy_inside(SHIFTED, region()) == pytest.approx(0.5)


def test_a_uniform_maps_energy_inside_is_the_regions_share_of_the_picture() -> None:
    assert energy_inside(UNIFORM, region()) == pytest.approx(region().mean())


def test_energy_against_the_answer_does_not_count() -> None:
    against = PERFECT - 5 * SHIFTED
    assert energy_inside(against, region()) == 1
    assert energy_inside(-UNIFORM, region()) == 0


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 0.5, 3.0, 1e9])
def test_no_measure_of_localization_depends_on_a_maps_unit(unit: float) -> None:
    map = np.random.default_rng(0).random((SIDE, SIDE)) + 2 * SHIFTED
    for measure in (points_inside, energy_inside, overlap):
        assert measure(unit * map, region()) == pytest.approx(measure(map, region()))
    assert 0 < energy_inside(map, region()) < 1 and 0 < overlap(map, region()) < 1


def test_what_is_attended_overlaps_as_the_known_maps_do() -> None:
    assert overlap(PERFECT, region()) == 1
    assert overlap(SHIFTED, region()) == pytest.approx(1 / 3)  # half of each: 32 of 96 pixels
    assert overlap(INVERTED, region()) == 0
    assert overlap(UNIFORM, region()) == 0


def test_attended_is_above_the_mean_by_two_standard_deviations() -> None:
    map = np.random.default_rng(0).normal(size=(30, 30))
    wanted = np.array([[value > map.mean() + 2 * map.std(ddof=1) for value in row] for row in map])
    assert (attended(map) == wanted).all()
    assert wanted.any()
    assert (attended(7 * map + 3) == wanted).all()


def pointing_by_hand(map: np.ndarray, inside: np.ndarray) -> float:
    """The pointing game pixel by pixel: the largest values' places, in the picture's own pixels."""
    best, places = -np.inf, []
    for row in range(map.shape[0]):
        for column in range(map.shape[1]):
            if map[row, column] > best:
                best, places = map[row, column], []
            if map[row, column] == best:
                places.append((row, column))
    # In whole numbers: a cell's center may lie on the edge of a pixel, where rounding would decide.
    hits = []
    for place in places:
        center = [(2 * at + 1) * inside.shape[axis] // (2 * map.shape[axis]) for axis, at in enumerate(place)]
        hits.append(bool(inside[center[0], center[1]]))
    return sum(hits) / len(hits)


@settings(deadline=None)
@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-1, 1, width=32)),
    st.integers(0, 100),
)
def test_the_pointing_game_is_that_of_a_second_implementation(map: np.ndarray, seed: int) -> None:
    inside = np.random.default_rng(seed).random((24, 24)) < 0.3
    wanted = pointing_by_hand(map, inside) if map.min() < map.max() else 0
    assert points_inside(map, inside) == pytest.approx(wanted)


def test_enlarging_keeps_a_map_of_that_size_and_interpolates_a_lattice() -> None:
    assert (enlarged(PERFECT, (SIDE, SIDE)) == PERFECT).all()
    grid = np.add.outer(np.arange(5.0), np.arange(5.0))
    inner = enlarged(grid, (20, 20))[4:-4, 4:-4]
    assert np.diff(inner, axis=0) == pytest.approx(np.full((11, 12), 0.25))


def test_a_mask_is_cropped_as_photographs_are() -> None:
    inside = np.zeros((20, 60), bool)
    inside[:, 20:40] = True  # the center square
    assert cropped(inside, (10, 10)).all()
    assert not cropped(~inside, (10, 10)).any()
    assert cropped(region(), (SIDE, SIDE)) is not None
    assert (cropped(np.kron(region(), np.ones((2, 2), bool)), (SIDE, SIDE)) == region()).all()


# Agreement


def test_correlations_among_many_maps_are_spearmans_of_each_pair() -> None:
    maps = np.random.default_rng(0).integers(0, 9, (4, 6, 5)).astype(float)
    maps[3] = 2.0
    found = rank_correlations(maps)
    for one in range(3):
        for other in range(3):
            wanted = spearmanr(maps[one].ravel(), maps[other].ravel()).statistic
            assert found[one, other] == pytest.approx(wanted, abs=1e-12)
    assert (found[3] == 0).all() and (found[:, 3] == 0).all()


# Deletion and insertion


def share_kept(images: torch.Tensor) -> torch.Tensor:
    """An answer's probability that rests on the region alone: the share of it that is the photograph's."""
    return images[:, 0, torch.from_numpy(region())].mean(1)


def curves_of(map: np.ndarray) -> tuple[list[float], list[float]]:
    image, blur = torch.ones(3, SIDE, SIDE), torch.zeros(3, SIDE, SIDE)
    return curves(share_kept, image, blur, (1.0, 0.0), ranks(map, 0))


def test_deleting_by_a_perfect_map_takes_the_answer_at_once_and_by_an_inverted_one_at_last() -> None:
    deletion, insertion = curves_of(PERFECT)
    covered = region().mean()
    wanted = [max(0.0, 1 - share / covered) for share in SHARES]
    assert deletion == pytest.approx(wanted, abs=1 / region().sum())
    assert insertion == pytest.approx([1 - height for height in wanted], abs=1 / region().sum())
    last, first = curves_of(INVERTED)
    late = [min(1.0, (1 - share) / covered) for share in SHARES]
    assert last == pytest.approx(late, abs=1 / region().sum())
    assert area(deletion) < 0.05 and area(last) > 0.75
    assert area(insertion) > 0.95 and area(first) < 0.25


def test_a_uniform_map_deletes_evenly() -> None:
    deletion, insertion = curves_of(UNIFORM)
    assert deletion == pytest.approx([1 - share for share in SHARES], abs=0.15)
    assert insertion == pytest.approx(list(SHARES), abs=0.15)


def test_a_shifted_map_lies_between_perfect_and_inverted() -> None:
    areas = [area(curves_of(map)[0]) for map in (PERFECT, SHIFTED, INVERTED)]
    assert areas == sorted(areas)
    assert areas[0] + 0.1 < areas[1] < areas[2] - 0.1


def test_the_area_of_known_curves() -> None:
    assert area([1.0] * len(SHARES)) == pytest.approx(1)
    assert area(list(SHARES)) == pytest.approx(0.5)
    assert area([0.25] * len(SHARES)) == pytest.approx(0.25)


def test_pixels_are_ranked_from_the_most_salient_and_ties_by_lot() -> None:
    map = np.array([[3.0, 1.0], [2.0, 4.0]])
    assert (ranks(map, 0) == [[1, 3], [2, 0]]).all()
    ties = [ranks(np.zeros((4, 4)), seed) for seed in range(5)]
    assert all(sorted(places.ravel()) == list(range(16)) for places in ties)
    assert len({places.tobytes() for places in ties}) > 1
    assert (ranks(np.zeros((4, 4)), 3) == ties[3]).all()


@pytest.mark.parametrize("side", [8, 32, 112])
def test_a_blur_keeps_the_mean_color_and_takes_the_detail(side: int) -> None:
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = blurred(images)
    assert found.shape == images.shape
    assert found.mean().item() == pytest.approx(images.mean().item(), abs=0.05)
    assert found.std() < images.std() / 2
    assert torch.allclose(blurred(torch.ones(1, 3, side, side)), torch.ones(1, 3, side, side), atol=1e-5)


def test_of_equal_maxima_the_share_inside_counts() -> None:
    inside = np.zeros((4, 6), bool)
    inside[:2] = True
    map = np.zeros((4, 6))
    map[0, 1] = map[1, 5] = map[3, 0] = map[2, 2] = 5
    assert points_inside(map, inside) == 0.5
    assert points_inside(map, ~inside) == 0.5
    cells = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert points_inside(cells, inside) == pytest.approx(1 / 3)


def test_the_floor_points_by_chance_although_maps_are_kept_in_float16() -> None:
    """Noise that is rounded has many largest pixels; their first lies near the top."""
    rng = np.random.default_rng(0)
    top = np.zeros((112, 112), bool)
    top[:28] = True
    maps = [rng.random((112, 112)).astype(np.float16) for _ in range(400)]
    assert np.mean([(map == map.max()).sum() for map in maps]) > 2
    assert np.mean([points_inside(map, top) for map in maps]) == pytest.approx(0.25, abs=0.05)
    assert np.mean([np.argmax(map) < 28 * 112 for map in maps]) > 0.4
