"""From a run's items to figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hvx.config import ImageConfig, PickConfig, checked
from hvx.data.images import crop_photo
from hvx.errors import HvxError
from hvx.progress import bar
from hvx.store.names import short_names
from hvx.store.reader import Item, RunReader
from hvx.view.crop import is_cropped, middle
from hvx.view.export import SCREEN, FigureSource, PageSetup, check_rows, export_figure
from hvx.view.figure import IN_COLOR, FigureLayout, FigureRow, FigureStyle, MapColumn
from hvx.view.run_photos import open_photo_of

_FIGURE_NUMBER = re.compile(r"figure[ _-]?(?=\d)", re.IGNORECASE)


@dataclass(frozen=True)
class PickedFigures:
    """The figures drawn of a run's picks: the question_ids in each file, a line for each row that is missing,
    and the characters that no font has."""

    files: dict[Path, list[int | str]]
    missing: list[str]
    missing_glyphs: str


class RunMaps(Protocol):
    """Maps of a run's items for columns of their own, in place of the attention and the heat map."""

    @property
    def columns(self) -> Sequence[MapColumn]:
        """The columns, from left to right."""
        ...

    def of(self, number: int, item: Item) -> tuple[NDArray[np.floating], ...]:
        """A map for each column of an item, which has this number in the run."""
        ...


@dataclass(frozen=True)
class DrawnItem:
    """What a row of a figure is made of: an item of a run, what made it part of the run, the run's label."""

    reader: RunReader
    number: int
    pick: PickConfig | None = None
    label: str = ""
    maps: RunMaps | None = None


def figure_row(reader: RunReader, number: int, size: int, pick: PickConfig | None = None) -> FigureRow:
    """One item as a row of a figure, its photograph cropped as the network saw it, ``size`` pixels wide.

    ``pick``: what made the item part of the run, and may say which z-scores a paper prints for it.
    """
    item = reader[number]
    photo = open_photo_of(reader, item.image_path, item.image_digest)
    return FigureRow(
        crop_photo(photo, _crop(reader, size)),
        item.attention,
        item.heatmap,
        item.tokens,
        item.token_z,
        item.answer,
        item.ground_truth,
        printed_beside(item.tokens, pick) if pick else None,
        tuple((answer, share) for answer, share in item.top_answers if answer),
        item.block_heatmaps,
        item.zero_gradient,
        item.unknown,
        middle(photo, size) if is_cropped(photo) else None,
        word_heatmaps=item.word_heatmaps,
        textual_attention=item.textual_attention,
    )


def heatmap_columns(reader: RunReader) -> int:
    """Columns of heat maps that a run's figure has."""
    return max(1, reader.blocks) if reader.has_heatmaps else 0


def _crop(reader: RunReader, size: int) -> ImageConfig:
    """How a run's photographs are cropped, to ``size`` pixels."""
    about = f"{reader.path / 'run.json'}: image"
    return checked(ImageConfig, {**reader.about["image"], "size": size}, about)


def printed_beside(tokens: list[str], pick: PickConfig) -> list[float | None]:
    """The printed z-score of each of a model's tokens; None for a token that the paper has not.

    A model's tokenizer may drop or join what the paper's keeps apart: the two lists are aligned.
    """
    ours, theirs = [token.casefold() for token in tokens], [token.casefold() for token in pick.printed_tokens]
    beside: list[float | None] = [None] * len(tokens)
    for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        beside[block.a : block.a + block.size] = pick.printed_z[block.b : block.b + block.size]
    return beside


def _one_id(given: Any) -> int | str:
    """A question_id of run.json; anything else is an error of the file."""
    if type(given) not in (int, str):
        raise TypeError
    return given


def run_picks(reader: RunReader) -> list[tuple[PickConfig, int | str]]:
    """The picks that a run was made from, each with the question_id that it took; none: it had no picks.

    Raises:
        HvxError: run.json does not say it as ``hvx explain`` writes it.
    """
    source = str(reader.path / "run.json")
    choices = reader.about.get("picked") or []
    try:
        given = reader.about["config"]["explain"]["pick"] if choices else []
        pairs = [(pick, _one_id(choice["question_id"])) for pick, choice in zip(given, choices, strict=True)]
    except (KeyError, TypeError, ValueError):
        raise HvxError(
            f"{source}: 'picked' does not fit config.explain.pick; run `hvx explain` anew"
        ) from None
    picks = []
    for place, (pick, question_id) in enumerate(pairs):
        key = f"{source}: config.explain.pick.{place}"
        picks.append((checked(PickConfig, pick, key), question_id))
    return picks


def write_figure(
    reader: RunReader,
    numbers: list[int],
    output: Path,
    width: int,
    style: FigureStyle = IN_COLOR,
    setup: PageSetup = SCREEN,
    maps: RunMaps | None = None,
) -> str:
    """Draw items of a run as in the paper's Figures 2-5 and write the figure, PNG, PDF or SVG by its name.

    A PDF is written page by page, however many rows there are. Where the run's picks say which z-scores are
    printed for an item, they stand beside its own. ``maps``: columns in place of attention and heat map.

    Returns:
        The characters that no font here has, which are drawn as boxes.

    Raises:
        HvxError: the file cannot be written or does not hold so many rows, or a photograph is no longer where
            the run found it.
    """
    drawn = drawn_items(reader, numbers, maps=maps)
    return write_items(drawn, output, width, style, setup, source_of([reader], drawn_ids(reader, numbers)))


