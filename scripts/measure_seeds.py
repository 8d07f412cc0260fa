"""Prints what `hvx measure` found of several trainings side by side, and what holds in all of them.

python scripts/measure_seeds.py runs/seed0/run runs/seed1/run runs/seed2/run

Each run must have been measured (`RUN/measure/measure.json`). A claim whose sign depends on the training is
no property of the method: it counts only where it came out alike in all of at least three trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hvx.errors import HvxError
from hvx.files import read_json
from hvx.table import table

LEAST = 3
"""Trainings, for anything to be called decided."""
METRICS = ("pointing", "energy", "overlap", "attention", "deletion", "insertion")


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def main(runs: Sequence[Path]) -> None:
    """Two Markdown tables: the claims, and the numbers."""
    try:
        measured = [measures_of(run) for run in runs]
    except HvxError as error:
        raise click.ClickException(str(error)) from None
    names = [f"{run.parent.name or run.name} (seed {one['seed']})" for run, one in
             zip(runs, (tree["about"] for tree in measured), strict=True)]  # fmt: skip
    print(claims_table(names, measured))
    print()
    print(numbers_table(names, measured))


def measures_of(run: Path) -> dict[str, Any]:
    """What `hvx measure` wrote of a run.

    Raises:
        HvxError: it was not measured, or by a version without claims.
    """
    path = run / "measure" / "measure.json"
    found = read_json(path, "what `hvx measure` wrote")
    if not isinstance(found, dict) or not isinstance(found.get("claims"), list):
        raise HvxError(f"{path}: has no list 'claims'; run `hvx measure {run}` again")
    return found


def over_all(verdicts: Sequence[str]) -> str:
    """What verdicts of several trainings come to."""
    if len(set(verdicts)) > 1:
        return "depends on the training"
    if len(verdicts) < LEAST:
        return f"too few trainings ({len(verdicts)})"
    return f"{verdicts[0]} in all"


def claims_table(names: Sequence[str], measured: Sequence[dict[str, Any]]) -> str:
    """Each claim with its verdict, and the difference that it follows from, in each training."""
    found = [{claim["claim"]: claim for claim in one["claims"]} for one in measured]
    rows = []
    for claim in dict.fromkeys(claim for one in found for claim in one):
        own = [one.get(claim) for one in found]
        cells = [_verdict(one) if one else "" for one in own]
        rows.append((claim, *cells, over_all([one["verdict"] if one else "absent" for one in own])))
    return table(("claim", *names, "over all"), rows, markdown=True)


def _verdict(claim: dict[str, Any]) -> str:
    differences = ", ".join(f"{one['value']:+.3f}" for one in claim["differences"])
    return f"{claim['verdict']} ({differences})"


def numbers_table(names: Sequence[str], measured: Sequence[dict[str, Any]]) -> str:
    """Each mean in each training, with the mean and the range over them."""
    found = [_numbers(one) for one in measured]
    rows = []
    for name in dict.fromkeys(name for one in found for name in one):
        values = [one.get(name) for one in found]
        known = [value for value in values if value is not None]
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        spread = f"{sum(known) / len(known):.3f} ({min(known):.3f} to {max(known):.3f})"
        rows.append((name, *cells, spread if len(known) == len(found) else ""))
    return table(("number", *names, "mean (range)"), rows, markdown=True)


def _numbers(measured: dict[str, Any]) -> dict[str, float]:
    """Names of numbers → their values."""
    means = measured["means"]
    found: dict[str, Any] = {
        f"{metric}: {name}": own for metric in METRICS for name, own in means.get(metric, {}).items()
    }
    found |= {f"chance level of pointing: {kind}": own for kind, own in measured["chance"].items()}
    for title, controls in (("image use", "image_use"), ("agreement", "controls"), ("pointing", "others")):
        for name, own in measured[controls].items():
            found |= {f"{title}: {name}, own": own["own"], f"{title}: {name}, other": own["other"]}
    found["sum of the glimpses less the better one"] = measured["additive"]
    known = {name: own["value"] for name, own in found.items() if own is not None}
    return {name: value for name, value in known.items() if value is not None}


if __name__ == "__main__":
    main()
