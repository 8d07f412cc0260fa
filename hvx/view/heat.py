"""Laying an attention map or a heat map over a photograph: in color, or by brightness as in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from contourpy import contour_generator
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from hvx.explain.threshold import attention_threshold

SMOOTHING = 0.01
"""The Gaussian's sigma, as a share of the map's side. Pixel gradients are speckled; on a lattice of a
few cells so narrow a Gaussian changes nothing, so that every map goes the same way."""

PEAK_AREA = 0.05
"""The share of the picture's area over which the peak's height is a mean: about what a heat map has
above its mean + 2 standard deviations, and enough that one hot pixel does not set the scale."""

HALF_CONTRAST = 0.2
"""A peak that rises by this share above the map's base dims the rest half as far as a lone peak does."""

GAMMA = 0.6
"""Of the paper's style. Below 1: what lies between base and peak is drawn nearer the peak, so that its
surroundings show."""

CLIPPED = 0.01
"""The share of the picture's area above the top of the color scale."""

TOE = 4.0
"""Of the color style's curve log(1 + TOE·t) / log(1 + TOE). It lifts the middle as much as t^GAMMA does, but
its slope is finite everywhere, so that no edge shows where the map begins to rise."""

FLOOR_BRIGHTNESS = 0.3
"""Brightness of what is not attended at all; the photograph stays legible there."""

FLOOR_SATURATION = 0.4
"""Saturation of what is not attended at all: color, too, draws the eye to what is."""

COLORS = "inferno"
"""Matplotlib's name of the color style's scale: even steps, dark to light, safe for the color-blind."""

FLOOR_TINT, TINT = 0.3, 0.75
"""Opacity of the colors where nothing is attended, and at a peak."""

LEAST_ISLAND = 0.0025
"""The share of the picture's area that an outline encloses at least: a square of a twentieth of its side.
Pixel gradients are speckled, and a thousand dots hide the photograph."""

_STEPS = 8192
"""Of the tables of ``gray_levels``."""

Map = NDArray[np.float64]
Style = Literal["color", "paper"]
STYLES: tuple[Style, ...] = ("color", "paper")

_LUMA = np.array([0.299, 0.587, 0.114])


def fit(photo: Image.Image, size: int) -> Image.Image:
    """A square photograph at ``size``×``size`` pixels."""
    return photo.resize((size, size), Image.Resampling.BICUBIC)


def overlay(photo: Image.Image, map: NDArray[np.floating], size: int, style: Style) -> Image.Image:
    """A photograph under a map in one of the styles; see ``shade`` and ``tint``."""
    return (shade if style == "paper" else tint)(photo, map, size)


def shade(photo: Image.Image, map: NDArray[np.floating], size: int) -> Image.Image:
    """A photograph whose attended regions are bright and whose rest is dim, as in the paper.

    Args:
        photo: the square RGB crop that the network saw, at any resolution.
        map: an attention map (S, S) or a heat map (H, W), in any unit; values below zero and values
            that are no finite number count as no attention.
        size: side of the picture in pixels.

    Returns:
        An RGB picture (size, size). A constant map leaves the photograph as it is.
    """
    weight = emphasis(enlarge(map, size))[:, :, None]
    pixels = np.asarray(fit(photo, size), np.float64)
    gray = (pixels @ _LUMA)[:, :, None]
    colored = gray + (pixels - gray) * (FLOOR_SATURATION + (1 - FLOOR_SATURATION) * weight)
    shaded = colored * (FLOOR_BRIGHTNESS + (1 - FLOOR_BRIGHTNESS) * weight)
    return Image.fromarray(shaded.round().clip(0, 255).astype(np.uint8))


