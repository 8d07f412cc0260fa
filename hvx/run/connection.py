"""A connection to Ray: to a cluster that runs already, or to a Ray of this machine alone."""

from __future__ import annotations

import importlib
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from hvx.errors import HvxError

_ANSWER = 10
"""Seconds for a cluster to answer."""
_PORTS = 65535
_FRAME_HEADER = 9
"""Bytes: length (3), type, flags, stream (4); RFC 9113, section 4.1."""
_SETTINGS = 4
"""The type of frame that each side begins with, on stream 0."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
"""How an HTTP/2 client begins: the preface, and settings that change nothing."""
_STORE = 100_000_000
"""Bytes of shared memory for Ray's objects; shards travel as files, so that near the least will do."""
_REMOVALS = 50
"""Times that a folder is removed, a tenth of a second apart; the last of Ray's processes may still write."""


def import_ray(local: bool) -> Any:
    """The module.

    Args:
        local: it is to start a Ray of this machine alone, not to join a cluster.

    Raises:
        HvxError: it is not installed.
    """
    if local:
        # Read by Ray when it is imported. The switch for systems on which Ray spans one machine alone is the
        # one way to have it listen on 127.0.0.1 alone; the token keeps out this machine's other users.
        os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to Ray's makers
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # SIGTERM is not taken for a crash
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no word about what Ray will do one day
    }
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise HvxError("--engine ray: Ray is not installed; pip install 'hvx[ray]'") from None


@contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """This process as a driver of the cluster at an address, or of a Ray of its own.

    However a driver ends, Ray ends its workers, and the Ray of its own.

    Raises:
        HvxError: no cluster there, one that lets nobody in, or none can be started.
    """
    # What Ray has to tell of lost workers it prints to stdout, where a command's results go.
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), ExitStack() as opened:
        if address is None:
            start = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
            start |= {"object_store_memory": _STORE, "_temp_dir": opened.enter_context(_session())}
        else:
            _check_reachable(address)
            start = {"address": address}
        opened.callback(ray.shutdown)
        try:
            with _own_signals(ray, put_off=address is None):
                ray.init(log_to_driver=False, logging_level="ERROR", **start)
        except Exception as error:  # Ray raises whatever its parts do
            failed = f"--address {address}: no Ray cluster to join" if address else "Ray cannot be started"
            raise HvxError(f"{failed}: {' '.join(str(error).split()):.300}") from None
        yield


@contextmanager
def _session() -> Iterator[str]:
    """A folder for the sockets and logs of a Ray of our own."""
    # Not in $TMPDIR: the path of a socket has a hundred characters at most.
    folder = Path(tempfile.mkdtemp(prefix="hvx-ray-", dir="/tmp"))
    try:
        yield str(folder)
    finally:
        for _ in range(_REMOVALS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)


def _check_reachable(address: str) -> None:
    """See that a Ray cluster may be at ``host:port``, for Ray would try for an hour.

    Raises:
        HvxError: nothing answers, or something else does; or the address is none.
    """
    where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if where == "auto" or "://" in where:
        return
    given = re.fullmatch(r"\[?([^\[\]]+)\]?:([0-9]{1,5})", where)
    if not given or int(given[2]) > _PORTS:
        raise HvxError(f"--address {where}: expected auto or HOST:PORT, such as 10.0.0.1:6379")
    try:
        with socket.create_connection((given[1], int(given[2])), _ANSWER) as link:
            spoken = _uses_tls() or _speaks_http2(link)
    except (OSError, UnicodeError) as error:
        raise HvxError(f"--address {where}: no Ray cluster answers there: {error}") from None
    if not spoken:
        raise HvxError(f"--address {where}: something answers there, but it is not a Ray cluster")


def _uses_tls() -> bool:
    """Whether Ray is to use TLS, so that its cluster answers nothing in the clear."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _speaks_http2(link: socket.socket) -> bool:
    """Whether a server answers as gRPC, by which Ray is spoken to, does: with HTTP/2's SETTINGS.

    Raises:
        OSError: it does not answer in time.
    """
    link.sendall(_GREETING)
    end, frame = time.monotonic() + _ANSWER, b""
    while len(frame) < _FRAME_HEADER:
        link.settimeout(max(0.01, end - time.monotonic()))
        piece = link.recv(_FRAME_HEADER - len(frame))
        if not piece:
            return False
        frame += piece
    return frame[3] == _SETTINGS and frame[5:] == bytes(4)


@contextmanager
def _own_signals(ray: Any, put_off: bool) -> Iterator[None]:
    """Keep this program's handlers of signals while Ray starts, which would put its own in their place.

    Args:
        ray: the module.
        put_off: act on Ctrl-C and SIGTERM at the end only: of a Ray that is stopped while it starts, some
            processes live on for a minute.
    """
    utils = ray._private.utils
    theirs, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda handler: None
    came: list[int] = []
    ours: dict[signal.Signals, Any] = {}
    if put_off and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            ours[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        utils.set_sigterm_handler = theirs
        for number, handler in ours.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])
