"""One writer: who holds a run folder is named, and who died holds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Tiny, hvx
from processes import explain_command, finished, shards_there, signalled, started, until

from hvx.errors import HvxError
from hvx.run.lock import LOCK, only_writer

HOLD = """
import sys
from pathlib import Path
from hvx.run.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(run: Path) -> subprocess.Popen[str]:
    """A process that holds a folder until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_says_who_holds_the_folder(tiny: Tiny, finished_run: Path, tmp_path: Path) -> None:
    process = holder(finished_run)
    with pytest.raises(HvxError) as refused, only_writer(finished_run):
        pass
    assert f"{finished_run}: process {process.pid} on " in str(refused.value)
    assert str(refused.value).endswith("is writing this run; wait for it, or stop it")
    command = explain_command(tiny, finished_run, explain__shard_questions=12, explain__gradient=True)
    status, out, err = finished(started(command))
    assert (status, out) == (2, "") and f"process {process.pid} on " in err and err.count("\n") == 1
    done = hvx("info", finished_run, "--verify")
    assert done.returncode == 2 and f"process {process.pid} on " in done.stderr
    process.communicate("")
    with only_writer(finished_run):
        pass


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == process.pid
    with only_writer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_the_decoding_processes_of_a_killed_run_hold_nothing(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(explain_command(tiny, run, explain__workers=2, explain__batch_images=1,
                                      explain__shard_questions=30))  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: (run / LOCK).exists() and len(children.read_text().split()) >= 1, process)
    left = children.read_text().split()
    for child in left:
        os.kill(int(child), signal.SIGSTOP)
    signalled(process, signal.SIGKILL)
    process.wait()
    assert left and all(Path(f"/proc/{child}").exists() for child in left)
    with only_writer(run):
        pass
    signalled_all(left)
    finished(process)


def signalled_all(children: list[str]) -> None:
    for child in children:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}', "\0" * 5000])
def test_a_holder_that_cannot_be_read_is_another_process(tmp_path: Path, content: str) -> None:
    process = holder(tmp_path)
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(HvxError, match="another process is writing this run"), only_writer(tmp_path):
        pass
    process.communicate("")


def test_two_runs_started_at_once_are_one_run(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    both = [started(explain_command(tiny, run)) for _ in range(2)]
    ends = [finished(process) for process in both]
    assert {status for status, _, _ in ends} <= {0, 2}
    assert any(status == 0 for status, _, _ in ends)
    for status, _, err in ends:
        assert status == 0 or "is writing this run" in err
    assert hvx("info", run, "--verify").returncode == 0
    assert shards_there(run, 8)()
