"""``hvx reproduce``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, common, device_option, seed_option, set_option
from hvx.extras import require
from hvx.terminal import echo, echo_lines

SOME_MISSED = 3


@click.command()
@click.option(
    "-o", "--output", default="runs/reproduce", show_default=True, type=PATH, help="Folder for all of it."
)
@click.option(
    "--train", default=2500, show_default=True, type=click.IntRange(min=2), help="Scenes to train on."
)
@click.option("--val", default=500, show_default=True, type=click.IntRange(min=2), help="Scenes to explain.")
@seed_option
@set_option
@device_option
@common
def reproduce(output: Path, train: int, val: int, seed: int, overrides: tuple[str, ...], device: str) -> None:
    """Draw a split, train on it, explain it, draw the paper's Figures 2-5, check and measure its claims.

    Everything is made from the seed on this machine. Exit status 3 says that a check missed. A sample is
    compared with other methods, as by `hvx measure`. Needs extras: pip install 'hvx[figures,measure]'.

    \b
    Example:
      hvx reproduce -o runs/reproduce --seed 1
    """
    require("figures,measure", "hvx reproduce")
    from hvx.device import pick_device
    from hvx.measure.report.markdown import claims_table, overview
    from hvx.reproduce import reproduce as work
    from hvx.reproduce_checks import as_table

    result = work(
        output,
        train,
        val,
        seed,
        pick_device(device),
        list(overrides),
        lambda line: echo(line, err=True),
    )
    echo_lines("\n" + as_table(result.checks, None) + "\n")
    for path, caption in result.figures.items():
        echo(f"{path}: {caption}")
    echo_lines("\n" + overview(result.measures, None) + "\n\n" + claims_table(result.measures, None) + "\n")
    echo(f"{result.report}: {result.measures.about['explanations']:,} explanations measured")
    if not all(check.ok for check in result.checks):
        raise SystemExit(SOME_MISSED)
