"""Maps over photographs: what stands out, and that the photograph stays legible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from hvx.explain.threshold import attention_threshold
from hvx.view.heat import (
    LEAST_ISLAND,
    PEAK_AREA,
    color_scale,
    emphasis,
    enlarge,
    fit,
    gray_levels,
    outline,
    overlay_brightness,
    overlay_color,
    warmth,
)

SIZE = 280
CELL = SIZE // 14
LEGIBLE = 0.25
"""The share of the photograph's brightness that has to be left where nothing is attended."""
Array = NDArray[np.float64]


def plain_photo(level: int = 200) -> Image.Image:
    return Image.new("RGB", (112, 112), (level, level, level))


def colored_photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def blob(side: int, y: float, x: float, radius: float) -> Array:
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side
    return np.asarray(np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2)))


def one_cell(row: int = 5, column: int = 9) -> Array:
    grid = np.full((14, 14), 0.05 / 195)
    grid[row, column] = 0.95
    return grid


def speckled(side: int) -> tuple[Array, NDArray[np.bool_]]:
    """A heat map as guided backpropagation yields them, and where its blob lies at the picture's size."""
    rng = np.random.default_rng(side)
    hill = blob(side, 0.6, 0.35, 0.13)
    speckles = np.abs(rng.laplace(size=(side, side))) * (0.3 + 16 * hill * (rng.random((side, side)) < 0.5))
    return speckles, blob(SIZE, 0.6, 0.35, 0.13) > 0.6


def gray(picture: Image.Image) -> Array:
    return np.asarray(picture.convert("L"), np.float64)


def cell(picture: Array, row: int, column: int) -> Array:
    return picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]


def test_a_sharp_peak_is_bright_and_leaves_the_rest_of_the_photo_legible() -> None:
    shaded = gray(overlay_brightness(plain_photo(200), one_cell(), SIZE))
    outside = np.ones((14, 14), bool)
    outside[4:7, 8:11] = False
    rest = shaded[np.kron(outside, np.ones((CELL, CELL))).astype(bool)]
    assert cell(shaded, 5, 9).mean() > 0.9 * 200
    assert rest.min() >= LEGIBLE * 200
    assert rest.max() < 0.4 * 200


def test_a_sharp_peak_casts_no_ghosts_beside_itself() -> None:
    shaded = gray(overlay_brightness(plain_photo(), one_cell(5, 9), SIZE))
    far = cell(shaded, 12, 2).mean()
    ring = [cell(shaded, 5 + y, 9 + x) for y in (-2, 2) for x in (-2, 2)]
    assert np.abs(np.stack(ring) - far).max() <= 1


def test_both_of_two_unequal_peaks_stand_out() -> None:
    grid = blob(14, 0.3, 0.3, 0.08) + 0.7 * blob(14, 0.7, 0.75, 0.12) + 0.01
    shaded = gray(overlay_brightness(plain_photo(), grid / grid.sum(), SIZE))
    rest = cell(shaded, 12, 1).mean()
    assert cell(shaded, 4, 4).mean() > 2 * rest
    assert cell(shaded, 9, 10).mean() > 2 * rest


def test_a_diffuse_peak_stands_out() -> None:
    grid = 1 + blob(14, 0.5, 0.3, 0.15)
    shaded = gray(overlay_brightness(plain_photo(), grid / grid.sum(), SIZE))
    assert cell(shaded, 6, 4).mean() > 1.5 * cell(shaded, 1, 12).mean()


@pytest.mark.parametrize("side", [112, 224, 448])
def test_a_speckled_heat_map_shows_its_region_and_leaves_the_rest_legible(side: int) -> None:
    heatmap, attended = speckled(side)
    shaded = gray(overlay_brightness(plain_photo(200), heatmap, SIZE))
    far = blob(SIZE, 0.6, 0.35, 0.13) < 0.01
    assert shaded[attended].mean() > 0.65 * 200
    assert shaded[attended].mean() > 1.7 * shaded[far].mean()
    assert shaded[far].mean() >= LEGIBLE * 200


@pytest.mark.parametrize("value", [0.0, 1 / 196, 3.0])
@pytest.mark.parametrize("side", [1, 14, 112])
def test_a_constant_map_shows_the_photo_as_it_is(value: float, side: int) -> None:
    shaded = np.asarray(overlay_brightness(colored_photo(), np.full((side, side), value), SIZE), np.int64)
    assert np.abs(shaded - np.asarray(fit(colored_photo(), SIZE), np.int64)).max() <= 1


