"""A file object that HDF5 writes to.

HDF5's library crashes the process if a write fails, or if it cannot read back what it wrote (observed with
2.0 on a full disk). So no write fails here: after a failure, data is kept in memory, and the error is raised
outside of HDF5.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import FrameType

import h5py

from hvx.errors import STOP_SIGNALS

_VERSION = "v110", "v110"
"""HDF5's format version: the first with virtual datasets. It stores the positions of chunks together."""


class Sink:
    """A new file that h5py writes through Python.

    Args:
        file: open for writing and reading, unbuffered.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._failure: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []
        """Data that could not be written, with its offset; for the same offset, the later entry is valid."""
        self.stopped: list[int] = []
        """Requests to stop (signals) that came during the writes."""

    def check(self) -> None:
        """Raise if a write failed or a request to stop came since the file was created.

        Raises:
            OSError: a write failed.
            KeyboardInterrupt: the process is asked to stop.
        """
        if self._failure:
            raise self._failure
        if self.stopped:
            raise KeyboardInterrupt

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Required by h5py of a file object."""
        return self._file.read(size) or b""

    def readinto(self, buffer: memoryview) -> int:
        start = self._file.tell()
        count = self._file.readinto(buffer) or 0
        end = start + len(buffer)
        for offset, data in self._unwritten:
            first, last = max(start, offset), min(end, offset + len(data))
            if first < last:
                buffer[first - start : last - start] = data[first - offset : last - offset]
                count = max(count, last - start)
        return count

    def write(self, data: memoryview) -> int:
        offset, remaining = self._file.tell(), memoryview(data).cast("B")
        try:
            while remaining and not self._failure:
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            self._failure = error
        if self._failure:
            self._unwritten.append((offset, bytes(data)))
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            self._file.truncate(size)
        except OSError as error:
            self._failure = self._failure or error
        return size

    def flush(self) -> None:
        """Does nothing: the file is unbuffered."""


@contextmanager
def new_hdf5(path: Path, block: int) -> Iterator[tuple[h5py.File, Sink]]:
    """A new HDF5 file with a user block, and its sink, whose ``check`` should be called now and then.

    Args:
        path: the file.
        block: bytes of the user block.

    Raises:
        OSError: a write failed; the file is unusable.
        KeyboardInterrupt: the process was asked to stop; raised at a check, or when the file is complete.
    """
    with path.open("wb+", buffering=0) as raw_file:
        sink = Sink(raw_file)
        with _defer_signals(sink):
            try:
                with h5py.File(sink, "w", userblock_size=block, libver=_VERSION) as file:
                    yield file, sink
            except (OSError, RuntimeError):  # HDF5's error for data that is missing
                sink.check()
                raise
            sink.check()


@contextmanager
def _defer_signals(sink: Sink) -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM from being raised during HDF5's writes; they are raised after the last one."""
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}
    if threading.current_thread() is threading.main_thread():
        current = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        handlers = {number: handler for number, handler in current.items() if callable(handler)}

    def keep(number: int, frame: FrameType | None) -> None:
        del frame
        sink.stopped.append(number)

    for number in handlers:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if sink.stopped:
            signal.raise_signal(sink.stopped[0])
