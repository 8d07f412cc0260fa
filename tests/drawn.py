"""What a page of a figure has on it: Matplotlib's artists with their places in the figure's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from hvx.view import text
from hvx.view.page import RGB, Box, Page


@dataclass(frozen=True)
class DrawnText:
    """A line of text: its left edge, baseline and size in pixels."""

    line: str
    left: float
    baseline: float
    size: float
    ink: RGB

    @property
    def right(self) -> float:
        return self.left + text.width(self.line, self.size)

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


@dataclass(frozen=True)
class DrawnPicture:
    """A picture, and its upper left corner."""

    picture: Image.Image
    left: float
    top: float


def texts(page: Page) -> list[DrawnText]:
    """All lines of text, in the order in which they are drawn."""
    return [_text(page, artist) for artist in page.figure.axes[0].texts]


def lines(page: Page) -> list[str]:
    """All lines of text, as strings."""
    return [found.line for found in texts(page)]


def pictures(page: Page) -> list[DrawnPicture]:
    found = []
    for artist in page.figure.axes[0].images:
        left, right, top, bottom = artist.get_extent()
        pixels = np.asarray(artist.get_array())[::-1]
        assert pixels.shape[:2] == (bottom - top, right - left), "a picture is not at its own pixels"
        found.append(DrawnPicture(Image.fromarray(np.ascontiguousarray(pixels)), left, top))
    return found


def rectangles(page: Page) -> list[tuple[Box, RGB]]:
    found = []
    for artist in page.figure.axes[0].patches:
        assert isinstance(artist, Rectangle | FancyBboxPatch)
        x, y = artist.get_x(), artist.get_y()
        box = (x, y, x + artist.get_width(), y + artist.get_height())
        found.append((box, _rgb(artist.get_facecolor())))
    return found


def strokes(page: Page) -> list[tuple[NDArray[np.float64], RGB, float]]:
    """Points (n, 2), color and thickness in pixels of each line."""
    return [
        (np.asarray(line.get_xydata()), _rgb(to_rgb(line.get_color())), line.get_linewidth() * page.dpi / 72)
        for line in page.figure.axes[0].lines
    ]


def _text(page: Page, artist: Text) -> DrawnText:
    line, size = artist.get_text(), artist.get_fontsize() * page.dpi / 72
    assert not artist.get_parse_math()
    assert artist.get_verticalalignment() == "baseline"
    x, baseline = artist.get_position()
    share = {"left": 0, "center": 0.5, "right": 1}[artist.get_horizontalalignment()]
    return DrawnText(line, x - share * text.width(line, size), baseline, size, _rgb(artist.get_color()))


def _rgb(color: object) -> RGB:
    red, green, blue = (round(255 * level) for level in np.asarray(color, float)[:3])
    return red, green, blue
