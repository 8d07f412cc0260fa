"""scripts/measure_precision.py: each number of its tables, on made-up runs whose differences are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import REPOSITORY, Tiny
from made_compare import Made
from PIL import Image
from scipy.stats import spearmanr

from hvx.data.object_masks import ObjectTable
from hvx.measure.metrics.localization import points_inside
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.store.reader import RunReader

sys.path.insert(0, str(REPOSITORY / "scripts"))
from measure_heatmaps import SINGLE
from measure_precision import main as measure_precision
from precision_data import main as precision_data

N, SIDE = 6, 28
ABOUT = {
    "config": {
        "checkpoint": "model.safetensors",
        "splits": {"val": {"questions": "q.json", "images": "images"}},
        "explain": {"run": "run"},
    }
}


def columns(changed: bool) -> dict[str, np.ndarray]:
    """Of six questions on three images; if changed, with one change of each kind."""
    rng = np.random.default_rng(5)
    maps = rng.random((N, SIDE, SIDE)) / 2
    z = np.tile(np.float32([1.0, 0.1, -0.5, -0.6]), (N, 1))
    z[1, 0] = 2.1
    answers = np.array([f"answer {number}" for number in range(N)], object)
    top = np.tile(np.float32([0.5, 0.3, 0.1, 0.05, 0.05]), (N, 1))
    top[4, 1] = 0.495
    for number in range(N):
        maps[number, 5, 3 * number] = 1.0
    maps[0, 5, 9] = 0.875
    if changed:
        maps[0, 5, 9] = 1.25  # 9 of 28 pixels away
        z[1, 0], z[2, 1] = 1.875, -0.1
        answers[3], answers[4] = "another", "another"
    return {"heatmap": maps.astype(np.float16), "token_z": z, "answer": answers, "top_probabilities": top}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path, Path]:
    """float32, the same once more, and one with changes."""
    made = [Made(range(N), given=columns(changed), about=ABOUT) for changed in (False, False, True)]
    first, again, other = (
        one.write(tmp_path / name) for one, name in zip(made, ("float32", "again", "bfloat16"), strict=True)
    )
    return first, again, other


def measured(*arguments: str | Path) -> Result:
    return CliRunner().invoke(measure_precision, [str(argument) for argument in arguments])


def cells(result: Result, name: str) -> list[str]:
    """The row of a name, without the name."""
    assert result.exit_code == 0, result.output
    rows = [line.replace("\\|", "¦").split("|")[1:-1] for line in result.output.splitlines()]
    row = next(row for row in rows if row and row[0].strip().replace("¦", "|") == name)
    return [cell.strip() for cell in row[1:]]


def test_every_difference_is_counted_where_it_is(runs: tuple[Path, Path, Path]) -> None:
    first, again, other = runs
    result = measured(first, other, "--same", f"again={again}")
    assert cells(result, "")[:2] == ["bfloat16", "again"]
    rho = [
        spearmanr(one.ravel(), two.ravel()).statistic
        for one, two in zip(columns(False)["heatmap"], columns(True)["heatmap"], strict=True)
    ]
    shown = [float(value) for value in cells(result, "ρ of pixels: median, 5 %, least")[0].split(",")]
    assert shown == pytest.approx([np.median(rho), np.quantile(rho, 0.05), min(rho)], abs=6e-5)
    assert min(rho) < 1
    assert cells(result, "maximum in the same of 14×14 cells")[:2] == ["0.8333", "1.0000"]
    assert cells(result, "maximum farther away than 5% of the width")[:2] == ["0.1667", "0.0000"]
    distances = [0, 0, 0, 0, 0, 100 * 9 / SIDE]
    expected = f"{np.median(distances):.2f}, {np.quantile(distances, 0.95):.2f}"
    assert cells(result, "distance of the maxima, % of it: median, 95 %")[0] == expected
    heights = f"1.0000, {np.quantile([0.875, 1, 1, 1, 1, 1], 0.05):.4f}"
    assert cells(result, "float32's map there, of its largest value: median, 5 %")[0] == heights
    assert cells(result, "|Δz|: median, 99 %, largest")[0].endswith(", 0.2250")
    assert cells(result, "tokens whose z changes its sign")[0] == "0.04167 (1 of 24)"
    assert cells(result, "tokens whose |z| crosses 2")[0] == "0.04167 (1 of 24)"
    assert cells(result, "answers that change")[:2] == ["0.33333 (2 of 6)", "0.00000 (0 of 6)"]
    assert cells(result, "… whose margin exceeds 0.01")[0] == "1"


def test_the_criterion_names_what_fails(runs: tuple[Path, Path, Path]) -> None:
    first, again, other = runs
    result = measured(first, other)
    assert cells(result, "share of maxima that moved") == ["≤ 0.01", "0.1667", "no"]
    assert cells(result, "answers changed, of a margin") == ["0", "1", "no"]
    assert cells(result, "largest |Δz|") == ["≤ 0.02", "0.2250", "no"]
    assert cells(result, "ρ of pixels, median") == ["≥ 0.99", "1.0000", "yes"]
    assert "| no |" not in measured(first, again).output


def test_the_controls_are_those_of_unlike_maps(runs: tuple[Path, Path, Path]) -> None:
    first, again, _ = runs
    result = measured(first, again)
    for column in (1, 2):  # another question, another image
        assert abs(float(cells(result, "ρ of pixels: median, 5 %, least")[column].split(",")[0])) < 0.2
        assert cells(result, "answers that change")[column].startswith("1.00000")


def test_pointing_game_is_that_of_the_splits_objects(tiny: Tiny, finished_run: Path, tmp_path: Path) -> None:
    """Counted again in an obvious way, of a run in float32 and one in bfloat16."""
    other = tmp_path / "bfloat16"
    explain_split(tiny.load(other, explain__precision="bfloat16"), local_engine(torch.device("cpu")))
    table = ObjectTable(tiny.load(finished_run).split("val"))
    shares = []
    for path in (finished_run, other):
        with RunReader(path) as reader:
            items = [reader[number] for number in range(len(reader))]
        hits = [
            points_inside(
                item.heatmap, np.isin(table.mask(item.image_id), table.asked[item.question_id].labels)
            )
            for item in items
            if table.asked[item.question_id].kind in SINGLE and table.asked[item.question_id].labels
        ]
        shares.append(f"{np.mean(hits):.4f}")
    shown = cells(measured(finished_run, other), "pointing game of float32, of this")[0]
    assert shown == f"{', '.join(shares)} (n = {len(hits)})"


def test_a_run_without_name_is_refused(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, again, _ = runs
    result = measured(first, again, "--same", f"x={tmp_path / 'absent'}")
    assert result.exit_code == 2
    assert "expected NAME=RUN" in result.output


@pytest.mark.parametrize("change", ["gray", "jpeg"])
def test_copies_look_the_same(change: str, tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    photo = np.sort(photo, axis=0)  # smooth from top to bottom
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "a.png")
    arguments = ["images", str(tmp_path / "photos"), str(tmp_path / "copies"), "--change", change]
    result = CliRunner().invoke(precision_data, arguments)
    assert result.exit_code == 0, result.output
    (copy,) = (tmp_path / "copies").iterdir()
    apart = np.asarray(Image.open(copy), int) - photo
    if change == "gray":
        assert (apart == (photo < 255)).all()
    else:
        assert copy.suffix == ".jpg"
        assert 0 < np.abs(apart).mean() < 12
