"""Processes of a gallery: none outlives the one that started it, and what one of them meets is one line."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from made_galleries import Asked, write_run
from processes import PATIENCE, finished, signalled, started, until

from hvx.cli import main
from hvx.errors import HvxError
from hvx.files import sha256
from hvx.gallery import workers
from hvx.gallery.build import CHUNK, build_gallery
from hvx.gallery.workers import Chunk, Job, MapSource, Measured, Photo, write_chunks

HIDDEN = ".gallery.hvx-gallery.part"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Far more than is done before a test's signal comes."""
    folder = tmp_path_factory.mktemp("workers")
    return write_run(folder / "run", [Asked(f"is it {n} ?", photo="0.png") for n in range(16 * CHUNK)])


@pytest.fixture
def building(run: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """`hvx gallery` with two processes that have begun to write; both are gone at the end."""
    command = [sys.executable, "-m", "hvx", "gallery", str(run), "-o", str(tmp_path / "gallery")]
    process = started([*command, "--workers", "2"])
    until(lambda: len(list((tmp_path / HIDDEN).glob("built/data/items-*.js"))) >= 2, process)
    children = psutil.Process(process.pid).children()
    yield process, children
    for child in children:
        if child.is_running():
            child.kill()
    signalled(process, signal.SIGKILL)
    process.communicate()


def gone(children: list[psutil.Process]) -> bool:
    """Whether all end, Python's own process too, which does so a moment after their parent."""
    return not psutil.wait_procs(children, timeout=PATIENCE)[1]


def test_a_killed_gallery_leaves_no_processes_and_the_next_one_removes_its_folder(
    building: tuple[subprocess.Popen[str], list[psutil.Process]], tmp_path: Path
) -> None:
    process, children = building
    assert len(children) >= 3  # two that make pictures, and one of Python's
    signalled(process, signal.SIGKILL)
    process.wait()
    assert gone(children)
    assert [path.name for path in tmp_path.iterdir()] == [HIDDEN]
    few = write_run(tmp_path / "run", [Asked("is it ?")])
    build_gallery(few, tmp_path / "gallery", workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery", "photos", "run"]


def test_an_interrupted_gallery_is_one_line_and_leaves_nothing(
    building: tuple[subprocess.Popen[str], list[psutil.Process]], tmp_path: Path
) -> None:
    process, children = building
    signalled(process, signal.SIGINT, everyone=True)
    assert finished(process) == (130, "", "Error: interrupted\n")
    assert gone(children)
    assert list(tmp_path.iterdir()) == []


def test_its_processes_leave_requests_to_stop_to_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(workers, "_job", [])
    reader, writer = multiprocessing.Pipe(duplex=False)
    job = Job(Path("run"), Path("made"), 64, ())
    ended = threading.Event()
    monkeypatch.setattr(workers.os, "_exit", lambda status: ended.set() if status == 1 else None)
    try:
        workers._begin(job, reader)
        assert workers._job == [job]
        assert {signal.getsignal(number) for number in before} == {signal.SIG_IGN}
        assert not ended.wait(0.05)
        writer.close()  # as where the parent is gone
        assert ended.wait(PATIENCE)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_process_that_dies_ends_the_gallery(
    building: tuple[subprocess.Popen[str], list[psutil.Process]], tmp_path: Path
) -> None:
    process, children = building
    next(one for one in children if "spawn_main" in " ".join(one.cmdline())).kill()
    status, out, err = finished(process)
    assert (status, out) == (2, "")
    assert err.startswith("Error: a process that makes pictures failed: ")
    assert err.endswith("; use fewer --workers\n")
    assert err.count("\n") == 1
    assert gone(children)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def few_files() -> Iterator[Callable[[int], None]]:
    """Leaves this process only so many more files to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(count: int) -> None:
        taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
        for one in taken:
            os.close(one)

    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("megabytes", [60, 180, 240, 400, 999])
def test_too_little_memory_is_one_line(run: Path, tmp_path: Path, megabytes: int) -> None:
    """OpenBLAS ends the process at 100 MB, and never returns at 240 (two cores)."""
    limit = megabytes * 10**6
    command = [sys.executable, "-m", "hvx", "gallery", str(run), "-o", str(tmp_path / "gallery")]
    answer = finished(started(command, lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))))
    text = f"its limit (ulimit -v) is {megabytes} MB, and hvx needs 1,000 MB or more"
    assert answer == (2, "", f"Error: too little memory: {text}\n")
    assert list(tmp_path.iterdir()) == []


def test_enough_memory_draws_a_gallery(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Asked("is it ?", photo="0.png")])
    command = [sys.executable, "-m", "hvx", "gallery", str(run), "-o", str(tmp_path / "gallery")]
    process = started(command, lambda: resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)))
    status, _, err = finished(process)
    assert (status, err) == (0, "")


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no map")])
def test_what_cannot_be_loaded_is_one_line_but_for_debug(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("hvx.gallery.build.build_gallery", fail)
    arguments = ["gallery", str(run), "-o", str(tmp_path / "gallery")]
    done = CliRunner().invoke(main, arguments)
    reason = str(error) or "out of memory"
    assert (done.exit_code, done.stderr) == (
        2, f"Error: too little memory, or a broken installation: {reason}\n"
    )  # fmt: skip
    debugged = CliRunner().invoke(main, [*arguments, "--debug"])
    assert debugged.exit_code == 1
    assert debugged.stderr.startswith("Traceback")
    assert type(error).__name__ in debugged.stderr.splitlines()[-1]


@pytest.mark.parametrize("count", [4, 6, 9])
def test_too_few_open_files_are_one_line_and_leave_nothing(
    run: Path, tmp_path: Path, few_files: Callable[[int], None], count: int
) -> None:
    few_files(count)
    with pytest.raises(HvxError) as error:
        build_gallery(run, tmp_path / "gallery", workers=2)
    assert str(error.value) == (
        "cannot start 2 processes: [Errno 24] Too many open files; use fewer --workers"
    )
    assert list(tmp_path.iterdir()) == []


def test_one_process_needs_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvx.gallery.workers.ProcessPoolExecutor", None)
    run = write_run(tmp_path / "run", [Asked("is it ?", photo="0.png")])
    job = Job((run,), tmp_path / "made", 64, (MapSource(),))
    photo = Photo("0.png", sha256(tmp_path / "photos" / "0.png"))
    chunk = Chunk(0, range(1), {0: photo}, ((0,),), ((-1,),))
    (done,) = write_chunks(job, [chunk], 1)
    words = {"is": (1, -2.0), "it": (1, 0.0), "?": (1, 2.0)}
    assert (done.chunk, done.runs, done.missing) == (chunk, (Measured([1.0], [None], [0], [0], words),), {})


def test_what_a_process_meets_reaches_its_parent(tmp_path: Path) -> None:
    job = Job((tmp_path / "absent",), tmp_path / "made", 64, (MapSource(),))
    with pytest.raises(HvxError, match=r"absent.run\.json: no such file"):
        list(write_chunks(job, [Chunk(0, range(1), {}, ((0,),), ((-1,),))], 2))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("this user cannot mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(run: Path, small_disk: Path) -> None:
    with pytest.raises(HvxError) as error:
        build_gallery(run, small_disk / "gallery", workers=1)
    assert str(error.value).startswith(
        f"{small_disk / 'gallery'}: cannot be written: No space left on device"
    )
    assert list(small_disk.iterdir()) == []
