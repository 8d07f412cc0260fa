"""Processes that make a gallery's pictures. They end with the process that started them, however it ended.

This file imports nothing heavy at its start, so that what a new process cannot import or allocate is an error
that its parent reports.
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
    """Which maps a run's items have beyond their attention and heat map.

    Attributes:
        specific: whether the question-specific one, made of the run's own.
        methods: those of further methods, in this order: for each number of an item, a file of maps (n, h, w)
            and the place in it. The summed attention has no file.
    """

    specific: bool = False
    methods: dict[str, dict[int, tuple[str, int]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.specific + len(self.methods)


@dataclass(frozen=True)
class Job:
    """What every process needs: the folder to write to, the runs, their further maps, the side of photos in
    pixels."""

    runs: tuple[Path, ...]
    folder: Path
    size: int
    sources: tuple[MapSource, ...]


@dataclass(frozen=True)
class Photo:
    """An image file of the run: its path, and the digest of the bytes that were explained."""

    path: str
    digest: str


@dataclass(frozen=True)
class Chunk:
    """A range of the gallery's items, which one process writes.

    Attributes:
        index: which range.
        items: places in the gallery.
        photos: those that are written with it, by their numbers.
        numbers: for each run, the numbers of these items in it.
        partners: for each run and item, the number of another question on the same image; −1: none.
    """

    index: int
    items: range
    photos: dict[int, Photo]
    numbers: tuple[tuple[int, ...], ...]
    partners: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Missing:
    """Why a photo is not shown: in a word for the page, and as a line for the terminal."""

    kind: Literal["unreadable", "replaced"]
    reason: str


@dataclass(frozen=True)
class Measured:
    """What is measured of a run's items in a chunk.

    Attributes:
        agreement: rank correlation of each item's heat map and attention; None where there is none.
        control: the same with the attention of another question on its image.
        zero: ``zero_gradient`` of each item.
        unknown: how many tokens of each item the model does not know.
        words: token → how often it occurs where there are z-scores, and the sum of its z.
    """

    agreement: list[float | None]
    control: list[float | None]
    zero: list[int]
    unknown: list[int]
    words: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class Done:
    """A chunk that is written: what is measured of each run, and the photos that are not shown, by number."""

    chunk: Chunk
    runs: tuple[Measured, ...]
    missing: dict[int, Missing]


def write_chunks(job: Job, chunks: Sequence[Chunk], workers: int) -> Generator[Done, None, None]:
    """Write chunks in ``workers`` processes, or in this one if 1; yields each as it is done, in any order.

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
    # It clears the signal mask as it starts, which is set below: so it starts first.
    resource_tracker.ensure_running()
    # Not forked: HDF5 and PyTorch hold threads and files that a fork would break.
    context = multiprocessing.get_context("spawn")
    reader, writer = (stack.enter_context(end) for end in context.Pipe(duplex=False))
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(job, reader))
    stack.enter_context(_ended(pool, writer))
    # Ctrl-C reaches the new processes too, which would each print a traceback until they ignore it.
    with signals_held():
        return [pool.submit(_write, chunk) for chunk in chunks]


@contextmanager
def _ended(pool: ProcessPoolExecutor, writer: Connection) -> Iterator[None]:
    """End a pool's processes: at once where this process is interrupted or fails."""
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
    """Requests to stop wait until the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _result(future: Future[Done]) -> Done:
    try:
        return future.result()
    except (ImportError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HvxError(f"a process that makes pictures failed: {reason:.300}; use fewer --workers") from error


_job: list[Job] = []
_write_here: list[Callable[[Chunk], Done]] = []
"""A process's own, made on its first chunk: an exception there reaches the parent."""


def _begin(job: Job, parent: Connection) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _job.append(job)


def _end_with(parent: Connection) -> None:
    """Wait until the parent has closed its end of a pipe, be it because it was killed, and end at once."""
    wait([parent])
    os._exit(1)


def _write(chunk: Chunk) -> Done:
    if not _write_here:
        from hvx.gallery.chunks import ChunkWriter

        _write_here.append(ChunkWriter(_job[0]).write)
    return _write_here[0](chunk)
