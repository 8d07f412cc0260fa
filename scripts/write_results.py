"""Writes docs/results.md from the report of `hvx measure` on a run: its tables as they are, and its plots.

    hvx measure runs/reproduce/run
    python scripts/write_results.py runs/reproduce/run

What stands above the mark in docs/results.md is prose and stays; all below it is replaced. The run is
called by the last part of its path, so that no machine's folders get into the page.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click

from hvx.files import atomic_write, read_json

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
PLOTS = PAGE.parent / "results"
MARK = "<!-- Below: scripts/write_results.py. -->"


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
def write_results(run: Path) -> None:
    """Write docs/results.md from RUN/measure."""
    folder = run / "measure"
    about = read_json(folder / "measure.json", "what `hvx measure` writes")["about"]
    name = run.resolve().name
    report = (folder / "measure.md").read_text(encoding="utf-8")
    # In the title alone: a run that was given as "." would otherwise lose the points of all numbers.
    report = report.replace(f"of {about['run']} show", f"of {name} show", 1)
    body = re.sub(r"\]\((\w+)\.png\)", rf"]({PLOTS.name}/\1.png)", report)
    body = re.sub("^#", "##", body, flags=re.MULTILINE)  # the page has a title of its own
    prose = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PLOTS.mkdir(exist_ok=True)
    for plot in folder.glob("*.png"):
        shutil.copyfile(plot, PLOTS / plot.name)
    with atomic_write(PAGE) as part:
        part.write_text(f"{prose}{MARK}\n\n{body}", encoding="utf-8")
    click.echo(f"{PAGE}: {name}, {about['explanations']:,} explanations")


if __name__ == "__main__":
    write_results()
