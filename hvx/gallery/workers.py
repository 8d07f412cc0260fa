"""Processes that make a gallery's pictures. They end with their parent, also if it is killed.

This module has no heavy imports, so that the parent can report a failed import or allocation in a new
process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

from hvx.errors import HvxError

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class MapSource:
    """The further maps of a run's items, in addition to their attention and heat map.

    Attributes:
        specific: whether there is the question-specific map, computed from the run's own.
        methods: maps of further methods, in this order: for each item number, a file of maps (n, h, w) and
            the index in it. The summed attention has no file.
    """

    specific: bool = False
    methods: dict[str, dict[int, tuple[str, int]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.specific + len(self.methods)


@dataclass(frozen=True)
class Job:
    """The settings of all processes: the output folder, the runs, their further maps, the side of photos in
    pixels."""

    runs: tuple[Path, ...]
    folder: Path
    size: int
    sources: tuple[MapSource, ...]


@dataclass(frozen=True)
class Photo:
    """An image file of the run: its path, and the digest of the explained bytes."""

    path: str
    digest: str


@dataclass(frozen=True)
class Chunk:
    """A range of the gallery's items, which one process writes.

    Attributes:
        index: number of the range.
        items: indices in the gallery.
        photos: photos that are written with it, by number.
        numbers: for each run, the numbers of these items in it.
        partners: for each run and item, the number of another question on the same image; −1 if none.
    """

    index: int
    items: range
    photos: dict[int, Photo]
    numbers: tuple[tuple[int, ...], ...]
    partners: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Missing:
    """Why a photo is not shown: a keyword for the page, and a line for the terminal."""

    kind: Literal["unreadable", "replaced"]
    reason: str


@dataclass(frozen=True)
class Measured:
    """Measurements of a run's items in a chunk.

    Attributes:
        agreement: rank correlation of each item's heat map and attention; None if undefined.
        control: the same with the attention of another question on its image.
        zero: ``zero_gradient`` of each item.
        unknown: the number of out-of-vocabulary tokens of each item.
        words: token → its number of occurrences with a z-score, and the sum of its z.
    """

    agreement: list[float | None]
    control: list[float | None]
    zero: list[int]
    unknown: list[int]
    words: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class Done:
    """A written chunk: the measurements of each run, and the photos that are not shown, by number."""

    chunk: Chunk
    runs: tuple[Measured, ...]
    missing: dict[int, Missing]


def write_chunks(job: Job, chunks: Sequence[Chunk], workers: int) -> Generator[Done, None, None]:
    """Write chunks in ``workers`` processes, or in this one if 1; yields them as they complete, in any order.

    Raises:
        HvxError: a process cannot start, or died.
    """
    if workers <= 1:
        from hvx.gallery.chunks import ChunkWriter

        yield from map(ChunkWriter(job).write, chunks)
        return
    with ExitStack() as stack:
        try:
            futures = _start(stack, job, chunks, workers)
        except (OSError, RuntimeError) as error:
            raise HvxError(f"cannot start {workers} processes: {error}; use fewer --workers") from error
        for future in as_completed(futures):
            yield _result(future)


def _start(stack: ExitStack, job: Job, chunks: Sequence[Chunk], workers: int) -> list[Future[Done]]:
    """Start the processes and submit all chunks; ``stack`` ends the processes."""
    # It resets the signal mask as it starts, so start it before the mask is set below.
    resource_tracker.ensure_running()
    # "fork" would break threads and files of HDF5 and PyTorch.
    context = multiprocessing.get_context("spawn")
    reader, writer = (stack.enter_context(connection) for connection in context.Pipe(duplex=False))
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(job, reader))
    stack.enter_context(_ended(pool, writer))
    # Ctrl-C also reaches the new processes; each would print a traceback until it ignores the signal.
    with signals_held():
        return [pool.submit(_write, chunk) for chunk in chunks]


@contextmanager
def _ended(pool: ProcessPoolExecutor, writer: Connection) -> Iterator[None]:
    """End a pool's processes; immediately if this process is interrupted or fails."""
    try:
        yield
    except BaseException:
        writer.close()
        raise
    finally:
        with signals_held():
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def signals_held() -> Iterator[None]:
    """Block stop signals until the end."""
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _result(future: Future[Done]) -> Done:
    try:
        return future.result()
    except (ImportError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HvxError(f"a process that makes pictures failed: {reason:.300}; use fewer --workers") from error


_job: list[Job] = []
_write_here: list[Callable[[Chunk], Done]] = []
"""The process's writer, made on its first chunk, so that an exception reaches the parent."""


def _begin(job: Job, parent: Connection) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _job.append(job)


def _end_with(parent: Connection) -> None:
    """Wait until the parent closes its end of the pipe, or is killed; then exit immediately."""
    wait([parent])
    os._exit(1)


def _write(chunk: Chunk) -> Done:
    if not _write_here:
        from hvx.gallery.chunks import ChunkWriter

        _write_here.append(ChunkWriter(_job[0]).write)
    return _write_here[0](chunk)
