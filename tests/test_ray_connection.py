"""A connection to Ray: what is at an address, what Ray is told, what is left behind. Needs no Ray."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvx.errors import HvxError
from hvx.run.ray import connection
from hvx.run.ray.connection import connected, import_ray

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class FakeRay:
    """What hvx uses of the module; ``init`` notes what it is given."""

    def __init__(self, init: Callable[[], None] = lambda: None) -> None:
        self.calls: list[Any] = []
        self._init = init
        self.handler_set = lambda handler: self.calls.append("handler")
        self._private = SimpleNamespace(utils=SimpleNamespace(set_sigterm_handler=self.handler_set))

    def init(self, **given: Any) -> None:
        self.calls.append(given)
        self._private.utils.set_sigterm_handler(None)  # as Ray does
        print("what Ray prints")
        self._init()

    def shutdown(self) -> None:
        self.calls.append("shutdown")


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does something with each connection; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                with link:
                    answer(link)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def silent(link: socket.socket) -> None:
    while link.recv(1000):
        pass


def dripping(link: socket.socket) -> None:
    """A byte now and then, for as long as anyone listens."""
    try:
        while True:
            link.sendall(b"\0")
            threading.Event().wait(0.06)
    except OSError:
        pass


LATE = "no Ray cluster answers there: timed out"
OTHER = "something answers there, but it is not a Ray cluster"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (silent, LATE),
        (dripping, LATE),
        (lambda link: None, OTHER),
        (lambda link: link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), OTHER),
        (lambda link: link.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), OTHER),
        (lambda link: link.sendall(SETTINGS[:8]), OTHER),
        (lambda link: link.sendall(SETTINGS[:8] + b"\1"), OTHER),
        (lambda link: link.sendall(b"\0\0\0\5" + SETTINGS[4:]), OTHER),
    ],
)
def test_a_port_where_no_ray_answers_is_refused(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], None], said: str
) -> None:
    monkeypatch.setattr(connection, "_ANSWER", 0.3)
    ray = FakeRay()

    def read_first(link: socket.socket) -> None:
        assert link.recv(33) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
        answer(link)

    with serving(read_first) as address, pytest.raises(HvxError) as refused, connected(ray, address):
        pass
    assert str(refused.value) == f"--address {address}: {said}"
    assert ray.calls == []


def test_a_cluster_is_answered_for_soon_enough() -> None:
    assert connection._ANSWER == 10


def test_a_cluster_that_answers_is_joined_and_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay()
    with serving(lambda link: link.sendall(SETTINGS)) as address:
        with connected(ray, address):
            assert ray.calls == [{"log_to_driver": False, "logging_level": "ERROR", "address": address}]
            print("of Ray, later")
        assert ray.calls[1:] == ["shutdown"]
        assert ray._private.utils.set_sigterm_handler is ray.handler_set
        monkeypatch.setenv("RAY_ADDRESS", address)
        with connected(ray, "auto"):
            assert ray.calls[2]["address"] == "auto"
    gone = pytest.raises(HvxError, match=f"^--address {address}: no Ray cluster answers there")
    with gone, connected(ray, "auto"):
        pass
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_with_tls_an_open_port_is_enough(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RAY_USE_TLS", value)
    ray = FakeRay()
    with serving(silent) as address, connected(ray, address):
        assert len(ray.calls) == 1


@pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:1"])
def test_what_ray_finds_by_itself_is_left_to_it(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray = FakeRay()
    with connected(ray, address):
        assert ray.calls[0]["address"] == address


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.1:65536", "127.0.0.1:" + "9" * 6, ":6379", "[::1:6379]", "a:b", ""]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(HvxError) as refused, connected(FakeRay(), address):
        pass
    said = f"--address {address}: "
    assert str(refused.value).startswith(
        (f"{said}expected auto or HOST:PORT", f"{said}no Ray cluster answers")
    )


def test_the_last_port_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(*given: Any) -> None:
        asked.append(given)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(HvxError) as refused, connected(FakeRay(), "[::1]:65535"):
        pass
    assert asked == [(("::1", 65535), 10)]
    assert str(refused.value) == (
        "--address [::1]:65535: no Ray cluster answers there: [Errno 111] Connection refused"
    )


def test_a_ray_of_ones_own_listens_here_alone_and_leaves_no_folder() -> None:
    ray = FakeRay()
    with connected(ray, None):
        (given,) = ray.calls
        folder = Path(given.pop("_temp_dir"))
        assert given == {
            "log_to_driver": False, "logging_level": "ERROR", "address": "local",
            "_node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 100_000_000,
        }  # fmt: skip
        assert folder.is_dir() and folder.parent == Path("/tmp") and folder.name.startswith("hvx-ray-")
        (folder / "session").mkdir()
    assert ray.calls[1:] == ["shutdown"]
    assert not folder.exists()


@pytest.mark.parametrize(("writes", "pauses"), [(0, 0), (2, 2), (49, 49), (60, 50)])
def test_a_folder_that_is_written_meanwhile_is_removed_again(
    monkeypatch: pytest.MonkeyPatch, writes: int, pauses: int
) -> None:
    """The last of Ray's processes may still write there; after five seconds it is left."""
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)

    def remove(path: Path, ignore_errors: bool) -> None:
        assert ignore_errors
        if len(paused) >= writes:
            path.rmdir()

    monkeypatch.setattr(connection.time, "sleep", pause)
    monkeypatch.setattr(connection.shutil, "rmtree", remove)
    with connection._session() as folder:
        assert Path(folder).is_dir()
    assert paused == [0.1] * pauses
    assert Path(folder).exists() == (writes > 50)
    monkeypatch.undo()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("address", "said"),
    [(None, "Ray cannot be started"), ("auto", "--address auto: no Ray cluster to join")],
)
def test_what_ray_raises_is_one_line(address: str | None, said: str) -> None:
    def fail() -> None:
        raise RuntimeError("first\n  second " + "x" * 400)

    ray = FakeRay(fail)
    with pytest.raises(HvxError) as refused, connected(ray, address):
        pass
    assert str(refused.value) == f"{said}: " + ("first second " + "x" * 400)[:300]
    assert ray.calls[-1] == "shutdown"
    assert ray._private.utils.set_sigterm_handler is ray.handler_set


