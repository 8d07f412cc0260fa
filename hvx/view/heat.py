"""Overlays an attention map or a heat map on a photograph: in color, or by brightness as in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from contourpy import contour_generator
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from hvx.explain.threshold import attention_threshold
from hvx.view.style import Style

SMOOTHING = 0.01
"""The Gaussian's sigma, as a share of the map's side. It smooths speckled pixel gradients. On a grid of few
cells it has no effect, so all maps are processed alike."""

PEAK_AREA = 0.05
"""The peak's height is the mean over this share of the picture's area: about the area above a heat map's mean
+ 2 standard deviations. One hot pixel must not set the scale."""

HALF_CONTRAST = 0.2
"""A peak this much (relative) above the map's base dims the rest half as much as a peak over a zero base."""

GAMMA = 0.6
"""The gamma of the paper's style. It is below 1, so that values between base and peak appear brighter."""

CLIPPED = 0.01
"""The share of the picture's area that is clipped at the top of the color scale."""

TOE = 4.0
"""Of the color style's curve log(1 + TOE·t) / log(1 + TOE). It raises middle values as t^GAMMA does, but its
slope at 0 is finite, so no edge is visible where the map begins to rise."""

FLOOR_BRIGHTNESS = 0.3
"""Brightness of regions without attention; the photograph remains visible there."""

FLOOR_SATURATION = 0.4
"""Saturation of regions without attention."""

COLORS = "inferno"
"""Matplotlib's colormap of the color style: perceptually uniform, safe for the color-blind."""

FLOOR_TINT, TINT = 0.3, 0.75
"""Opacity of the colors in regions without attention, and at a peak."""

LEAST_ISLAND = 0.0025
"""The smallest region that gets an outline, as a share of the picture's area: a square of 1/20 of its side.
Pixel gradients are speckled, and outlines of single pixels would hide the photograph."""

_STEPS = 8192
"""Number of steps in the tables of ``gray_levels``."""

Map = NDArray[np.float64]

_LUMA = np.array([0.299, 0.587, 0.114])


def fit(photo: Image.Image, size: int) -> Image.Image:
    """A square photograph at ``size``×``size`` pixels."""
    return photo.resize((size, size), Image.Resampling.BICUBIC)


def overlay(photo: Image.Image, map: NDArray[np.floating], size: int, style: Style) -> Image.Image:
    """A photograph with a map in one of the styles; see ``overlay_brightness`` and ``overlay_color``."""
    return (overlay_brightness if style == "paper" else overlay_color)(photo, map, size)


def overlay_brightness(photo: Image.Image, map: NDArray[np.floating], size: int) -> Image.Image:
    """A photograph whose attended regions are bright and whose rest is dim, as in the paper.

    Args:
        photo: the square RGB crop that the network saw, at any resolution.
        map: an attention map (S, S) or a heat map (H, W), in any unit; negative and non-finite
            values count as 0.
        size: side of the picture in pixels.

    Returns:
        An RGB picture (size, size). A constant map leaves the photograph unchanged.
    """
    weight = emphasis(enlarge(map, size))[:, :, None]
    pixels = np.asarray(fit(photo, size), np.float64)
    gray = (pixels @ _LUMA)[:, :, None]
    colored = gray + (pixels - gray) * (FLOOR_SATURATION + (1 - FLOOR_SATURATION) * weight)
    shaded = colored * (FLOOR_BRIGHTNESS + (1 - FLOOR_BRIGHTNESS) * weight)
    return Image.fromarray(shaded.round().clip(0, 255).astype(np.uint8))


