"""Draws figures of a run's items."""

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
from hvx.store.names import DESCRIPTION, short_names
from hvx.store.reader import Item, RunReader
from hvx.view.crop import is_cropped, middle
from hvx.view.export import SCREEN, FigureSource, PageSetup, check_rows, export_figure
from hvx.view.figure import FigureLayout, FigureRow
from hvx.view.run_photos import open_photo_of
from hvx.view.style import IN_COLOR, FigureStyle, MapColumn

_FIGURE_NUMBER = re.compile(r"figure[ _-]?(?=\d)", re.IGNORECASE)


@dataclass(frozen=True)
class PickedFigures:
    """The figures of a run's picks: the question_ids in each file, a line for each missing row, and the
    characters that no font has."""

    files: dict[Path, list[int | str]]
    missing: list[str]
    missing_glyphs: str


class RunMaps(Protocol):
    """Maps of a run's items, shown in columns that replace the attention and the heat map."""

    @property
    def columns(self) -> Sequence[MapColumn]:
        """The columns, from left to right."""
        ...

    def of(self, number: int, item: Item) -> tuple[NDArray[np.floating], ...]:
        """The maps of item ``number``, one for each column."""
        ...


@dataclass(frozen=True)
class DrawnItem:
    """The content of a figure's row: an item of a run, the pick that selected it, the run's label."""

    reader: RunReader
    number: int
    pick: PickConfig | None = None
    label: str = ""
    maps: RunMaps | None = None


def figure_row(reader: RunReader, number: int, size: int, pick: PickConfig | None = None) -> FigureRow:
    """One item as a row of a figure. Its photograph is cropped as for the network, ``size`` pixels wide.

    ``pick``: the pick that selected the item; it may give the z-scores that a paper prints.
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
    """The number of heat map columns in a run's figure."""
    return max(1, reader.blocks) if reader.has_heatmaps else 0


def _crop(reader: RunReader, size: int) -> ImageConfig:
    """The image config of a run, with ``size`` pixels."""
    source = f"{reader.path / 'run.json'}: image"
    return checked(ImageConfig, {**reader.about["image"], "size": size}, source)


def printed_beside(tokens: list[str], pick: PickConfig) -> list[float | None]:
    """The printed z-score of each of a model's tokens; None for a token that the paper lacks.

    The two tokenizers may split a question differently, so the two lists are aligned.
    """
    model_tokens = [token.casefold() for token in tokens]
    paper_tokens = [token.casefold() for token in pick.printed_tokens]
    aligned: list[float | None] = [None] * len(tokens)
    for block in SequenceMatcher(None, model_tokens, paper_tokens, autojunk=False).get_matching_blocks():
        aligned[block.a : block.a + block.size] = pick.printed_z[block.b : block.b + block.size]
    return aligned


def _as_id(value: Any) -> int | str:
    """A question_id from run.json, with its type checked."""
    if type(value) not in (int, str):
        raise TypeError
    return value


