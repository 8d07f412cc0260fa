"""Requests to end: raised once, lost nowhere, one line at the end however many come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from torch.utils.data import DataLoader

from hvx.run import signals
from hvx.run.signals import StopSignal, handle_signals


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still."""
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    return now


def raises(number: signal.Signals) -> bool:
    """Whether a signal raises."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_request_is_raised_once(clock: list[float], first: signal.Signals) -> None:
    with handle_signals() as requests:
        requests.check()
        assert not requests.came
        assert raises(first)
        assert requests.came
        clock[0] += 0.99
        assert not raises(signal.SIGINT) and not raises(signal.SIGTERM)
        clock[0] += 0.02
        assert not raises(signal.SIGTERM)  # leaves time to tidy up
        assert raises(signal.SIGINT)  # who asks again wants it at once
        assert not raises(signal.SIGINT)


def test_at_the_end_nothing_is_raised(clock: list[float]) -> None:
    with handle_signals() as requests:
        requests.end()
        assert not raises(signal.SIGINT) and not raises(signal.SIGTERM)
        assert requests.came
        with pytest.raises(KeyboardInterrupt):
            requests.check()


def handlers() -> tuple[object, object]:
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("last", [False, True])
def test_the_handlers_are_put_back_but_not_where_the_process_ends(last: bool) -> None:
    before = handlers()
    with handle_signals(last):
        assert handlers() != before
    assert handlers() == before  # nothing came
    with pytest.raises(KeyboardInterrupt), handle_signals(last):
        signal.raise_signal(signal.SIGTERM)
    assert handlers() == ((signal.SIG_IGN, signal.SIG_IGN) if last else before)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with handle_signals() as requests:
        assert not raises(signal.SIGINT) and not requests.came
        assert raises(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_one_inside_another_shares_its_requests(clock: list[float]) -> None:
    with handle_signals() as outer:
        with handle_signals() as inner:
            assert inner is outer
            assert raises(signal.SIGINT)
        assert not raises(signal.SIGINT)  # still the same request
    with handle_signals() as later:
        assert later is not outer and not later.came


def test_another_thread_has_requests_that_never_come() -> None:
    found: list[StopSignal] = []

    def beside() -> None:
        with handle_signals() as requests:
            found.append(requests)

    before = handlers()
    thread = threading.Thread(target=beside)
    with handle_signals() as main:
        thread.start()
        thread.join()
        assert found[0] is not main and not found[0].came
    assert handlers() == before


class Closing:
    """Asks the process to end as it is finalized."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_request_that_a_finalizer_would_swallow_is_kept_for_the_next_check() -> None:
    with handle_signals() as requests:
        Closing()
        assert requests.came
        with pytest.raises(KeyboardInterrupt):
            requests.check()
        time.sleep(2 * signals._LATER)  # it is not raised again


def test_a_request_that_a_finalizer_would_swallow_is_sent_again() -> None:
    def wait() -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.01)

    with handle_signals():
        Closing()
        with pytest.raises(KeyboardInterrupt):
            wait()


def test_a_request_that_is_to_be_sent_again_dies_with_the_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_LATER", 0.02)
    with handle_signals():
        Closing()
    time.sleep(0.06)  # would raise here


