"""Python processes that have PyTorch and hvx imported from their first moment.

Tests start many processes, and these imports take some seconds. So one process for each process of pytest
imports them and waits. For a command it forks; the child becomes a child of pytest
(``PR_SET_CHILD_SUBREAPER``), and ``subprocess.Popen`` treats it as any other. What a command imports, its
memory limits and the environment that libraries read when they are loaded are tested with plain processes.
"""

from __future__ import annotations

import array
import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

_MODULES = [
    "h5py", "hvx.cli.explain", "hvx.cli.train", "hvx.data.images", "hvx.explain.explainer", "hvx.run.explain",
    "hvx.run.local", "hvx.train.trainer", "nltk", "torch", "torchvision",
]  # fmt: skip
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER, of Linux's prctl."""
_MOST = 1 << 20
"""Bytes of a request."""


class Preloaded(subprocess.Popen[Any]):
    """A process as ``Popen([sys.executable, …])`` starts it, where the command is ``-m …`` or ``-c …``.

    ``preexec_fn``, ``pass_fds`` and the like are not supported. Outside of Linux it is a plain process.
    """

    # Called by Popen with both ends of its pipes, to start the process.
    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        if sys.platform != "linux":
            super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
            return
        _close, pass_fds, cwd, env, _info, _flags, shell, *pipes = rest[:13]
        assert args[0] == sys.executable and args[1] in ("-m", "-c") and preexec_fn is None
        assert not pass_fds and not shell
        request = {
            "arguments": list(map(str, args[1:])),
            "cwd": os.fspath(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "session": rest[-2],
        }
        stdin, to_stdin, from_stdout, stdout, from_stderr, stderr = pipes
        streams = [number if end == -1 else end for number, end in enumerate((stdin, stdout, stderr))]
        self.pid = _fork(request, streams)
        self._child_created = True
        both = (stdin, to_stdin), (stdout, from_stdout), (stderr, from_stderr)
        # The process's ends of pipes, and the null device that Popen opened.
        for end in {end for end, ours in both if ours != -1} | {getattr(self, "_devnull", -1)} - {-1}:
            os.close(end)


def _fork(request: dict[str, Any], streams: list[int]) -> int:
    server = _server()
    prctl = ctypes.CDLL(None).prctl
    prctl(_SUBREAPER, 1, 0, 0, 0)  # the command's parent ends at once, and then pytest is its parent
    try:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
        server.sendmsg([json.dumps(request).encode()], rights)
        return int(server.recv(20))
    finally:
        prctl(_SUBREAPER, 0, 0, 0, 0)


@lru_cache(maxsize=1)
def _server() -> socket.socket:
    """Starts the process that waits; it ends when its socket closes, with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    theirs.close()
    return ours


def _serve(server: socket.socket) -> dict[str, Any]:
    """Fork for each request; returns it in the child, once that is the command's process."""
    for name in _MODULES:
        __import__(name)
    gc.freeze()  # otherwise each child would go through all of these objects as it ends
    while True:
        text, rights, _, _ = server.recvmsg(_MOST, socket.CMSG_SPACE(3 * array.array("i").itemsize))
        if not text:
            os._exit(0)
        streams = array.array("i", rights[0][2])
        pid_read, pid_write = os.pipe()
        between = os.fork()
        if between == 0:
            if pid := os.fork():
                os.write(pid_write, str(pid).encode())
                os._exit(0)
            os.close(pid_read)
            os.close(pid_write)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            server.close()
            return json.loads(text)  # type: ignore[no-any-return]
        os.waitpid(between, 0)  # from here on the command is a child of pytest
        server.send(os.read(pid_read, 20))
        for number in (*streams, pid_read, pid_write):
            os.close(number)


def _set_up(request: dict[str, Any]) -> None:
    """What a new process starts with."""
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    sys.path[0] = request["cwd"]
    if count := os.environ.get("OMP_NUM_THREADS"):
        sys.modules["torch"].set_num_threads(int(count))


if __name__ == "__main__":
    _request = _serve(socket.socket(fileno=int(sys.argv[1])))
    _set_up(_request)
    _how, _what, *_arguments = _request["arguments"]
    sys.argv = ["-c", *_arguments]
    if _how == "-m":
        runpy.run_module(_what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(_what, "<string>", "exec"), {"__name__": "__main__"})
