"""Draws figures of one run or several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hvx.compare.join import Joined, join
from hvx.errors import HvxError
from hvx.measure.methods.maps import run_maps
from hvx.select_items import ItemFilter, select_items
from hvx.store.reader import RunReader
from hvx.view.export import SCREEN, PageSetup
from hvx.view.run_figures import drawn_ids, drawn_items, source_of, write_figure, write_items
from hvx.view.style import IN_COLOR, FigureStyle


@dataclass(frozen=True)
class DrawnFigure:
    """The question_ids in a figure, and the characters that no font has."""

    question_ids: list[int | str]
    missing_glyphs: str


def draw_runs(
    readers: Sequence[RunReader],
    choice: ItemFilter,
    output: Path,
    width: int,
    style: FigureStyle = IN_COLOR,
    setup: PageSetup = SCREEN,
    methods: Sequence[str] | None = None,
    device: str = "auto",
) -> DrawnFigure:
    """Draw questions of one run; or of several runs, with a row per run for each question.

    Args:
        readers: the runs. Types, right answers and agreement in ``choice`` refer to the first run.
        choice: selects from the questions that all runs have.
        output: the file, PNG, PDF or SVG by its name.
        width: of the figure in pixels.
        style: how it shows its rows.
        setup: what pixels are on paper.
        methods: names of methods as columns that replace the attention and the heat map.
        device: where the network runs, if maps must be computed.

    Raises:
        HvxError: no item matches, the runs cannot be compared, the network has no map for a method, maps
            cannot be computed here, or the figure cannot be written.
        BadImage: a photograph is absent, or cannot be read.
    """
    first, joined = readers[0], None
    if len(readers) > 1:
        joined = join(readers)
        _check_ids(joined, choice.ids)
        choice = replace(choice, among=frozenset(map(str, joined.question_ids)))
    numbers = select_items(first, choice)
    question_ids = drawn_ids(first, numbers)
    numbers_by_run = _numbers(joined, numbers) if joined else [numbers]
    with ExitStack() as stack:
        maps = methods is not None and [
            stack.enter_context(run_maps(reader, run_numbers, methods, device, choice.seed))
            for reader, run_numbers in zip(readers, numbers_by_run, strict=True)
        ]
        if joined:
            items_by_run = [
                drawn_items(reader, run_numbers, name, maps[run] if maps else None)
                for run, (reader, run_numbers, name) in enumerate(
                    zip(readers, numbers_by_run, joined.names, strict=True)
                )
            ]
            rows = [row for question in zip(*items_by_run, strict=True) for row in question]
            source = source_of(readers, question_ids)
            glyphs = write_items(rows, output, width, style, setup, source)
        else:
            glyphs = write_figure(first, numbers, output, width, style, setup, maps[0] if maps else None)
    return DrawnFigure(question_ids, glyphs)


def _check_ids(joined: Joined, ids: Sequence[int | str]) -> None:
    """Check that every run has the questions.

    Raises:
        HvxError: a run lacks a question; names both.
    """
    common = set(map(str, joined.question_ids))
    for question_id in map(str, ids):
        for run in joined.runs if question_id not in common else ():
            if question_id not in map(str, run.column("question_id")):
                raise HvxError(f"{run.path}: holds no explanation of question_id {question_id}")


def _numbers(joined: Joined, numbers: Sequence[int]) -> list[list[int]]:
    """For each run, the item numbers of the questions with these numbers in the first run."""
    index = {number: i for i, number in enumerate(joined.numbers[0].tolist())}
    return [[int(run_numbers[index[number]]) for number in numbers] for run_numbers in joined.numbers]
