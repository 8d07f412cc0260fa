"""The whole photograph, and on it the square that the network saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

LONGEST = 3.0
"""Of a photograph that is longer than so many times its shorter side, its middle is shown: else the square
would be too small to see."""

DIMMED = 0.65
"""How far what lies outside the square is drawn toward white."""

Edges = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Framed:
    """A picture of a whole photograph.

    Attributes:
        picture: RGB; outside the square it is dimmed.
        square: where the network's square lies in it.
    """

    picture: Image.Image
    square: Edges


def is_cropped(photo: Image.Image) -> bool:
    """Whether the network's center square leaves any of a photograph out."""
    return photo.width != photo.height


def middle(photo: Image.Image, shorter: int | None = None) -> Image.Image:
    """A whole photograph, or the middle of one longer than ``LONGEST``.

    Args:
        photo: of any size.
        shorter: pixels of the shorter side; None: as many as fit the photograph's own pixels.
    """
    side = min(photo.size)
    width, height = (min(float(length), LONGEST * side) for length in photo.size)
    left, top = (photo.width - width) / 2, (photo.height - height) / 2
    scale = 1 if shorter is None else shorter / side
    size = round(width * scale), round(height * scale)
    return photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def framed(photo: Image.Image, size: int) -> Framed:
    """A photograph whose longer side is ``size`` pixels; what the network did not see of it is dimmed."""
    shown = middle(photo)
    scale = size / max(shown.size)
    width, height = (max(1, round(length * scale)) for length in shown.size)
    pixels = np.asarray(shown.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = (slice(top, top + side), slice(left, left + side))
    dimmed = pixels + DIMMED * (255 - pixels)
    dimmed[square] = pixels[square]
    picture = Image.fromarray(dimmed.round().clip(0, 255).astype(np.uint8))
    return Framed(picture, (left, top, left + side, top + side))
