"""Checksums of an HDF5 file (its seal), stored in HDF5's user block at the beginning of the file.

HDF5's own checksums cover the numbers of a dataset, but neither strings nor metadata. If these are damaged,
its library may crash or loop. So the seal has two digests. One covers all bytes. The other covers the *core*,
everything except the chunked numbers: it is fast to check even for a large file. If the core is undamaged,
HDF5 can safely open the file, and its checksums cover the numbers that it reads. Checksums detect corruption,
not tampering: anyone who can write a file can seal it.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import h5py

from hvx.errors import HvxError

BLOCK = 1024
"""Bytes of the user block before the HDF5 data; HDF5 requires a power of 2."""

Span = tuple[int, int]
"""Start and end (exclusive) of a range of bytes in a file."""
Depth = Literal["length", "core", "all"]

_SEAL = re.compile(
    rb"hvx sha256 ([0-9a-f]{64}) of (\d{1,18}) core ([0-9a-f]{64}) without((?: \d{1,18}-\d{1,18})*)\n\0*"
)
_MOST_SPANS = 20
"""The most spans that fit the block, with 18 digits each."""
_PIECE = 1 << 20
_NOT_DAMAGE = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM)
"""Errors on opening a file that do not mean that it is damaged."""


@dataclass(frozen=True)
class _Seal:
    """``size``: bytes after the block. ``numbers``: spans that are not part of the core."""

    digest: str
    size: int
    core: str
    numbers: tuple[Span, ...]

    def block(self) -> bytes:
        spans = "".join(f" {start}-{end}" for start, end in self.numbers)
        text = f"hvx sha256 {self.digest} of {self.size} core {self.core} without{spans}\n"
        return text.encode().ljust(BLOCK, b"\0")


def write_checksum(path: Path, numbers: Sequence[Span] = ()) -> None:
    """Write the seal of a file created with ``userblock_size=BLOCK`` into its user block.

    Args:
        path: the file.
        numbers: spans of its chunked numbers, in any order.
    """
    with path.open("rb+") as file:
        size = file.seek(0, 2) - BLOCK
        spans = _merge_spans(numbers)
        digest = _digest(file, [(BLOCK, BLOCK + size)])
        core = _digest(file, _core_spans(spans, BLOCK + size))
        file.seek(0)
        file.write(_Seal(digest, size, core, spans).block())


def verify_checksum(path: Path, depth: Depth = "all") -> str | None:
    """A short description of a sealed file's damage; None if it is undamaged.

    Args:
        path: the file.
        depth: "length" checks only the seal and the length, which detects a truncated file; "core" all but
            the chunked numbers, which is enough for HDF5 to read the file; "all" every byte.
    """
    try:
        with path.open("rb") as file:
            block = file.read(BLOCK)
            checksum = _parse_seal(block)
            if checksum is None:
                return "no seal at its beginning"
            end = file.seek(0, 2)
            if end != BLOCK + checksum.size:
                return "another length than its seal says"
            if depth == "length":
                return None
            intact = depth == "core" or _digest(file, [(BLOCK, end)]) == checksum.digest
            intact = intact and _digest(file, _core_spans(checksum.numbers, end)) == checksum.core
    except OSError as error:
        if error.errno in _NOT_DAMAGE:
            raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
        return error.strerror or str(error)
    return None if intact else "its bytes changed"


def sealed_digest(path: Path) -> str:
    """The digest of all bytes after the seal, from the seal; empty if there is no seal.

    Raises:
        HvxError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            checksum = _parse_seal(file.read(BLOCK))
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
    return checksum.digest if checksum else ""


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading, without HDF5's locks, which some file systems lack: finished files never
    change."""
    return h5py.File(path, "r", locking=False)


@contextmanager
def open_verified(path: Path) -> Iterator[h5py.File]:
    """Open a sealed file with HDF5 after checking its core.

    Raises:
        HvxError: it is damaged, or reading from it fails.
    """
    reason = verify_checksum(path, "core")
    if reason:
        raise damaged(path, reason)
    try:
        with open_hdf5(path) as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, reason: object) -> HvxError:
    """The error for a file of a run that cannot be read."""
    return HvxError(
        f"{path}: damaged ({reason!s:.200}); `hvx info RUN --verify` sets it aside and `hvx explain` "
        "makes it again"
    )


def _parse_seal(block: bytes) -> _Seal | None:
    """The seal in a block; None if ``write_checksum`` did not write the block."""
    match = _SEAL.fullmatch(block)
    if match is None:
        return None
    digest, size, core, spans = (group.decode("ascii") for group in match.groups())
    numbers = tuple((int(start), int(end)) for start, end in (s.split("-") for s in spans.split()))
    checksum = _Seal(digest, int(size), core, numbers)
    bounds = [BLOCK, *(position for span in numbers for position in span), BLOCK + checksum.size]
    return checksum if checksum.block() == block and bounds == sorted(bounds) else None


def _merge_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Sorted spans, adjacent ones merged; if they are too many for the block, the largest ones."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(sorted(sorted(joined, key=lambda span: span[0] - span[1])[:_MOST_SPANS]))


def _core_spans(spans: Sequence[Span], end: int) -> list[Span]:
    """The spans after the block that are not in ``spans``."""
    starts = [BLOCK, *(stop for _, stop in spans)]
    ends = [*(start for start, _ in spans), end]
    return list(zip(starts, ends, strict=True))


def _digest(file: BinaryIO, spans: Sequence[Span]) -> str:
    """SHA-256 of the bytes in these spans and of the spans themselves."""
    digest = hashlib.sha256(repr(spans).encode() if len(spans) > 1 else b"")
    buffer = memoryview(bytearray(_PIECE))
    for start, end in spans:
        file.seek(start)
        remaining = end - start
        while remaining and (count := file.readinto(buffer[: min(_PIECE, remaining)])):  # type: ignore[attr-defined]
            digest.update(buffer[:count])
            remaining -= count
    return digest.hexdigest()
