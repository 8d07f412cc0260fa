"""Reads a file of questions: uncompressed, .gz, or a .zip with one file."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import IO

from hvx.errors import HvxError, shown

MOST_BYTES = 4 << 30
"""The most bytes of unpacked text, which is held in memory."""
MOST_RATIO = 200
"""Unpacked bytes for a packed one. Text reaches about 40, a decompression bomb about 1,000."""
FREE_BYTES = 16 << 20
"""Below this size, any ratio is accepted."""
_CHUNK = 4 << 20
_NAMED = 3


def read_unpacked(path: Path, what: str) -> tuple[str, bytes]:
    """The name and the bytes of a file; of a packed one, those of the file in it.

    Args:
        path: the file; its format is detected from its first bytes, not from its name.
        what: describes the expected file in errors.

    Raises:
        HvxError: missing, unreadable, damaged, a zip with no or several files, or larger when unpacked than
            ``MOST_BYTES`` or ``MOST_RATIO`` allow.
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
        members = [m for m in archive.infolist() if not m.is_dir() and not _is_macos_metadata(m.filename)]
        if len(members) != 1:
            names = ", ".join(shown(member.filename) for member in members[:_NAMED])
            ellipsis = ", …" if len(members) > _NAMED else ""
            raise HvxError(
                f"{path}: holds {len(members)} files ({names}{ellipsis}); expected a zip with one file; "
                "unpack it and name the file that is wanted"
            )
        with archive.open(members[0]) as unpacked:
            return members[0].filename, _bounded(unpacked, path)


def _is_macos_metadata(name: str) -> bool:
    """Whether a member is metadata that macOS adds to every zip."""
    return name.startswith("__MACOSX/")


def _bounded(unpacked: IO[bytes] | gzip.GzipFile, path: Path) -> bytes:
    """The whole unpacked stream; an error if it becomes too large."""
    limit = min(MOST_BYTES, max(FREE_BYTES, MOST_RATIO * path.stat().st_size))
    chunks, size = [], 0
    while chunk := unpacked.read(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise HvxError(
                f"{path}: {path.stat().st_size:,} bytes that become more than {limit:,} when unpacked: too "
                "large, or a decompression bomb; unpack it yourself if you trust it"
            )
    return b"".join(chunks)
