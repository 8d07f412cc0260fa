"""``hvx check``: what it finds, what it says is missing, and that it writes nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import Tiny
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hvx.cli.main import main
from hvx.data.questions import read_questions
from hvx.models.header import read_header
from hvx.run.explain import Options, explain_split
from hvx.run.local import local_engine


@pytest.fixture
def split(tiny: Tiny, tmp_path: Path) -> Tiny:
    """A copy of the tiny split and its checkpoint, to be damaged."""
    root = tmp_path / "copy"
    shutil.copytree(tiny.root, root)
    return Tiny(root, root / "config.yaml")


def checked(split: Tiny, run: Path, *more: str) -> Result:
    settings = [part for setting in split.settings(run) for part in ("--set", setting)]
    return CliRunner().invoke(main, ["check", str(split.config), "--device", "cpu", *settings, *more])


def as_json(split: Tiny, run: Path, *more: str) -> tuple[int, dict[str, Any]]:
    done = checked(split, run, "--json", *more)
    return done.exit_code, json.loads(done.stdout)


def files(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*")}


def test_a_sound_config_is_described_and_nothing_is_written(split: Tiny, tmp_path: Path) -> None:
    before = files(split.root)
    status, found = as_json(split, tmp_path / "run")
    assert status == 0 and found["problems"] == found["failures"] == []
    assert not (tmp_path / "run").exists() and files(split.root) == before
    config = split.load(tmp_path / "run")
    questions = read_questions(config.split("val"))
    header = read_header(config.path(config.checkpoint))
    assert found["questions"]["count"] == len(questions)
    assert found["questions"]["images"] == found["images"]["found"] == 8
    assert found["questions"]["with ground truth"] == len(questions)
    assert found["images"]["missing"] == found["images"]["unreadable"] == 0
    assert found["images"]["smallest"] == found["images"]["largest"] == [64, 64]
    known = sum(question.ground_truth in header.answers for question in questions) / len(questions)
    assert found["checkpoint"]["ground truths among its answers"] == pytest.approx(known, abs=1e-4)
    assert found["checkpoint"]["answers"] == len(header.answers)
    assert found["run"]["shards there"] == 0 and found["run"]["heat maps"] == "64×64 float16"
    assert found["time"]["seconds"] >= 0 and found["time"]["explanations per second"] > 0


def test_the_text_says_the_same_and_ends_with_a_verdict(split: Tiny, tmp_path: Path) -> None:
    done = checked(split, tmp_path / "run", "--no-timing")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "questions:", "images:", "checkpoint:", "run:", "hvx explain can begin",
    ]  # fmt: skip
    assert "  smallest:                       64×64" in lines
    assert any(line.startswith("  ground truths among its answers: ") for line in lines)
    _, found = as_json(split, tmp_path / "run", "--no-timing")
    share = found["checkpoint"]["unknown tokens"]
    assert f"  {'unknown tokens:':<32}{share:.1%}" in lines and 0 <= share < 1
    assert f"  {'count:':<32}{found['questions']['count']}" in lines


def test_a_rate_below_one_is_no_share(split: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 4000, 1000))
    monkeypatch.setattr("hvx.check.time.perf_counter", lambda: next(clock))
    done = checked(split, tmp_path / "run")
    (line,) = [line for line in done.stdout.splitlines() if "explanations per second" in line]
    rate = float(line.split()[-1])
    assert 0 < rate < 1


def test_the_expected_size_is_near_the_runs(split: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _, found = as_json(split, run, "--no-timing")
    explain_split(split.load(run), local_engine(torch.device("cpu")))
    size = sum(path.stat().st_size for path in (run / "shards").iterdir())
    assert 0.6 < found["run"]["bytes"] / size < 1.7
    _, after = as_json(split, run)
    assert after["run"]["shards there"] == after["run"]["shards"] == found["run"]["shards"]
    assert after["time"] == {"device": "cpu", "seconds": 0}


def test_every_part_is_checked_though_an_earlier_one_has_a_problem(split: Tiny, tmp_path: Path) -> None:
    config = split.load(tmp_path / "run")
    config.split("val").questions.write_text("[]")
    config.path(config.checkpoint).unlink()
    status, found = as_json(split, tmp_path / "run")
    assert status == 2
    assert len(found["problems"]) == 2
    assert str(config.split("val").questions) in found["problems"][0]
    assert found["problems"][1].endswith("no such checkpoint")


def test_images_inside_parquet_are_counted_and_not_written(split: Tiny, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    photos = sorted(split.load(tmp_path / "run").split("val").images.glob("*val*"))[:2]
    images = [{"bytes": photo.read_bytes(), "path": photo.name} for photo in photos]
    rows = {"question": ["what?", "what?"], "image": images, "answer": ["red", "blue"]}
    path = tmp_path / "val.parquet"
    parquet.write_table(pyarrow.table(rows), path)
    own = {"questions": path, "annotations": "null", "objects": "null", "images": tmp_path / "images"}
    settings = [part for key, value in own.items() for part in ("--set", f"splits.val.{key}={value}")]
    before = files(tmp_path)
    status, found = as_json(split, tmp_path / "run", *settings)
    assert status == 0 and files(tmp_path) == before
    assert found["images"]["inside the Parquet file"] == 2 and found["images"]["missing"] == 0
    assert found["time"]["seconds"] is None
    assert found["notes"] == [
        f"{path}: 2 images inside it; hvx explain writes them out",
        f"{path}: no time is measured while its images are inside it",
    ]
    read_questions(
        split.load(tmp_path / "run", **{f"splits__val__{k}": v for k, v in own.items()}).split("val")
    )
    status, found = as_json(split, tmp_path / "run", *settings)
    assert status == 0 and found["images"]["found"] == 2 and found["time"]["seconds"] >= 0


def test_images_missing_and_unreadable_are_counted_and_named(split: Tiny, tmp_path: Path) -> None:
    images = sorted(split.load(tmp_path / "run").split("val").images.glob("*val*"))
    images[0].unlink()
    images[1].write_bytes(b"no image")
    Image.new("RGB", (300, 20)).save(images[2])
    status, found = as_json(split, tmp_path / "run", "--no-timing")
    assert status == 3 and not found["problems"]
    assert (found["images"]["found"], found["images"]["missing"], found["images"]["unreadable"]) == (6, 1, 1)
    assert found["images"]["largest"] == [300, 20]
    (line,) = found["failures"]
    assert "1 images missing, 1 unreadable" in line and images[0].name in line and images[1].name in line
    status, found = as_json(split, tmp_path / "run", "--no-timing", "--set", "explain.on_error=stop")
    assert status == 2 and found["problems"] == [line]
    done = checked(split, tmp_path / "run", "--no-timing")
    assert done.exit_code == 3 and f"Would fail: {line}" in done.stderr
    assert done.stdout.endswith("hvx explain can begin, without the questions on these images\n")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("explain.heatmap.size=63", "explain.heatmap.size: expected a divisor of 64"),
        ("model.glimpses=7", "the checkpoint has model.glimpses = "),
        ("splits.val.images=nowhere", "no such folder of images"),
    ],
)
def test_what_explain_refuses_is_a_problem(split: Tiny, tmp_path: Path, setting: str, said: str) -> None:
    status, found = as_json(split, tmp_path / "run", "--no-timing", "--set", setting)
    assert status == 2 and len(found["problems"]) == 1 and said in found["problems"][0]


def test_a_full_disk_is_a_problem(split: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("hvx.run.size.shutil.disk_usage", lambda path: usage(0, 0, 10_000))
    monkeypatch.setattr("hvx.run.size._MUCH", 0)
    status, found = as_json(split, tmp_path / "run", "--no-timing")
    assert status == 2 and "and 10.0 kB are free" in found["problems"][0]
    assert found["run"]["free bytes"] == 10_000


def test_a_wrong_key_is_one_line(split: Tiny, tmp_path: Path) -> None:
    done = checked(split, tmp_path / "run", "--set", "explain.runn=x")
    assert done.exit_code == 2 and done.stdout == "" and "unknown key 'explain.runn'" in done.stderr


def test_a_folder_of_another_run_is_a_problem_and_nothing_in_it_changes(split: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    explain_split(split.load(run), local_engine(torch.device("cpu")))
    before = files(run)
    for setting, key in (("explain.heatmap.size=16", "heatmap"), ("explain.gradient=true", "gradient")):
        status, found = as_json(split, run, "--no-timing", "--set", setting)
        assert status == 2 and len(found["problems"]) == 1
        assert f"holds a run with another {key}" in found["problems"][0]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    status, found = as_json(split, tmp_path / "full", "--no-timing")
    assert status == 2 and found["problems"][0].endswith(
        "not empty and not a run; give explain.run a new folder"
    )
    assert as_json(split, run, "--no-timing")[0] == 0 and files(run) == before


def test_a_packed_run_without_its_shards_needs_nothing(split: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    explain_split(split.load(run), local_engine(torch.device("cpu")), Options(pack=True))
    shutil.rmtree(run / "shards")
    status, found = as_json(split, run)
    assert status == 0 and found["time"]["seconds"] == 0
    assert found["run"]["shards there"] == found["run"]["shards"] > 0


def test_a_pick_that_fits_several_questions_is_a_note_as_explain_only_says_it(
    split: Tiny, tmp_path: Path
) -> None:
    questions = read_questions(split.load(tmp_path / "run").split("val"))
    text = Counter(question.question for question in questions).most_common(1)[0]
    assert text[1] > 1
    pick = f'explain.pick=[{{question: "{text[0]}"}}]'
    status, found = as_json(split, tmp_path / "run", "--no-timing", "--set", pick)
    assert status == 0 and found["problems"] == []
    assert f"fits {text[1]} questions" in found["notes"][0]
    assert "fits" in checked(split, tmp_path / "run", "--no-timing", "--set", pick).stderr


def test_images_are_counted_as_explain_reads_them(split: Tiny, tmp_path: Path) -> None:
    """A format that hvx does not open is no image; a PNG with a large text is one."""
    images = sorted(split.load(tmp_path / "run").split("val").images.glob("*val*"))
    with Image.open(images[0]) as opened:
        photo = opened.convert("RGB")
    photo.save(images[0], format="PCX")
    texts = PngInfo()
    texts.add_text("Comment", "x" * 2**21, zip=True)
    photo.save(images[1], format="PNG", pnginfo=texts)
    status, found = as_json(split, tmp_path / "run", "--no-timing")
    assert status == 3 and (found["images"]["found"], found["images"]["unreadable"]) == (7, 1)
    assert images[0].name in found["failures"][0]
