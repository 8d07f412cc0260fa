"""Atomic writes: to a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hvx.errors import HvxError

_NO_FSYNC = (errno.EINVAL, errno.EROFS, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of file systems that cannot flush a single file (some network and FUSE file systems)."""
_NO_CHMOD = (errno.EPERM, errno.EROFS, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of file systems whose files have no modes of their own (CIFS, FAT, some FUSE file systems)."""


@contextmanager
def atomic_write(path: Path, parents: bool = True) -> Iterator[Path]:
    """Yield a temporary path near ``path``; on a clean exit it replaces ``path``, else it is removed.

    If ``path`` is a symbolic link, its target is written, and the link stays.

    Args:
        path: the file.
        parents: create parent folders; if False, their absence is an error.

    Raises:
        HvxError: the file cannot be written (no room, no permission, a folder that is a file).
    """
    part = _part(path)
    try:
        target = _target(path)
        if target.exists() and not target.is_file():
            raise HvxError(f"{path}: cannot be written: is a folder or a device; give the name of a file")
        if parents and target == path:
            target.parent.mkdir(parents=True, exist_ok=True)
        part = _part(target)
        part.touch()
        default_mode = part.stat().st_mode
        part.unlink()
        yield part
        flush_to_disk(part)
        _set_mode(part, default_mode)  # safetensors writes files that only the owner can read
        part.replace(target)
    except OSError as error:
        raise _unwritable(path, part, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``; on a clean exit it replaces ``path``, else it is removed.

    If ``path`` is a symbolic link, its target is written, and the link stays.

    Raises:
        HvxError: ``path`` already holds something else, or cannot be written.
    """
    part = _part(path)
    try:
        target = _target(path)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise HvxError(f"{path}: already exists and is not empty; give a new folder")
        if target == path:
            target.parent.mkdir(parents=True, exist_ok=True)
        part = _part(target)
        part.mkdir()
        yield part
        part.replace(target)  # also replaces an empty folder
    except OSError as error:
        raise _unwritable(path, part, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Flush a file's content to disk with fsync, if the file system supports it.

    Raises:
        OSError: the disk is full or faulty.
    """
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _NO_FSYNC:
                raise


def _set_mode(path: Path, mode: int) -> None:
    if path.stat().st_mode == mode:
        return
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in _NO_CHMOD:
            raise


def _target(path: Path) -> Path:
    """The path to write: ``path``, or its target if it is a symbolic link.

    Raises:
        OSError: the link is circular.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def _part(path: Path) -> Path:
    """A temporary name next to ``path``."""
    if not path.name:
        raise HvxError(f"{path}: is a folder that cannot be replaced; give a new name inside one")
    # Random instead of the process id: processes on several machines may write into one folder.
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def _unwritable(path: Path, part: Path, error: OSError) -> HvxError:
    other_file = error.filename is not None and not str(error.filename).startswith(str(part))
    where = f" ({error.filename})" if other_file else ""
    return HvxError(f"{path}: cannot be written: {error.strerror or error}{where}")


def write_json(path: Path, value: Any, indent: int | None = None, parents: bool = True) -> None:
    """Write ``value`` as JSON, atomically; ``parents`` as in ``atomic_write``.

    Raises:
        HvxError: the file cannot be written.
    """
    with atomic_write(path, parents) as part:
        part.write_bytes(json_bytes(value, indent))


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """``value`` as one JSON text with a newline at its end.

    Lone surrogates, as in file names that are not UTF-8, become JSON escapes.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; ``what`` describes it in errors.

    Raises:
        HvxError: missing, unreadable, or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise HvxError(f"{path}: no such file ({what})") from None
    except OSError as error:
        raise HvxError(f"{path}: cannot be read ({what}): {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise HvxError(f"{path}: not valid JSON ({what}): {error}") from None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes.

    Raises:
        HvxError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
