"""A connection to Ray: to a running cluster, or to a local Ray that is started for this process."""

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
from hvx.extras import require

_ANSWER = 10
"""Seconds for a cluster to answer."""
_PORTS = 65535
_FRAME_HEADER = 9
"""Bytes: length (3), type, flags, stream (4); RFC 9113, section 4.1."""
_SETTINGS = 4
"""The type of the first frame of each side, on stream 0."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
"""How an HTTP/2 client begins: the preface, and settings that change nothing."""
_STORE_BYTES = 100_000_000
"""Bytes of shared memory for Ray's objects; shards are passed as files, so little more than the minimum is
enough."""
_REMOVALS = 50
"""Attempts to remove a folder, 0.1 seconds apart: Ray's last processes may still write to it."""


def import_ray(local: bool) -> Any:
    """The module.

    Args:
        local: Ray is to be started on this machine only, not to join a cluster.

    Raises:
        HvxError: it is not installed.
    """
    require("ray", "--engine ray", "ray")
    if local:
        # Ray reads these when it is imported. Disabling clusters (a switch for Windows and macOS) is the only
        # way to make it listen on 127.0.0.1 only; the token keeps out other users of this machine.
        os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",  # telemetry off
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # SIGTERM is not reported as a crash
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning about future behavior
    }
    return importlib.import_module("ray")


@contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect this process as a driver to the cluster at an address, or to a local Ray (None).

    When the driver ends, for whatever reason, Ray ends its workers, and so does a local Ray itself.

    Raises:
        HvxError: no cluster at the address, it refuses the connection, or a local Ray cannot be started.
    """
    # Ray prints messages about lost workers to stdout, which is for the command's results.
    with Path(os.devnull).open("w") as devnull, redirect_stdout(devnull), ExitStack() as stack:
        if address is None:
            start = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
            start |= {"object_store_memory": _STORE_BYTES, "_temp_dir": stack.enter_context(_session())}
        else:
            _check_reachable(address)
            start = {"address": address}
        stack.callback(ray.shutdown)
        try:
            with _own_signals(ray, put_off=address is None):
                ray.init(log_to_driver=False, logging_level="ERROR", **start)
        except Exception as error:  # Ray raises errors of many kinds
            failed = f"--address {address}: no Ray cluster to join" if address else "Ray cannot be started"
            raise HvxError(f"{failed}: {' '.join(str(error).split()):.300}") from None
        yield


@contextmanager
def _session() -> Iterator[str]:
    """A folder for the sockets and logs of a local Ray."""
    # Not in $TMPDIR: the path of a socket has about 100 characters at most.
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
    """Check that a Ray cluster may be at ``host:port``; Ray itself would try for an hour.

    Raises:
        HvxError: nothing answers, the answer is not Ray's, or the address is invalid.
    """
    target = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if target == "auto" or "://" in target:
        return
    host_port = re.fullmatch(r"\[?([^\[\]]+)\]?:([0-9]{1,5})", target)
    if not host_port or int(host_port[2]) > _PORTS:
        raise HvxError(f"--address {target}: expected auto or HOST:PORT, such as 10.0.0.1:6379")
    try:
        with socket.create_connection((host_port[1], int(host_port[2])), _ANSWER) as connection:
            is_ray = _uses_tls() or _speaks_http2(connection)
    except (OSError, UnicodeError) as error:
        raise HvxError(f"--address {target}: no Ray cluster answers there: {error}") from None
    if not is_ray:
        raise HvxError(f"--address {target}: something answers there, but it is not a Ray cluster")


def _uses_tls() -> bool:
    """Whether Ray uses TLS, so that its cluster does not answer unencrypted requests."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether a server answers like gRPC, which Ray uses: with an HTTP/2 SETTINGS frame.

    Raises:
        OSError: it does not answer in time.
    """
    connection.sendall(_GREETING)
    end, frame = time.monotonic() + _ANSWER, b""
    while len(frame) < _FRAME_HEADER:
        connection.settimeout(max(0.01, end - time.monotonic()))
        piece = connection.recv(_FRAME_HEADER - len(frame))
        if not piece:
            return False
        frame += piece
    return frame[3] == _SETTINGS and frame[5:] == bytes(4)


@contextmanager
def _own_signals(ray: Any, put_off: bool) -> Iterator[None]:
    """Keep this program's signal handlers while Ray starts; Ray would replace them.

    Args:
        ray: the module.
        put_off: handle Ctrl-C and SIGTERM only after the start: if Ray is stopped while it starts, some of
            its processes continue for a minute.
    """
    utils = ray._private.utils
    set_handler, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda handler: None
    received: list[int] = []
    saved_handlers: dict[signal.Signals, Any] = {}
    if put_off and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            saved_handlers[number] = signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler
        for number, handler in saved_handlers.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
