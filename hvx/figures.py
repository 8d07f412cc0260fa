"""Figures of one run or several: which questions, whose maps, and the file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hvx.choose import Choice, choose
from hvx.compare.join import Joined, join
from hvx.errors import HvxError
from hvx.measure.method_maps import run_maps
from hvx.store.reader import RunReader
from hvx.view.export import SCREEN, PageSetup
from hvx.view.figure import IN_COLOR, FigureStyle
from hvx.view.run_figures import drawn_ids, drawn_items, source_of, write_figure, write_items


@dataclass(frozen=True)
class DrawnFigure:
    """The question_ids that a figure shows, and the characters that are drawn as boxes in it."""

    question_ids: list[int | str]
    missing_glyphs: str


def draw_runs(
    readers: Sequence[RunReader],
    choice: Choice,
    output: Path,
    width: int,
    style: FigureStyle = IN_COLOR,
    setup: PageSetup = SCREEN,
    methods: Sequence[str] | None = None,
    device: str = "auto",
) -> DrawnFigure:
    """Draw questions of one run, or each question of several runs, a row for each run under its name.

    Args:
        readers: the runs. What ``choice`` says of types, right answers and agreement holds in the first one.
        choice: which of the questions that all runs have.
        output: the file, PNG, PDF or SVG by its name.
        width: of the figure in pixels.
        style: how it shows its rows.
        setup: what pixels are on paper.
        methods: names of methods as columns, in place of the attention and the heat map.
        device: where the network runs, if maps must be computed.

    Raises:
        HvxError: nothing fits, runs that cannot be compared, a method that the network has no map for, maps
            that cannot be computed here, or the figure cannot be written.
        BadImage: a photograph is absent, or cannot be read.
    """
    first, joined = readers[0], None
    if len(readers) > 1:
        joined = join(readers)
        _check_ids(joined, choice.ids)
        choice = replace(choice, among=frozenset(map(str, joined.question_ids)))
    numbers = choose(first, choice)
    question_ids = drawn_ids(first, numbers)
    of_runs = _numbers(joined, numbers) if joined else [numbers]
    with ExitStack() as stack:
        maps = methods is not None and [
            stack.enter_context(run_maps(reader, own, methods, device, choice.seed))
            for reader, own in zip(readers, of_runs, strict=True)
        ]
        if joined:
            drawn = [
                drawn_items(reader, own, name, maps[run] if maps else None)
                for run, (reader, own, name) in enumerate(zip(readers, of_runs, joined.names, strict=True))
            ]
            rows = [row for question in zip(*drawn, strict=True) for row in question]
            source = source_of(readers, question_ids)
            glyphs = write_items(rows, output, width, style, setup, source)
        else:
            glyphs = write_figure(first, numbers, output, width, style, setup, maps[0] if maps else None)
    return DrawnFigure(question_ids, glyphs)


def _check_ids(joined: Joined, ids: Sequence[int | str]) -> None:
    """Refuse a question that is not in every run.

    Raises:
        HvxError: names the run and the question_id.
    """
    common = set(map(str, joined.question_ids))
    for question_id in map(str, ids):
        for run in joined.runs if question_id not in common else ():
            if question_id not in map(str, run.column("question_id")):
                raise HvxError(f"{run.path}: holds no explanation of question_id {question_id}")


def _numbers(joined: Joined, numbers: Sequence[int]) -> list[list[int]]:
    """For each run, the items of the questions that the first run has at these numbers."""
    place = {number: i for i, number in enumerate(joined.numbers[0].tolist())}
    return [[int(own[place[number]]) for number in numbers] for own in joined.numbers]
