"""scripts/measure_seeds.py: several trainings side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import REPOSITORY


def measured(folder: Path, seed: int, additive: float, pointing: float) -> Path:
    """A run with a measure.json of its own."""

    def estimate(value: float) -> dict[str, Any]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 9}

    tree = {
        "about": {"seed": seed},
        "claims": [
            {"claim": "sum", "verdict": "held" if additive > 0 else "did not hold", "evidence": "",
             "differences": [estimate(additive)]},
            {"claim": "finds", "verdict": "held", "evidence": "", "differences": [estimate(pointing)]},
        ],
        "means": {"pointing": {"proposed": estimate(pointing)}},
        "chance": {"all": estimate(0.07)},
        "image_use": {"mean": {"own": estimate(0.9), "other": estimate(0.4), "less": estimate(0.5)}},
        "controls": {}, "others": {}, "additive": estimate(additive),
    }  # fmt: skip
    (folder / "run" / "measure").mkdir(parents=True)
    (folder / "run" / "measure" / "measure.json").write_text(json.dumps(tree))
    return folder / "run"


def printed(*runs: Path) -> tuple[int, dict[str, list[str]], str]:
    """Exit status, rows by their first cell, and what was said of an error."""
    command = [sys.executable, REPOSITORY / "scripts" / "measure_seeds.py", *runs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line]
    return done.returncode, {row[0]: row[1:] for row in rows}, done.stderr


def test_a_claim_counts_where_all_trainings_agree(tmp_path: Path) -> None:
    numbers = ((0, -0.02, 0.95), (1, 0.0035, 0.93), (2, -0.01, 0.97))
    runs = [measured(tmp_path / f"seed{seed}", seed, a, p) for seed, a, p in numbers]
    status, rows, _ = printed(*runs)
    assert status == 0
    assert rows["claim"] == ["seed0 (seed 0)", "seed1 (seed 1)", "seed2 (seed 2)", "over all"]
    assert rows["sum"] == [
        "did not hold (-0.020)", "held (+0.004)", "did not hold (-0.010)", "depends on the training"
    ]  # fmt: skip
    assert rows["finds"][-1] == "held in all"
    assert rows["pointing: proposed"] == ["0.950", "0.930", "0.970", "0.950 (0.930 to 0.970)"]
    assert rows["image use: mean, other"][-1] == "0.400 (0.400 to 0.400)"
    assert printed(*runs[:1])[1]["finds"][-1] == "too few trainings (1)"


def test_a_run_that_was_not_measured_is_named(tmp_path: Path) -> None:
    run = measured(tmp_path / "a", 0, 1, 1)
    other = tmp_path / "b" / "run"
    other.mkdir(parents=True)
    status, _, err = printed(run, other)
    assert status == 1 and str(other / "measure" / "measure.json") in err and err.count("\n") == 1
    (run / "measure" / "measure.json").write_text('{"about": {}}')
    status, _, err = printed(run)
    assert status == 1 and "has no list 'claims'; run `hvx measure" in err
