"""``hvx info``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvx.cli.common import RunPath, common, json_option, print_json
from hvx.terminal import echo

if TYPE_CHECKING:
    from hvx.run.verify import Verification

SOME_DAMAGED = 3


@click.command()
@click.argument("path", type=RunPath("run folder or checkpoint", or_file=True))
@click.option("--verify", is_flag=True, help="Check every byte of a run; set damaged files aside.")
@json_option
@common
def info(path: Path, verify: bool, as_json: bool) -> None:
    """Say what a run folder or a checkpoint is.

    With --verify exit status 3 says that files were damaged or absent; `hvx explain` makes them again.

    \b
    Example:
      hvx info runs/daquar/run
    """
    if verify:
        _verify(path, as_json)
        return
    if as_json:
        from hvx.info import facts

        print_json(facts(path))
        return
    from hvx.info import describe

    for name, value in describe(path).items():
        echo(f"{name + ':':<14}{value}")


def _verify(path: Path, as_json: bool) -> None:
    from hvx.run.verify import verify

    verification = verify(path, lambda line: echo(line, err=True))
    if as_json:
        damaged = [{"file": str(file), "reason": reason} for file, reason in verification.damaged.items()]
        shards = {"shards_whole": verification.whole, "shards_absent": verification.absent}
        print_json({"run": str(path), **shards, "damaged": damaged, "finished": verification.finished})
    else:
        _report(path, verification)
    if not verification.finished:
        raise SystemExit(SOME_DAMAGED)


def _report(path: Path, result: Verification) -> None:
    for damaged, reason in result.damaged.items():
        action = "left in place (read-only)" if result.read_only else f"set aside as {damaged.name}.damaged"
        echo(f"{damaged}: damaged ({reason}); {action}")
    absent = f", {result.absent:,} absent" if result.absent else ""
    echo(f"{path}: {result.whole:,} shards whole, {len(result.damaged):,} files damaged{absent}")
    if not result.finished:
        echo("The run is not finished; `hvx explain` with its config makes what is missing")
