"""Figures of one run or several: which questions, whose maps, and the file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from hvx.choose import Choice, choose
from hvx.measure.method_maps import run_maps
from hvx.store.reader import RunReader
from hvx.view.export import SCREEN, PageSetup
from hvx.view.figure import IN_COLOR, FigureStyle
from hvx.view.joined_runs import join_runs, write_joined_figure
from hvx.view.run_figures import drawn_ids, write_figure


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
        joined = join_runs(readers)
        joined.check_ids(choice.ids)
        choice = replace(choice, among=frozenset(joined.common))
    numbers = choose(first, choice)
    question_ids = drawn_ids(first, numbers)
    of_runs = joined.numbers(question_ids) if joined else [numbers]
    with ExitStack() as stack:
        maps = methods is not None and [
            stack.enter_context(run_maps(reader, own, methods, device, choice.seed))
            for reader, own in zip(readers, of_runs, strict=True)
        ]
        if joined:
            glyphs = write_joined_figure(joined, question_ids, output, width, style, setup, maps or None)
        else:
            glyphs = write_figure(first, numbers, output, width, style, setup, maps[0] if maps else None)
    return DrawnFigure(question_ids, glyphs)
