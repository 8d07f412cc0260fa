"""The commands as a user runs them, on a small synthetic split."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import Tiny, hvx, hvx_process
from PIL import Image

COMMANDS = ["ask", "explain", "figure", "gallery", "import", "info", "reproduce", "scenes", "train"]


def _set(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def _is_one_clear_line(stderr: str, *named: str) -> None:
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("Error: ")
    for word in named:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    for flag in ("-h", "--help"):
        done = hvx(command, flag)
        assert done.returncode == 0
        assert re.search(rf"Example:\n +hvx {command}\b", done.stdout), done.stdout


def test_the_whole_road_by_hand(tmp_path: Path) -> None:
    """scenes → train → explain → figure → info, each as a command."""
    config = Path(__file__).parents[1] / "configs" / "scenes.yaml"
    small = {
        "root": tmp_path, "model.image.size": 64, "model.encoder.embedding": 8, "model.encoder.hidden": 8,
        "model.joint": 8, "train.epochs": 1, "train.backbone_epochs": 1,
    }  # fmt: skip
    options = _set([f"{key}={value}" for key, value in small.items()])
    done = hvx_process("scenes", tmp_path / "scenes", "--train", 8, "--val", 4, "--size", 64)
    assert done.returncode == 0, done.stderr
    assert "8 train and 4 val scenes" in done.stdout
    done = hvx_process("train", config, *options)
    assert done.returncode == 0, done.stderr
    assert "val_accuracy" in done.stdout
    done = hvx_process("explain", config, *options)
    assert done.returncode == 0, done.stderr
    assert re.search(r"run: \d+ questions explained in", done.stdout)
    assert done.stderr == ""
    done = hvx("figure", tmp_path / "run", "-o", tmp_path / "figure.png", "--rows", 2, "--width", 600)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width == 600
    done = hvx("info", tmp_path / "model.safetensors")
    assert "resnet10 at layer2" in done.stdout
    done = hvx("info", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"explanations: *\d+\n", done.stdout)


def test_explain_goes_on_where_it_was_and_says_so(tiny: Tiny, finished_run: Path) -> None:
    options = _set(tiny.settings(finished_run, explain__gradient=True))
    done = hvx("explain", tiny.config, *options, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "shards were done before" in done.stdout


def test_a_misspelled_key_is_named_with_the_right_one(tiny: Tiny, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(tiny.config.read_text().replace("glimpses:", "glimpsis:"))
    done = hvx("explain", config)
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, str(config), "model.glimpsis", "did you mean 'glimpses'?")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("splits.val.questions=absent.json", "absent.json: no such file"),
        ("splits.val.images=absent", "absent: no such folder of images"),
        ("checkpoint=absent.safetensors", "absent.safetensors: no such checkpoint"),
        ("explain.split=vall", "did you mean 'val'?"),
        ("explain.batch_images=0", "explain.batch_images"),
        ("explain.batch_images", "expected key=value"),
        ("model.joint=3", "model.joint"),
    ],
)
def test_a_wrong_setting_is_one_line_and_writes_nothing(
    tiny: Tiny, tmp_path: Path, setting: str, named: str
) -> None:
    run = tmp_path / "run"
    done = hvx("explain", tiny.config, *_set([*tiny.settings(run), setting]))
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, named)
    assert done.stdout == ""
    assert not run.exists()


def test_a_missing_config_is_one_line() -> None:
    done = hvx("explain", "absent.yaml")
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, "absent.yaml: no such config file")


def test_a_split_without_questions_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"questions": []}))
    settings = [*tiny.settings(tmp_path / "run"), f"splits.val.questions={empty}"]
    done = hvx("explain", tiny.config, *_set(settings))
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, "empty.json: the split holds no questions")


def test_an_image_that_is_no_image_stops_with_2_or_is_skipped_with_3(tiny: Tiny, tmp_path: Path) -> None:
    images, run = tmp_path / "images", tmp_path / "run"
    shutil.copytree(tiny.root / "scenes" / "images", images)
    bad = images / "SCENES_val_000001000003.png"
    bad.write_text("no image")
    options = _set([*tiny.settings(run), f"splits.val.images={images}"])
    done = hvx("explain", tiny.config, *options, "--on-error", "stop")
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, str(bad), "not an image", "--on-error skip")
    assert not (run / "explanations.h5").exists()
    done = hvx("explain", tiny.config, *options, "--on-error", "skip")
    assert done.returncode == 3, done.stderr
    assert "failures.jsonl" in done.stdout
    failures = [json.loads(line) for line in (run / "failures.jsonl").read_text().splitlines()]
    assert {failure["image_id"] for failure in failures} == {1_000_003}


def test_a_checkpoint_that_is_none_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    fake = tmp_path / "fake.safetensors"
    fake.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    done = hvx("explain", tiny.config, *_set([*tiny.settings(tmp_path / "run"), f"checkpoint={fake}"]))
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, "fake.safetensors")


def test_an_unknown_device_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    done = hvx("explain", tiny.config, *_set(tiny.settings(tmp_path / "run")), "--device", "gpu")
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, "--device gpu", "cuda:i")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sed: 1")
    done = hvx("explain", "c.yaml", "--debug", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("hvx.errors.HvxError: c.yaml: unknown key 'sed' (did you mean 'seed'?)")


def test_scenes_refuse_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    done = hvx("scenes", tmp_path, "--train", 1, "--val", 1)
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, str(tmp_path), "not empty")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--id", "5"], "question_id 5"),
        (["--width", "400", "-o", "figure.jpg"], "figure.jpg: a figure is written as .png"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_one_line(
    finished_run: Path, tmp_path: Path, arguments: list[str], named: str
) -> None:
    done = hvx("figure", finished_run, "-o", "figure.png", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, named)
    assert not list(tmp_path.iterdir())


def test_a_figure_of_no_run_is_one_line(tmp_path: Path) -> None:
    done = hvx("figure", tmp_path / "absent", "-o", tmp_path / "figure.png")
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, "absent: no such run folder")


def test_a_figure_draws_the_questions_asked_for_in_their_order(finished_run: Path, tmp_path: Path) -> None:
    ids = [10_000_010, 10_000_000]
    for name, order in (("one", ids), ("two", ids), ("three", ids[::-1])):
        chosen = [part for question_id in order for part in ("--id", question_id)]
        done = hvx("figure", finished_run, "-o", tmp_path / f"{name}.png", *chosen, "--width", 400)
        assert done.returncode == 0, done.stderr
    one, two, three = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_info_on_neither_run_nor_checkpoint_is_one_line(tmp_path: Path) -> None:
    done = hvx("info", tmp_path / "absent")
    assert done.returncode == 2
    _is_one_clear_line(done.stderr, "no such run folder or checkpoint")
