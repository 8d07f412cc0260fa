"""Options of ``hvx figure`` and ``hvx ask``: a figure's style and its size on paper."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from hvx.terminal import echo

if TYPE_CHECKING:
    from hvx.view.export import PageSetup
    from hvx.view.style import FigureStyle, Style

Command = TypeVar("Command", bound=Callable[..., Any])

WIDTH = 1200
"""Default width in pixels, without --width and --inches."""
LEAST, MOST = 300, 20_000
SMALLEST_POINTS = 8
"""Smallest text size, if --inches gives the size on paper."""
_AT_INCHES = 5.5
"""In wider figures, the text grows with the width."""


@dataclass(frozen=True)
class FigureOptions:
    """The values of the options."""

    width: int | None
    inches: float | None
    dpi: int
    page_rows: int
    overlay: str
    outline: bool | None
    font_pt: float | None
    digits: int

    @property
    def pixels(self) -> int:
        """The figure's width in pixels.

        Raises:
            HvxError: the width is given twice, or out of range.
        """
        from hvx.errors import HvxError

        if self.inches is None:
            return self.width or WIDTH
        if self.width is not None:
            raise HvxError(f"--inches {self.inches:g}: goes with --dpi, not with --width {self.width}")
        pixels = round(self.inches * self.dpi)
        if not LEAST <= pixels <= MOST:
            options = f"--inches {self.inches:g} at --dpi {self.dpi}: {pixels} pixels"
            raise HvxError(f"{options}; a figure is {LEAST} to {MOST} wide")
        return pixels

    def style(self, top_answers: bool) -> FigureStyle:
        """The style of the figure."""
        from hvx.view.style import FigureStyle

        size = self.font_pt
        if size is None and self.inches is not None:
            size = SMALLEST_POINTS * max(1, self.inches / _AT_INCHES)
        overlay = cast("Style", self.overlay)
        return FigureStyle(overlay, self.outline, top_answers, digits=self.digits, font_pt=size)

    @property
    def setup(self) -> PageSetup:
        """The size on paper."""
        from hvx.view.export import PageSetup

        return PageSetup(self.dpi, self.page_rows)


class _Styles(click.Choice[str]):
    """The styles; also accepts the British spelling."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "brightness":
            self.fail("'brightness': this style is called 'paper'", param, ctx)
        return super().convert("color" if value == "colour" else value, param, ctx)


def figure_options(command: Command) -> Command:
    """Add the options of a figure's style and size; the command gets them as ``options``."""

    @click.option(
        "--style", "overlay", type=_Styles(["color", "paper"]), default="color", show_default=True,
        help="Lay maps over the photograph in color, or by its brightness, as the paper does.",
    )  # fmt: skip
    @click.option(
        "--outline/--no-outline", default=None, show_default="outline in color, none in the paper's style",
        help="Outline what is above the heat map's mean + 2 standard deviations.",
    )  # fmt: skip
    @click.option("--width", type=click.IntRange(LEAST, MOST), show_default=f"{WIDTH}", help="Pixels across.")
    @click.option(
        "--inches", type=click.FloatRange(1, 100), help="Inches across on paper, in place of --width."
    )
    @click.option(
        "--dpi", type=click.IntRange(50, 2400), default=200, show_default=True, help="Pixels in an inch."
    )
    @click.option(
        "--page-rows",
        type=click.IntRange(1, 64),
        default=8,
        show_default=True,
        help="Rows on a page of a PDF.",
    )
    @click.option(
        "--font-pt", type=click.FloatRange(4, 72), show_default="8 at 5.5 inches, more in wider figures",
        help="Size of the smallest text in points.",
    )  # fmt: skip
    @click.option(
        "--digits", type=click.IntRange(0, 6), default=2, show_default=True, help="Decimals of the z-scores."
    )  # fmt: skip
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        width: int | None,
        inches: float | None,
        dpi: int,
        page_rows: int,
        overlay: str,
        outline: bool | None,
        font_pt: float | None,
        digits: int,
        **kwargs: Any,
    ) -> Any:
        options = FigureOptions(width, inches, dpi, page_rows, overlay, outline, font_pt, digits)
        return command(*args, options=options, **kwargs)

    return wrapped  # type: ignore[return-value]


def report_missing_glyphs(characters: str) -> None:
    """Report on stderr characters that no font has."""
    if characters:
        codes = " ".join(f"U+{ord(character):04X}" for character in characters[:12])
        echo(
            f"no font here has {codes}{' …' if len(characters) > 12 else ''}; a box stands in the place. "
            "Install a font that has them, or hvx[fonts] (docs/figures.md)",
            err=True,
        )