def test_a_ripple_on_a_flat_map_makes_no_peak() -> None:
    ripple = 1 + 0.01 * np.random.default_rng(0).random((14, 14))
    assert emphasis(enlarge(ripple, SIZE)).min() > 0.9


def test_a_map_that_attends_to_most_of_the_photo_dims_the_rest() -> None:
    grid = np.zeros((14, 14))
    grid[:9] = 1
    shaded = gray(overlay_brightness(plain_photo(200), grid, SIZE))
    assert cell(shaded, 3, 7).mean() > 0.9 * 200
    assert cell(shaded, 12, 7).mean() < 0.6 * 200


def test_unattended_regions_lose_color_and_attended_ones_keep_it() -> None:
    shaded = np.asarray(
        overlay_brightness(Image.new("RGB", (50, 50), (200, 100, 50)), one_cell(5, 9), SIZE), np.float64
    )
    peak, rest = shaded[int(5.5 * CELL), int(9.5 * CELL)], shaded[int(12.5 * CELL), int(2.5 * CELL)]
    assert np.abs(peak - [200, 100, 50]).max() <= 1
    assert 1 < rest.max() / rest.min() < 0.5 * peak.max() / peak.min()


def test_the_unit_of_a_map_does_not_matter() -> None:
    heatmap, _ = speckled(112)
    pictures = [
        overlay_brightness(colored_photo(), heatmap * factor, SIZE) for factor in (1.0, 2.0**-20, 2.0**10)
    ]
    assert pictures[0].tobytes() == pictures[1].tobytes() == pictures[2].tobytes()


def test_half_precision_as_in_a_run_file_is_read() -> None:
    heatmap, _ = speckled(112)
    full, half = (
        np.asarray(overlay_brightness(plain_photo(), m, SIZE), np.int64)
        for m in (heatmap, heatmap.astype(np.float16))
    )
    assert np.abs(full - half).max() <= 2


def test_values_that_are_no_number_and_negative_ones_count_as_no_attention() -> None:
    broken, clean = one_cell(), one_cell()
    broken[0, :4] = [np.nan, np.inf, -np.inf, -7]
    clean[0, :4] = 0
    assert (
        overlay_brightness(plain_photo(), broken, SIZE).tobytes()
        == overlay_brightness(plain_photo(), clean, SIZE).tobytes()
    )


def test_smoothing_leaves_a_lattice_alone_and_calms_speckles() -> None:
    grid = np.random.default_rng(0).random((14, 14))
    assert np.abs(enlarge(grid, 14) - grid).max() < 1e-6
    noise = np.abs(np.random.default_rng(1).laplace(size=(448, 448)))
    calm = enlarge(noise, 448)
    assert calm.std() < 0.1 * noise.std()
    assert calm.mean() == pytest.approx(noise.mean(), rel=1e-3)


@pytest.mark.parametrize("shape", [(14, 14), (7, 9), (448, 448)])
@pytest.mark.parametrize("size", [33, 280])
def test_a_shaded_photo_has_the_size_asked_for(shape: tuple[int, int], size: int) -> None:
    assert overlay_brightness(colored_photo(), np.ones(shape), size).size == (size, size)


def test_the_same_map_gives_the_same_pixels() -> None:
    heatmap, _ = speckled(112)
    one, other = (overlay_brightness(colored_photo(), heatmap, SIZE) for _ in range(2))
    assert one.tobytes() == other.tobytes()


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(0, 1e4)))
def test_emphasis_lies_between_0_and_1_and_rises_with_the_map(values: Array) -> None:
    weight = emphasis(values)
    assert weight.min() >= 0
    assert weight.max() <= 1
    order = np.argsort(values, axis=None)
    assert (np.diff(weight.ravel()[order]) >= 0).all()


def test_the_color_scale_ends_at_the_99th_percentile() -> None:
    """A few pixels, however hot, do not darken the rest."""
    ramp = np.linspace(0, 1, 10_000).reshape(100, 100)
    weight = warmth(ramp)
    assert weight[ramp >= 0.991].min() == weight.max()
    assert weight[ramp <= 0.98].max() < weight.max()
    hot = ramp.copy()
    hot[-1, -50:] = 3  # half a percent of the pixels
    assert np.abs(warmth(hot) - weight)[ramp < 0.9].max() < 0.04


