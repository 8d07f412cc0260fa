"""How a figure shows its rows. Imports no Matplotlib: a style can be chosen where nothing can be drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

from hvx.errors import HvxError

DPI = 200
"""Default resolution in pixels per inch."""

DIGITS = 2
"""Default decimals of the z-scores."""

Style = Literal["color", "paper"]
STYLES: tuple[Style, ...] = ("color", "paper")


@dataclass(frozen=True)
class MapColumn:
    """A column of maps that replaces the attention and the heat map.

    Attributes:
        title: column name in the heading.
        outlined: whether ``FigureStyle.outline`` applies to it.
        proposed: whether its maps are of the proposed method, to which ``FigureRow.zero_gradient`` applies.
    """

    title: str
    outlined: bool = True
    proposed: bool = False


@dataclass(frozen=True)
class FigureStyle:
    """The style of a figure.

    Attributes:
        style: how maps lie on the photograph.
        outline: outline regions above the heat map's mean + 2 standard deviations; None: only in the color
            style.
        top_answers: whether there is a column with the likeliest answers as bars.
        legend: whether the color scales are drawn under the last row.
        digits: decimals of the z-scores.
        font_pt: size of the smallest text in points; if None, proportional to the width, 8 at 5.5 inches.
    """

    style: Style = "color"
    outline: bool | None = None
    top_answers: bool = False
    legend: bool = True
    digits: int = DIGITS
    font_pt: float | None = None

    def __post_init__(self) -> None:
        """Raise an ``HvxError`` for an unknown style."""
        if self.style not in STYLES:
            raise HvxError(f"style: {self.style!r}: {wrong_style(self.style)}")

    @classmethod
    def of(cls, style: FigureStyle | str | None, outline: bool | None = None) -> FigureStyle:
        """The style of a figure of one explanation, with the likeliest answers.

        Args:
            style: a name as of ``hvx figure --style``, or a ``FigureStyle``; the default if None.
            outline: whether outlines are drawn; the style's own setting if None.

        Raises:
            HvxError: an unknown style.
        """
        if not isinstance(style, FigureStyle):
            style = cls(cast("Style", style or cls.style), top_answers=True)
        return style if outline is None else replace(style, outline=outline)

    @property
    def outlined(self) -> bool:
        """Whether outlines are drawn."""
        return self.style == "color" if self.outline is None else self.outline


IN_COLOR, AS_IN_THE_PAPER = FigureStyle(), FigureStyle("paper")


def wrong_style(name: str) -> str:
    """The hint for an unknown style name."""
    return "this style is called 'paper'" if name == "brightness" else f"give one of {', '.join(STYLES)}"
