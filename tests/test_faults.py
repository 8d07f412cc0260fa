"""Runs that are killed, interrupted, out of room or given damaged images: nothing finished is lost."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import THREADS, Tiny
from processes import (
    PATIENCE,
    datasets,
    explain_command,
    finished,
    shards_there,
    signalled,
    started,
    torn,
    until,
)

from hvx.data.questions import read_questions
from hvx.run.explain import Options, explain_split
from hvx.run.local import local_engine
from hvx.run.verify import verify

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in shards of one image that nothing disturbed."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    explain_split(tiny.load(run, explain__shard_questions=1), local_engine(CPU))
    return run


def goes_on(tiny: Tiny, run: Path, undisturbed: Path) -> None:
    """Finish a run that was stopped; it holds what an undisturbed one does."""
    kept = {path: path.stat().st_mtime_ns for path in (run / "shards").glob("*.h5")}
    summary = explain_split(tiny.load(run, explain__shard_questions=1), local_engine(CPU))
    assert summary.done_before == len(kept)
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert datasets(run) == datasets(undisturbed)
    for name in ("results.json", "failures.jsonl"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
    assert json.loads((run / "run.json").read_text())["finished"]
    assert not list(run.rglob("*.part"))
    assert verify(run).finished


@pytest.mark.parametrize(("shards", "workers"), [(0, 0), (2, 1), (6, 0)])
def test_a_killed_run_is_finished_by_the_same_command(
    tiny: Tiny, undisturbed: Path, tmp_path: Path, shards: int, workers: int
) -> None:
    run = tmp_path / "run"
    process = started(explain_command(tiny, run, explain__workers=workers))
    until(shards_there(run, shards) if shards else (run / "run.json").exists, process)
    time.sleep(0.02 * random.random())
    signalled(process, signal.SIGKILL)
    finished(process)
    assert torn(run) == []
    goes_on(tiny, run, undisturbed)


@pytest.mark.parametrize("stage", ["explanations.h5", "results.json", "run.json"])
def test_a_run_killed_as_it_is_finished_is_finished_by_the_same_command(
    tiny: Tiny, undisturbed: Path, tmp_path: Path, stage: str
) -> None:
    """Killed just before a file's appearance, in a process that dies without any tidying up."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed / "shards", run / "shards")
    lines = (
        "import os, sys, pathlib, torch",
        "from hvx.config import load",
        "from hvx.run.explain import explain_split",
        "from hvx.run.local import local_engine",
        "replace, seen = pathlib.Path.replace, []",
        "def dying(self, target):",
        f"    if target.name == {stage!r} and ({stage != 'run.json'} or seen):",
        "        os._exit(9)",
        "    seen.extend([1] * (target.name == 'results.json'))",
        "    return replace(self, target)",
        "pathlib.Path.replace = dying",
        "explain_split(load(pathlib.Path(sys.argv[1]), sys.argv[2:]), local_engine(torch.device('cpu')))",
    )
    settings = tiny.settings(run, explain__shard_questions=1)
    died = started([sys.executable, "-c", "\n".join(lines), str(tiny.config), *settings])
    assert finished(died)[0] == 9
    goes_on(tiny, run, undisturbed)


@pytest.mark.parametrize(
    ("number", "everyone", "workers", "times"),
    [(signal.SIGINT, True, 1, 2), (signal.SIGTERM, False, 1, 1), (signal.SIGTERM, True, 0, 2)],
)
def test_an_interrupted_run_says_how_to_go_on_and_does(
    tiny: Tiny,
    undisturbed: Path,
    tmp_path: Path,
    number: signal.Signals,
    everyone: bool,
    workers: int,
    times: int,
) -> None:
    run = tmp_path / "run"
    process = started(explain_command(tiny, run, explain__workers=workers))
    until(shards_there(run, 1), process)
    for _ in range(times):
        signalled(process, number, everyone)
        time.sleep(0.05)
    status, out, err = finished(process)
    assert (status, out) == (130, "")
    line = err.strip()
    assert len(line.splitlines()) == 1, err
    assert line.startswith(f"Error: {run}: interrupted; ")
    assert line.endswith("shards are done; the same command resumes from there")
    assert not list(run.rglob("*.part"))
    goes_on(tiny, run, undisturbed)


