"""Reads arrays from numpy's files; headers are checked against the file size before an array is read."""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from hvx.errors import HvxError

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000
_REAL = re.compile(r"[<>=|]f[248]")
_LONG = re.compile(r"(\d)L\b")
"""Python 2 wrote 620L instead of 620."""
_BEST_PACKED = 8
"""Weights hardly compress: an archive that claims more than this multiple of its size has no weights."""
_ALWAYS_ALLOWED = 2**20


@dataclass(frozen=True)
class ArrayHeader:
    """The header of a ``.npy`` file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    column_major: bool
    offset: int
    """Bytes before the numbers."""

    @property
    def order(self) -> Any:
        return "F" if self.column_major else "C"

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * prod(self.shape)


def read_header(file: IO[bytes], size: int, source: str) -> ArrayHeader:
    """Read the header of a ``.npy`` of ``size`` bytes, which must match the header.

    Raises:
        HvxError: not a ``.npy`` of real numbers, or an object array, which would have to be unpickled.
    """
    start = file.read(len(_MAGIC) + 2)
    length_bytes = 2 if start[-2:-1] == b"\x01" else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    if start[:-2] != _MAGIC or length > _LONGEST_HEADER:
        raise HvxError(f"{source}: not an array in numpy's format")
    text = _LONG.sub(r"\1", file.read(length).decode("latin-1").strip())
    try:
        fields = ast.literal_eval(text)
        kind, shape, column_major = fields["descr"], fields["shape"], fields["fortran_order"]
    except Exception:  # literal_eval raises errors of many kinds
        raise HvxError(f"{source}: not an array in numpy's format: its header is broken") from None
    if isinstance(kind, str) and "O" in kind:
        raise HvxError(
            f"{source}: an object array, which is a pickle and stays unopened; expected an array of floats "
            "(stack the rows that it holds with numpy.vstack, where it is trusted, and save that)"
        )
    if not isinstance(kind, str) or not _REAL.fullmatch(kind) or not _is_shape(shape):
        raise HvxError(f"{source}: expected an array of floats, not {kind!r:.40} of shape {shape!r:.40}")
    header = ArrayHeader(np.dtype(kind), shape, bool(column_major), len(start) + length_bytes + length)
    if header.offset + header.bytes != size:
        present = size - header.offset
        raise HvxError(f"{source}: its header claims {header.bytes:,} bytes of numbers; it holds {present:,}")
    return header


def _is_shape(shape: Any) -> bool:
    """Whether it is the shape of a non-empty vector or matrix."""
    if not isinstance(shape, tuple) or len(shape) not in (1, 2):
        return False
    return all(type(length) is int and 0 < length < 2**48 for length in shape)


def mapped_array(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, memory-mapped: rows are read from disk on access.

    Raises:
        HvxError: no such file, or not an array of floats.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size, str(path))
        # Copy on write: PyTorch requires writable memory.
        return np.memmap(path, header.dtype, "c", header.offset, header.shape, header.order)
    except FileNotFoundError:
        raise HvxError(f"{path}: no such file") from None
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_archive(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` by name, as float32; other arrays are not read.

    Raises:
        HvxError: no such file, not an archive, an array is missing, not of floats or not finite, or arrays
            claim far more bytes than the archive has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: _member(archive, name, path) for name in names}
            headers = {name: _member_header(archive, member, path) for name, member in members.items()}
            claimed, size = sum(header.bytes for header in headers.values()), path.stat().st_size
            if claimed > max(_ALWAYS_ALLOWED, _BEST_PACKED * size):
                raise HvxError(f"{path}: claims {claimed:,} bytes of weights in a file of {size:,}")
            arrays = {name: _member_array(archive, members[name], headers[name]) for name in members}
    except HvxError:
        raise
    except FileNotFoundError:
        raise HvxError(f"{path}: no such file") from None
    except Exception as error:  # zipfile raises errors of many kinds
        reason = str(error) or type(error).__name__
        raise HvxError(f"{path}: not a whole .npz archive: {reason:.120}") from None
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise HvxError(f"{path}: {name}: not all of its numbers are finite")
    return arrays


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(f"{name}.npy")
    except KeyError:
        raise HvxError(f"{path}: no array '{name}'") from None


def _member_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> ArrayHeader:
    with archive.open(member) as file:
        return read_header(file, member.file_size, f"{path}: {member.filename.removesuffix('.npy')}")


def _member_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, header: ArrayHeader) -> np.ndarray:
    with archive.open(member) as file:
        # zipfile unpacks no more than is requested here.
        data = file.read(header.offset + header.bytes)
    flat = np.frombuffer(data, header.dtype, offset=header.offset)
    return as_float32(flat.reshape(header.shape, order=header.order))


def as_float32(array: np.ndarray) -> np.ndarray:
    """The array as row-major float32, without a copy if it is that already; too large values become inf."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, np.float32)
