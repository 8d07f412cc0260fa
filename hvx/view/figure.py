"""The grid of the paper's Figures 2 to 5: photograph, attention maps, heat map, question, answer.

A figure is a column of strips: its heading, a strip for each row, its foot. Each is drawn by itself, so that
a figure of any number of rows can be written without ever being held whole (``hvx.view.sheet``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvx.errors import HvxError
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT
from hvx.view import legend
from hvx.view.canvas import Canvas, PixelCanvas
from hvx.view.heat import Style, fit, outline, overlay
from hvx.view.tokens import BLACK, PRINTED_INK, WHITE, TextSizes, lay_out, line_height, paint, wrap, write

SMALLEST_SQUARE = 48
"""Pixels; under a narrower picture there is no room for a z-score."""

PRINTED_NOTE = "In brackets: z as printed in the paper"

ZERO_IMAGE_LABEL = "zero gradient: no heat map"
ZERO_WORDS_NOTE = "The gradient of the words is zero everywhere: there are no z-scores."

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
        top_answers: the likeliest answers with their probabilities, the likeliest first.
        block_heatmaps: of a network of several blocks the heat map of each (L, H, W), ``heatmap`` the last.
        zero_gradient: bits of ``hvx.store.schema``: which gradients are zero everywhere and therefore explain
            nothing; the figure says so.
    """

    photo: Image.Image
    attention: NDArray[np.floating]
    heatmap: NDArray[np.floating]
    tokens: list[str]
    z: list[float]
    predicted: str
    ground_truth: str
    printed: list[float | None] | None = None
    top_answers: tuple[tuple[str, float], ...] = ()
    block_heatmaps: NDArray[np.floating] | None = None
    zero_gradient: int = 0

    @property
    def heatmaps(self) -> list[NDArray[np.floating]]:
        """A heat map of each block, or the only one."""
        blocks = [] if self.block_heatmaps is None else list(self.block_heatmaps)
        return blocks or [self.heatmap]

    @property
    def shows_printed(self) -> bool:
        """Whether any token has a printed z-score beside its own."""
        return any(z is not None for z in self.printed or ())

    def texts(self) -> Iterator[str]:
        """All that a figure writes of it in words."""
        return chain(
            self.tokens, (self.predicted, self.ground_truth), (answer for answer, _ in self.top_answers)
        )


@dataclass(frozen=True)
class Look:
    """How a figure shows its rows.

    Attributes:
        style: how maps lie on the photograph.
        outline: draw a line around what is above the heat map's mean + 2 standard deviations.
        top_answers: a column with the likeliest answers as bars.
        legend: the scale of the tokens' colours under the last row.
    """

    style: Style = "brightness"
    outline: bool = False
    top_answers: bool = False
    legend: bool = True


AS_IN_THE_PAPER = Look()


@dataclass(frozen=True)
class Strip:
    """A part of a figure, as wide as it is; ``draw`` is told at which height it stands on the canvas."""

    height: int
    draw: Callable[[Canvas, int], None]

    def picture(self, width: int) -> Image.Image:
        """The strip by itself, on white."""
        made = Image.new("RGB", (width, self.height), WHITE)
        self.draw(PixelCanvas(made), 0)
        return made


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