def tint(photo: Image.Image, map: NDArray[np.floating], size: int) -> Image.Image:
    """A photograph in gray under a map's colors, from dark violet (low) to pale yellow (a peak).

    Arguments and result as of ``shade``; a constant map lies on the photograph in its lowest color.
    """
    heat = warmth(enlarge(map, size))
    gray = (np.asarray(fit(photo, size), np.float64) @ _LUMA)[:, :, None]
    opacity = (FLOOR_TINT + (TINT - FLOOR_TINT) * heat)[:, :, None]
    tinted = (1 - opacity) * gray + opacity * color_scale()[(255 * heat).round().astype(int)]
    return Image.fromarray(tinted.round().clip(0, 255).astype(np.uint8))


def outline(map: NDArray[np.floating], size: int) -> list[NDArray[np.float64]]:
    """Lines around what lies above the map's mean + 2 standard deviations.

    The threshold is taken of the map as it is drawn, smoothed and at the picture's size: of the single
    pixels of a heat map it would enclose speckles.

    Returns:
        Closed lines: points (n, 2), x and y in pixels from the picture's corner. None around less than
        ``LEAST_ISLAND`` of the picture, and none of a constant map.
    """
    return outline_of(enlarge(map, size))


def outline_of(drawn: Map) -> list[NDArray[np.float64]]:
    """``outline`` of a map (size, size) as ``enlarge`` returns it."""
    size, threshold = len(drawn), attention_threshold(drawn)
    if not threshold < drawn.max():
        return []
    # With a rim below the threshold, regions at the edge are closed along it.
    rimmed = np.full((size + 2, size + 2), min(0.0, threshold - 1))
    rimmed[1:-1, 1:-1] = drawn
    place = np.clip(np.arange(-1, size + 1) + 0.5, 0, size)
    # What Matplotlib's contour calls, with its default algorithm; axes take ten times as long.
    generator = contour_generator(place, place, rimmed, name="mpl2014", line_type="SeparateCode")
    lines = [np.asarray(line, np.float64) for line in generator.lines(threshold)[0]]
    return [line for line in lines if _area(line) >= LEAST_ISLAND * size**2]


@lru_cache
def color_scale() -> Map:
    """The color style's scale: RGB (256, 3), 0 to 255."""
    return np.asarray(colormaps[COLORS](np.arange(256))[:, :3] * 255, np.float64)


def enlarge(map: NDArray[np.floating], size: int) -> Map:
    """A map (H, W), lightly smoothed, at the picture's size (size, size); nowhere below zero.

    Several maps (N, H, W) give (N, size, size), the same values in less time.
    """
    finite = np.where(np.isfinite(map), map, 0).astype(np.float64).clip(0)
    sigmas = [SMOOTHING * side for side in map.shape[-2:]]
    reach = [int(np.ceil(3 * sigma)) for sigma in sigmas]
    # Mirrored at the edges.
    smooth = gaussian_filter(finite, sigmas, mode="reflect", radius=reach, axes=(-2, -1))
    # Bicubic enlargement swings below zero beside a peak. Clipped after each axis: the swings of the
    # two would multiply to ghosts of the peak at its four corners.
    return _stretch(_stretch(smooth, size).swapaxes(-2, -1), size).swapaxes(-2, -1)


def emphasis(map: Map) -> Map:
    """How bright each pixel is shown: 0 dimmed to the floor, 1 full brightness.

    With b the map's base (its median, or its mean where that is lower) and p its peak (the mean of
    its highest ``PEAK_AREA``), a pixel's place between the two is t = (map − b) / (p − b), held
    within 0 and 1. How far t = 0 is dimmed depends on how far the peak stands out:
    s = (p − b) / (p − b + k·b), which is 0 for a constant map and 1 for a lone peak. The outcome is
    1 − s·(1 − t^γ).

    Scaling by the maximum instead would leave the whole picture dark beside one sharp peak, and
    stretching every map to its full range would make a peak of the ripple on a flat one.

    Args:
        map: (H, W), nowhere negative.

    Returns:
        (H, W) in [0, 1]: 1 all over a constant map.
    """
    _, scale = _scales(map)
    return np.asarray(1 - scale.strength * (1 - _bright(scale.place(map))), np.float64)


