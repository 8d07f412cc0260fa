"""Requests to end, by Ctrl-C or SIGTERM: none is lost, wherever it meets the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_REQUESTS = (signal.SIGINT, signal.SIGTERM)
_DEAF = {"__del__", "_launch"}
"""Functions from within which Python drops, with a traceback, what is raised: finalizers, and what is called
as the start of a decoding process (``multiprocessing``'s ``_launch``) forks."""
_DEAF_INSIDE = {"_MultiProcessingDataLoaderIter.__init__", "_MultiProcessingDataLoaderIter._shutdown_workers"}
"""The same, by qualified names: where PyTorch has started or ended only some of its decoding processes, its
finalizer fails with a traceback."""


_SAME = 1.0
"""Seconds within which further signals count as the same request, as where a shell passes Ctrl-C on, too."""
_LATER = 0.05
"""Seconds after which a signal is sent again that came where nothing can be raised."""


class Requests:
    """The requests to end that came since they are handled."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._raised: float | None = None
        self._ended = False
        self._again: list[threading.Timer] = []
        self.came = False

    def check(self) -> None:
        """Raise what was asked for, where it could not be raised.

        Raises:
            KeyboardInterrupt: the process is asked to end.
        """
        if self.came:
            self._raise()

    def end(self) -> None:
        """Raise nothing from here on: the user is told, and the process exits."""
        self._ended = True
        for timer in self._again:
            timer.cancel()
            timer.join()  # a signal that it is sending meets this handler, and not the one before it

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        if os.getpid() != self._process:  # a decoding process: Ctrl-C reaches it too, but its parent ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        self.came = True
        if self._ended:
            return
        if self._raised is not None and (number == signal.SIGTERM or time.monotonic() - self._raised < _SAME):
            return  # leaves time to tidy up
        if _is_deaf(frame):
            self._send_again(number)
            return
        self._raise()

    def _raise(self) -> None:
        self._raised = time.monotonic()
        raise KeyboardInterrupt

    def _send_again(self, number: int) -> None:
        with suppress(RuntimeError):  # no thread can be started: the interpreter ends
            timer = threading.Timer(_LATER, os.kill, (self._process, number))
            timer.daemon = True
            timer.start()
            self._again.append(timer)


def _is_deaf(frame: FrameType | None) -> bool:
    """Whether what is raised here would be dropped."""
    while frame:
        if frame.f_code.co_name in _DEAF or frame.f_code.co_qualname in _DEAF_INSIDE:
            return True
        frame = frame.f_back
    return False


_active: list[Requests] = []


@contextmanager
def heeded(last: bool = False) -> Iterator[Requests]:
    """Turn requests to end into KeyboardInterrupt, at once or at the next check; only in the main thread.

    Inside another of these, the other's requests are these. A second request within a second is the same.

    Args:
        last: the process exits after this; once a request came, later ones are ignored until it has.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Requests()
        return
    if _active:
        yield _active[0]
        return
    requests = Requests()
    # What a shell starts in the background ignores Ctrl-C, and goes on ignoring it.
    heard = [number for number in _REQUESTS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, requests.take) for number in heard}
    _active.append(requests)
    try:
        yield requests
    finally:
        requests.end()
        _active.clear()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last and requests.came else handler)
