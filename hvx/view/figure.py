"""The grid of the paper's Figures 2 to 5: photograph, attention maps, heat map, question, answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvx.errors import HvxError
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT
from hvx.view import legend
from hvx.view.crop import framed, is_cropped
from hvx.view.heat import fit, outline, overlay
from hvx.view.page import Page, settings
from hvx.view.style import DPI, IN_COLOR, FigureStyle, MapColumn
from hvx.view.text import line_height, shorten, unbroken, wrap
from hvx.view.tokens import BLACK, PRINTED_INK, Panel, TextSizes, draw_panel, lay_out

SMALLEST_SQUARE = 48
"""Pixels; a narrower picture has no room for a z-score."""

WORDS_BESIDE, SMALLEST_WORD = 8, 32
"""The number of words' heat maps in a line, and the smallest side of one in pixels."""

ORIGINAL = "Original"
PRINTED_NOTE = "In brackets: z printed in the paper"

ZERO_IMAGE_LABEL = "zero gradient: no heat map"
NO_HEAT_LABEL = "no value above zero"
ZERO_WORDS_NOTE = "The gradient of the words is zero everywhere: there are no z-scores."

LEVELS = ("Word", "Phrase", "Question")
"""The levels of the question from which a network may attend."""
_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth")


@dataclass(frozen=True)
class FigureRow:
    """One question with the explanation of its answer.

    Attributes:
        photo: the square RGB crop that the network saw, at any resolution.
        attention: attention maps (G, S, S), each summing to 1; G may be 0.
        heatmap: the proposed method's heat map (H, W), H = Σ_c |standardized gradient|; (0, 0) if none.
        tokens: the question's tokens.
        z: the z-score of each token (Eq. 11); if empty, tokens have no color.
        predicted: the model's answer.
        ground_truth: the right answer, "" where unknown.
        printed: the z-score that a paper prints for each token, None where it prints none; None if the
            question is in no paper.
        top_answers: the likeliest answers with their probabilities, in descending order.
        block_heatmaps: the heat map of each block (L, H, W) of a network of several; ``heatmap`` is the last.
        zero_gradient: bits of ``hvx.store.schema``: which gradients are zero everywhere and explain nothing;
            the figure has a note then.
        unknown: for each token, whether it is out of the model's vocabulary; empty if not known.
        whole: the whole photograph, of which ``photo`` is the center square; None if ``photo`` is all of it.
        maps: a map (H, W) or (S, S) for each ``MapColumn`` of the layout, if any.
        label: a line above the row, such as the name of its run; "" if none.
        word_heatmaps: the heat map of each token (T, H, W), drawn under the tokens, of a network with a
            product for each word; None or empty if there are none.
        textual_attention: the network's attention to each token, drawn under it if there are no z-scores.
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
    unknown: Sequence[bool] = ()
    whole: Image.Image | None = None
    maps: tuple[NDArray[np.floating], ...] = ()
    label: str = ""
    word_heatmaps: NDArray[np.floating] | None = None
    textual_attention: Sequence[float] = ()

    @property
    def heatmaps(self) -> list[NDArray[np.floating]]:
        """The heat map of each block; or the single one, or an empty list."""
        blocks = [] if self.block_heatmaps is None else list(self.block_heatmaps)
        return blocks or ([self.heatmap] if self.heatmap.size else [])

    @property
    def shows_attention(self) -> bool:
        """Whether the attention to each token is drawn under it instead of a z-score."""
        return not self.z and bool(self.textual_attention)

    @property
    def shows_printed(self) -> bool:
        """Whether any token has a z-score printed in a paper."""
        return any(z is not None for z in self.printed or ())

    @property
    def shows_crop(self) -> bool:
        """Whether the network saw less than the whole photograph."""
        return self.whole is not None and is_cropped(self.whole)

    def texts(self) -> Iterator[str]:
        """All texts of the row that a figure draws."""
        return chain(
            self.tokens,
            (self.predicted, self.ground_truth, self.label),
            (answer for answer, _ in self.top_answers),
        )


class _Grid:
    """The column positions of a figure in pixels: squares of ``side`` with a ``gap`` between them."""

    def __init__(self, width: int, columns: int) -> None:
        self.width, self.gap, self.margin = width, max(4, width // 120), max(8, width // 60)
        self.row_gap = max(16, width // 40)
        self.side = (width - 2 * self.margin - (columns - 1) * self.gap) // columns
        self.inner_width = columns * self.side + (columns - 1) * self.gap
        """Distance from the first square's left edge to the last one's right edge."""

    def left(self, column: int) -> int:
        """A column's left edge; the remaining pixels go to both margins."""
        return (self.width - self.inner_width) // 2 + column * (self.side + self.gap)


