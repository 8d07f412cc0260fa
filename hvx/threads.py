"""Independent work in threads, for functions that spend their time outside of Python's global lock."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hvx.cpu_count import cpus

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """``function`` of each item, in order, computed in advance by a thread for each core.

    Closing the generator drops what has not begun, and waits for what has.
    """
    with ThreadPoolExecutor(cpus(), "hvx-map") as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
