"""Work in threads: the order of results, errors, and what is dropped when the caller stops."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from hvx.threads import map_threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvx.threads.cpus", lambda: 2)


def test_results_have_the_order_of_the_items_whichever_ends_first() -> None:
    def late(item: int) -> int:
        time.sleep(0.02 if item % 2 == 0 else 0)
        return 10 * item

    assert list(map_threads(late, range(7))) == [0, 10, 20, 30, 40, 50, 60]
    assert list(map_threads(late, [])) == []


def test_two_items_are_computed_at_once() -> None:
    both = threading.Barrier(2, timeout=30)
    assert sorted(map_threads(lambda item: both.wait(), range(2))) == [0, 1]


def test_an_error_reaches_the_caller_and_later_items_do_not_begin() -> None:
    begun: list[int] = []

    def failing(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        if item == 1:
            raise OSError("no space left")
        return item

    with pytest.raises(OSError, match="no space left"):
        list(map_threads(failing, range(1000)))
    assert len(begun) < 20


def test_closing_drops_what_has_not_begun_and_waits_for_what_has() -> None:
    begun: list[int] = []
    ended: list[int] = []

    def slow(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        ended.append(item)
        return item

    with closing(map_threads(slow, range(1000))) as results:
        assert next(results) == 0
    assert sorted(begun) == sorted(ended) and len(begun) < 20
    time.sleep(0.05)
    assert len(begun) == len(ended) < 20
