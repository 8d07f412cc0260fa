"""One writer: who holds a run folder is named, and who died holds nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from io import FileIO
from pathlib import Path

import pytest
from conftest import Tiny, hvx
from preloaded import Preloaded
from processes import explain_command, finished, shards_there, signalled, started, until

from hvx.errors import HvxError
from hvx.run import lock
from hvx.run.lock import LOCK, ReadOnly, exclusive_lock

HOLD = """
import sys
from pathlib import Path
from hvx.run.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(run: Path) -> subprocess.Popen[str]:
    """A process that holds a folder until its standard input ends."""
    process = Preloaded(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_says_who_holds_the_folder(tiny: Tiny, finished_run: Path, tmp_path: Path) -> None:
    process = holder(finished_run)
    with pytest.raises(HvxError) as refused, exclusive_lock(finished_run):
        pass
    assert f"{finished_run}: process {process.pid} on " in str(refused.value)
    assert str(refused.value).endswith("is writing this run; wait for it, or stop it")
    command = explain_command(tiny, finished_run, explain__shard_questions=12, explain__gradient=True)
    status, out, err = finished(started(command))
    assert (status, out) == (2, "") and f"process {process.pid} on " in err and err.count("\n") == 1
    done = hvx("info", finished_run, "--verify")
    assert done.returncode == 2 and f"process {process.pid} on " in done.stderr
    process.communicate("")
    with exclusive_lock(finished_run):
        pass


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == process.pid
    with exclusive_lock(tmp_path):
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
    with exclusive_lock(run):
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
    with pytest.raises(HvxError, match="another process is writing this run"), exclusive_lock(tmp_path):
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


# The lock file is never another one.


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    for leads_to in ("../precious", "../absent", LOCK):
        (run / LOCK).symlink_to(leads_to)
        with pytest.raises(HvxError) as refused, exclusive_lock(run):
            pass
        assert str(refused.value) == f"{run / LOCK}: is a symbolic link; delete it"
        (run / LOCK).unlink()
    assert (tmp_path / "precious").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "run"]


def test_a_lock_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    with (
        pytest.raises(HvxError, match=f"^{tmp_path / LOCK}: is not a file; delete it$"),
        exclusive_lock(tmp_path),
    ):
        pass
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).mkdir()
    with pytest.raises(HvxError) as refused, exclusive_lock(tmp_path):
        pass
    assert str(refused.value) == f"{tmp_path / LOCK}: cannot be written: Is a directory"
    assert type(refused.value) is HvxError


def test_a_link_is_told_by_itself_where_the_system_has_another_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FreeBSD's is EMLINK."""

    def refuse(*given: object) -> int:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    (tmp_path / LOCK).symlink_to("absent")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HvxError) as refused, exclusive_lock(tmp_path):
        pass
    assert str(refused.value) == f"{tmp_path / LOCK}: is a symbolic link; delete it"


class Failing(FileIO):
    """A file on a disk that is full, and cannot be read."""

    def write(self, content: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_lock_that_cannot_be_filled_in_is_an_error_and_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "FileIO", Failing)
    with pytest.raises(HvxError) as refused, exclusive_lock(tmp_path):
        pass
    assert str(refused.value) == f"{tmp_path / LOCK}: cannot be written: No space left on device"
    monkeypatch.undo()
    with exclusive_lock(tmp_path):
        pass


def test_a_holder_that_cannot_be_read_for_an_error_of_the_disk_is_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch, errno.EACCES)
    monkeypatch.setattr(lock, "FileIO", Failing)
    with pytest.raises(HvxError, match="another process is writing this run"), exclusive_lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_may_only_be_read_is_told_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*given: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ReadOnly) as refused, exclusive_lock(tmp_path):
        pass
    assert str(refused.value) == f"{tmp_path / LOCK}: cannot be written: {os.strerror(number)}"


def test_the_lock_says_who_holds_it_and_nothing_of_who_did_before(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("x" * 5000)
    ids = set()
    for _ in range(2):
        with exclusive_lock(tmp_path):
            about = json.loads((tmp_path / LOCK).read_text())
        assert set(about) == {"host", "pid", "since", "id"}
        assert (about["host"], about["pid"]) == (socket.gethostname(), os.getpid())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", about["since"])
        ids.add(about["id"])
    assert len(ids) == 2


# File systems, and systems, without locks.


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)


@pytest.mark.parametrize("name", ["ENOLCK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EROFS", "EIO"])
def test_a_file_system_without_locks_is_said_and_lets_the_run_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number = getattr(errno, name)
    without_locks(monkeypatch, number)
    said: list[str] = []
    with exclusive_lock(tmp_path, said.append) as held:
        held.check()
    why = os.strerror(number)
    assert said == [f"{tmp_path}: the file system has no locks ({why}); let no other process write this run"]
    with exclusive_lock(tmp_path):  # says nothing where nobody listens
        pass


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch, errno.EDEADLK)
    with pytest.raises(HvxError) as refused, exclusive_lock(tmp_path):
        pass
    assert str(refused.value) == f"{tmp_path / LOCK}: cannot be locked: {os.strerror(errno.EDEADLK)}"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN])
def test_a_lock_that_is_held_is_told_by_either_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    without_locks(monkeypatch, number)
    (tmp_path / LOCK).write_text('{"pid": 7, "host": "far", "since": "then"}')
    with pytest.raises(HvxError) as refused, exclusive_lock(tmp_path):
        pass
    assert str(refused.value) == (
        f"{tmp_path}: process 7 on far (since then) is writing this run; wait for it, or stop it"
    )
    assert (tmp_path / LOCK).read_text() == '{"pid": 7, "host": "far", "since": "then"}'


def test_a_system_without_locks_is_said(tmp_path: Path) -> None:
    lines = (
        "import pathlib, sys",
        "sys.modules['fcntl'] = None  # as on Windows",
        "from hvx.run.lock import exclusive_lock",
        "with exclusive_lock(pathlib.Path(sys.argv[1]), print) as held: held.check()",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines), tmp_path], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"{tmp_path}: this system has no file locks; let no other process write this run\n"


def test_a_folder_that_was_moved_is_noticed(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    run.mkdir()
    with exclusive_lock(run) as held:
        held.check()
        run.rename(moved)
        for _ in range(2):
            with pytest.raises(HvxError) as refused:
                held.check()
            assert str(refused.value) == (
                f"{run}: renamed, deleted or taken over by another process while this one wrote it; "
                "nothing more is written there"
            )
            run.mkdir(exist_ok=True)
        (run / LOCK).write_text("{}")  # another run in its place
        with pytest.raises(HvxError, match="taken over"):
            held.check()
        shutil.rmtree(run)
        moved.rename(run)
        held.check()


def test_a_check_lets_nobody_in(tmp_path: Path) -> None:
    """To close a file is to drop all locks that the process has on it."""
    with exclusive_lock(tmp_path) as held:
        held.check()
        tried = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True)
    assert "is writing this run" in tried.stderr and tried.stdout == ""


def test_where_there_are_no_locks_another_writer_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks(monkeypatch, errno.ENOLCK)
    with exclusive_lock(tmp_path) as first, exclusive_lock(tmp_path) as second:
        second.check()
        with pytest.raises(HvxError, match="taken over by another process"):
            first.check()