@pytest.mark.parametrize(("address", "put_off"), [(None, True), ("auto", False)])
def test_a_signal_while_ray_starts_is_acted_on_when_it_has(address: str | None, put_off: bool) -> None:
    """Of a Ray that is stopped while it starts, processes live on."""
    came: list[str] = []

    def start() -> None:
        signal.raise_signal(signal.SIGTERM)
        came.append("started")

    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append("signal"))
    try:
        with connected(FakeRay(start), address):
            assert came == (["started", "signal"] if put_off else ["signal", "started"])
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_of_signals_while_ray_starts_the_first_counts(numbers: tuple[signal.Signals, ...]) -> None:
    came: list[int] = []

    def start() -> None:
        for number in numbers:
            signal.raise_signal(number)

    handlers = {
        number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers
    }
    ours = [signal.getsignal(number) for number in numbers]
    try:
        with connected(FakeRay(start), None):
            assert came == [numbers[0]]
            assert [signal.getsignal(number) for number in numbers] == ours
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_ray_of_ones_own_may_be_started_in_another_thread() -> None:
    """Where no handler of signals can be set."""
    ray, before = FakeRay(), signal.getsignal(signal.SIGTERM)

    def connect() -> None:
        with connected(ray, None):
            ray.calls.append("connected")

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    assert ray.calls[1:] == ["connected", "shutdown"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("local", [False, True])
def test_ray_is_told_how_to_behave_before_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    ray = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "ray", ray)
    try:
        assert import_ray(local) is ray
        told = {name: value for name, value in os.environ.items() if name not in before}
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
    token = told.pop("RAY_AUTH_TOKEN", "")
    assert len(token) == (64 if local else 0)
    own = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"} if local else {}
    assert told == own | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def test_a_token_that_is_set_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    import_ray(local=True)
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for local in (False, True):
        with pytest.raises(HvxError) as refused:
            import_ray(local)
        assert str(refused.value) == "--engine ray needs Ray: pip install 'hvx[ray]'"