def run_picks(reader: RunReader) -> list[tuple[PickConfig, int | str]]:
    """The picks that selected a run's questions, each with its question_id; empty if there were no picks.

    Raises:
        HvxError: run.json is not as ``hvx explain`` writes it.
    """
    source = str(reader.path / DESCRIPTION)
    picked = reader.about.get("picked") or []
    try:
        configured = reader.about["config"]["explain"]["pick"] if picked else []
        pairs = [
            (pick, _as_id(choice["question_id"])) for pick, choice in zip(configured, picked, strict=True)
        ]
    except (KeyError, TypeError, ValueError):
        raise HvxError(
            f"{source}: 'picked' does not fit config.explain.pick; run `hvx explain` again"
        ) from None
    picks = []
    for index, (pick, question_id) in enumerate(pairs):
        key = f"{source}: config.explain.pick.{index}"
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

    A PDF is written page by page, for any number of rows. Printed z-scores of the picks are shown with the
    model's own. ``maps``: columns that replace the attention and the heat map.

    Returns:
        The characters that no font here has, which are drawn as boxes.

    Raises:
        HvxError: the file cannot be written, there are too many rows for its format, or a photograph is
            missing.
    """
    items = drawn_items(reader, numbers, maps=maps)
    return write_items(items, output, width, style, setup, source_of([reader], drawn_ids(reader, numbers)))


def drawn_items(
    reader: RunReader, numbers: Sequence[int], label: str = "", maps: RunMaps | None = None
) -> list[DrawnItem]:
    """Items of a run as rows of a figure, each with the pick that selected it."""
    picks = {str(question_id): pick for pick, question_id in reversed(run_picks(reader))}
    ids = drawn_ids(reader, numbers)
    return [
        DrawnItem(reader, number, picks.get(str(question_id)), label, maps)
        for number, question_id in zip(numbers, ids, strict=True)
    ]


def drawn_ids(reader: RunReader, numbers: Sequence[int]) -> list[int | str]:
    """The question_ids of items of a run."""
    question_ids: list[int | str] = reader.column("question_id")[list(numbers)].tolist()
    return question_ids


def _run_identity(reader: RunReader, name: str) -> tuple[str, str | None]:
    """A run's name, and the SHA-256 of the checkpoint that made it."""
    digest = reader.about["identity"].get("checkpoint_sha256")
    return name, digest if isinstance(digest, str) else None


def source_of(readers: Sequence[RunReader], question_ids: Sequence[int | str]) -> FigureSource:
    """The provenance that a figure's file stores: its runs and question_ids."""
    names = short_names([reader.path for reader in readers])
    return FigureSource([_run_identity(*pair) for pair in zip(readers, names, strict=True)], question_ids)


def write_picked_figures(
    reader: RunReader,
    folder: Path,
    width: int,
    style: FigureStyle = IN_COLOR,
    setup: PageSetup = SCREEN,
) -> PickedFigures:
    """Draw each figure that the run's picks name into ``folder`` as PNG, with rows in the order of the picks.

    Picks that the run could not explain are skipped, and so are figures without rows.

    Raises:
        HvxError: the run has no picks; otherwise see ``write_figure``.
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
        figure_picks = [(pick, q) for pick, q in picks if pick.figure == figure and q in numbers]
        if figure_picks:
            path, title = folder / f"{figure}.png", _FIGURE_NUMBER.sub("Figure ", figure)
            rows = [DrawnItem(reader, numbers[q], pick) for pick, q in figure_picks]
            files[path] = [q for _, q in figure_picks]
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
    items: Sequence[DrawnItem],
    output: Path,
    width: int,
    style: FigureStyle,
    setup: PageSetup,
    source: FigureSource,
    title: str | None = None,
) -> str:
    """Draw items of one run or of several; see ``write_figure``.

    If runs differ in their number of blocks, only the heat map of the last block is drawn.
    """
    check_rows(output, len(items))
    readers = list({id(item.reader): item.reader for item in items}.values())
    printed = any(z is not None for item in items if item.pick for z in item.pick.printed_z)
    blocks = {heatmap_columns(reader) for reader in readers}
    levels = all(reader.attends_on_levels for reader in readers)
    glimpses = max(reader.glimpses for reader in readers)
    columns = items[0].maps.columns if items[0].maps else None
    heatmaps = blocks.pop() if len(blocks) == 1 else 1
    layout = FigureLayout(width, glimpses, style, title, printed, heatmaps, setup.dpi, columns, levels)
    rows = (_row(item, layout, heatmaps) for item in bar(items, "drawing", "row"))
    return export_figure(output, layout, rows, setup.page_rows, source)


def _row(item: DrawnItem, layout: FigureLayout, blocks: int) -> FigureRow:
    # A column's width, but no less than the network's input.
    size = max(layout.side, item.reader.heatmap_size[0])
    row = figure_row(item.reader, item.number, size, item.pick)
    if blocks == 1:
        row = replace(row, block_heatmaps=None)
    maps = item.maps.of(item.number, item.reader[item.number]) if item.maps else ()
    return replace(row, label=item.label, maps=maps)
