"""The page of a figure: a Matplotlib figure with pixel coordinates from the upper left corner."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text
from PIL import Image

from hvx.view.text import ascent, families, line_height

RGB = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

POINTS = 72
"""Points per inch."""

_SETTINGS: dict[str, Any] = {
    "pdf.fonttype": 42,  # TrueType: text can be searched and copied
    "svg.fonttype": "none",  # text stays text; a viewer without the font uses a similar one
    "svg.hashsalt": "hvx",  # reproducible ids
    "text.hinting": "no_hinting",  # widths are in proportion to the size, as text.py measures them
}


def settings() -> AbstractContextManager[None]:
    """Matplotlib's defaults with hvx's settings, ignoring matplotlibrc; restored at the end."""
    return matplotlib.style.context(["default", _SETTINGS])


class Page:
    """A page to draw on; coordinates are pixels, y downward. The next part begins at ``bottom``.

    Use it within ``settings``: Matplotlib reads some of them when an artist is made, others when it is drawn.

    Args:
        width: in pixels.
        dpi: pixels per inch.
    """

    def __init__(self, width: int, dpi: float) -> None:
        self.width, self.dpi, self.bottom = width, dpi, 0
        self.figure = Figure((width / dpi, 1), dpi, facecolor="white")
        self._axes = self.figure.add_axes((0, 0, 1, 1), autoscale_on=False)
        self._axes.set_axis_off()

    def picture(self, picture: Image.Image, left: float, top: float) -> None:
        """An RGB picture, not resampled if ``left`` and ``top`` are whole numbers."""
        # From the lower edge up, so that a PDF stores it upright for tools that extract pictures.
        extent = (left, left + picture.width, top, top + picture.height)
        artist = AxesImage(self._axes, extent=extent, origin="upper", interpolation="none")
        artist.set_data(np.asarray(picture)[::-1])
        self._add(artist)

    def rectangle(self, box: Box, fill: RGB, radius: float = 0) -> None:
        """A filled rectangle with rounded corners."""
        x, y, size = box[0], box[1], (box[2] - box[0], box[3] - box[1])
        shape = f"round,pad=0,rounding_size={radius}"
        patch = FancyBboxPatch((x, y), *size, shape) if radius else Rectangle((x, y), *size)
        patch.set(facecolor=_color(fill), linewidth=0)
        self._add(patch)

    def dotted(self, box: Box, ink: RGB, thickness: float, radius: float) -> None:
        """A dotted rectangle with rounded corners."""
        x, y, size = box[0], box[1], (box[2] - box[0], box[3] - box[1])
        patch = FancyBboxPatch((x, y), *size, f"round,pad=0,rounding_size={radius}", fill=False)
        patch.set(edgecolor=_color(ink), linewidth=thickness * POINTS / self.dpi)
        patch.set(linestyle=(0, (0.01, 2)), capstyle="round")  # dashes of no length with round ends are dots
        self._add(patch)

    def stroke(self, x: Sequence[float], y: Sequence[float], ink: RGB, thickness: float) -> None:
        """A line through points."""
        line = Line2D(x, y, color=_color(ink), linewidth=thickness * POINTS / self.dpi)
        line.set(solid_joinstyle="round", solid_capstyle="butt")
        self._add(line)

    def lines(
        self,
        lines: Sequence[str],
        at: tuple[float, float],
        size: float,
        ink: RGB,
        align: Literal["left", "center", "right"] = "left",
    ) -> None:
        """Lines of text, the first one's top at ``at``'s y, each left of, around or right of ``at``'s x."""
        for row, line in enumerate(lines):
            if not line:
                continue
            font = FontProperties(family=list(families(line)), size=size * POINTS / self.dpi)
            baseline = at[1] + ascent(size) + row * line_height(size)
            text = Text(at[0], baseline, line, color=_color(ink), fontproperties=font, usetex=False)
            # parse_math: "$" is an ordinary character.
            text.set(horizontalalignment=align, verticalalignment="baseline", parse_math=False)
            self._add(text)

    def _add(self, artist: Artist) -> None:
        artist.set_zorder(1)  # later artists lie above earlier ones, of any kind
        self._axes.add_artist(artist)

    def close(self) -> Figure:
        """The figure, cut to the height of its content."""
        self.figure.set_size_inches(self.width / self.dpi, self.bottom / self.dpi)
        self._axes.set_xlim(0, self.width)
        self._axes.set_ylim(self.bottom, 0)
        return self.figure

    def render(self) -> Image.Image:
        """The page as an RGB picture; closes it."""
        canvas = FigureCanvasAgg(self.close())
        canvas.draw()
        size, pixels = canvas.get_width_height(), canvas.buffer_rgba()
        return Image.frombuffer("RGBA", size, pixels, "raw", "RGBA", 0, 1).convert("RGB")


def _color(color: RGB) -> tuple[float, float, float]:
    red, green, blue = (level / 255 for level in color)
    return red, green, blue