def refused_with(line: str, tiny: Tiny, run: Path, **limits: int) -> str:
    """The one line that a run ends with, status 2, which contains ``line``."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["size"], limits["size"]))

    process = started(explain_command(tiny, run), limited if limits else None)
    status, out, err = finished(process)
    assert (status, out) == (2, ""), err
    (said,) = err.strip().splitlines()
    assert said.startswith("Error: ") and line in said, said
    assert not list(run.rglob("*.part"))
    return said


@pytest.mark.parametrize("part", [0.1, 0.9])
def test_a_limit_on_file_sizes_is_one_line_and_the_run_goes_on_without_it(
    tiny: Tiny, undisturbed: Path, tmp_path: Path, part: float
) -> None:
    run = tmp_path / "run"
    largest = max(path.stat().st_size for path in (undisturbed / "shards").iterdir())
    said = refused_with("cannot be written", tiny, run, size=int(part * largest))
    assert str(run / "shards") in said
    goes_on(tiny, run, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "hvx-test", disk], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    tiny: Tiny, undisturbed: Path, small_disk: Path
) -> None:
    run, free = small_disk / "run", 512 << 10
    for left in (4 << 10, 100 << 10, 200 << 10):
        (small_disk / "ballast").write_bytes(bytes(free - left - used(run)))
        refused_with("No space left on device", tiny, run)
        assert torn(run) == []
        (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    goes_on(tiny, run, undisturbed)


def used(run: Path) -> int:
    pages = -(-sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) // 4096)
    return 4096 * (pages + len(list(run.rglob("*"))))


def test_a_folder_that_may_not_be_written_is_one_line(
    tiny: Tiny, undisturbed: Path, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    run = small_disk / "run"
    shutil.copytree(undisturbed, run)
    (run / "shards" / "00003.h5").unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused_with("cannot be written: Read-only file system", tiny, run)
    refused_with("cannot be written: Read-only file system", tiny, small_disk / "new")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    goes_on(tiny, run, undisturbed)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o500)
    refused_with("cannot be written: Permission denied", tiny, tmp_path / "mine" / "run")


def test_damaged_images_cost_their_questions_and_are_tried_again_when_asked(
    tiny: Tiny, undisturbed: Path, tmp_path: Path
) -> None:
    images, run = tmp_path / "images", tmp_path / "run"
    shutil.copytree(tiny.root / "scenes" / "images", images)
    config = tiny.load(run, explain__shard_questions=1, splits__val__images=images)
    paths = sorted(images.glob("SCENES_val_*"))
    struck = {1: paths[1].read_bytes()[:300], 4: b"", 6: None}
    for place, content in struck.items():
        paths[place].unlink() if content is None else paths[place].write_bytes(content)
    questions = read_questions(config.split("val"))
    lost = {q.question_id for q in questions if int(q.image_id) - 1_000_000 in struck}
    explain_split(config, local_engine(CPU))
    failures = [json.loads(line) for line in (run / "failures.jsonl").read_text().splitlines()]
    assert {failure["question_id"] for failure in failures} == lost and len(failures) == len(lost)
    assert all(paths[failure["image_id"] - 1_000_000].name in failure["reason"] for failure in failures)
    for path in paths:
        shutil.copy(tiny.root / "scenes" / "images" / path.name, path)
    assert explain_split(config, local_engine(CPU)).failed == len(lost)  # not unless asked
    summary = explain_split(config, local_engine(CPU), Options(retry_failed=True))
    assert (summary.failed, summary.done_now) == (0, len(struck))
    assert datasets(run) == datasets(undisturbed)
    assert (run / "failures.jsonl").read_text() == ""


def test_a_packed_run_without_its_shards_stays_as_it_is(
    tiny: Tiny, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    explain_split(tiny.load(run, explain__shard_questions=1), local_engine(CPU), Options(pack=True))
    assert datasets(run) == datasets(undisturbed)
    shutil.rmtree(run / "shards")
    summary = explain_split(tiny.load(run, explain__shard_questions=1), local_engine(CPU))
    assert (summary.done_now, summary.failed) == (0, 0)
    assert datasets(run) == datasets(undisturbed)


def test_a_long_folder_for_temporary_files_stops_nothing(tiny: Tiny, tmp_path: Path) -> None:
    """Batch schedulers set such; the path of a socket has 107 characters at most."""
    long = tmp_path / ("x" * 100) / ("y" * 100)
    long.mkdir(parents=True)
    for command in ("explain", "train"):
        settings = tiny.settings(tmp_path / "run", explain__workers=1, train__workers=1)
        if command == "train":
            settings += [f"checkpoint={tmp_path / 'model.safetensors'}"]
        options = [part for setting in settings for part in ("--set", setting)]
        done = subprocess.run(
            [sys.executable, "-m", "hvx", command, str(tiny.config), *options],
            env={**os.environ, "TMPDIR": str(long), "OMP_NUM_THREADS": str(THREADS)},
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
