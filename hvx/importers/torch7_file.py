"""Reads Torch7's binary files (``.t7``), as far as vectors of numbers need it.

All numbers are little-endian. An object is its type (int32) and its content: 0 nil; 1 number (float64);
2 string (int32 length, bytes); 3 table (int32 index, int32 count, then count keys and values); 4 torch object
(int32 index, version string, class name, body); 5 boolean (int32). An index that occurred before refers to
the object read then. A tensor's body is its dimensions (int32), sizes, strides and the 1-based offset into
its storage (int64 each), and the storage, which is also an object: its count (int64) and its values.

The file is memory-mapped: a storage is a view of it, and every count is checked against the remaining bytes
before it is used. No code in such a file is run.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hvx.errors import HvxError

_TENSORS = {
    "torch.FloatTensor": "torch.FloatStorage",
    "torch.DoubleTensor": "torch.DoubleStorage",
    "torch.CudaTensor": "torch.CudaStorage",
    "torch.CudaDoubleTensor": "torch.CudaDoubleStorage",
}
_STORAGES: dict[str, np.dtype[Any]] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.CudaStorage": np.dtype("<f4"),
    "torch.CudaDoubleStorage": np.dtype("<f8"),
}
_FUNCTIONS = (6, 7, 8)
_DEPTH = 16
"""The deepest nesting of objects; a vector has depth 2, a vector in a table 3."""
_OBJECTS = 100_000
"""The most objects in a file, including keys and values of tables."""
_NAME = 64
"""The most bytes of a class name or a version; Torch7's are shorter."""


@dataclass(frozen=True)
class _Storage:
    kind: str
    values: np.ndarray
    """(count), in the order of the file."""


def read_tensor(path: Path) -> np.ndarray:
    """The vector in a ``.t7`` file: its tensor, or the only tensor in its table.

    Returns:
        (n) float32, n > 0; read-only, and a view of the file if that has floats.

    Raises:
        HvxError: no such file, not of this format, or not exactly one tensor of one dimension, of floats or
            doubles. Names the byte of the error.
    """
    reader = _Reader(path, _mapped(path))
    reader.object(0)
    if reader.left:
        reader.fail(reader.at, "the file's end", f"{reader.left:,} more bytes")
    if len(reader.tensors) != 1:
        raise HvxError(f"{path}: expected one tensor of parameters, found {len(reader.tensors)}")
    with np.errstate(over="ignore"):  # values too large for float32 become inf; the caller checks
        return reader.tensors[0].astype(np.float32, copy=False)


