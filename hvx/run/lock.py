"""Locks on a run folder: one writer, or one for each part. The lock of a process that dies is released."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from hvx.errors import HvxError
from hvx.progress import Log, no_log

LOCK = ".lock"
WITHOUT_LOCKS = {
    errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EROFS, errno.EIO
}  # fmt: skip
"""Errors of file systems that have no locks."""
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

_PATIENCE, _GRACE = 600.0, 2.0
"""Seconds for which a part waits: while another process finishes the run; and until a process that has just
taken the lock has written the lock file."""
_PARTS, _FINISHING = "parts", "finishing"
"""Keys of a lock file: several parts share the lock, or its holder is finishing the run."""


class ReadOnly(HvxError):
    """A folder that this process may read, but not write."""


class Busy(HvxError):
    """A folder that another process writes."""


@dataclass(frozen=True)
class Part:
    """One of several processes that share the work on a run: the ``number``-th, from 1, of ``count``."""

    number: int
    count: int

    @property
    def lock(self) -> str:
        """The name of the part's lock file."""
        return f"{LOCK}.{self.number}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class Held:
    """A run folder that this process holds.

    Args:
        path: the folder.
        name: of the lock file that only this process holds.
        content: what this process wrote into it.
        locked: whether the lock keeps others out; False where the file system has no locks.
    """

    def __init__(self, path: Path, name: str, content: bytes, locked: bool) -> None:
        self._path, self._name, self._content, self._locked = path, name, content, locked
        self._file = _identity(path / name)

    def check(self) -> None:
        """Check that the folder still exists and that this process still holds it.

        Raises:
            HvxError: it was renamed, deleted or replaced, or another process took it over where the file
                system has no locks.
        """
        lock = self._path / self._name
        # Closing a file releases this process's locks on it, so the content is read only if needed.
        if self._locked and self._file and _identity(lock) == self._file:
            return
        with suppress(OSError):
            if lock.read_bytes() == self._content:
                return
        raise HvxError(
            f"{self._path}: renamed, deleted or taken over by another process while this one wrote it; "
            "nothing more is written there"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at a path; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def exclusive_lock(run: Path, log: Log = no_log, finishing: bool = False) -> Iterator[Held]:
    """Lock a run folder against other processes, on this machine or another that shares the folder.

    The lock is a POSIX record lock, so the operating system releases it when the process dies. The lock file
    stays and says who held it last. Where the file system has no locks, the user is told, and other processes
    are not kept out.

    Args:
        run: the folder.
        log: is told if there are no locks.
        finishing: note in the lock file that this takes only a moment, so that parts wait for it.

    Raises:
        ReadOnly: the folder may not be written.
        Busy: another process holds the folder.
        HvxError: its lock cannot be written.
    """
    with _opened(run / LOCK) as file:
        locked = _take(file, run, log)
        content = _write(file, run / LOCK, {_FINISHING: True} if finishing else {})
        yield Held(run, LOCK, content, locked)


@contextmanager
def part_writer(run: Path, part: Part) -> Iterator[Held]:
    """Lock a part of a run: other processes may hold other parts, but none can hold the whole folder.

    The parts share the folder's lock, and each part has its own lock. Without locks it would be unknown which
    parts are at work, and the part that finishes the run would disturb them.

    Raises:
        ReadOnly: the folder may not be written.
        Busy: another process holds the folder, or this part.
        HvxError: a lock cannot be written, or the file system has none.
    """
    with ExitStack() as stack:
        shared = stack.enter_context(_opened(run / LOCK))
        if not _share(shared, run):
            raise HvxError(
                f"{run}: --part needs a file system with locks, and this one has none; leave --part out, or "
                "put explain.run on another one"
            )
        _write(shared, run / LOCK, {_PARTS: True})
        part_lock = stack.enter_context(_opened(run / part.lock))
        _take(part_lock, run, no_log, f"part {part} of this run")
        yield Held(run, part.lock, _write(part_lock, run / part.lock, {}), True)


@contextmanager
def one_part_at_a_time(run: Path) -> Iterator[None]:
    """Wait until no other part is in this block, so that run.json does not change during it."""
    with _opened(run / f"{LOCK}.turn") as file:
        _posix_locks().lockf(file, _posix_locks().LOCK_EX)
        yield


def delete_locks_of_parts(run: Path) -> None:
    """Remove the parts' lock files, once this process alone holds the folder."""
    for path in run.glob(f"{LOCK}.*"):
        path.unlink(missing_ok=True)


def _share(file: FileIO, run: Path) -> bool:
    """Share a folder's lock; waits while its holder finishes the run. False where there are no locks."""
    began = time.monotonic()
    while True:
        try:
            return _take(file, run, no_log, shared=True)
        except Busy:
            finishing = _about_holder(file).get(_FINISHING)
            if time.monotonic() - began > (_PATIENCE if finishing else _GRACE):
                raise
            time.sleep(0.2)


def _opened(path: Path) -> FileIO:
    """Open a lock file; symbolic links are rejected, since the linked file would be overwritten."""
    try:
        # A named pipe would otherwise block.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP or path.is_symlink():
            raise HvxError(f"{path}: is a symbolic link; delete it") from None
        kind = ReadOnly if error.errno in _READ_ONLY else HvxError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise HvxError(f"{path}: is not a file; delete it")
    return FileIO(descriptor, "r+")  # unbuffered: nothing is written when it is closed


def _posix_locks() -> Any:
    """The module; None on systems that lack it (Windows)."""
    try:
        import fcntl
    except ImportError:
        return None
    return fcntl


def _take(file: FileIO, run: Path, log: Log, target: str = "this run", shared: bool = False) -> bool:
    """Lock a lock file; False where the system or the file system has no locks."""
    fcntl = _posix_locks()
    if fcntl is None:
        log(f"{run}: this system has no file locks; let no other process write this run")
        return False
    try:
        # Unlike a lock of flock, a record lock is not inherited: when a run is killed, its decoding processes
        # continue for some seconds and must not hold the lock.
        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in WITHOUT_LOCKS:
            log(
                f"{run}: the file system has no locks ({error.strerror}); let no other process write this run"
            )
            return False
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise HvxError(f"{run / LOCK}: cannot be locked: {error.strerror or error}") from None
        raise Busy(f"{run}: {_holder(file)} is writing {target}; wait for it, or stop it") from None
    return True


def _write(file: FileIO, path: Path, flags: dict[str, bool]) -> bytes:
    """Write into a lock file who holds it; returns the content, which is unique to this process."""
    about = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "id": secrets.token_hex(8),
    }
    content = json.dumps(about | flags).encode()
    try:
        file.seek(0)
        file.truncate()
        file.write(content)
    except OSError as error:
        raise HvxError(f"{path}: cannot be written: {error.strerror or error}") from None
    return content


def _holder(file: FileIO) -> str:
    """The process that wrote the lock file, for messages."""
    about = _about_holder(file)
    try:
        who = f"process {int(about['pid'])} on {about['host']!s:.80} (since {about['since']!s:.40})"
    except (ValueError, KeyError, TypeError):
        return "another process"
    return f"hvx explain --part ({who}, perhaps others)" if about.get(_PARTS) else who


def _about_holder(file: FileIO) -> dict[str, Any]:
    """The content of the lock file; empty if it cannot be read."""
    try:
        file.seek(0)
        about = json.loads(file.read(4096))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
