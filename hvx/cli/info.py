"""``hvx info``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import RunPath, common
from hvx.terminal import echo

SOME_DAMAGED = 3


@click.command()
@click.argument("path", type=RunPath("run folder or checkpoint", or_file=True))
@click.option("--verify", is_flag=True, help="Check every byte of a run; set damaged files aside.")
@common
def info(path: Path, verify: bool) -> None:
    """Say what a run folder or a checkpoint is.

    With --verify exit status 3 says that files were damaged or absent; `hvx explain` makes them again.

    \b
    Example:
      hvx info runs/daquar/run
    """
    if verify:
        _verify(path)
        return

    from hvx.info import describe

    for name, value in describe(path).items():
        echo(f"{name + ':':<14}{value}")


def _verify(path: Path) -> None:
    from hvx.run.verify import verify

    found = verify(path, lambda line: echo(line, err=True))
    for damaged, reason in found.damaged.items():
        aside = "left in place (read-only)" if found.read_only else f"set aside as {damaged.name}.damaged"
        echo(f"{damaged}: damaged ({reason}); {aside}")
    absent = f", {found.absent:,} absent" if found.absent else ""
    echo(f"{path}: {found.whole:,} shards whole, {len(found.damaged):,} files damaged{absent}")
    if not found.finished:
        echo("The run is not finished; `hvx explain` with its config makes what is missing")
        raise SystemExit(SOME_DAMAGED)
