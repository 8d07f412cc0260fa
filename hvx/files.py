"""Files that are whole or absent: written under a temporary name, flushed to disk, renamed."""

from __future__ import annotations

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


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on a clean exit it becomes ``path``, else it vanishes.

    Raises:
        HvxError: the file cannot be written (no room, no permission, a folder that is a file).
    """
    part = _part(path)
    try:
        if path.exists() and not path.is_file():
            raise HvxError(f"{path}: cannot be written: is a folder or a device; give the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        usual = part.stat().st_mode
        part.unlink()
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.chmod(usual)  # safetensors would keep its files from everyone else
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, part, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, mark: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on a clean exit it becomes ``path``, else it vanishes.

    Args:
        path: the folder.
        mark: a file whose presence says that ``path`` is an earlier one of its kind, to be replaced.

    Raises:
        HvxError: ``path`` already holds something else, or cannot be written.
    """
    part, old = _part(path), _part(path)
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if mark is None:
                raise HvxError(f"{path}: already exists and is not empty; give a new folder")
            if not (path / mark).is_file():
                raise HvxError(
                    f"{path}: not empty, and holds no {mark} as an earlier one would; give a new folder"
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        yield part
        if path.exists():
            path.replace(old)
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, part, error) from error
    finally:
        for folder in (part, old):
            shutil.rmtree(folder, ignore_errors=True)


def _part(path: Path) -> Path:
    """The temporary name beside ``path``."""
    if not path.name:
        raise HvxError(f"{path}: is a folder that cannot be replaced; give a new name inside one")
    # By chance, not by process: processes of several machines write into one folder.
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")


def _unwritable(path: Path, part: Path, error: OSError) -> HvxError:
    other = error.filename is not None and not str(error.filename).startswith(str(part))
    where = f" ({error.filename})" if other else ""
    return HvxError(f"{path}: cannot be written: {error.strerror or error}{where}")


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write ``value`` as JSON, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; ``what`` says in errors what was wanted.

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
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
