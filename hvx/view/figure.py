"""The grid of the paper's Figures 2 to 5: photograph, attention maps, heat map, question, answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hvx.errors import HvxError
from hvx.view.heat import fit, shade
from hvx.view.tokens import BLACK, PRINTED_INK, WHITE, TextSizes, lay_out, line_height, paint, wrap, write

SMALLEST_SQUARE = 48
"""Pixels; under a narrower picture there is no room for a z-score."""

PRINTED_NOTE = "In brackets: z as printed in the paper"

_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth")


@dataclass(frozen=True)
class FigureRow:
    """One question with what explains its answer.

    Attributes:
        photo: the square RGB crop that the network saw, at any resolution.
        attention: attention maps (G, S, S), each summing to 1; G may be 0.
        heatmap: the proposed method's heat map (H, W), H = Σ_c |standardised gradient|.
        tokens: the question's tokens.
        z: the z-score of each token (Eq. 11).
        predicted: the model's answer.
        ground_truth: the right answer, "" where unknown.
        printed: what a paper prints as each token's z-score, None where it prints none; None as a
            whole: the question is in no paper.
    """

    photo: Image.Image
    attention: NDArray[np.floating]
    heatmap: NDArray[np.floating]
    tokens: list[str]
    z: list[float]
    predicted: str
    ground_truth: str
    printed: list[float | None] | None = None

    @property
    def shows_printed(self) -> bool:
        """Whether any token has a printed z-score beside its own."""
        return any(z is not None for z in self.printed or ())


@dataclass(frozen=True)
class _Grid:
    """Where the columns of a figure stand, in pixels."""

    width: int
    columns: int

    @property
    def gap(self) -> int:
        return max(4, self.width // 120)

    @property
    def margin(self) -> int:
        return max(8, self.width // 60)

    @property
    def side(self) -> int:
        """Of the squares."""
        return (self.width - 2 * self.margin - (self.columns - 1) * self.gap) // self.columns

    @property
    def inner_width(self) -> int:
        """From the first square's left edge to the last one's right."""
        return self.columns * self.side + (self.columns - 1) * self.gap

    def left(self, column: int) -> int:
        """A column's left edge; what the squares leave over goes to both margins."""
        return (self.width - self.inner_width) // 2 + column * (self.side + self.gap)

    @property
    def row_gap(self) -> int:
        """Between one row's text and the next row's pictures."""
        return max(16, self.width // 40)


def draw_figure(rows: Sequence[FigureRow], width: int = 1200, title: str | None = None) -> Image.Image:
    """The paper's figure of some questions, a row each.

    A row of fewer glimpses than another leaves its place in their columns empty.

    Args:
        rows: at least one.
        width: of the figure in pixels; its height follows from the rows.
        title: a line above the column names.

    Returns:
        An RGB picture on white.

    Raises:
        HvxError: no rows, or a width in which the pictures would be too small to see.
    """
    if not rows:
        raise HvxError("a figure needs at least one row")
    glimpses = max(len(row.attention) for row in rows)
    grid = _make_grid(width, columns=glimpses + 2)
    parts = [_draw_row(row, grid) for row in rows]
    note = PRINTED_NOTE if any(row.shows_printed for row in rows) else None
    heading = _draw_heading(grid, column_names(glimpses), title, note)
    height = heading.height + sum(part.height + grid.row_gap for part in parts) - grid.row_gap + grid.margin
    figure = Image.new("RGB", (width, height), WHITE)
    figure.paste(heading, (0, 0))
    top = heading.height
    for part in parts:
        figure.paste(part, (0, top))
        top += part.height + grid.row_gap
    return figure


def column_names(glimpses: int) -> list[str]:
    """The header's words, as the paper has them, for any number of glimpses."""
    if glimpses == 1:
        names = ["Attention"]
    else:
        names = [f"{ordinal} Attention" for ordinal in _ORDINALS[:glimpses]]
        names += [f"Attention {glimpse}" for glimpse in range(len(_ORDINALS) + 1, glimpses + 1)]
    return ["Original", *names, "Proposed"]


def _make_grid(width: int, columns: int) -> _Grid:
    grid = _Grid(width, columns)
    if grid.side < SMALLEST_SQUARE:
        needed = next(w for w in count(max(1, width)) if _Grid(w, columns).side >= SMALLEST_SQUARE)
        raise HvxError(f"a figure of {columns} columns needs a width of {needed} pixels or more, not {width}")
    return grid


def _draw_row(row: FigureRow, grid: _Grid) -> Image.Image:
    """One row's pictures with the text under them, as wide as the figure."""
    sizes = TextSizes.for_width(grid.width)
    answer = (row.predicted, row.ground_truth)
    panel = lay_out(row.tokens, row.z, answer, grid.inner_width, grid.side, sizes, row.printed)
    panel_top = grid.side + grid.gap
    picture = Image.new("RGB", (grid.width, panel_top + panel.height), WHITE)
    squares = [fit(row.photo, grid.side)]
    squares += [shade(row.photo, glimpse, grid.side) for glimpse in row.attention]
    for column, square in enumerate(squares):
        picture.paste(square, (grid.left(column), 0))
    picture.paste(shade(row.photo, row.heatmap, grid.side), (grid.left(grid.columns - 1), 0))
    paint(panel, picture, grid.left(0), panel_top)
    return picture


def _draw_heading(grid: _Grid, names: list[str], title: str | None, note: str | None) -> Image.Image:
    """The title, the note and the column names, with the margin above and the gap below them."""
    sizes = TextSizes.for_width(grid.width)
    parts = [(title, round(sizes.token * 1.25), BLACK), (note, sizes.value, PRINTED_INK)]
    above = [(wrap(text, size, grid.inner_width), size, ink) for text, size, ink in parts if text]
    name_lines = [wrap(name, sizes.token, grid.side) for name in names]
    names_top = grid.margin + sum(len(lines) * line_height(size) + grid.gap for lines, size, _ in above)
    height = names_top + max(map(len, name_lines)) * line_height(sizes.token) + grid.gap
    picture = Image.new("RGB", (grid.width, height), WHITE)
    draw = ImageDraw.Draw(picture)
    top = grid.margin
    for lines, size, ink in above:
        write(draw, lines, (grid.width / 2, top), size, ink)
        top += len(lines) * line_height(size) + grid.gap
    for column, lines in enumerate(name_lines):
        top = height - grid.gap - len(lines) * line_height(sizes.token)
        write(draw, lines, (grid.left(column) + grid.side / 2, top), sizes.token, BLACK)
    return picture
