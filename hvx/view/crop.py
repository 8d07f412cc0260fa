"""The whole photograph, with the square that the network saw marked on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

LONGEST = 3.0
"""Largest aspect ratio that is shown. Of a longer photograph, only the middle is shown; otherwise the square
would be too small."""

DIMMED = 0.65
"""How much the region outside the square is blended with white."""

Edges = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Framed:
    """A picture of a whole photograph.

    Attributes:
        picture: RGB; dimmed outside the square.
        square: position of the network's square in it.
    """

    picture: Image.Image
    square: Edges


def is_cropped(photo: Image.Image) -> bool:
    """Whether the network's center square excludes a part of a photograph."""
    return photo.width != photo.height


def middle(photo: Image.Image, shorter: int | None = None) -> Image.Image:
    """A whole photograph, or the middle of one longer than ``LONGEST``.

    Args:
        photo: of any size.
        shorter: pixels of the shorter side; if None, the photograph is not scaled.
    """
    side = min(photo.size)
    width, height = (min(float(length), LONGEST * side) for length in photo.size)
    left, top = (photo.width - width) / 2, (photo.height - height) / 2
    scale = 1 if shorter is None else shorter / side
    size = round(width * scale), round(height * scale)
    return photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def framed(photo: Image.Image, size: int) -> Framed:
    """A photograph whose longer side is ``size`` pixels, dimmed where the network did not see it."""
    cropped = middle(photo)
    scale = size / max(cropped.size)
    width, height = (max(1, round(length * scale)) for length in cropped.size)
    pixels = np.asarray(cropped.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = (slice(top, top + side), slice(left, left + side))
    dimmed = pixels + DIMMED * (255 - pixels)
    dimmed[square] = pixels[square]
    picture = Image.fromarray(dimmed.round().clip(0, 255).astype(np.uint8))
    return Framed(picture, (left, top, left + side, top + side))
