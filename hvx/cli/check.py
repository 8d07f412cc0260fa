"""``hvx check``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hvx.cli.common import common, config_argument, device_option, model_option, set_option
from hvx.terminal import echo

if TYPE_CHECKING:
    from hvx.check import CheckResult

PROBLEMS, SOME_FAIL = 2, 3

SHARES = ("unknown tokens", "ground truths among its answers")
"""Facts from 0 to 1, printed in percent."""


@click.command()
@config_argument
@set_option
@model_option
@device_option
@click.option("--no-timing", is_flag=True, help="Do not load the network to estimate the time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on one line.")
@common
def check(
    config: Path, overrides: tuple[str, ...], model: str | None, device: str, no_timing: bool, as_json: bool
) -> None:
    """Read everything that `hvx explain CONFIG` would read, and write nothing.

    Prints what was found, what is missing, the expected time and size. Exit status 2 says that
    `hvx explain` would refuse the config, 3 that it would list some questions in failures.jsonl.

    \b
    Example:
      hvx check configs/vqa_v2_val.yaml
    """
    from hvx.config import load

    loaded = load(config, list(overrides), model is None)  # reports a wrong config before PyTorch is imported

    from hvx.adapters.source import source_for
    from hvx.check import check_run
    from hvx.device import pick_device

    result = check_run(loaded, pick_device(device), not no_timing, source_for(loaded, model))
    if as_json:
        echo(json.dumps(_messages(result) | result.facts))
    else:
        _print(result)
    if result.problems or result.failures:
        raise SystemExit(PROBLEMS if result.problems else SOME_FAIL)


def _messages(result: CheckResult) -> dict[str, list[str]]:
    return {"problems": result.problems, "failures": result.failures, "notes": result.notes}


def _print(result: CheckResult) -> None:
    for part, facts in result.facts.items():
        echo(f"{part}:")
        for name, value in facts.items():
            echo(f"  {name + ':':<31} {_as_text(name, value)}")
    for line in result.notes:
        echo(line, err=True)
    for line in result.problems:
        echo(f"Problem: {line}", err=True)
    for line in result.failures:
        echo(f"Would fail: {line}", err=True)
    if not result.problems:
        echo("hvx explain can begin" + (", without the questions on these images" if result.failures else ""))


def _as_text(name: str, value: Any) -> str:
    """A value in readable form."""
    from hvx.run.size import in_words

    if value is None:
        return "unknown"
    if name.endswith("bytes"):
        return in_words(value)
    if name == "seconds":
        return f"{value:,} ({value // 3600}:{value // 60 % 60:02}:{value % 60:02} h)"
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    if name in SHARES:
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else str(value)
