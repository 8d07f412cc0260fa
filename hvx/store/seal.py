"""A seal on an HDF5 file: digests of its bytes, in the block ahead of them that HDF5 leaves to its user.

HDF5's own checksums guard the numbers of a dataset, not its strings nor its tables of contents, and its
library does not bear damage to these: it may crash, or loop. So the seal holds two digests. That of all
bytes guards every bit. That of the *core*, all but the chunked numbers, is quick to check even where the
file is large, and a file whose core is as written can be given to HDF5: what it then reads of the numbers
carries HDF5's checksums. A seal tells damage, not malice: whoever can write a file can seal it.
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
"""Bytes ahead of the HDF5 file proper; HDF5 wants a power of 2."""

Span = tuple[int, int]
"""From a byte to the one behind the last, of a file's own."""
Depth = Literal["length", "core", "all"]

_SEAL = re.compile(
    rb"hvx sha256 ([0-9a-f]{64}) of (\d{1,18}) core ([0-9a-f]{64}) without((?: \d{1,18}-\d{1,18})*)\n\0*"
)
_MOST_SPANS = 20
"""That the block has room for, 18 digits each."""
_PIECE = 1 << 20
_NOT_DAMAGE = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM)
"""Why a file cannot be opened that may be whole all the same."""


@dataclass(frozen=True)
class _Seal:
    """``size``: bytes behind the block. ``numbers``: spans that are no part of the core."""

    digest: str
    size: int
    core: str
    numbers: tuple[Span, ...]

    def block(self) -> bytes:
        spans = "".join(f" {start}-{end}" for start, end in self.numbers)
        text = f"hvx sha256 {self.digest} of {self.size} core {self.core} without{spans}\n"
        return text.encode().ljust(BLOCK, b"\0")


def seal(path: Path, numbers: Sequence[Span] = ()) -> None:
    """Write the seal of a file made with ``userblock_size=BLOCK`` into its user block.

    Args:
        path: the file.
        numbers: where its chunked numbers lie, in any order.
    """
    with path.open("rb+") as file:
        size = file.seek(0, 2) - BLOCK
        kept = _largest(numbers)
        digest = _digest(file, [(BLOCK, BLOCK + size)])
        core = _digest(file, _between(kept, BLOCK + size))
        file.seek(0)
        file.write(_Seal(digest, size, core, kept).block())


def damage(path: Path, depth: Depth = "all") -> str | None:
    """What is wrong with a sealed file, in a few words; None if it is whole.

    Args:
        path: the file.
        depth: check the seal and the length alone, as a truncated file shows it; or all but the chunked
            numbers, which is enough to let HDF5 read the file; or every byte.
    """
    try:
        with path.open("rb") as file:
            block = file.read(BLOCK)
            found = _parsed(block)
            if found is None:
                return "no seal at its beginning"
            end = file.seek(0, 2)
            if end != BLOCK + found.size:
                return "another length than its seal says"
            if depth == "length":
                return None
            whole = depth == "core" or _digest(file, [(BLOCK, end)]) == found.digest
            whole = whole and _digest(file, _between(found.numbers, end)) == found.core
    except OSError as error:
        if error.errno in _NOT_DAMAGE:
            raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
        return error.strerror or str(error)
    return None if whole else "its bytes changed"


def sealed_digest(path: Path) -> str:
    """The digest of all bytes behind the seal, as the seal has it; empty where there is no seal.

    Raises:
        HvxError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = _parsed(file.read(BLOCK))
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
    return found.digest if found else ""


def open_hdf5(path: Path) -> h5py.File:
    """A file for reading. Finished files never change, so HDF5's own locks, which not every file system has,
    are not needed."""
    return h5py.File(path, "r", locking=False)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A sealed file, given to HDF5 once its core is found to be as written.

    Raises:
        HvxError: it is damaged, or what is asked of it cannot be read.
    """
    reason = damage(path, "core")
    if reason:
        raise damaged(path, reason)
    try:
        with open_hdf5(path) as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, reason: object) -> HvxError:
    """The error of a file of a run that cannot be read."""
    return HvxError(
        f"{path}: damaged ({reason!s:.200}); `hvx info RUN --verify` sets it aside and `hvx explain` "
        "makes it again"
    )


def _parsed(block: bytes) -> _Seal | None:
    """The seal in a block; none where the block is not one that ``seal`` writes."""
    match = _SEAL.fullmatch(block)
    if match is None:
        return None
    digest, size, core, listed = (group.decode("ascii") for group in match.groups())
    numbers = tuple((int(start), int(end)) for start, end in (s.split("-") for s in listed.split()))
    found = _Seal(digest, int(size), core, numbers)
    bounds = [BLOCK, *(place for span in numbers for place in span), BLOCK + found.size]
    return found if found.block() == block and bounds == sorted(bounds) else None


def _largest(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans in order, those that touch made one; of more than the block holds, the largest."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(sorted(sorted(joined, key=lambda span: span[0] - span[1])[:_MOST_SPANS]))


def _between(spans: Sequence[Span], end: int) -> list[Span]:
    """All behind the block that the spans leave out."""
    starts = [BLOCK, *(behind for _, behind in spans)]
    ends = [*(start for start, _ in spans), end]
    return list(zip(starts, ends, strict=True))


def _digest(file: BinaryIO, spans: Sequence[Span]) -> str:
    """SHA-256 of the bytes in these spans and of the spans themselves."""
    digest = hashlib.sha256(repr(spans).encode() if len(spans) > 1 else b"")
    for start, end in spans:
        file.seek(start)
        left = end - start
        while left and (piece := file.read(min(_PIECE, left))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()
