"""``hvx reproduce`` in small: the whole road, with a model too small to pass its own checks."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import hvx
from PIL import Image

SMALL = {
    "model.image.size": 64,
    "model.encoder.embedding": 8,
    "model.encoder.hidden": 8,
    "model.joint": 8,
    "train.epochs": 1,
    "train.backbone_epochs": 1,
}


def test_a_model_that_learnt_nothing_misses_its_checks_and_the_exit_status_says_so(tmp_path: Path) -> None:
    options = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    command = ["reproduce", "-o", tmp_path / "out", "--train", 12, "--val", 6, *options]
    done = hvx(*command)
    assert done.returncode == 3, done.stderr
    assert "| answers right: attribute, shape, existence |" in done.stdout
    assert "| NO |" in done.stdout
    for number in (2, 3, 4, 5):
        with Image.open(tmp_path / "out" / "figures" / f"figure{number}.png") as figure:
            assert figure.width == 1200
    assert "| Proposed (Eq. 2) |" in done.stdout and "| Nouns are significantly attended" in done.stdout
    assert (tmp_path / "out" / "run" / "measure" / "measure.md").is_file()
    report = json.loads((tmp_path / "out" / "reproduce.json").read_text())
    assert report["finished"]
    assert {"scenes", "training", "explanation", "figures", "checks", "measures"} <= set(report["seconds"])
    assert not all(check["ok"] for check in report["checks"])
    rows = next(check for check in report["checks"] if check["name"].startswith("rows with"))
    assert rows["measured"] == 1.0

    # The same seed gives the same run, in a folder that the first one filled.
    results = (tmp_path / "out" / "run" / "results.json").read_bytes()
    model = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert hvx(*command).returncode == 3
    assert (tmp_path / "out" / "run" / "results.json").read_bytes() == results
    assert len((tmp_path / "out" / "model.safetensors").read_bytes()) == len(model)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    done = hvx("reproduce", "-o", tmp_path)
    assert done.returncode == 2
    assert "not of an earlier reproduction" in done.stderr
    assert (tmp_path / "mine").read_text() == "x"