def overlay_color(photo: Image.Image, map: NDArray[np.floating], size: int) -> Image.Image:
    """A photograph in gray under a map's colors, from dark violet (low) to pale yellow (a peak).

    Arguments and result as of ``overlay_brightness``; a constant map has the lowest color everywhere.
    """
    heat = warmth(enlarge(map, size))
    gray = (np.asarray(fit(photo, size), np.float64) @ _LUMA)[:, :, None]
    opacity = (FLOOR_TINT + (TINT - FLOOR_TINT) * heat)[:, :, None]
    tinted = (1 - opacity) * gray + opacity * color_scale()[(255 * heat).round().astype(int)]
    return Image.fromarray(tinted.round().clip(0, 255).astype(np.uint8))


def outline(map: NDArray[np.floating], size: int) -> list[NDArray[np.float64]]:
    """Contour lines at the map's mean + 2 standard deviations.

    The threshold is computed on the map as drawn, smoothed and at the picture's size. On the raw heat map,
    the lines would enclose speckles.

    Returns:
        Closed lines: points (n, 2), x and y in pixels from the picture's corner. Regions
        smaller than ``LEAST_ISLAND`` of the picture have no line; neither has a constant map.
    """
    return outline_of(enlarge(map, size))


def outline_of(map: Map) -> list[NDArray[np.float64]]:
    """``outline`` of a map (size, size) as ``enlarge`` returns it."""
    size, threshold = len(map), attention_threshold(map)
    if not threshold < map.max():
        return []
    # A border below the threshold closes the lines of regions at the edge.
    padded = np.full((size + 2, size + 2), min(0.0, threshold - 1))
    padded[1:-1, 1:-1] = map
    coordinates = np.clip(np.arange(-1, size + 1) + 0.5, 0, size)
    # Matplotlib's contour calls this with the same algorithm, but is ten times slower.
    generator = contour_generator(coordinates, coordinates, padded, name="mpl2014", line_type="SeparateCode")
    lines = [np.asarray(line, np.float64) for line in generator.lines(threshold)[0]]
    return [line for line in lines if _area(line) >= LEAST_ISLAND * size**2]


@lru_cache
def color_scale() -> Map:
    """The color style's scale: RGB (256, 3), 0 to 255."""
    return np.asarray(colormaps[COLORS](np.arange(256))[:, :3] * 255, np.float64)


def enlarge(map: NDArray[np.floating], size: int) -> Map:
    """A map (H, W), lightly smoothed, at the picture's size (size, size); nowhere below zero.

    Several maps (N, H, W) give (N, size, size): the same values, faster.
    """
    finite = np.where(np.isfinite(map), map, 0).astype(np.float64).clip(0)
    sigmas = [SMOOTHING * side for side in map.shape[-2:]]
    radius = [int(np.ceil(3 * sigma)) for sigma in sigmas]
    smooth = gaussian_filter(finite, sigmas, mode="reflect", radius=radius, axes=(-2, -1))
    # Bicubic interpolation undershoots next to a peak. Clip after each axis: two negative undershoots
    # would multiply to false peaks at the four corners.
    return _stretch(_stretch(smooth, size).swapaxes(-2, -1), size).swapaxes(-2, -1)


def emphasis(map: Map) -> Map:
    """The brightness of each pixel: 0 is the floor, 1 full brightness.

    With b the map's base (its median, or its mean where that is lower) and p its peak (the mean of
    its highest ``PEAK_AREA``), a pixel's position between the two is t = (map − b) / (p − b), clipped
    to [0, 1]. The contrast depends on how far the peak stands out:
    s = (p − b) / (p − b + k·b), which is 0 for a constant map and 1 for b = 0. The result is
    1 − s·(1 − t^γ).

    Scaling by the maximum would darken the whole picture if there is one sharp peak. Stretching each map
    to its full range would amplify the noise of a flat map.

    Args:
        map: (H, W), nowhere negative.

    Returns:
        (H, W) in [0, 1]: 1 everywhere for a constant map.
    """
    _, scale = _scales(map)
    return np.asarray(1 - scale.strength * (1 - _bright(scale.position(map))), np.float64)