def read_tensors(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The vectors with these names in the table of a ``.t7`` file, as returned by ``read_tensor``.

    Raises:
        HvxError: as ``read_tensor``; or a name is missing, or occurs twice.
    """
    reader = _Reader(path, _mapped(path))
    reader.object(0)
    if reader.left:
        reader.fail(reader.at, "the file's end", f"{reader.left:,} more bytes")
    for name in names:
        if name not in reader.named:
            known = ", ".join(map(repr, sorted(reader.named)[:5])) or "none"
            raise HvxError(f"{path}: expected a table with a vector '{name}'; vectors with names: {known}")
    with np.errstate(over="ignore"):
        return {name: reader.named[name].astype(np.float32, copy=False) for name in names}


def _mapped(path: Path) -> memoryview:
    """The bytes of a file, mapped into memory."""
    try:
        if not path.is_file():
            raise HvxError(f"{path}: no such file (a Torch7 .t7 file)")
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError:
        raise HvxError(f"{path}: is empty; expected a binary Torch7 .t7 file") from None
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None


class _Reader:
    """Reads objects in order, and stores the tensors among them."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path = path
        self.data = data
        self.at = 0
        """Position of the next byte to read."""
        self.objects = 0
        self.tensors: list[np.ndarray] = []
        """(size) each, views of their storages."""
        self.named: dict[str, np.ndarray] = {}
        """The tensors that are values of a table under string keys."""
        self.seen: dict[int, _Storage | None] = {}
        """The storages by index; None for tables and tensors, which are not needed again."""

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.at

    def fail(self, at: int, expected: str, actual: str) -> NoReturn:
        raise HvxError(f"{self.path}: at byte {at:,}: expected {expected}, found {actual}")

    def object(self, depth: int) -> _Storage | None:
        """Read one object at nesting depth ``depth``; returns it if it is a storage."""
        at, kind = self.at, self._int32("an object's type")
        self.objects += 1
        if depth > _DEPTH or self.objects > _OBJECTS:
            limit = f"a nesting deeper than {_DEPTH}" if depth > _DEPTH else f"more than {_OBJECTS:,} objects"
            self.fail(at, "a vector of parameters", limit)
        if kind in (3, 4):
            return self._indexed(depth, self._table if kind == 3 else self._torch_object)
        if kind == 1:
            self._take(8, "a number")
        elif kind == 2:
            self._string("a string")
        elif kind == 5:
            self._int32("a boolean")
        elif kind in _FUNCTIONS:
            self.fail(at, "a vector of parameters", f"a Lua function (type {kind}), which hvx does not read")
        elif kind != 0:
            self.fail(at, "an object's type, 0 to 5, of a binary .t7 file", str(kind))
        return None

    def _indexed(self, depth: int, body: Callable[[int], _Storage | None]) -> _Storage | None:
        """The object of an index; it is read only at its first occurrence."""
        index = self._int32("an object's index")
        if index not in self.seen:
            self.seen[index] = None  # it may contain itself
            self.seen[index] = body(depth + 1)
        return self.seen[index]

    def _table(self, depth: int) -> None:
        at, count = self.at, self._int32("a table's count")
        if not 0 <= count <= self.left // 8:  # a key and a value have at least 4 bytes each
            self.fail(at, f"a table's count that fits the {self.left:,} bytes left", f"{count:,}")
        for _ in range(count):
            key_at, before_key = self.at, len(self.tensors)
            self.object(depth)
            key, after_key = self._text(key_at), len(self.tensors)
            self.object(depth)
            if key is not None and before_key == after_key == len(self.tensors) - 1:
                if key in self.named:
                    self.fail(key_at, "a name that stands once", repr(key))
                self.named[key] = self.tensors[-1]

    def _text(self, at: int) -> str | None:
        """The string at a position that was read already, if it is short; else None."""
        if self.at - at < 8 or struct.unpack_from("<i", self.data, at)[0] != 2 or self.at - at - 8 > _NAME:
            return None
        return bytes(self.data[at + 8 : self.at]).decode("utf-8", "replace")

    def _torch_object(self, depth: int) -> _Storage | None:
        at, version = self.at, self._name("a version")
        if version != "V 1":
            self.fail(at, "version 'V 1' of a torch object", repr(version))
        at, name = self.at, self._name("a class name")
        if name in _STORAGES:
            return self._storage(name)
        if name not in _TENSORS:
            self.fail(at, f"a tensor of floats ({', '.join(_TENSORS)})", repr(name))
        self.tensors.append(self._tensor(_TENSORS[name], depth))
        return None

    def _tensor(self, kind: str, depth: int) -> np.ndarray:
        """A tensor of one dimension with a storage of this kind."""
        at, dimensions = self.at, self._int32("a tensor's dimensions")
        if dimensions != 1:
            self.fail(at, "a tensor of one dimension", f"one of {dimensions}")
        at, size = self.at, self._int64("a tensor's size")
        stride, offset = self._int64("a tensor's stride"), self._int64("a tensor's offset")
        storage_at, storage = self.at, self.object(depth)
        if storage is None or storage.kind != kind:
            self.fail(storage_at, f"a {kind}", storage.kind if storage else "another object")
        first, last = offset - 1, offset - 1 + (size - 1) * stride
        # With a stride of 0, one number would make a tensor of any size.
        if size < 1 or (size > 1 and stride < 1) or not 0 <= first <= last < len(storage.values):
            layout = f"size {size:,}, stride {stride:,}, offset {offset:,}"
            self.fail(at, f"a tensor inside of its storage of {len(storage.values):,}", layout)
        return storage.values[first : last + 1 : max(1, stride)]

    def _storage(self, kind: str) -> _Storage:
        dtype = _STORAGES[kind]
        at, count = self.at, self._int64("a storage's count")
        limit = self.left // dtype.itemsize
        if not 1 <= count <= limit:
            self.fail(at, f"a storage's count, 1 to the {limit:,} values that are left", f"{count:,}")
        return _Storage(kind, np.frombuffer(self._take(count * dtype.itemsize, "values"), dtype))

    def _take(self, count: int, description: str) -> memoryview:
        """The next ``count`` bytes."""
        if not 0 <= count <= self.left:
            self.fail(self.at, f"{description} ({count:,} bytes)", f"{self.left:,} bytes left")
        self.at += count
        return self.data[self.at - count : self.at]

    def _int32(self, description: str) -> int:
        value: int = struct.unpack("<i", self._take(4, description))[0]
        return value

    def _int64(self, description: str) -> int:
        value: int = struct.unpack("<q", self._take(8, description))[0]
        return value

    def _string(self, description: str) -> memoryview:
        return self._take(self._int32(f"the length of {description}"), description)

    def _name(self, description: str) -> str:
        at, text = self.at, self._string(description)
        if len(text) > _NAME:
            self.fail(at, description, f"{len(text):,} bytes")
        return bytes(text).decode("ascii", "replace")
