"""Requests to stop, by Ctrl-C or SIGTERM: none is lost, whatever code is running when it arrives."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from hvx.errors import STOP_SIGNALS

_DROPPING = {"__del__", "_launch"}
"""Functions in which Python prints and drops exceptions: finalizers, and what runs while a decoding process
is forked (``multiprocessing``'s ``_launch``)."""
_DROPPING_INSIDE = {
    "_MultiProcessingDataLoaderIter.__init__",
    "_MultiProcessingDataLoaderIter._shutdown_workers",
}
"""The same, by qualified name: if PyTorch has started or ended only some of its decoding processes, its
finalizer fails with a traceback."""


_SAME = 1.0
"""Seconds within which further signals count as the same request: a shell may pass Ctrl-C on as well."""
_LATER = 0.05
"""Seconds after which a signal is sent again that arrived where exceptions are dropped."""


class StopSignal:
    """The requests to stop since handling began."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._raised: float | None = None
        self._ended = False
        self._again: list[threading.Timer] = []
        self.came = False

    def check(self) -> None:
        """Raise if a request came, in case the handler could not raise.

        Raises:
            KeyboardInterrupt: the process is asked to stop.
        """
        if self.came:
            self._raise()

    def end(self) -> None:
        """Raise nothing from now on: the user is told, and the process exits."""
        self._ended = True
        for timer in self._again:
            timer.cancel()
            timer.join()  # a signal that it is sending still reaches this handler

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        if os.getpid() != self._process:  # a decoding process: gets Ctrl-C as well, but its parent ends it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        self.came = True
        if self._ended:
            return
        if self._raised is not None and (number == signal.SIGTERM or time.monotonic() - self._raised < _SAME):
            return  # leaves time for cleanup
        if _drops_exceptions(frame):
            self._send_again(number)
            return
        self._raise()

    def _raise(self) -> None:
        self._raised = time.monotonic()
        raise KeyboardInterrupt

    def _send_again(self, number: int) -> None:
        with suppress(RuntimeError):  # no thread can be started: the interpreter is exiting
            timer = threading.Timer(_LATER, os.kill, (self._process, number))
            timer.daemon = True
            timer.start()
            self._again.append(timer)


def _drops_exceptions(frame: FrameType | None) -> bool:
    """Whether an exception raised in this frame would be dropped."""
    while frame:
        if frame.f_code.co_name in _DROPPING or frame.f_code.co_qualname in _DROPPING_INSIDE:
            return True
        frame = frame.f_back
    return False


_active: list[StopSignal] = []


@contextmanager
def handle_signals(last: bool = False) -> Iterator[StopSignal]:
    """Turn requests to stop into KeyboardInterrupt, at once or at the next check; only in the main thread.

    A nested call shares the outer one's requests. A second signal within a second is the same request.

    Args:
        last: the process exits after this block; after a request, later ones are ignored until then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopSignal()
        return
    if _active:
        yield _active[0]
        return
    requests = StopSignal()
    # A process that a shell started in the background ignores Ctrl-C, and still does here.
    signals = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, requests.take) for number in signals}
    _active.append(requests)
    try:
        yield requests
    finally:
        requests.end()
        _active.clear()
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_IGN if last and requests.came else handler)
