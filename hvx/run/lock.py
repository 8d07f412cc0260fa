"""One writer: a lock on a run folder that its holder's death releases."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hvx.errors import HvxError

LOCK = ".lock"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Hold a run folder against other processes, on this machine or another that sees the folder.

    The lock is the operating system's (POSIX record lock), so that a process that died, however it died,
    holds nothing; the file itself stays and says who held it last. A file system without locks lets
    everyone in.

    Raises:
        HvxError: another process holds the folder, or its lock cannot be written.
    """
    path = run / LOCK
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise HvxError(f"{path}: cannot be written: {error.strerror or error}") from None
    with file:
        _take(file, run)
        yield


def _take(file: IO[str], run: Path) -> None:
    try:
        # A record lock, unlike flock's, is not inherited: the decoding processes of a run that was
        # killed live on for some seconds, and must not hold what their parent held.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            return
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise HvxError(f"{file.name}: cannot be locked: {error.strerror or error}") from None
        raise HvxError(f"{run}: {_holder(file)} is writing this run; wait for it, or stop it") from None
    file.truncate(0)
    about = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    file.write(json.dumps(about))
    file.flush()


def _holder(file: IO[str]) -> str:
    """Who wrote the lock file, as far as it can be read."""
    try:
        file.seek(0)
        about = json.loads(file.read(4096))
        return f"process {int(about['pid'])} on {about['host']!s:.80} (since {about['since']!s:.40})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
