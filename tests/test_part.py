"""`hvx explain --part K/N`: several processes share a run, as a job array of Slurm does."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import Tiny
from preloaded import Preloaded
from processes import datasets, explain_command, finished, shards_there, signalled, started, until

from hvx.errors import HvxError
from hvx.run import explain, lock
from hvx.run.explain import Options, explain_split
from hvx.run.local import local_engine
from hvx.run.lock import LOCK, Part, part_writer

CPU = torch.device("cpu")
HOLD = """
import sys
from pathlib import Path
from hvx.run.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), finishing=sys.argv[2] == "finishing"):
    print("held", flush=True)
    sys.stdin.read()
"""


HOLD_SILENTLY = """
import fcntl, sys
from pathlib import Path
with (Path(sys.argv[1]) / ".lock").open("r+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD_PART = """
import sys
from pathlib import Path
from hvx.run.lock import Part, part_writer
with part_writer(Path(sys.argv[1]), Part(2, 2)):
    print("held", flush=True)
    sys.stdin.read()
"""


def part(tiny: Tiny, run: Path, which: str, *more: str, **settings: object) -> subprocess.Popen[str]:
    return started([*explain_command(tiny, run, **settings), "--part", which, *more])


def check_equal(run: Path, other: Path) -> None:
    """Two runs hold the same items, answers and failures."""
    for name in ("results.json", "failures.jsonl"):
        assert (run / name).read_bytes() == (other / name).read_bytes()
    assert datasets(run) == datasets(other)


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of shards of one image each, done by one process."""
    run = tmp_path_factory.mktemp("whole") / "run"
    status, _, err = finished(started(explain_command(tiny, run)))
    assert status == 0, err
    return run


def test_parts_one_after_the_other_make_the_run_and_only_the_last_ends_it(
    tiny: Tiny, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    status, out, err = finished(part(tiny, run, "2/3"))
    assert status == 0, err
    assert f"{run}, part 2/3: " in out
    # 8 images, a shard each: numbers 2, 5 and 8, so that 5 are left.
    assert "the run is not complete: 5 shards are not done; the last part to end completes it" in out
    assert len(list((run / "shards").glob("*.h5"))) == 3
    assert json.loads((run / "run.json").read_text())["finished"] is None
    assert not (run / "explanations.h5").exists()
    assert finished(part(tiny, run, "1/3"))[0] == 0
    assert not (run / "explanations.h5").exists()
    status, out, err = finished(part(tiny, run, "3/3"))
    assert status == 0, err
    total = len(json.loads((run / "results.json").read_text()))
    assert f"{run}: {total} questions explained" in out and "not complete" not in out
    check_equal(run, whole)
    assert [path.name for path in run.glob(f"{LOCK}*")] == [LOCK]
    again = finished(part(tiny, run, "1/3"))
    assert again[0] == 0 and "(3 shards were done before)" in again[1]
    check_equal(run, whole)


def test_parts_at_the_same_time_make_the_run(tiny: Tiny, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = [finished(process) for process in [part(tiny, run, f"{k}/2", "--pack") for k in (1, 2)]]
    assert [status for status, _, _ in done] == [0, 0], done
    total = len(json.loads((run / "results.json").read_text()))
    for k, (_, out, _) in enumerate(done, 1):  # both say what the run is, or that it is not complete
        assert (f"{run}: {total} questions explained" in out) != (f"{run}, part {k}/2: " in out)
        assert (f"{run}, part {k}/2: " in out) == ("the run is not complete: " in out)
    assert any("not complete" not in out for _, out, _ in done)
    assert json.loads((run / "run.json").read_text())["packed"] is True
    check_equal(run, whole)


def test_a_part_that_is_at_work_keeps_out_itself_and_the_whole(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = part(tiny, run, "1/2", explain__gradient=True)
    until(shards_there(run, 1), process)
    signalled(process, signal.SIGSTOP)
    try:
        status, out, err = finished(part(tiny, run, "1/2", explain__gradient=True))
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert f"process {process.pid} on " in err and "is writing part 1/2 of this run" in err
        status, out, err = finished(started(explain_command(tiny, run, explain__gradient=True)))
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert "hvx explain --part (process " in err and "is writing this run" in err
        status, out, err = finished(part(tiny, run, "2/2", explain__gradient=True))
        assert status == 0 and "the run is not complete: " in out, err
    finally:
        signalled(process, signal.SIGCONT)
    status, out, err = finished(process)
    assert status == 0 and "not complete" not in out, err
    assert json.loads((run / "run.json").read_text())["finished"]


@pytest.mark.parametrize("how", ["finishing", "writing"])
def test_a_part_waits_for_who_ends_the_run_and_for_nobody_else(
    how: str, tiny: Tiny, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    holder = Preloaded(
        [sys.executable, "-c", HOLD, str(run), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    process = part(tiny, run, "1/1")
    if how == "writing":
        status, _, err = finished(process)
        assert status == 2 and f"process {holder.pid} on " in err
        holder.communicate("")
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(8)
        assert not (run / "run.json").exists()
        holder.communicate("")
        assert finished(process)[0] == 0
        check_equal(run, whole)


def test_a_killed_part_is_continued_and_its_remains_go(tiny: Tiny, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = part(tiny, run, "1/2")
    until(shards_there(run, 1), process)
    signalled(process, signal.SIGKILL)
    process.wait()
    (run / "shards" / ".left.h5.part").write_bytes(b"half")
    assert finished(part(tiny, run, "2/2"))[0] == 0
    status, out, err = finished(part(tiny, run, "1/2"))
    assert status == 0 and "not complete" not in out, err
    check_equal(run, whole)
    assert not list((run / "shards").glob(".*"))


def test_failures_of_all_parts_are_listed_at_the_end(tiny: Tiny, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in (tiny.root / "scenes" / "images").glob("SCENES_val_*"):
        (images / path.name).write_bytes(path.read_bytes())
    bad = sorted(images.iterdir())[0]
    bad.write_bytes(b"no image")
    run, settings = tmp_path / "run", {"splits__val__images": images}
    status, out, _ = finished(part(tiny, run, "1/2", **settings))
    assert status == 3 and "the last part lists them in failures.jsonl" in out
    assert not (run / "failures.jsonl").exists()
    status, out, _ = finished(part(tiny, run, "2/2", **settings))
    assert status == 3 and "see " in out
    listed = [json.loads(line) for line in (run / "failures.jsonl").read_text().splitlines()]
    assert {row["image_path"] for row in listed} == {bad.name}


def test_without_locks_parts_are_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that completes the run would remove what others are writing."""

    def refuse(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(HvxError, match="--part needs a file system with locks"):
        explain_split(tiny.load(tmp_path / "run"), local_engine(CPU), Options(part=Part(1, 2)))
    assert not (tmp_path / "run" / "run.json").exists()
    monkeypatch.setattr(lock, "_posix_locks", lambda: None)  # as on a system without them
    with (
        pytest.raises(HvxError, match="--part needs a file system with locks"),
        part_writer(tmp_path, Part(1, 2)),
    ):
        pass


def test_who_is_about_to_say_that_it_finishes_is_waited_for(tmp_path: Path) -> None:
    """Between taking the lock and writing into it, the file still says what was there before."""
    (tmp_path / LOCK).write_text(json.dumps({"pid": 1, "host": "x", "since": "y"}))
    command = [sys.executable, "-c", HOLD_SILENTLY, str(tmp_path)]
    holder = Preloaded(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    waited = threading.Timer(0.6, lambda: holder.communicate(""))
    waited.start()
    with part_writer(tmp_path, Part(1, 2)):
        assert json.loads((tmp_path / LOCK).read_text())["parts"] is True
    waited.join()


def test_a_disk_must_have_room_for_all_parts(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They write at the same time: each one's share alone would fit."""
    checked: list[int] = []
    monkeypatch.setattr(explain, "check_room", lambda run, shards, *more: checked.append(len(shards)))
    config = tiny.load(tmp_path / "run", explain__shard_questions=1)
    summary = explain_split(config, local_engine(CPU), Options(part=Part(1, 4)))
    assert checked == [8] and (summary.done_now, summary.left, summary.part) == (2, 6, Part(1, 4))


def test_a_part_that_ends_while_another_is_at_work_leaves_the_rest_to_it(tiny: Tiny, tmp_path: Path) -> None:
    """Also where no shard is missing any more: its counts are not the run's."""
    run = tmp_path / "run"
    whole = explain_split(tiny.load(run, explain__shard_questions=1), local_engine(CPU))
    (run / "shards" / ".other.h5.part").write_bytes(b"half")  # of the other part, which is at work
    command = [sys.executable, "-c", HOLD_PART, str(run)]
    other = Preloaded(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    status, out, err = finished(part(tiny, run, "1/2"))
    assert status == 0 and f"{run}, part 1/2: " in out, err
    assert "the run is not complete: another part is at work; the last part to end completes it" in out
    assert f" {whole.explained} questions" not in out
    assert (run / "shards" / ".other.h5.part").exists()
    other.communicate("")


@pytest.mark.parametrize("given", ["0/3", "4/3", "1", "1/0", "-1/2", "a/b", "1/2/3", "١/٢"])
def test_what_is_no_part_is_refused(given: str, tiny: Tiny, tmp_path: Path) -> None:
    status, out, err = finished(part(tiny, tmp_path / "run", given))
    assert (status, out) == (2, "")
    assert f"'{given}' is no part; expected K/N with K from 1 to N, such as 3/8" in err
    assert not (tmp_path / "run").exists()
