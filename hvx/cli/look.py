"""What ``hvx figure`` and ``hvx ask`` share: how a figure looks, and how large it is on paper."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from hvx.terminal import echo

if TYPE_CHECKING:
    from hvx.view.figure import Look
    from hvx.view.heat import Style
    from hvx.view.sheet import Paper

Command = TypeVar("Command", bound=Callable[..., Any])

WIDTH = 1200
"""Pixels across, where neither --width nor --inches says otherwise."""
LEAST, MOST = 300, 20_000


@dataclass(frozen=True)
class Asked:
    """What the options say."""

    width: int | None
    inches: float | None
    dpi: int
    page_rows: int
    style: str
    outline: bool

    @property
    def pixels(self) -> int:
        """Across the figure.

        Raises:
            HvxError: a width given twice, or out of bounds.
        """
        from hvx.errors import HvxError

        if self.inches is None:
            return self.width or WIDTH
        if self.width is not None:
            raise HvxError(f"--inches {self.inches:g}: goes with --dpi, not with --width {self.width}")
        pixels = round(self.inches * self.dpi)
        if not LEAST <= pixels <= MOST:
            given = f"--inches {self.inches:g} at --dpi {self.dpi}: {pixels} pixels"
            raise HvxError(f"{given}; a figure is {LEAST} to {MOST} wide")
        return pixels

    def look(self, top_answers: bool) -> Look:
        """How the figure looks."""
        from hvx.view.figure import Look

        return Look(cast("Style", self.style), self.outline, top_answers)

    @property
    def paper(self) -> Paper:
        """What its pixels are on paper."""
        from hvx.view.sheet import Paper

        return Paper(self.dpi, self.page_rows)


def look_options(command: Command) -> Command:
    """Add the options of a figure's looks; the command gets them as ``asked``."""

    @click.option(
        "--style", type=click.Choice(["brightness", "colour"]), default="brightness", show_default=True,
        help="Lay maps over the photograph by its brightness, as the paper does, or in colours.",
    )  # fmt: skip
    @click.option(
        "--outline", is_flag=True, help="Outline what is above the heat map's mean + 2 standard deviations."
    )
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
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        style: str,
        outline: bool,
        width: int | None,
        inches: float | None,
        dpi: int,
        page_rows: int,
        **kwargs: Any,
    ) -> Any:
        asked = Asked(width, inches, dpi, page_rows, style, outline)
        return command(*args, asked=asked, **kwargs)

    return wrapped  # type: ignore[return-value]


def say_undrawn(characters: str) -> None:
    """Tell, on stderr, of characters that no font has."""
    if characters:
        codes = " ".join(f"U+{ord(character):04X}" for character in characters[:12])
        echo(
            f"no font here has {codes}{' …' if len(characters) > 12 else ''}; a box stands in the place. "
            "Install a font that has them, or hvx[fonts] (docs/figures.md)",
            err=True,
        )