def test_a_peak_of_less_than_a_hundredth_of_the_picture_is_seen() -> None:
    """There the 99th percentile is the base."""
    lone = np.zeros((100, 100))
    lone[50:55, 50:55] = 1
    weight = warmth(lone)
    assert weight[lone == 1].min() == 1
    assert weight[lone == 0].max() == 0
    assert 25 / lone.size < PEAK_AREA


def test_the_color_style_has_no_edge_where_a_map_begins_to_rise() -> None:
    """Beside a slope of equal steps, no two neighbors differ by more than the curve's steepest part does."""
    for flat in (0.0, 0.5, 0.9):
        line = np.concatenate([np.zeros(round(1000 * flat)), np.linspace(0, 1, 1000 - round(1000 * flat))])
        steps = np.diff(warmth(line[None])[0])
        assert steps.min() >= 0
        assert steps.max() < 3 / (1000 - round(1000 * flat))


@settings(deadline=None, max_examples=50)
@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(0, 1e4)))
def test_warmth_lies_between_0_and_1_and_rises_with_the_map(values: Array) -> None:
    weight = warmth(values)
    assert weight.min() >= 0
    assert weight.max() <= 1
    order = np.argsort(values, axis=None)
    assert np.diff(weight.ravel()[order]).min(initial=0) >= -1e-12


def test_a_tinted_pixel_is_gray_and_scale_in_the_share_that_its_warmth_says() -> None:
    """The formula of docs/method.md, pixel by pixel."""
    heatmap, _ = speckled(112)
    photo = colored_photo()
    found = np.asarray(overlay_color(photo, heatmap, 40), np.float64)
    drawn, pixels = enlarge(heatmap, 40), np.asarray(fit(photo, 40), np.float64)
    least, base = drawn.min(), min(np.median(drawn), drawn.mean())
    top = max(np.quantile(drawn, 0.99), np.sort(drawn, axis=None)[-80:].mean())
    for y, x in np.ndindex(40, 40):
        place = min(1, (drawn[y, x] - least) / (top - least))
        heat = (top - base) / (top - base + 0.2 * base) * np.log(1 + 4 * place) / np.log(5)
        opacity, gray = 0.3 + 0.45 * heat, pixels[y, x] @ [0.299, 0.587, 0.114]
        expected = (1 - opacity) * gray + opacity * color_scale()[round(255 * heat)]
        assert np.abs(found[y, x] - expected).max() <= 2


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(14, 14), (60, 80), (9, 7)]), st.integers(20, 90))
def test_outlines_are_those_that_matplotlib_draws(seed: int, shape: tuple[int, int], size: int) -> None:
    chance = np.random.default_rng(seed)
    map = chance.random(shape) ** 6 * 10.0 ** chance.integers(-9, 3)
    drawn = enlarge(map, size)
    place = np.clip(np.arange(-1, size + 1) + 0.5, 0, size)
    threshold = attention_threshold(drawn)
    rimmed = np.pad(drawn, 1, constant_values=min(0, threshold - 1))
    contours = Figure().add_subplot().contour(place, place, rimmed, levels=[threshold])
    lines = [np.asarray(line) for line in contours.get_paths()[0].to_polygons(closed_only=False)]
    found = {line.tobytes() for line in outline(map, size)}
    assert found <= {line.tobytes() for line in lines}
    least = LEAST_ISLAND * size**2
    assert found == {line.tobytes() for line in lines if _enclosed(line) >= least}


def _enclosed(line: np.ndarray) -> float:
    """Corner by corner."""
    corners = zip(line, [*line[1:], line[0]], strict=True)
    return abs(sum(x * b - a * y for (x, y), (a, b) in corners)) / 2


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1, 3, 9]))
def test_gray_levels_are_those_of_the_styles(seed: int, power: float) -> None:
    map = enlarge(np.random.default_rng(seed).random((14, 14)) ** power, 60)
    for gray, style in zip(gray_levels(map), (warmth, emphasis), strict=True):
        assert gray.dtype == np.uint8
        assert np.abs(gray - 255 * style(map)).max() <= 1.3  # a level, and rounding
    assert [np.unique(gray).tolist() for gray in gray_levels(np.ones((9, 9)))] == [[0], [255]]


@pytest.mark.parametrize("shape", [(14, 14), (30, 50)])
def test_several_maps_are_enlarged_as_each_alone(shape: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).normal(size=(4, *shape))
    maps[1, 2, 3] = np.nan
    assert (enlarge(maps, 33) == np.stack([enlarge(map, 33) for map in maps])).all()