class Figure:
    """The strips of a figure.

    Args:
        width: of the figure in pixels.
        glimpses: attention maps of the row that has the most; a row of fewer leaves their places empty.
        look: how it shows its rows.
        title: a line above the column names.
        printed: whether any row has z-scores printed in a paper, which a note above then explains.
        blocks: heat maps of the row that has the most; a row of fewer leaves the first places empty.

    Raises:
        HvxError: a width in which the pictures would be too small to see.
    """

    def __init__(
        self,
        width: int,
        glimpses: int,
        look: Look = AS_IN_THE_PAPER,
        title: str | None = None,
        printed: bool = False,
        blocks: int = 1,
    ) -> None:
        names = column_names(glimpses, blocks)
        self._proposed = len(names) - 1
        """The column of the last block's heat map."""
        self._names = names + (["Likeliest answers"] if look.top_answers else [])
        self._grid = _make_grid(width, len(self._names))
        self._sizes = TextSizes.for_width(width)
        self._title, self._note, self._look = title, PRINTED_NOTE if printed else None, look

    @property
    def width(self) -> int:
        return self._grid.width

    @property
    def side(self) -> int:
        """Of the pictures, in pixels."""
        return self._grid.side

    def strips(self, rows: Iterable[FigureRow]) -> Iterator[Strip]:
        """The whole figure from top to bottom; each row is asked for as its strip is."""
        yield self.heading()
        for place, row in enumerate(rows):
            if place:
                yield self.gap()
            yield self.row(row)
        yield self.foot()

    def heading(self) -> Strip:
        """The title, the note and the column names, with the margin above and the gap below them."""
        grid, sizes = self._grid, self._sizes
        parts = [(self._title, round(sizes.token * 1.25), BLACK), (self._note, sizes.value, PRINTED_INK)]
        above = [(wrap(text, size, grid.inner_width), size, ink) for text, size, ink in parts if text]
        name_lines = [wrap(name, sizes.token, grid.side) for name in self._names]
        names_top = grid.margin + sum(len(lines) * line_height(size) + grid.gap for lines, size, _ in above)
        height = names_top + max(map(len, name_lines)) * line_height(sizes.token) + grid.gap

        def draw(canvas: Canvas, top: int) -> None:
            at = top + grid.margin
            for lines, size, ink in above:
                write(canvas, lines, (grid.width / 2, at), size, ink)
                at += len(lines) * line_height(size) + grid.gap
            for column, lines in enumerate(name_lines):
                at = top + height - grid.gap - len(lines) * line_height(sizes.token)
                write(canvas, lines, (grid.left(column) + grid.side / 2, at), sizes.token, BLACK)

        return Strip(height, draw)

    def row(self, row: FigureRow) -> Strip:
        """One row's pictures with the text under them."""
        grid, sizes = self._grid, self._sizes
        answer = (row.predicted, row.ground_truth)
        panel = lay_out(row.tokens, row.z, answer, grid.inner_width, grid.side, sizes, row.printed)
        panel_top = grid.side + grid.gap
        note = (
            wrap(ZERO_WORDS_NOTE, sizes.value, grid.inner_width)
            if row.zero_gradient & ZERO_WORD_GRADIENT
            else ()
        )
        note_top = panel_top + panel.height + grid.gap
        height = note_top + len(note) * line_height(sizes.value) if note else panel_top + panel.height

        def draw(canvas: Canvas, top: int) -> None:
            photo = fit(row.photo, grid.side)
            canvas.picture(photo, grid.left(0), top)
            for column, map in enumerate(row.attention, start=1):
                canvas.picture(overlay(photo, map, grid.side, self._look.style), grid.left(column), top)
            for column, map in enumerate(row.heatmaps, start=self._proposed + 1 - len(row.heatmaps)):
                left = grid.left(column)
                canvas.picture(overlay(photo, map, grid.side, self._look.style), left, top)
                if self._look.outline:
                    legend.draw_outline(canvas, outline(map, grid.side), left, top, grid.side)
            if row.zero_gradient & ZERO_IMAGE_GRADIENT:
                legend.draw_label(
                    canvas, ZERO_IMAGE_LABEL, (grid.left(self._proposed), top), grid.side, sizes
                )
            if self._look.top_answers:
                box = (grid.left(self._proposed + 1), top, grid.left(self._proposed + 1) + grid.side, 0)
                legend.draw_answers(canvas, row.top_answers, box[:3], sizes)
            paint(panel, canvas, grid.left(0), top + panel_top)
            legend.draw_lines(canvas, note, (grid.left(0), top + note_top), sizes.value, PRINTED_INK)

        return Strip(height, draw)

    def gap(self) -> Strip:
        """What keeps two rows apart."""
        return Strip(self._grid.row_gap, _draw_nothing)

    def foot(self) -> Strip:
        """The scale of the tokens' colours, and that of the maps' where they have one; the margin below."""
        grid, sizes = self._grid, self._sizes
        if not self._look.legend:
            return Strip(grid.margin, _draw_nothing)
        shown = legend.scales(self._look.style, self._look.outline)
        placed, height = legend.place_scales(shown, grid.inner_width, sizes)

        def draw(canvas: Canvas, top: int) -> None:
            for scale, left, below in placed:
                legend.draw_scale(canvas, scale, grid.left(0) + left, top + grid.row_gap + below, sizes)

        return Strip(grid.row_gap + height + grid.margin, draw)


def draw_figure(
    rows: Sequence[FigureRow], width: int = 1200, title: str | None = None, look: Look = AS_IN_THE_PAPER
) -> Image.Image:
    """The paper's figure of some questions, a row each, as one picture in memory.

    A row of fewer glimpses than another leaves its place in their columns empty.

    Args:
        rows: at least one.
        width: of the figure in pixels; its height follows from the rows.
        title: a line above the column names.
        look: how it shows its rows.

    Returns:
        An RGB picture on white.

    Raises:
        HvxError: no rows, or a width in which the pictures would be too small to see.
    """
    if not rows:
        raise HvxError("a figure needs at least one row")
    glimpses, printed = max(len(row.attention) for row in rows), any(row.shows_printed for row in rows)
    blocks = max(len(row.heatmaps) for row in rows)
    strips = list(Figure(width, glimpses, look, title, printed, blocks).strips(rows))
    figure = Image.new("RGB", (width, sum(strip.height for strip in strips)), WHITE)
    top = 0
    for strip in strips:
        figure.paste(strip.picture(width), (0, top))
        top += strip.height
    return figure


def column_names(glimpses: int, blocks: int = 1) -> list[str]:
    """The header's words, as the paper has them, for any number of glimpses and blocks."""
    if glimpses == 1:
        names = ["Attention"]
    else:
        names = [f"{ordinal} Attention" for ordinal in _ORDINALS[:glimpses]]
        names += [f"Attention {glimpse}" for glimpse in range(len(_ORDINALS) + 1, glimpses + 1)]
    proposed = [f"Block {block}" for block in range(1, blocks + 1)] if blocks > 1 else ["Proposed"]
    return ["Original", *names, *proposed]


def _make_grid(width: int, columns: int) -> _Grid:
    grid = _Grid(width, columns)
    if grid.side < SMALLEST_SQUARE:
        needed = next(w for w in count(max(1, width)) if _Grid(w, columns).side >= SMALLEST_SQUARE)
        raise HvxError(f"a figure of {columns} columns needs a width of {needed} pixels or more, not {width}")
    return grid


def _draw_nothing(canvas: Canvas, top: int) -> None:
    """A strip that stays white."""
    del canvas, top
