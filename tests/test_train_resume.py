"""A training that was killed goes on where it stopped, and comes to the same as one left in peace."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from click.testing import CliRunner
from conftest import THREADS, Tiny
from preloaded import Preloaded
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from hvx.cli.main import main
from hvx.config import Config
from hvx.errors import HvxError
from hvx.models.checkpoint import load_checkpoint
from hvx.train import evaluate, features, loop, plot, trainer
from hvx.train.features import CacheJob, cached_features
from hvx.train.trainer import train_model

CPU = torch.device("cpu")


def _about(state: Path) -> dict[str, Any]:
    """What a state's metadata says."""
    with safe_open(state, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["hvx-training"])
    return about


def _rewrite(state: Path, about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, state, metadata={"hvx-training": json.dumps(about)})


def _rows(checkpoint: Path) -> list[dict[str, float]]:
    """The metrics of each epoch, without the times."""
    lines = checkpoint.with_suffix(".metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def _assert_same_outcome(one: Path, two: Path) -> None:
    assert _rows(one) == _rows(two)
    for suffix in (".safetensors", ".last.safetensors"):
        first, second = (load_file(path.with_suffix(suffix)) for path in (one, two))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), name


def _kill_in_mid_epoch(command: list[str], state: Path) -> None:
    """Start a training and SIGKILL it some steps into its second epoch or a later one."""
    threads = os.environ | {"OMP_NUM_THREADS": str(THREADS)}  # as here, or sums differ in their last bits
    process = Preloaded(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=threads)
    try:
        while process.poll() is None:
            time.sleep(0.002)
            try:
                progress = _about(state)["progress"]
            except (SafetensorError, OSError, RuntimeError):
                continue  # not there yet, or replaced between two reads
            if progress["rows"] and 0 < progress["step"] < 8:
                break
    finally:
        process.send_signal(signal.SIGKILL)
        _, stderr = process.communicate()
    assert process.returncode == -signal.SIGKILL, stderr.decode()


def test_a_training_killed_in_mid_epoch_comes_to_the_same_as_an_undisturbed_one(
    tiny: Tiny, tmp_path: Path
) -> None:
    def command(name: str, save_minutes: int) -> list[str]:
        settings = tiny.settings(
            tmp_path, checkpoint=tmp_path / f"{name}.safetensors", train__epochs=3, train__batch=8,
            train__save_minutes=save_minutes,
        )  # fmt: skip
        return [
            "train",
            str(tiny.config),
            "--device",
            "cpu",
            *(part for setting in settings for part in ("--set", setting)),
        ]

    done = CliRunner().invoke(main, command("undisturbed", 10))
    assert done.exit_code == 0, done.output
    state = tmp_path / "killed.training.safetensors"
    _kill_in_mid_epoch([sys.executable, "-m", "hvx", *command("killed", 0)], state)
    before = _about(state)["progress"]
    assert before["rows"]
    assert before["step"] > 0
    assert len(_rows(tmp_path / "killed.safetensors")) == len(before["rows"])
    assert (tmp_path / "killed.backbone.safetensors").exists()

    done = CliRunner().invoke(main, command("killed", 10))
    assert done.exit_code == 0, done.output
    assert f"continued in epoch {len(before['rows']) + 1}, after {before['step']} steps" in done.stderr
    assert "×" not in done.stderr  # the features were there
    _assert_same_outcome(tmp_path / "undisturbed.safetensors", tmp_path / "killed.safetensors")
    assert not (tmp_path / "killed.backbone.safetensors").exists()
    assert _about(state)["progress"]["finished"]["epoch"] == 3
    for made in ("killed.safetensors", "killed.last.safetensors", "killed.metrics.jsonl", "killed.plot.png"):
        assert str(tmp_path / made) in done.stdout


class _Killed(BaseException):
    """Ends a training at a point of the test's choice, with no chance to clean up after itself."""


