"""Progress on stderr: bars on a terminal, a line every half minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from hvx.terminal import echo, safe

LINE_SECONDS = 30.0
"""Seconds between two lines of progress in a log."""

Item = TypeVar("Item")
Log = Callable[[str], None]
"""Receives messages for the user, a line at a time."""


def no_log(line: str) -> None:
    """Default no-op logger."""
    del line


_quiet = False
_last_line: float | None = None
"""Time of the command's last line of progress; None outside commands, where no lines are printed."""


@contextmanager
def reporting(quiet: bool) -> Iterator[None]:
    """Enable progress in logs while a command runs, or disable all progress (``--quiet``).

    Outside, as in Python callers and worker processes, there are bars on a terminal, but no lines.
    """
    global _quiet, _last_line
    _quiet, _last_line = quiet, time.monotonic()
    try:
        yield
    finally:
        _quiet, _last_line = False, None


def bar(items: Iterable[Item], label: str, unit: str = "it", total: int | None = None) -> Iterator[Item]:
    """``items``, with a progress bar ``label`` that appears after two seconds, or with lines in a log."""
    if _quiet or _last_line is None or sys.stderr.isatty():
        from tqdm import tqdm  # slow import

        # disable=None: tqdm stays silent where stderr is no terminal.
        yield from tqdm(items, desc=safe(label), unit=unit, total=total, delay=2, disable=_quiet or None)
    else:
        yield from _with_lines(items, label, unit, total)


def _with_lines(items: Iterable[Item], label: str, unit: str, total: int | None) -> Iterator[Item]:
    """``items``; prints a line if the command's last one is half a minute old."""
    global _last_line
    if total is None and isinstance(items, Sized):
        total = len(items)
    start = time.monotonic()
    for completed, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if _last_line is not None and now - _last_line >= LINE_SECONDS:
            _last_line = now
            echo(_line(label, unit, completed, total, now - start), err=True)


def _line(label: str, unit: str, completed: int, total: int | None, seconds: float) -> str:
    """``training the backbone: batch 120 of 400, 01:10 elapsed, 02:43 left``"""
    from tqdm import tqdm  # slow import

    count = f"{completed:,}" if total is None else f"{completed:,} of {total:,}"
    line = f"{label}: {unit} {count}, {tqdm.format_interval(seconds)} elapsed"
    if total is not None and completed <= total:
        line += f", {tqdm.format_interval(seconds / completed * (total - completed))} left"
    return line
