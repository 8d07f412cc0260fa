"""``hvx compare``"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, cast

import click

from hvx.cli.common import PATH, RunPath, common, json_option, print_json, seed_option
from hvx.errors import HvxError
from hvx.extras import require
from hvx.terminal import echo, echo_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvx.compare.join import Changed, Joined
    from hvx.store.reader import RunReader

_WIDTHS = 60, 100
"""Smallest and largest width of the report in characters, for any terminal."""


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RunPath(), metavar="RUN RUN [RUN]...")
@click.option(
    "-o", "--output", type=PATH, metavar="FOLDER", help="For the report, JSON and a row per question."
)
@json_option
@click.option(
    "--list", "listed", metavar="WHICH",
    help="Print only question_ids, one a line: same, changed, only-a-correct, only-b-correct, …, all-correct "
    "or none-correct.",
)  # fmt: skip
@click.option(
    "--by", type=click.Choice(["run", "agreement", "disagreement"]), show_default="run",
    help="Order of --list: as in the first run, or by how much the heat maps of A and B agree.",
)  # fmt: skip
@click.option("--no-maps", is_flag=True, help="Compare answers and words alone; read no maps.")
@click.option(
    "--allow-changed", multiple=True, type=click.Choice(["questions", "images"]),
    help="Compare although texts of questions, or image files, differ between the runs; repeatable.",
)  # fmt: skip
@seed_option
@common
def compare(
    runs: tuple[Path, ...],
    output: Path | None,
    as_json: bool,
    listed: str | None,
    by: str | None,
    no_maps: bool,
    allow_changed: tuple[str, ...],
    seed: int,
) -> None:
    """Compare runs question by question: accuracy, changed answers, agreement of maps and words.

    Runs are joined by question_id; only questions that all of them explain count. The first run is A, the
    second B, …; each later one is compared with A. Agreement is a rank correlation, shown with its controls:
    the other run's map of another question on the same image, and of another image. Every mean has a 95 %
    bootstrap interval over images. Prints tables, as Markdown into a pipe or a file.

    -o FOLDER gets compare.md, compare.json and questions.csv. Needs the extra: pip install 'hvx[measure]'.

    \b
    Example:
      hvx compare runs/mlb/run runs/dan/run
      hvx compare runs/mlb/run runs/dan/run --list only-b-correct --by disagreement
    """
    require("measure", "hvx compare", "scipy")
    from hvx.store.reader import RunReader

    _check(listed, by, as_json or output is not None or no_maps)
    allow = cast("tuple[Changed, ...]", allow_changed)
    with ExitStack() as stack:
        readers = [stack.enter_context(RunReader(run)) for run in runs]
        if listed is not None:
            _list(readers, listed, by, allow)
        else:
            _report(readers, seed, not no_maps, allow, as_json, output)


def _check(listed: str | None, by: str | None, report: bool) -> None:
    if listed is None and by is not None:
        raise HvxError("--by: the order of --list, which is not given")
    if listed is not None and report:
        raise HvxError("--list: prints question_ids alone; leave out --json, -o and --no-maps")


def _list(readers: Sequence[RunReader], listed: str, by: str | None, allow: Sequence[Changed]) -> None:
    from hvx.compare.answers import check_choice, compare_answers, members
    from hvx.compare.join import join

    joined = join(readers, allow)
    check_choice(joined, listed)
    items = _ordered(joined, members(compare_answers(joined), listed).nonzero()[0].tolist(), by)
    for item in items:
        echo(str(joined.question_ids[item]))
    if not items:
        echo(f"no question in common is '{listed}'", err=True)


def _ordered(joined: Joined, items: list[int], by: str | None) -> list[int]:
    """Items sorted by agreement of the heat maps of A and B; those without a correlation are last."""
    if by in (None, "run") or not items:
        return items
    from hvx.compare.agreement import heatmap_agreement

    if reason := joined.apart(0, 1):
        raise HvxError(f"--by {by}: heat maps cannot be compared: {reason}")
    values = heatmap_agreement(joined)
    sign = 1 if by == "disagreement" else -1
    return sorted(items, key=lambda item: (bool(values[item] != values[item]), sign * values[item], item))


def _report(
    readers: Sequence[RunReader],
    seed: int,
    maps: bool,
    allow: Sequence[Changed],
    as_json: bool,
    output: Path | None,
) -> None:
    from hvx.compare import report
    from hvx.compare.compare import compare_runs

    comparison = compare_runs(readers, seed, maps, allow)
    if output:
        report.write_report(comparison, output)
    if as_json:
        print_json(report.as_json(comparison))
    else:
        narrowest, widest = _WIDTHS
        width = min(max(get_terminal_size().columns, narrowest), widest) if sys.stdout.isatty() else None
        echo_lines(report.as_document(comparison, width).rstrip("\n"))
    if output:
        echo(f"{output / 'compare.md'}: {len(comparison.joined):,} questions compared", err=as_json)
