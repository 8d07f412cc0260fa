"""Images in parallel on the CPU: each thread computes whole passes of its own images.

Threads that share every operation instead wait for each other after each of some hundred operations of a
pass, and the masks, which NumPy packs, occupy one thread while the others wait. An image's tensors also fit
the caches better than a batch's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_parallel(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``function`` of each item, without gradients. PyTorch's threads are shared out among the items.

    As many items run at once as divide the number of threads: of 5 items, 4 threads take one each, and all 4
    threads the fifth together.
    """
    threads, results = torch.get_num_threads(), list[Result]()
    while len(results) < len(items):
        left = len(items) - len(results)
        workers = max(n for n in range(1, threads + 1) if threads % n == 0 and n <= left)
        if workers == 1 or not _threads_have_own_counts():
            results.append(_without_gradients(function, items[len(results)]))
            continue
        some = items[len(results) : len(items) - left % workers]
        pool = _workers(workers, threads // workers)
        results += pool.map(lambda item: _without_gradients(function, item), some)
    return results


def _without_gradients(function: Callable[[Item], Result], item: Item) -> Result:
    with torch.no_grad():  # holds for the thread that enters it
        return function(item)


@lru_cache(maxsize=1)
def _threads_have_own_counts() -> bool:
    """Whether PyTorch's number of threads can differ between the threads that call it."""
    return "ATen parallel backend: OpenMP" in torch.__config__.parallel_info()


@lru_cache(maxsize=4)
def _workers(count: int, threads: int) -> ThreadPoolExecutor:
    """Threads whose PyTorch operations each use so many threads."""
    pool, started = ThreadPoolExecutor(count, "hvx-engine"), Barrier(count)
    before = torch.get_num_threads()

    def start() -> None:
        torch.get_num_threads()  # its first call in a thread sets the process's number
        torch.set_num_threads(threads)
        started.wait()  # every thread starts

    for future in [pool.submit(start) for _ in range(count)]:
        future.result()
    # Of the caller, and of threads that start later.
    torch.set_num_threads(before)
    return pool


# A forked process has none of the threads.
os.register_at_fork(after_in_child=_workers.cache_clear)
