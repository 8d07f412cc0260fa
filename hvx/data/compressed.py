"""The bytes of a file of questions: as it is, or unpacked from .gz or from a .zip with one file."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import IO

from hvx.errors import HvxError, shown

MOST_BYTES = 4 << 30
"""Of unpacked text, which is held in memory."""
MOST_RATIO = 200
"""Unpacked bytes for a packed one. Text reaches about 40; a decompression bomb about 1,000."""
FREE_BYTES = 16 << 20
"""Up to here any ratio will do: so much is no danger."""
_CHUNK = 4 << 20
_NAMED = 3


def read_unpacked(path: Path, what: str) -> tuple[str, bytes]:
    """The name and the bytes of a file; of a packed one, those of the file in it.

    Args:
        path: the file; what it is is seen from its first bytes, not from its name.
        what: says in errors what was wanted.

    Raises:
        HvxError: missing, unreadable, damaged, a zip with another number of files than one, or larger
            unpacked than ``MOST_BYTES`` or ``MOST_RATIO`` allow.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=file) as unpacked:
                    name = path.stem if path.suffix.lower() == ".gz" else path.name
                    return name, _bounded(unpacked, path)
            if start in (b"PK\x03\x04", b"PK\x05\x06"):
                return _unzipped(file, path)
            return path.name, file.read()
    except FileNotFoundError:
        raise HvxError(f"{path}: no such file ({what})") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise HvxError(f"{path}: cannot be unpacked ({what}): {error}") from None
    except OSError as error:  # gzip.BadGzipFile among them, which has no strerror
        raise HvxError(f"{path}: cannot be read ({what}): {error.strerror or error}") from None


def _unzipped(file: IO[bytes], path: Path) -> tuple[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        members = [one for one in archive.infolist() if not one.is_dir() and not _of_macos(one.filename)]
        if len(members) != 1:
            names = ", ".join(shown(one.filename) for one in members[:_NAMED])
            more = ", …" if len(members) > _NAMED else ""
            raise HvxError(
                f"{path}: holds {len(members)} files ({names}{more}); expected a zip with one file; "
                "unpack it and name the file that is wanted"
            )
        with archive.open(members[0]) as unpacked:
            return members[0].filename, _bounded(unpacked, path)


def _of_macos(name: str) -> bool:
    """Whether a member is one that macOS adds to every zip."""
    return name.startswith("__MACOSX/")


def _bounded(unpacked: IO[bytes] | gzip.GzipFile, path: Path) -> bytes:
    """All of an unpacked stream, unless it becomes too large."""
    most = min(MOST_BYTES, max(FREE_BYTES, MOST_RATIO * path.stat().st_size))
    pieces, size = [], 0
    while piece := unpacked.read(_CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise HvxError(
                f"{path}: {path.stat().st_size:,} bytes that become more than {most:,} when unpacked: too "
                "large, or a decompression bomb; unpack it yourself if you trust it"
            )
    return b"".join(pieces)
