"""``hvx info``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, common


@click.command()
@click.argument("path", type=PATH)
@common
def info(path: Path) -> None:
    """Say what a run folder or a checkpoint is.

    \b
    Example:
      hvx info runs/daquar
    """
    from hvx.info import describe

    for name, value in describe(path).items():
        click.echo(f"{name + ':':<14}{value}")
