"""From a run's items to figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from PIL import Image

from hvx.config import ImageConfig, PickConfig, checked
from hvx.data.image_files import find_image
from hvx.data.images import crop_photo
from hvx.data.photos import open_photo
from hvx.errors import HvxError
from hvx.progress import bar
from hvx.store.reader import RunReader
from hvx.view.crop import is_cropped, middle
from hvx.view.export import SCREEN, PageSetup, check_rows, export_figure
from hvx.view.figure import IN_COLOR, FigureLayout, FigureRow, FigureStyle

_FIGURE_NUMBER = re.compile(r"figure[ _-]?(?=\d)", re.IGNORECASE)


@dataclass(frozen=True)
class PickedFigures:
    """The figures drawn of a run's picks: rows in each file, a line for each row that is missing, and the
    characters that no font has."""

    files: dict[Path, int]
    missing: list[str]
    missing_glyphs: str


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
    )


def open_photo_of(reader: RunReader, image_path: str, digest: str) -> Image.Image:
    """A whole photograph of a run, as it was explained.

    Raises:
        BadImage: it is no longer where the run found it, or cannot be read.
        ReplacedImage: the file holds another image now, whose SHA-256 is not ``digest``.
    """
    path = find_image(reader.image_folders, image_path)
    return open_photo(path, reader.about.get("exif_orientation") is True, digest)


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
) -> str:
    """Draw items of a run as in the paper's Figures 2-5 and write the figure, PNG, PDF or SVG by its name.

    A PDF is written page by page, however many rows there are. Where the run's picks say which z-scores are
    printed for an item, they stand beside its own.

    Returns:
        The characters that no font here has, which are drawn as boxes.

    Raises:
        HvxError: the file cannot be written or does not hold so many rows, or a photograph is no longer where
            the run found it.
    """
    picks = {str(question_id): pick for pick, question_id in reversed(run_picks(reader))}
    ids = reader.column("question_id")
    chosen = [(number, picks.get(str(ids[number]))) for number in numbers]
    return _write(reader, chosen, output, width, style, setup)


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
    files: dict[Path, int] = {}
    glyphs: set[str] = set()
    for figure in dict.fromkeys(pick.figure for pick, _ in picks):
        rows = [(numbers[q], pick) for pick, q in picks if pick.figure == figure and q in numbers]
        if rows:
            path, title = folder / f"{figure}.png", _FIGURE_NUMBER.sub("Figure ", figure)
            glyphs.update(_write(reader, rows, path, width, style, setup, title))
            files[path] = len(rows)
    missing = [
        f"{pick.figure}: no row for {pick.question!r:.200}: question_id {question_id} could not be "
        f"explained; see {reader.path / 'failures.jsonl'}"
        for pick, question_id in picks
        if question_id not in numbers
    ]
    return PickedFigures(files, missing, "".join(sorted(glyphs)))


def _write(
    reader: RunReader,
    chosen: Sequence[tuple[int, PickConfig | None]],
    output: Path,
    width: int,
    style: FigureStyle,
    setup: PageSetup,
    title: str | None = None,
) -> str:
    check_rows(output, len(chosen))
    printed = any(z is not None for _, pick in chosen if pick for z in pick.printed_z)
    blocks = max(1, reader.blocks)
    layout = FigureLayout(width, reader.glimpses, style, title, printed, blocks, setup.dpi)
    # A column's width, but no less than the network's input.
    size = max(layout.side, reader.heatmap_size[0])
    rows = (figure_row(reader, number, size, pick) for number, pick in bar(chosen, "drawing", "row"))
    return export_figure(output, layout, rows, setup.page_rows)
