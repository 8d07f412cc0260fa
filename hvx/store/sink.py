"""Where HDF5 writes to.

Its library crashes the process where a write fails, or what it wrote does not come back (seen with 2.0 on a
full disk). So nothing fails here: it goes on in memory, and the failure is raised outside of HDF5.
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

_REQUESTS = (signal.SIGINT, signal.SIGTERM)
_VERSION = "v110", "v110"
"""Of HDF5's format: the first with virtual datasets. It keeps where the numbers lie in one place."""


class Sink:
    """A new file for h5py to write by way of Python.

    Args:
        file: open for writing and reading, unbuffered.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._failure: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []
        """What the file did not take, by place; of two for the same place, the later counts."""
        self.stopped: list[int] = []
        """Signals that asked the process to end meanwhile."""

    def check(self) -> None:
        """Raise what went wrong, or was asked for, since the file was begun.

        Raises:
            OSError: a write failed.
            KeyboardInterrupt: the process is asked to end.
        """
        if self._failure:
            raise self._failure
        if self.stopped:
            raise KeyboardInterrupt

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """For h5py to know this as a file."""
        return self._file.read(size) or b""

    def readinto(self, buffer: memoryview) -> int:
        start = self._file.tell()
        count = self._file.readinto(buffer) or 0
        end = start + len(buffer)
        for place, data in self._unwritten:
            first, last = max(start, place), min(end, place + len(data))
            if first < last:
                buffer[first - start : last - start] = data[first - place : last - place]
                count = max(count, last - start)
        return count

    def write(self, data: memoryview) -> int:
        place, left = self._file.tell(), memoryview(data).cast("B")
        try:
            while left and not self._failure:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._failure = error
        if self._failure:
            self._unwritten.append((place, bytes(data)))
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            self._file.truncate(size)
        except OSError as error:
            self._failure = self._failure or error
        return size

    def flush(self) -> None:
        """Nothing is held back."""


@contextmanager
def new_hdf5(path: Path, block: int) -> Iterator[tuple[h5py.File, Sink]]:
    """A new HDF5 file with a user block, and its sink, to be checked now and then.

    Args:
        path: the file.
        block: bytes of the user block.

    Raises:
        OSError: a write failed; what is in the file is of no use.
        KeyboardInterrupt: the process was asked to end, and the body checked, or the file is done.
    """
    with path.open("wb+", buffering=0) as opened:
        sink = Sink(opened)
        with _undisturbed(sink):
            try:
                with h5py.File(sink, "w", userblock_size=block, libver=_VERSION) as file:
                    yield file, sink
            except (OSError, RuntimeError):  # HDF5's own words for what it found missing
                sink.check()
                raise
            sink.check()


@contextmanager
def _undisturbed(sink: Sink) -> Iterator[None]:
    """Keep Ctrl-C and the like from being raised amid HDF5's writes; they are raised behind the last."""
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}
    if threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in _REQUESTS}
        handlers = {number: handler for number, handler in known.items() if callable(handler)}

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