def _short(tiny: Tiny, checkpoint: Path) -> Config:
    """A training of two short epochs."""
    return tiny.load(
        checkpoint.parent, checkpoint=checkpoint, train__epochs=2, train__batch=16, train__backbone_epochs=0,
        splits__train__limit=40,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a short training that no one killed."""
    checkpoint = tmp_path_factory.mktemp("undisturbed") / "m.safetensors"
    train_model(_short(tiny, checkpoint), CPU)
    return checkpoint


def _kill_at(call: int, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """Train until a function is called for the ``call``-th time."""
    real, count = getattr(owner, name), 0

    def kills(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise _Killed
        return real(*arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, kills)
        with pytest.raises(_Killed):
            train_model(config, CPU)


@pytest.mark.parametrize(
    ("call", "owner", "name"),
    [
        (2, evaluate, "accuracy"), (3, trainer, "save_checkpoint"), (2, plot, "write_plot"),
        (4, loop, "save_state"), (1, trainer, "save_state"),
    ],
    ids=["validation", "checkpoint", "plot", "state", "end"],
)  # fmt: skip
def test_a_training_killed_while_an_epoch_is_concluded_comes_to_the_same(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Path,
    call: int, owner: Any, name: str,
) -> None:  # fmt: skip
    checkpoint = tmp_path / "m.safetensors"
    _kill_at(call, owner, name, monkeypatch, _short(tiny, checkpoint))
    metrics = train_model(_short(tiny, checkpoint), CPU)
    assert metrics["epoch"] == 2
    _assert_same_outcome(undisturbed, checkpoint)


def test_a_finished_training_is_not_done_again(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tiny.root.iterdir()}
    said: list[str] = []
    metrics = train_model(config, CPU, said.append)
    assert {path: path.stat().st_mtime_ns for path in tiny.root.iterdir()} == before
    assert metrics["val_accuracy"] == _rows(tiny.root / "model.safetensors")[-1]["val_accuracy"]
    assert set(metrics["seconds"]) == {"backbone", "features", "head"}
    assert "trained before" in said[0]


def test_a_finished_training_whose_checkpoint_is_gone_says_so(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copy(tiny.root / "model.training.safetensors", tmp_path / "model.training.safetensors")
    with pytest.raises(HvxError, match=r"model\.safetensors: was trained, but is gone; --restart"):
        train_model(tiny.load(tmp_path, checkpoint=tmp_path / "model.safetensors"), CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [("train.rate", 0.1), ("seed", 7), ("model.joint", 11), ("train.epochs", 2), ("splits.val.limit", 5)],
)
def test_a_training_of_another_config_is_refused_by_the_key(
    tiny: Tiny, tmp_path: Path, key: str, value: float
) -> None:
    config = tiny.load(tmp_path, **{key.replace(".", "__"): value})
    with pytest.raises(HvxError, match=rf"another {key} \(.*, now {value}\).*--restart"):
        train_model(config, CPU)


def test_a_training_on_other_questions_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    questions = tmp_path / "questions.json"
    questions.write_bytes(
        (tiny.root / "scenes" / "OpenEnded_scenes_train_questions.json").read_bytes() + b"\n"
    )
    with pytest.raises(HvxError, match=r"another splits\.train\.questions .*sha256"):
        train_model(tiny.load(tmp_path, splits__train__questions=questions), CPU)


def test_what_changes_nothing_may_change(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(
        tmp_path,
        train__save_minutes=3,
        train__feature_cache=tmp_path,
        train__workers=0,
        explain__batch_images=2,
    )
    assert train_model(config, CPU)["epoch"] == 1


def test_restart_begins_anew(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.root, tmp_path / "root", ignore=shutil.ignore_patterns("scenes"))
    (tmp_path / "root" / "scenes").symlink_to(tiny.root / "scenes")
    changed = tiny.load(tmp_path, root=tmp_path / "root", train__rate=0.1)
    with pytest.raises(HvxError, match=r"train\.rate"):
        train_model(changed, CPU)
    before = load_file(tmp_path / "root" / "model.safetensors")
    train_model(changed, CPU, restart=True)
    after = load_file(tmp_path / "root" / "model.safetensors")
    assert not torch.equal(before["head.classifier.weight"], after["head.classifier.weight"])
    assert train_model(changed, CPU)["epoch"] == 1


def test_a_checkpoint_that_no_training_of_this_config_made_is_not_replaced(
    tiny: Tiny, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "m.safetensors"
    checkpoint.write_bytes(b"dear to someone")
    with pytest.raises(HvxError, match=r"m\.safetensors: exists, .*--restart"):
        train_model(tiny.load(tmp_path, checkpoint=checkpoint), CPU)
    assert checkpoint.read_bytes() == b"dear to someone"


def test_a_damaged_state_is_refused_by_name(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state = _short(tiny, tmp_path / "m.safetensors"), tmp_path / "m.training.safetensors"
    _kill_at(1, plot, "write_plot", monkeypatch, config)
    whole, about, tensors = state.read_bytes(), _about(state), load_file(state)

    def refused(match: str) -> None:
        with pytest.raises(HvxError, match=rf"m\.training\.safetensors.*{match}") as caught:
            train_model(config, CPU)
        assert "--restart" in str(caught.value)

    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        state.write_bytes(whole[:length])
        refused("damaged state")
    shutil.copy(tiny.root / "model.safetensors", state)
    refused("not the state of a training")
    _rewrite(state, about | {"format": 2}, tensors)
    refused("format 2")
    for broken in ({"step": -1}, {"rows": 3}, {"rows": [{"epoch": "x"}]}, {"loss": None}, {"other": 1}):
        _rewrite(state, about | {"progress": about["progress"] | broken}, tensors)
        refused(next(iter(broken)))
    name = "exp_avg.classifier.bias"
    for wrong in (
        {key: tensor for key, tensor in tensors.items() if key != name},
        tensors | {name: torch.zeros(2)},
        tensors | {"exp_avg.classifier.bia": torch.zeros(2)},
    ):
        _rewrite(state, about, wrong)
        refused("tensor 'exp_avg.classifier.bia")
    state.write_bytes(whole)
    assert train_model(config, CPU)["epoch"] == 2


def test_a_damaged_backbone_of_a_killed_training_is_refused_by_name(tiny: Tiny, tmp_path: Path) -> None:
    about = _about(tiny.root / "model.training.safetensors")
    backbone = tmp_path / "model.backbone.safetensors"
    _rewrite(backbone, about | {"progress": {}}, {"network.conv1.weight": torch.zeros(3)})
    with pytest.raises(HvxError, match=r"model\.backbone\.safetensors: damaged.*--restart"):
        train_model(tiny.load(tmp_path, checkpoint=tmp_path / "model.safetensors"), CPU)


_KILLED_CACHE = """
import os, signal, sys
from pathlib import Path
import torch
from hvx.config import load
from hvx.models.checkpoint import load_checkpoint
from hvx.train import features

checkpoint, config, path, *overrides = sys.argv[1:]
features._BATCH, features._FLUSH_SECONDS = 2, 0.0
model, split = load_checkpoint(Path(checkpoint)), load(Path(config), overrides).split("train")
calls = 0

def forward(engine, images, real=features.FusedGuidedBackbone.features):
    global calls
    calls += 1
    if calls == 4:  # after three rounds of two images
        os.kill(os.getpid(), signal.SIGKILL)
    return real(engine, images)

features.FusedGuidedBackbone.features = forward
job = features.CacheJob(split, [f"SCENES_train_{n:012d}.png" for n in range(11)], Path(path))
features.cached_features(model.backbone, model.config.image, [job], print, workers=0)
"""


def test_features_killed_on_the_way_are_continued(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_BATCH", 2)
    config = tiny.load(tmp_path)
    checkpoint = config.path(config.checkpoint)
    loaded, split = load_checkpoint(checkpoint), config.split("train")
    job = CacheJob(split, [f"SCENES_train_{n:012d}.png" for n in range(11)], tmp_path / "killed.h5")
    command = [
        sys.executable,
        "-c",
        _KILLED_CACHE,
        checkpoint,
        tiny.config,
        job.path,
        *tiny.settings(tmp_path),
    ]
    killed = Preloaded(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    _, err = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, err
    assert not job.path.exists()
    with h5py.File(job.partial, "r") as file:
        assert file["done"][()] == 6

    asked: list[int] = []
    real = features.FusedGuidedBackbone.features
    monkeypatch.setattr(
        features.FusedGuidedBackbone,
        "features",
        lambda engine, images: asked.append(len(images)) or real(engine, images),
    )
    said: list[str] = []
    cache = cached_features(loaded.backbone, loaded.config.image, [job], said.append, workers=0)[0]
    assert asked == [2, 2, 1]
    assert "6 images are done" in said[0]
    assert not job.partial.exists()
    undisturbed = CacheJob(
        split, [f"SCENES_train_{n:012d}.png" for n in range(11)], tmp_path / "undisturbed.h5"
    )
    other = cached_features(loaded.backbone, loaded.config.image, [undisturbed], said.append, workers=0)[0]
    assert cache.rows == other.rows
    torch.testing.assert_close(cache[list(range(11))], other[list(range(11))])
    assert cache.root_mean_square == pytest.approx(other.root_mean_square, rel=1e-6)


def test_features_of_something_else_are_not_continued_nor_torn_ones(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    loaded, split = load_checkpoint(config.path(config.checkpoint)), config.split("val")
    job = CacheJob(split, [f"SCENES_val_{n:012d}.png" for n in (1_000_001, 1_000_002)], tmp_path / "f.h5")
    reference = CacheJob(split, job.images, tmp_path / "reference.h5")
    expected = cached_features(loaded.backbone, loaded.config.image, [reference], lambda line: None, 0)[0]
    with h5py.File(reference.path, locking=False) as file:
        key, stored = file.attrs["key"], file["features"][:]
    for broken in ("another key", "too many done", "shape", "torn"):
        with h5py.File(job.partial, "w") as file:
            file.attrs["key"] = "of something else" if broken == "another key" else key
            file["features"] = stored[:, 1:] if broken == "shape" else stored * 0
            file["done"] = 3 if broken == "too many done" else 1
        if broken == "torn":
            job.partial.write_bytes(job.partial.read_bytes()[:1000])
        found = cached_features(loaded.backbone, loaded.config.image, [job], lambda line: None, 0)[0]
        assert torch.equal(found[[0, 1]], expected[[0, 1]]), broken
        job.path.unlink()


def test_features_that_another_process_is_writing_are_left_to_it(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.load(tmp_path)
    loaded = load_checkpoint(config.path(config.checkpoint))
    job = CacheJob(config.split("val"), [1_000_001], tmp_path / "f.h5")
    with h5py.File(job.partial, "w") as file:
        file["features"] = [0]
    with job.partial.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as HDF5 holds a file that it writes
        with pytest.raises(HvxError, match=r"f\.partial\.h5: another process"):
            cached_features(loaded.backbone, loaded.config.image, [job], lambda line: None, 0)


def test_an_interrupted_training_says_how_to_go_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "train_model", interrupted)
    done = CliRunner().invoke(main, ["train", str(tiny.config)])
    assert done.exit_code == 130
    assert "the same command, without --restart, resumes" in done.stderr
    assert os.linesep not in done.stderr.strip()