def drawn_items(
    reader: RunReader, numbers: Sequence[int], label: str = "", maps: RunMaps | None = None
) -> list[DrawnItem]:
    """Items of a run as rows of a figure, each with the pick that made it part of the run."""
    picks = {str(question_id): pick for pick, question_id in reversed(run_picks(reader))}
    ids = drawn_ids(reader, numbers)
    return [
        DrawnItem(reader, number, picks.get(str(question_id)), label, maps)
        for number, question_id in zip(numbers, ids, strict=True)
    ]


def drawn_ids(reader: RunReader, numbers: Sequence[int]) -> list[int | str]:
    """The question_ids of items of a run."""
    found: list[int | str] = reader.column("question_id")[list(numbers)].tolist()
    return found


def _named(reader: RunReader, name: str) -> tuple[str, str | None]:
    """A run's name, and the SHA-256 of the checkpoint that made it."""
    digest = reader.about["identity"].get("checkpoint_sha256")
    return name, digest if isinstance(digest, str) else None


def source_of(readers: Sequence[RunReader], question_ids: Sequence[int | str]) -> FigureSource:
    """What a figure's file says of the runs that it is drawn of."""
    names = short_names([reader.path for reader in readers])
    return FigureSource([_named(*pair) for pair in zip(readers, names, strict=True)], question_ids)


def write_picked_figures(
    reader: RunReader,
    folder: Path,
    width: int,
    style: FigureStyle = IN_COLOR,
    setup: PageSetup = SCREEN,
) -> PickedFigures:
    """Draw each figure that the run's picks name into ``folder`` as PNG, its rows in the picks' order.

    A pick that the run could not explain is left out, and so is a figure without rows.

    Raises:
        HvxError: the run was made without picks; else see ``write_figure``.
    """
    picks = run_picks(reader)
    numbers = {
        question_id: number for number, question_id in enumerate(reader.column("question_id").tolist())
    }
    if not picks:
        raise HvxError(
            f"{folder}: a folder is for the figures that explain.pick names, and {reader.path} was explained "
            "without picks; give FILE.png"
        )
    files: dict[Path, list[int | str]] = {}
    glyphs: set[str] = set()
    for figure in dict.fromkeys(pick.figure for pick, _ in picks):
        own = [(pick, q) for pick, q in picks if pick.figure == figure and q in numbers]
        if own:
            path, title = folder / f"{figure}.png", _FIGURE_NUMBER.sub("Figure ", figure)
            rows = [DrawnItem(reader, numbers[q], pick) for pick, q in own]
            files[path] = [q for _, q in own]
            source = source_of([reader], files[path])
            glyphs.update(write_items(rows, path, width, style, setup, source, title))
    missing = [
        f"{pick.figure}: no row for {pick.question!r:.200}: question_id {question_id} could not be "
        f"explained; see {reader.path / 'failures.jsonl'}"
        for pick, question_id in picks
        if question_id not in numbers
    ]
    return PickedFigures(files, missing, "".join(sorted(glyphs)))


def write_items(
    drawn: Sequence[DrawnItem],
    output: Path,
    width: int,
    style: FigureStyle,
    setup: PageSetup,
    source: FigureSource,
    title: str | None = None,
) -> str:
    """Draw items of one run or of several; see ``write_figure``.

    Where runs have different numbers of blocks, the heat map of the last block is drawn alone.
    """
    check_rows(output, len(drawn))
    readers = list({id(one.reader): one.reader for one in drawn}.values())
    printed = any(z is not None for one in drawn if one.pick for z in one.pick.printed_z)
    blocks = {heatmap_columns(reader) for reader in readers}
    levels = all(reader.attends_on_levels for reader in readers)
    glimpses = max(reader.glimpses for reader in readers)
    columns = drawn[0].maps.columns if drawn[0].maps else None
    shown = blocks.pop() if len(blocks) == 1 else 1
    layout = FigureLayout(width, glimpses, style, title, printed, shown, setup.dpi, columns, levels)
    rows = (_row(one, layout, shown) for one in bar(drawn, "drawing", "row"))
    return export_figure(output, layout, rows, setup.page_rows, source)


def _row(one: DrawnItem, layout: FigureLayout, blocks: int) -> FigureRow:
    # A column's width, but no less than the network's input.
    size = max(layout.side, one.reader.heatmap_size[0])
    row = figure_row(one.reader, one.number, size, one.pick)
    if blocks == 1:
        row = replace(row, block_heatmaps=None)
    maps = one.maps.of(one.number, one.reader[one.number]) if one.maps else ()
    return replace(row, label=one.label, maps=maps)