def test_signals_that_are_being_sent_again_meet_no_other_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are put back only once no timer can send a signal any more."""
    sending = threading.Event()

    def slow(process: int, number: int) -> None:
        sending.set()
        time.sleep(0.05)
        signal.raise_signal(number)

    monkeypatch.setattr(signals, "_LATER", 0.0)
    monkeypatch.setattr(signals.os, "kill", slow)
    with handle_signals() as requests:
        Closing()
        Closing()
        assert sending.wait(10)
        assert len(requests._again) == 2
    time.sleep(0.1)  # would raise here


def test_a_request_that_meets_decoding_processes_half_started_is_kept() -> None:
    class Batches(list[list[int]]):
        def __iter__(self) -> Iterator[list[int]]:  # called as the loader sets up
            signal.raise_signal(signal.SIGTERM)
            return super().__iter__()

    with handle_signals() as requests:
        try:
            list(DataLoader([1, 2], batch_sampler=Batches([[0], [1]]), num_workers=1))
        except KeyboardInterrupt:
            pass  # sent again meanwhile
        else:
            with pytest.raises(KeyboardInterrupt):
                requests.check()


def forked(act: Callable[[], None]) -> int:
    """The exit status of a child process that does something, and then exits with 7."""
    child = os.fork()
    if not child:
        try:
            act()
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_in_a_decoding_process_sigterm_ends_it_and_ctrl_c_does_nothing() -> None:
    with handle_signals() as requests:
        assert forked(lambda: signal.raise_signal(signal.SIGINT)) == 7
        assert forked(lambda: signal.raise_signal(signal.SIGTERM)) == 128 + signal.SIGTERM
        assert not requests.came


@pytest.mark.parametrize("other", [-1, 1])
def test_a_process_is_another_whatever_its_number(monkeypatch: pytest.MonkeyPatch, other: int) -> None:
    """Numbers of processes start again; a child's may be less than its parent's."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with handle_signals() as requests:
        requests._process = os.getpid() + other
        assert not raises(signal.SIGINT)
        assert ended == [] and not requests.came
        assert not raises(signal.SIGTERM)
        assert ended == [143] and not requests.came


def called(name: str, act: Callable[[], None]) -> None:
    """Call a function from within one of a (qualified) name, and that from another one."""

    def middle() -> None:
        act()

    middle.__code__ = middle.__code__.replace(co_name=name.split(".")[-1], co_qualname=name)

    def outer() -> None:
        middle()

    outer()


@pytest.mark.parametrize(
    ("name", "deaf"),
    [
        ("__del__", True),
        ("Any.__del__", True),
        ("Popen._launch", True),
        ("_MultiProcessingDataLoaderIter.__init__", True),
        ("_MultiProcessingDataLoaderIter._shutdown_workers", True),
        ("Any.__init__", False),
        ("Any._shutdown_workers", False),
        ("usual", False),
    ],
)
def test_where_nothing_can_be_raised_a_request_waits(
    name: str, deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_LATER", 600.0)  # it would be sent again within this test on a busy machine
    with handle_signals() as requests:
        raised: list[bool] = []
        called(name, lambda: raised.append(raises(signal.SIGTERM)))
        assert raised == [not deaf] and requests.came


def test_a_request_is_kept_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the interpreter ends."""

    def refuse(timer: threading.Timer) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(signals.threading.Timer, "start", refuse)
    with handle_signals() as requests:
        raised: list[bool] = []
        called("__del__", lambda: raised.append(raises(signal.SIGINT)))
        assert raised == [False] and requests.came


COMMAND = """
import sys, time
import click
from hvx.cli.common import common

class Slow:
    def __enter__(self): print("begun", flush=True)
    def __exit__(self, *error): time.sleep(0.3)  # tidies up

@click.command()
@common
def command():
    with Slow():
        time.sleep(30)

command()
"""


@pytest.mark.parametrize("numbers", [(2, 2), (2, 15), (15, 2), (15, 15), (2, 2, 2, 15, 2)])
def test_signals_in_a_row_are_one_line(numbers: tuple[int, ...]) -> None:
    """Of any command; they come before, while and after it has tidied up."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    for number in numbers:
        if process.poll() is None:
            process.send_signal(number)
        time.sleep(0.12)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "Error: interrupted\n")


def test_an_error_that_a_signal_led_to_is_an_interruption() -> None:
    code = COMMAND.replace("time.sleep(30)", "\n            ".join([
        "try: time.sleep(30)", "except KeyboardInterrupt: raise OSError(5, 'a child died')",
    ]).replace("\n            except", "\n        except"))  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Error: interrupted\n")


def test_every_command_is_met_so() -> None:
    from hvx.cli.main import main

    def commands(group: object) -> Iterator[tuple[str, object]]:
        for name, command in getattr(group, "commands", {}).items():
            yield from commands(command) if hasattr(command, "commands") else [(name, command)]

    found = dict(commands(main))
    assert {"explain", "figure", "ask", "train", "measure", "gallery", "info", "scenes"} <= set(found)
    for name, command in found.items():
        assert "debug" in {parameter.name for parameter in command.params}, name  # type: ignore[attr-defined]
