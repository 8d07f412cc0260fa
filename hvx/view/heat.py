"""Laying an attention map or a heat map over a photograph, by the photograph's brightness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMOOTHING = 0.01
"""The Gaussian's sigma, as a share of the map's side. Pixel gradients are speckled; on a lattice of a
few cells so narrow a Gaussian changes nothing, so that every map goes the same way."""

PEAK_AREA = 0.05
"""The share of the picture's area over which the peak's height is a mean: about what a heat map has
above its mean + 2 standard deviations, and enough that one hot pixel does not set the scale."""

HALF_CONTRAST = 0.2
"""A peak that rises by this share above the map's base dims the rest half as far as a lone peak does."""

GAMMA = 0.6
"""Below 1: what lies between base and peak is drawn nearer the peak, so that its surroundings show."""

FLOOR_BRIGHTNESS = 0.3
"""Brightness of what is not attended at all; the photograph stays legible there."""

FLOOR_SATURATION = 0.4
"""Saturation of what is not attended at all: colour, too, draws the eye to what is."""

_LUMA = np.array([0.299, 0.587, 0.114])

Map = NDArray[np.float64]


def fit(photo: Image.Image, size: int) -> Image.Image:
    """A square photograph at ``size``×``size`` pixels."""
    return photo.resize((size, size), Image.Resampling.BICUBIC)


def shade(photo: Image.Image, map: NDArray[np.floating], size: int) -> Image.Image:
    """A photograph whose attended regions are bright and whose rest is dim.

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
    base = min(np.median(map), map.mean())
    count = max(1, round(PEAK_AREA * map.size))
    rise = np.partition(map, -count, axis=None)[-count:].mean() - base
    if not rise > 0:
        return np.ones_like(map)
    strength = rise / (rise + HALF_CONTRAST * base)
    place = ((map - base) / rise).clip(0, 1)
    return np.asarray(1 - strength * (1 - place**GAMMA), np.float64)


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
