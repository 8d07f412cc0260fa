"""What figures are drawn on: pixels, or a page of a PDF, in the same coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL import Image, ImageDraw

from hvx.view.fonts import runs

RGB = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""
Point = tuple[float, float]

_SUPERSAMPLING = 4
"""Rounded corners and slanted lines are drawn so many times larger, then scaled down to be smooth."""


class Canvas(Protocol):
    """Takes coordinates in the figure's pixels, y downwards."""

    def picture(self, picture: Image.Image, left: int, top: int) -> None:
        """An RGB picture, a pixel to a pixel."""

    def rectangle(self, box: Box, fill: RGB, radius: int = 0) -> None:
        """A filled rectangle, its corners rounded."""

    def stroke(self, points: Sequence[Point], ink: RGB, thickness: float) -> None:
        """A line through points."""

    def text(self, line: str, left: float, baseline: float, size: int, ink: RGB) -> None:
        """A line of text."""


class PixelCanvas:
    """Draws into an RGB picture."""

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture
        self._draw = ImageDraw.Draw(picture)

    def picture(self, picture: Image.Image, left: int, top: int) -> None:
        self._picture.paste(picture, (left, top))

    def rectangle(self, box: Box, fill: RGB, radius: int = 0) -> None:
        if not radius:
            self._draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill)
            return
        mask = _mask(box[2] - box[0], box[3] - box[1])
        corner = (mask.width - 1, mask.height - 1)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, *corner), radius * _SUPERSAMPLING, 255)
        self._picture.paste(fill, box, mask.reduce(_SUPERSAMPLING))

    def stroke(self, points: Sequence[Point], ink: RGB, thickness: float) -> None:
        # A mask of the line's own surroundings: of the whole picture, many lines would take very long.
        reach = int(thickness) + 1
        left, top = (int(min(axis)) - reach for axis in zip(*points, strict=True))
        right, bottom = (int(max(axis)) + reach + 1 for axis in zip(*points, strict=True))
        mask = _mask(right - left, bottom - top)
        # A pixel's centre lies half a pixel from its corner, from which the canvas counts.
        within = [((x - left) * _SUPERSAMPLING - 0.5, (y - top) * _SUPERSAMPLING - 0.5) for x, y in points]
        ImageDraw.Draw(mask).line(within, 255, max(1, round(thickness * _SUPERSAMPLING)), "curve")
        small = mask.reduce(_SUPERSAMPLING)
        self._picture.paste(ink, (left, top, left + small.width, top + small.height), small)

    def text(self, line: str, left: float, baseline: float, size: int, ink: RGB) -> None:
        for face, part in runs(line):
            font = face.at(size)
            self._draw.text((left, baseline), part, ink, font, anchor="ls")
            left += font.getlength(part)


def _mask(width: int, height: int) -> Image.Image:
    return Image.new("L", (max(1, width) * _SUPERSAMPLING, max(1, height) * _SUPERSAMPLING))
