"""Figures of several runs on the same questions: each question once for each run, row under row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hvx.errors import HvxError
from hvx.store.reader import RunReader
from hvx.view.export import PageSetup
from hvx.view.figure import FigureStyle
from hvx.view.run_figures import RunMaps, drawn_items, run_names, source_of, write_items

_COMPARED = {"question": "question", "image_digest": "image"}
"""Columns in which the same question_id must agree, and what they hold."""


@dataclass(frozen=True)
class JoinedRuns:
    """Runs that have questions in common, joined by question_id.

    Attributes:
        readers: two runs or more.
        names: a short one of each run, no two the same.
        common: the question_ids that all runs have, as text, each with its item's number in each run.
    """

    readers: tuple[RunReader, ...]
    names: tuple[str, ...]
    common: dict[str, tuple[int, ...]]

    def check_ids(self, ids: Sequence[int | str]) -> None:
        """Refuse a question that a run does not have.

        Raises:
            HvxError: names the run and the question_id.
        """
        for question_id in ids:
            if str(question_id) in self.common:
                continue
            for reader in self.readers:
                if str(question_id) not in map(str, reader.column("question_id")):
                    raise HvxError(f"{reader.path}: holds no explanation of question_id {question_id}")

    def numbers(self, question_ids: Sequence[int | str]) -> list[list[int]]:
        """For each run, the numbers of these questions' items.

        Raises:
            HvxError: a question's text or image differs between the runs.
        """
        found = [self.common[str(question_id)] for question_id in question_ids]
        for name, what in _COMPARED.items():
            columns = [reader.column(name) for reader in self.readers]
            for question_id, numbers in zip(question_ids, found, strict=True):
                values = [column[number] for column, number in zip(columns, numbers, strict=True)]
                for reader, value in zip(self.readers[1:], values[1:], strict=True):
                    if value != values[0]:
                        raise HvxError(
                            f"{reader.path}: question_id {question_id} has another {what} than in "
                            f"{self.readers[0].path}; such runs cannot be compared"
                        )
        return [list(own) for own in zip(*found, strict=True)]


def join_runs(readers: Sequence[RunReader]) -> JoinedRuns:
    """Join runs by question_id.

    Raises:
        HvxError: a run is given twice, or no question is in all of them.
    """
    paths: list[Path] = [reader.path.resolve() for reader in readers]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise HvxError(f"{readers[place].path}: is given twice")
    tables = [
        {str(question_id): number for number, question_id in enumerate(reader.column("question_id"))}
        for reader in readers
    ]
    common = {
        question_id: tuple(table[question_id] for table in tables)
        for question_id in tables[0]
        if all(question_id in table for table in tables[1:])
    }
    if not common:
        shown = ", ".join(str(reader.path) for reader in readers)
        raise HvxError(f"{shown}: have no question_id in common; give runs on the same questions")
    return JoinedRuns(tuple(readers), tuple(run_names(paths)), common)


def write_joined_figure(
    joined: JoinedRuns,
    question_ids: Sequence[int | str],
    output: Path,
    width: int,
    style: FigureStyle,
    setup: PageSetup,
    maps: Sequence[RunMaps] | None = None,
) -> str:
    """Draw questions of several runs, a row for each run under the run's name; see ``write_figure``.

    Args:
        joined: the runs.
        question_ids: that all of them have.
        output: the file, PNG, PDF or SVG by its name.
        width: in pixels.
        style: how it shows its rows.
        setup: what pixels are on paper.
        maps: of each run, for columns in place of attention and heat map.

    Returns:
        The characters that no font here has, which are drawn as boxes.

    Raises:
        HvxError: a question's text or image differs between the runs; else as ``write_figure``.
    """
    numbers = joined.numbers(question_ids)
    of_runs = [
        drawn_items(reader, own, name, maps[place] if maps else None)
        for place, (reader, own, name) in enumerate(zip(joined.readers, numbers, joined.names, strict=True))
    ]
    drawn = [one for question in zip(*of_runs, strict=True) for one in question]
    return write_items(drawn, output, width, style, setup, source_of(joined.readers, question_ids))
