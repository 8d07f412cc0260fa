"""Requests to end, by Ctrl-C or SIGTERM: none is lost, wherever it meets the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_REQUESTS = (signal.SIGINT, signal.SIGTERM)
_DEAF = {"__del__", "_launch"}
"""Functions from within which Python drops, with a traceback, what is raised: finalisers, and what is called
as the start of a decoding process (``multiprocessing``'s ``_launch``) forks."""
_DEAF_INSIDE = {"_MultiProcessingDataLoaderIter.__init__", "_MultiProcessingDataLoaderIter._shutdown_workers"}
"""The same, by qualified names: where PyTorch has started or ended only some of its decoding processes, its
finaliser fails with a traceback."""


class Requests:
    """What came since they are heeded."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self.came = False

    def check(self) -> None:
        """Raise what was asked for where it could not be raised.

        Raises:
            KeyboardInterrupt: the process is asked to end.
        """
        if self.came:
            raise KeyboardInterrupt

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        if os.getpid() != self._process:  # a decoding process: Ctrl-C reaches it too, but its parent ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        first, self.came = not self.came, True
        while frame:
            if frame.f_code.co_name in _DEAF or frame.f_code.co_qualname in _DEAF_INSIDE:
                return
            frame = frame.f_back
        if first or number == signal.SIGINT:  # a second SIGTERM leaves time to tidy up
            raise KeyboardInterrupt


@contextmanager
def heeded() -> Iterator[Requests]:
    """Turn requests to end into KeyboardInterrupt, at once or at the next check; only in the main thread."""
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    # What a shell starts in the background ignores Ctrl-C, and goes on ignoring it.
    heard = [number for number in _REQUESTS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, requests.take) for number in heard}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
