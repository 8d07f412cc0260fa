"""Prints the memory and the time that figures of many rows take.

python scripts/measure_figure.py PHOTOGRAPHS
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import click
from made_up import write_made_up_run

from hvx.view.export import MOST_ROWS

ROWS = (10, 100, 1000)


@click.command()
@click.argument("photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--side", default=448, show_default=True, help="Heat maps' side in pixels.")
@click.option(
    "--kind", "kinds", multiple=True, default=["png", "svg", "pdf"], show_default=True,
    help="Of file; repeatable.",
)  # fmt: skip
@click.option(
    "--rows", "counts", multiple=True, type=int, default=ROWS, show_default=True, help="Repeatable."
)
def main(photographs: Path, side: int, kinds: tuple[str, ...], counts: tuple[int, ...]) -> None:
    """Make up a run over PHOTOGRAPHS and draw figures of its rows; a PNG or SVG only of what it holds."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        write_made_up_run(run, photographs, max(counts), side)
        for kind in kinds:
            for rows in counts:
                if kind == "pdf" or rows <= MOST_ROWS:
                    _draw(run, Path(folder) / f"figure.{kind}", rows)


def _draw(run: Path, output: Path, rows: int) -> None:
    command = [sys.executable, "-m", "hvx", "figure", run, "-o", output, "--rows", rows, "--quiet"]
    start = time.perf_counter()
    with Path(os.devnull).open("w") as nothing:
        silent = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 1)]
        process = os.posix_spawn(sys.executable, list(map(str, command)), os.environ, file_actions=silent)
        # Each child's own peak: that of RUSAGE_CHILDREN is the largest of them all.
        _, status, usage = os.wait4(process, 0)
    if status:
        raise click.ClickException(f"hvx figure ended with status {status}")
    seconds, size = time.perf_counter() - start, output.stat().st_size / 1e6
    peak = usage.ru_maxrss / 1e3
    click.echo(
        f"{output.suffix} {rows:5,} rows: peak {peak:5.0f} MB, {seconds:5.1f} s, file of {size:6.1f} MB"
    )


if __name__ == "__main__":
    main()