def warmth(map: Map) -> Map:
    """Each pixel's position on the color scale.

    With l the map's least value and u the top of the scale, a pixel's position between the two is
    t = (map − l) / (u − l), clipped to [0, 1], and its warmth s·log(1 + kt) / log(1 + k). The top is the
    map's 99th percentile, or the mean of its highest ``PEAK_AREA`` where that is higher: a peak of less
    than a hundredth of the picture. s is as in ``emphasis``, with u instead of p.

    Args:
        map: (H, W), nowhere negative.

    Returns:
        (H, W) in [0, 1]: 1 at a single peak, 0 everywhere for a constant map.
    """
    scale, _ = _scales(map)
    return np.asarray(scale.strength * _warm(scale.position(map)), np.float64)


def gray_levels(map: Map) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """255 · ``warmth`` and 255 · ``emphasis`` of a map, within one level; tables make it 3× faster."""
    warm, bright = _scales(map)
    warm_curve, bright_curve = _curves()
    tables = (255 * warm.strength * warm_curve, 255 * (1 - bright.strength * (1 - bright_curve)))
    first, second = (
        table.round().astype(np.uint8)[(scale.position(map) * _STEPS + 0.5).astype(np.uint16)]
        for table, scale in zip(tables, (warm, bright), strict=True)
    )
    return first, second


@dataclass(frozen=True)
class _Scale:
    """A style's scale of a map: its lower end, its length, and how far the map stands out."""

    start: float
    length: float
    strength: float

    def position(self, map: Map) -> Map:
        """Each pixel's position between the ends, 0 to 1."""
        return np.asarray(((map - self.start) / self.length).clip(0, 1), np.float64)


def _scales(map: Map) -> tuple[_Scale, _Scale]:
    """The scales of ``warmth`` and of ``emphasis``; a constant map has strength 0."""
    last, middle = map.size - 1, map.size // 2
    peak_start = map.size - max(1, round(PEAK_AREA * map.size))
    # The 99th percentile, between the two values around it.
    index, fraction = divmod((1 - CLIPPED) * last, 1)
    below, above = int(index), min(int(index) + 1, last)
    # Sorted at these positions only: a whole sort takes ten times as long.
    ordered = np.partition(map, [0, last - middle, middle, peak_start, below, above], axis=None)
    minimum = float(ordered[0])
    peak = float(ordered[peak_start:].mean())
    median = (ordered[middle] + ordered[last - middle]) / 2
    base = float(min(median, map.mean()))
    low, high = ordered[below], ordered[above]
    top = max(float(low + fraction * (high - low)), peak)
    return (
        _Scale(minimum, top - minimum, _strength(top - base, base)) if top > base else _Scale(0, 1, 0),
        _Scale(base, peak - base, _strength(peak - base, base)) if peak > base else _Scale(0, 1, 0),
    )


def _warm(position: Map) -> Map:
    return np.asarray(np.log1p(TOE * position) / np.log1p(TOE), np.float64)


def _bright(position: Map) -> Map:
    return np.asarray(position**GAMMA, np.float64)


@lru_cache
def _curves() -> tuple[Map, Map]:
    """The curves of both styles at ``_STEPS`` + 1 positions."""
    positions = np.linspace(0, 1, _STEPS + 1)
    return _warm(positions), _bright(positions)


def _strength(rise: float, base: float) -> float:
    return float(rise / (rise + HALF_CONTRAST * base))


def _area(points: Map) -> float:
    """The area enclosed by a closed line of points (n, 2)."""
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    return abs(float(np.sum(x * next_y - next_x * y))) / 2


def _stretch(map: Map, width: int) -> Map:
    """Maps (..., H, W) at (..., H, width), bicubically; nowhere below zero."""
    rows = map.reshape(-1, map.shape[-1])
    stretched = Image.fromarray(rows.astype(np.float32)).resize((width, len(rows)), Image.Resampling.BICUBIC)
    return np.asarray(stretched, np.float64).clip(0).reshape(*map.shape[:-1], width)