class PageTooLarge(HvxError):
    """A page with more pixels than the limit."""


class FigureLayout:
    """The layout of a figure; draws each part at the bottom of a page.

    Args:
        width: of the figure in pixels.
        glimpses: the largest number of attention maps in a row; rows with fewer leave columns empty.
        style: how it shows its rows.
        title: a line above the column names.
        printed: whether any row has z-scores printed in a paper; a note at the top explains them.
        blocks: the largest number of heat maps in a row; rows with fewer leave the first columns empty.
        dpi: pixels in an inch.
        columns: columns of the rows' ``maps``, which replace the attention and the heat map.
        levels: whether the glimpses are those of words, phrases and question.

    Attributes:
        side: side of the pictures in pixels.

    Raises:
        HvxError: a width in which the pictures would be too small to see.
    """

    def __init__(
        self,
        width: int,
        glimpses: int,
        style: FigureStyle = IN_COLOR,
        title: str | None = None,
        printed: bool = False,
        blocks: int = 1,
        dpi: int = DPI,
        columns: Sequence[MapColumn] | None = None,
        levels: bool = False,
    ) -> None:
        self._columns, self._heat = columns, bool(blocks)
        if columns is None:
            names = column_names(glimpses, blocks, levels)
        else:
            names = [ORIGINAL, *(column.title for column in columns)]
        self._proposed = len(names) - 1
        """The last column of maps; that of the last block's heat map if ``columns`` is None."""
        self._names = names + (["Likeliest answers"] if style.top_answers else [])
        self._grid = _make_grid(width, len(self._names))
        self._sizes = TextSizes.for_figure(width, dpi, style.font_pt)
        self._title, self._note, self._style = title, PRINTED_NOTE if printed else None, style
        self.width, self.side, self.dpi = width, self._grid.side, dpi

    def draw(self, rows: Iterable[FigureRow], within: int | None = None) -> Page:
        """A page with heading, rows and foot; rows are consumed one by one as they are drawn.

        Raises:
            PageTooLarge: the page has more than ``within`` pixels.
        """
        page = Page(self.width, self.dpi)
        self._draw_heading(page)
        unknown = crop = scored = attended = False
        for index, row in enumerate(rows):
            scored, attended = scored or bool(row.z), attended or row.shows_attention
            unknown, crop = unknown or any(row.unknown), crop or row.shows_crop
            page.bottom += self._grid.row_gap if index else 0
            self._draw_row(page, row)
            if within and page.width * page.bottom > within:
                raise PageTooLarge(f"a picture of more than {within:,} pixels")
        self._draw_foot(page, unknown=unknown, crop=crop, z=scored, attention=attended)
        return page

    def _draw_heading(self, page: Page) -> None:
        """The title, the note and the column names, with the margin above and the gap below them."""
        grid, sizes = self._grid, self._sizes
        top_y = float(page.bottom + grid.margin)
        name_size = unbroken(self._names, sizes.token, grid.side)
        name_height = line_height(name_size)
        for text, size, ink in (
            (self._title, sizes.token * 1.25, BLACK),
            (self._note, sizes.small, PRINTED_INK),
        ):
            if text:
                lines = wrap(text, size, grid.inner_width)
                page.lines(lines, (grid.width / 2, top_y), size, ink, "center")
                top_y += len(lines) * line_height(size) + grid.gap
        names = [wrap(name, name_size, grid.side + 0.1) for name in self._names]
        highest = max(map(len, names))
        for column, lines in enumerate(names):
            top = top_y + (highest - len(lines)) * name_height
            page.lines(lines, (grid.left(column) + grid.side / 2, top), name_size, BLACK, "center")
        page.bottom = math.ceil(top_y + highest * name_height) + grid.gap

    def _draw_row(self, page: Page, row: FigureRow) -> None:
        """One row's pictures with the text under them."""
        grid, sizes, style = self._grid, self._sizes, self._style
        if row.label:
            label = shorten(row.label, sizes.token, grid.inner_width)
            page.lines((label,), (grid.left(0), page.bottom), sizes.token, BLACK)
            page.bottom += math.ceil(line_height(sizes.token)) + grid.gap // 2
        top = page.bottom
        self._draw_pictures(page, row)
        answer_column = self._proposed + 1
        if style.top_answers:
            legend.draw_answers(page, row.top_answers, (grid.left(answer_column), top), grid.side, sizes)
        answer = (row.predicted, row.ground_truth)
        # With many columns, an answer needs more width than one of them.
        least = grid.inner_width // 5 if self._columns is not None else 0
        size = (grid.inner_width, max(grid.side, least))
        word_maps = self._word_maps(row)
        word_side = self._word_side(*size) if len(word_maps) else 0
        panel = lay_out(
            row.tokens, row.z, answer, *size, sizes, row.printed, style.digits, row.unknown, word_side,
            row.textual_attention if row.shows_attention else (),
        )  # fmt: skip
        page.bottom = top + grid.side + grid.gap
        draw_panel(panel, page, grid.left(0), page.bottom)
        self._draw_words(page, row.photo, panel, word_maps)
        page.bottom += panel.height
        if row.zero_gradient & ZERO_WORD_GRADIENT:
            note = wrap(ZERO_WORDS_NOTE, sizes.small, grid.inner_width)
            page.lines(note, (grid.left(0), page.bottom + grid.gap), sizes.small, PRINTED_INK)
            page.bottom += grid.gap + math.ceil(len(note) * line_height(sizes.small))

    def _word_maps(self, row: FigureRow) -> Sequence[NDArray[np.floating]]:
        """The maps under the tokens; none if there are named columns, which replace all maps."""
        return [] if row.word_heatmaps is None or self._columns is not None else list(row.word_heatmaps)

    def _draw_words(
        self, page: Page, photo: Image.Image, panel: Panel, maps: Sequence[NDArray[np.floating]]
    ) -> None:
        """The map of each token under it, each on its own scale."""
        if not maps:
            return
        side, left = panel.picture, self._grid.left(0)
        thumbnail = fit(photo, side)
        for (x, y), map in zip(panel.pictures(), maps, strict=True):
            picture = overlay(thumbnail, map, side, self._style.style)
            page.picture(picture, round(left + x), round(page.bottom + y))

    def _word_side(self, width: float, answer_width: float) -> int:
        """Side of a word's picture: eight in a line, at most half the side of a row's pictures."""
        side = (width - answer_width) / WORDS_BESIDE - self._sizes.token / 2
        return max(SMALLEST_WORD, min(round(side), self.side // 2))

    def _draw_pictures(self, page: Page, row: FigureRow) -> None:
        grid, style, top = self._grid, self._style, page.bottom
        photo = fit(row.photo, grid.side)
        self._draw_photo(page, row, photo)
        if self._columns is not None:
            self._draw_columns(page, row, photo, self._columns)
            return
        for column, map in enumerate(row.attention, start=1):
            page.picture(overlay(photo, map, grid.side, style.style), grid.left(column), top)
        for column, map in enumerate(row.heatmaps, start=self._proposed + 1 - len(row.heatmaps)):
            left = grid.left(column)
            page.picture(overlay(photo, map, grid.side, style.style), left, top)
            if style.outlined:
                legend.draw_outline(page, outline(map, grid.side), left, top, grid.side)
            uninformative = column == self._proposed and row.zero_gradient & ZERO_IMAGE_GRADIENT
            if uninformative or not np.any(map):
                legend.draw_label(page, ZERO_IMAGE_LABEL, (left, top), grid.side, self._sizes)

    def _draw_photo(self, page: Page, row: FigureRow, square: Image.Image) -> None:
        """The photograph. If the network saw a part of it, the whole, with a frame around this part."""
        left, top, side = self._grid.left(0), page.bottom, self._grid.side
        if row.whole is None or not row.shows_crop:
            page.picture(square, left, top)
            return
        whole = framed(row.whole, side)
        left, top = left + (side - whole.picture.width) // 2, top + (side - whole.picture.height) // 2
        page.picture(whole.picture, left, top)
        legend.draw_frame(page, whole.square, left, top, side)

    def _draw_columns(
        self, page: Page, row: FigureRow, photo: Image.Image, columns: Sequence[MapColumn]
    ) -> None:
        """The maps of named columns, all shaded by the same rule."""
        side, style, top = self._grid.side, self._style, page.bottom
        for number, (column, map) in enumerate(zip(columns, row.maps, strict=True), start=1):
            left = self._grid.left(number)
            page.picture(overlay(photo, map, side, style.style), left, top)
            if style.outlined and column.outlined:
                legend.draw_outline(page, outline(map, side), left, top, side)
            if column.proposed and row.zero_gradient & ZERO_IMAGE_GRADIENT:
                legend.draw_label(page, ZERO_IMAGE_LABEL, (left, top), side, self._sizes)
            elif not (map > 0).any():
                legend.draw_label(page, NO_HEAT_LABEL, (left, top), side, self._sizes)

    def _draw_foot(self, page: Page, **marks: bool) -> None:
        """The color scales of tokens and maps, the meaning of the marks, and the margin below."""
        grid = self._grid
        if self._style.legend:
            page.bottom += grid.row_gap
            scales = legend.scales(self._style.style, self._style.outlined and self._heat, **marks)
            legend.draw_scales(page, scales, grid.left(0), grid.inner_width, self._sizes.small)
        page.bottom += grid.margin


def draw_figure(
    rows: Sequence[FigureRow],
    width: int = 1200,
    title: str | None = None,
    style: FigureStyle = IN_COLOR,
    columns: Sequence[MapColumn] | None = None,
    levels: bool = False,
) -> Image.Image:
    """The paper's figure of some questions, a row each, as one picture in memory.

    Rows with fewer glimpses than others leave columns empty.

    Args:
        rows: at least one.
        width: of the figure in pixels; its height follows from the rows.
        title: a line above the column names.
        style: how it shows its rows.
        columns: columns of the rows' ``maps``; the attention maps and the heat map if None.
        levels: whether the glimpses are those of words, phrases and question.

    Returns:
        An RGB picture on white.

    Raises:
        HvxError: no rows, or a width in which the pictures would be too small to see.
    """
    if not rows:
        raise HvxError("a figure needs at least one row")
    glimpses, printed = max(len(row.attention) for row in rows), any(row.shows_printed for row in rows)
    blocks = max(len(row.heatmaps) for row in rows)
    layout = FigureLayout(width, glimpses, style, title, printed, blocks, columns=columns, levels=levels)
    with settings():
        return layout.draw(rows).render()


def column_names(glimpses: int, blocks: int = 1, levels: bool = False) -> list[str]:
    """The column names, as in the paper, for any number of glimpses and blocks, or three levels."""
    if levels:
        names = [f"{level} Attention" for level in LEVELS]
    elif glimpses == 1:
        names = ["Attention"]
    else:
        names = [f"{ordinal} Attention" for ordinal in _ORDINALS[:glimpses]]
        names += [f"Attention {glimpse}" for glimpse in range(len(_ORDINALS) + 1, glimpses + 1)]
    proposed = [f"Block {block}" for block in range(1, blocks + 1)] if blocks > 1 else ["Proposed"] * blocks
    return [ORIGINAL, *names, *proposed]


def _make_grid(width: int, columns: int) -> _Grid:
    grid = _Grid(width, columns)
    if grid.side < SMALLEST_SQUARE:
        needed = next(w for w in count(max(1, width)) if _Grid(w, columns).side >= SMALLEST_SQUARE)
        raise HvxError(f"a figure of {columns} columns needs a width of {needed} pixels or more, not {width}")
    return grid
