"""Laying an attention map or a heat map over a photograph: in color, or by brightness as in the paper."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

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

COLOURS = "inferno"
"""Matplotlib's name of the color style's scale: even steps, dark to light, safe for the color-blind."""

FLOOR_TINT, TINT = 0.3, 0.75
"""Opacity of the colors where nothing is attended, and at a peak."""

LEAST_ISLAND = 0.0025
"""The share of the picture's area that an outline encloses at least: a square of a twentieth of its side.
Pixel gradients are speckled, and a thousand dots hide the photograph."""

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
    grey = (pixels @ _LUMA)[:, :, None]
    coloured = grey + (pixels - grey) * (FLOOR_SATURATION + (1 - FLOOR_SATURATION) * weight)
    shaded = coloured * (FLOOR_BRIGHTNESS + (1 - FLOOR_BRIGHTNESS) * weight)
    return Image.fromarray(shaded.round().clip(0, 255).astype(np.uint8))


def tint(photo: Image.Image, map: NDArray[np.floating], size: int) -> Image.Image:
    """A photograph in gray under a map's colors, from dark violet (low) to pale yellow (a peak).

    Arguments and result as of ``shade``; a constant map lies on the photograph in its lowest color.
    """
    heat = warmth(enlarge(map, size))
    grey = (np.asarray(fit(photo, size), np.float64) @ _LUMA)[:, :, None]
    opacity = (FLOOR_TINT + (TINT - FLOOR_TINT) * heat)[:, :, None]
    tinted = (1 - opacity) * grey + opacity * colour_scale()[(255 * heat).round().astype(int)]
    return Image.fromarray(tinted.round().clip(0, 255).astype(np.uint8))


def outline(map: NDArray[np.floating], size: int) -> list[NDArray[np.float64]]:
    """Lines around what lies above the map's mean + 2 standard deviations.

    The threshold is taken of the map as it is drawn, smoothed and at the picture's size: of the single
    pixels of a heat map it would enclose speckles.

    Returns:
        Closed lines: points (n, 2), x and y in pixels from the picture's corner. None around less than
        ``LEAST_ISLAND`` of the picture, and none of a constant map.
    """
    drawn = enlarge(map, size)
    threshold = attention_threshold(drawn)
    if not threshold < drawn.max():
        return []
    # With a rim below the threshold, regions at the edge are closed along it.
    rimmed = np.pad(drawn, 1, constant_values=min(0, threshold - 1))
    place = np.clip(np.arange(-1, size + 1) + 0.5, 0, size)
    contours = _scratch_axes().contour(place, place, rimmed, levels=[threshold])
    lines = [np.asarray(line, np.float64) for line in contours.get_paths()[0].to_polygons(closed_only=False)]
    contours.remove()
    return [line for line in lines if _area(line) >= LEAST_ISLAND * size**2]


@lru_cache
def _scratch_axes() -> Axes:
    """Axes that are never drawn: Matplotlib finds contours on some."""
    return Figure().add_subplot()


@lru_cache
def colour_scale() -> Map:
    """The color style's scale: RGB (256, 3), 0 to 255."""
    return np.asarray(colormaps[COLOURS](np.arange(256))[:, :3] * 255, np.float64)


def enlarge(map: NDArray[np.floating], size: int) -> Map:
    """A map (H, W), lightly smoothed, at the picture's size (size, size); nowhere below zero."""
    finite = np.where(np.isfinite(map), map, 0).astype(np.float64).clip(0)
    smooth = _blur(_blur(finite, 0), 1)
    # Bicubic enlargement swings below zero beside a peak. Clipped after each axis: the swings of the
    # two would multiply to ghosts of the peak at its four corners.
    return _stretch(_stretch(smooth, size).T, size).T


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
        (H, W) in [0, 1].
    """
    place, strength = standing(map)
    return np.asarray(1 - strength * (1 - place), np.float64)


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
    least, base, top = map.min(), _base(map), max(np.quantile(map, 1 - CLIPPED), _peak(map))
    if not top > base:
        return np.zeros_like(map)
    place = ((map - least) / (top - least)).clip(0, 1)
    return np.asarray(_strength(top - base, base) * np.log1p(TOE * place) / np.log1p(TOE), np.float64)


def standing(map: Map) -> tuple[Map, float]:
    """What the paper's style is made of: t^γ of each pixel and s, as in ``emphasis``; both 0 of a constant
    map."""
    base = _base(map)
    rise = _peak(map) - base
    if not rise > 0:
        return np.zeros_like(map), 0.0
    return np.asarray(((map - base) / rise).clip(0, 1) ** GAMMA, np.float64), _strength(rise, base)


def _base(map: Map) -> float:
    return float(min(np.median(map), map.mean()))


def _peak(map: Map) -> float:
    count = max(1, round(PEAK_AREA * map.size))
    return float(np.partition(map, -count, axis=None)[-count:].mean())


def _strength(rise: float, base: float) -> float:
    return float(rise / (rise + HALF_CONTRAST * base))


def _area(line: Map) -> float:
    """Enclosed by a closed line of points (n, 2)."""
    (x, y), (next_x, next_y) = line.T, np.roll(line, -1, axis=0).T
    return abs(float(np.sum(x * next_y - next_x * y))) / 2


def _stretch(map: Map, width: int) -> Map:
    """A map (H, W) at (H, width), bicubically; nowhere below zero."""
    image = Image.fromarray(map.astype(np.float32))
    return np.asarray(image.resize((width, len(map)), Image.Resampling.BICUBIC), np.float64).clip(0)


def _blur(map: Map, axis: int) -> Map:
    """A map smoothed along one axis, mirrored at its edges."""
    sigma = SMOOTHING * map.shape[axis]
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padding = [(reach, reach) if a == axis else (0, 0) for a in range(2)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(map, padding, "symmetric"), len(kernel), axis)
    return np.asarray(windows @ (kernel / kernel.sum()), np.float64)