def warmth(map: Map) -> Map:
    """How warm each pixel is in the color style.

    With l the map's least value and u the top of the scale, a pixel's place between the two is
    t = (map − l) / (u − l), held within 0 and 1, and its warmth s·log(1 + kt) / log(1 + k). The top is the
    map's 99th percentile, or the mean of its highest ``PEAK_AREA`` where that is higher: a peak of less
    than a hundredth of the picture. s is as in ``emphasis``, with u in the place of p.

    Args:
        map: (H, W), nowhere negative.

    Returns:
        (H, W) in [0, 1]: 1 at a lone peak, 0 all over a constant map.
    """
    scale, _ = _scales(map)
    return np.asarray(scale.strength * _warm(scale.place(map)), np.float64)


def gray_levels(map: Map) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """255 · ``warmth`` and 255 · ``emphasis`` of a map, within a level: by tables, in a third of the time."""
    warm, bright = _scales(map)
    warm_curve, bright_curve = _curves()
    tables = (255 * warm.strength * warm_curve, 255 * (1 - bright.strength * (1 - bright_curve)))
    first, second = (
        table.round().astype(np.uint8)[(scale.place(map) * _STEPS + 0.5).astype(np.uint16)]
        for table, scale in zip(tables, (warm, bright), strict=True)
    )
    return first, second


@dataclass(frozen=True)
class _Scale:
    """A style's scale of a map: its lower end, its length, and how far the map stands out."""

    start: float
    length: float
    strength: float

    def place(self, map: Map) -> Map:
        """Each pixel's place between the ends, 0 to 1."""
        return np.asarray(((map - self.start) / self.length).clip(0, 1), np.float64)


def _scales(map: Map) -> tuple[_Scale, _Scale]:
    """The scales of ``warmth`` and of ``emphasis``; strength 0 of a constant map."""
    ordered = np.sort(map, axis=None)
    least = float(ordered[0])
    peak = float(ordered[-max(1, round(PEAK_AREA * ordered.size)) :].mean())
    middle, last = ordered.size // 2, ordered.size - 1
    median = (ordered[middle] + ordered[last - middle]) / 2
    base = float(min(median, map.mean()))
    # The 99th percentile, between the two values around it.
    whole, part = divmod((1 - CLIPPED) * last, 1)
    low, high = ordered[int(whole)], ordered[min(int(whole) + 1, last)]
    top = max(float(low + part * (high - low)), peak)
    return (
        _Scale(least, top - least, _strength(top - base, base)) if top > base else _Scale(0, 1, 0),
        _Scale(base, peak - base, _strength(peak - base, base)) if peak > base else _Scale(0, 1, 0),
    )


def _warm(place: Map) -> Map:
    return np.asarray(np.log1p(TOE * place) / np.log1p(TOE), np.float64)


def _bright(place: Map) -> Map:
    return np.asarray(place**GAMMA, np.float64)


@lru_cache
def _curves() -> tuple[Map, Map]:
    """Both styles' curves at ``_STEPS`` + 1 places."""
    places = np.linspace(0, 1, _STEPS + 1)
    return _warm(places), _bright(places)


def _strength(rise: float, base: float) -> float:
    return float(rise / (rise + HALF_CONTRAST * base))


def _area(line: Map) -> float:
    """Enclosed by a closed line of points (n, 2)."""
    (x, y), (next_x, next_y) = line.T, np.roll(line, -1, axis=0).T
    return abs(float(np.sum(x * next_y - next_x * y))) / 2


def _stretch(map: Map, width: int) -> Map:
    """Maps (..., H, W) at (..., H, width), bicubically; nowhere below zero."""
    lines = map.reshape(-1, map.shape[-1])
    wide = Image.fromarray(lines.astype(np.float32)).resize((width, len(lines)), Image.Resampling.BICUBIC)
    return np.asarray(wide, np.float64).clip(0).reshape(*map.shape[:-1], width)
