"""``hvx reproduce`` in small: the whole road, with a model too small to pass its own checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import hvx
from made_measures import made_measures
from PIL import Image

from hvx import reproduce
from hvx.cli.main import main
from hvx.errors import HvxError
from hvx.measure.evaluate import Options
from hvx.measure.report.markdown import claims_table, overview
from hvx.reproduce_checks import Check, as_table
from hvx.store.reader import RunReader
from hvx.view.style import AS_IN_THE_PAPER, FigureStyle

SMALL = {
    "model.image.size": 64,
    "model.encoder.embedding": 8,
    "model.encoder.hidden": 8,
    "model.joint": 8,
    "train.epochs": 1,
    "train.backbone_epochs": 1,
}


def test_a_model_that_learned_nothing_misses_its_checks_and_the_exit_status_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "_MEASURED", Options(sample=12, curves=3, sanity=3))
    options = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    command = ["reproduce", "-o", tmp_path / "out", "--train", 12, "--val", 6, *options]
    done = hvx(*command)
    assert done.returncode == 3, done.stderr
    assert "training: epoch 1, loss " in done.stderr
    assert "| accuracy: attribute, shape, existence |" in done.stdout
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
    rows = next(check for check in report["checks"] if check["name"].startswith("questions with"))
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


class MadeReader:
    """Columns of a run of 40 explanations."""

    def __init__(self, right: bool) -> None:
        kinds = ["attribute", "shape", "existence", "count", "relation"]
        self.kinds = np.array([kinds[k % 5] for k in range(40)])
        self.answers = np.array([f"{k}" for k in range(40)])
        self.truth = self.answers.copy()
        if not right:
            self.truth[::4] = "other"

    def column(self, name: str) -> np.ndarray:
        return {"question_type": self.kinds, "answer": self.answers, "ground_truth": self.truth}[name]


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_figure_has_rows_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, right: bool, seed: int
) -> None:
    made: dict[str, tuple[list[int], int]] = {}

    def write(reader: object, numbers: list[int], path: Path, width: int, style: FigureStyle) -> None:
        assert style == AS_IN_THE_PAPER
        made[path.name] = numbers, width

    monkeypatch.setattr(reproduce, "write_figure", write)
    reader = MadeReader(right)
    captions = reproduce._figures(cast(RunReader, reader), tmp_path, seed)
    assert captions == {
        tmp_path / "figure2.png": "one question each: attribute, shape, existence",
        tmp_path / "figure3.png": "attribute, shape and existence",
        tmp_path / "figure4.png": "counts and relations",
        tmp_path / "figure5.png": "wrong answers",
    }
    assert list(made) == ["figure2.png", "figure3.png", "figure4.png", "figure5.png"]
    assert {width for _, width in made.values()} == {1200}
    single = {"attribute", "shape", "existence"}
    kinds = {name: [str(reader.kinds[n]) for n in numbers] for name, (numbers, _) in made.items()}
    assert kinds["figure2.png"] == ["attribute", "shape", "existence"]
    assert len(kinds["figure3.png"]) == len(kinds["figure4.png"]) == len(kinds["figure5.png"]) == 3
    assert set(kinds["figure3.png"]) <= single and not set(kinds["figure4.png"]) & single
    assert all((reader.answers[n] == reader.truth[n]) == right for n in made["figure5.png"][0])
    before = dict(made)
    reproduce._figures(cast(RunReader, reader), tmp_path, seed)
    assert made == before
    reproduce._figures(cast(RunReader, reader), tmp_path, seed + 7)
    assert made != before


def test_only_an_earlier_reproduction_is_replaced(tmp_path: Path) -> None:
    reproduce._clear(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    reproduce._clear(tmp_path / "empty")
    assert (tmp_path / "empty").is_dir()
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "old").write_text("x")
    wanted = f"{earlier}: not empty and not of an earlier reproduction; give a new folder with -o"
    with pytest.raises(HvxError) as raised:
        reproduce._clear(earlier)
    assert str(raised.value) == wanted
    (earlier / "reproduce.json").write_text("{}")
    reproduce._clear(earlier)
    assert not earlier.exists()
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(HvxError, match="not empty and not of an earlier reproduction"):
        reproduce._clear(file)


def test_the_report_has_the_checks_the_figures_and_the_runs_versions(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"versions": {"hvx": "1"}, "device": "cpu", "seed": 3}')
    checks = [Check("one", 0.5, 0.5, 2, "aside", 0.25), Check("two", 0.25, None, 3)]
    figures = {tmp_path / "figures" / "figure2.png": "a caption"}
    reproduce._report(tmp_path, checks, figures, {"scenes": 1.5})
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == (
        "| check | measured | chance | required | ok | n |\n|---|---:|---:|---|---|---:|\n"
        "| one | 0.500 | 0.250 | ≥ 0.50 | yes | 2 |\n| two | 0.250 |  | reported |  | 3 |\n\none: aside\n"
    )
    assert json.loads((tmp_path / "reproduce.json").read_text()) == {
        "finished": True,
        "checks": [
            {
                "name": "one",
                "measured": 0.5,
                "required": 0.5,
                "count": 2,
                "note": "aside",
                "chance": 0.25,
                "ok": True,
            },
            {
                "name": "two",
                "measured": 0.25,
                "required": None,
                "count": 3,
                "note": "",
                "chance": None,
                "ok": True,
            },
        ],
        "figures": {"figure2.png": "a caption"},
        "seconds": {"scenes": 1.5},
        "versions": {"hvx": "1"},
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("measured", "status"), [((0.5, 0.7), 0), ((0.5, 0.6999), 3), ((0.4999, 0.7), 3), ((0.0, 0.0), 3)]
)
def test_the_exit_status_says_whether_a_check_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, measured: tuple[float, float], status: int
) -> None:
    checks = [
        Check("one", measured[0], 0.5, 2),
        Check("other", -1.0, None, 2),
        Check("two", measured[1], 0.7, 2),
    ]
    made = made_measures()
    figures = {Path("figures/figure2.png"): "a caption"}
    done = reproduce.Reproduction(checks, made, Path("run/measure/measure.md"), figures, {})
    asked: list[tuple[object, ...]] = []

    def work(*arguments: object) -> reproduce.Reproduction:
        asked.append(arguments[:6])
        return done

    monkeypatch.setattr(reproduce, "reproduce", work)
    command = ["reproduce", "-o", str(tmp_path), "--train", "5", "--val", "4", "--seed", "3", "--set", "a=1"]
    result = CliRunner().invoke(main, [*command, "--device", "cpu"])
    assert result.exit_code == status
    assert asked == [(tmp_path, 5, 4, 3, torch.device("cpu"), ["a=1"])]
    assert result.stdout == (
        f"\n{as_table(checks)}\n\n{Path('figures/figure2.png')}: a caption\n\n{overview(made)}\n\n"
        f"{claims_table(made)}\n\n{Path('run/measure/measure.md')}: 1,234 explanations measured\n"
    )
