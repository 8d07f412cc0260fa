"""A disk that fills as HDF5 writes, and a request to end amid it: neither reaches HDF5."""

from __future__ import annotations

import errno
import random
import signal
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from made_runs import items, written

from hvx.errors import HvxError
from hvx.store.checksum import verify_checksum
from hvx.store.sink import Sink
from hvx.store.writer import write_shard, write_solid, write_view

SIZE = 500


class Full(FileIO):
    """A file on a disk that takes so many more writes, each in part."""

    left = 10**9

    def write(self, data: Any) -> int:
        Full.left -= 1
        if Full.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(memoryview(data)[:200])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two shards, on such a disk from now on."""
    made = written(tmp_path / "run", solid=False)
    before = Sink.__init__
    monkeypatch.setattr(
        Sink, "__init__", lambda self, file: before(self, Full(file.fileno(), "r+", closefd=False))
    )
    monkeypatch.setattr(Full, "left", 10**9)
    return made


@pytest.mark.parametrize("kind", ["shard", "view", "solid"])
def test_no_write_that_fails_leaves_a_file_or_ends_the_process(run: Path, kind: str) -> None:
    """HDF5 itself crashes on some of them, for which hvx.store.sink is there."""
    shards = sorted((run / "shards").iterdir())
    new = run / "shards" / "new.h5"
    write: Callable[[], None] = {
        "shard": lambda: write_shard(new, items(1), {}, []),
        "view": lambda: write_view(new, shards, {}),
        "solid": lambda: write_solid(new, shards, {}),
    }[kind]
    write()
    writes = 10**9 - Full.left
    assert writes > 20 and verify_checksum(new) is None
    whole = new.read_bytes()
    for number in range(0, writes, 1 + writes // 60):
        Full.left = number
        with pytest.raises(HvxError, match=r"new\.h5: cannot be written: No space left on device"):
            write()
    assert new.read_bytes() == whole  # which the last attempts did not touch
    assert not list(run.rglob("*.part"))


def test_a_request_to_end_waits_until_hdf5_has_written(tmp_path: Path) -> None:
    path = tmp_path / "00000.h5"
    before = Sink.write

    def interrupting(self: Sink, data: memoryview) -> int:
        signal.raise_signal(signal.SIGINT)
        return before(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sink, "write", interrupting)
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                write_shard(path, items(1), {}, [])
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            write_shard(path, items(1), {}, [])  # a background job's Ctrl-C is not its own
        finally:
            signal.signal(signal.SIGINT, handler)
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and verify_checksum(path) is None


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_what_the_disk_did_not_take_can_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    chance, held = random.Random(taken), bytearray(SIZE)
    monkeypatch.setattr(Full, "left", taken)
    with Full(tmp_path / "file", "w+") as file:
        sink = Sink(file)
        for _ in range(40):
            start = chance.randrange(SIZE - 60)
            data = chance.randbytes(chance.randint(1, 60))
            sink.seek(start)
            assert sink.write(memoryview(data)) == len(data)
            held[start : start + len(data)] = data
        for _ in range(200):
            start, size = chance.randrange(SIZE - 60), chance.randint(1, 60)
            buffer = bytearray(size)
            sink.seek(start)
            sink.readinto(memoryview(buffer))
            assert buffer == held[start : start + size]
        with pytest.raises(OSError, match="No space left"):
            sink.check()
