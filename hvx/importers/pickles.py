"""Reads pickles of plain values without unpickling: no code in such a file is run or imported."""

from __future__ import annotations

import codecs
import io
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hvx.errors import HvxError

Plain = dict[str | int, str | int] | list[str | int]
"""The supported content of a pickle: one dict or list of strings and integers."""

_MOST_BYTES = 16 * 2**20
"""Far larger than any vocabulary; the two of VQA have half a megabyte."""
_INTEGERS = {"INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"}
_UNICODE = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTE_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
"""Python 2's ``str``."""
_REMEMBERED = {"GET", "BINGET", "LONG_BINGET"}
_REMEMBER = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_BY_CODE = {operation.code: operation for operation in pickletools.opcodes}
_FRAMING = {"PROTO", "FRAME"}
_WIDEST = 2**63
_EXPECTED = "expected one plain dict of strings and whole numbers, and nothing else"


class _UnsupportedPickle(Exception):
    """A pickle has content that a plain one has not."""


class _Reader:
    """A pickle machine that supports only strings, integers and one container.

    ``stack`` has the values, and ``self`` in place of the container; ``marks`` are heights of the stack.
    """

    def __init__(self) -> None:
        self.container: Plain | None = None
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Run one operation. Raises _UnsupportedPickle if a plain pickle does not need it, and IndexError or
        KeyError if its operands are missing."""
        if name in _INTEGERS:
            self.stack.append(_integer(argument))
        elif name in _UNICODE:
            self.stack.append(argument)
        elif name in _BYTE_STRINGS:
            self.stack.append(_decoded(argument))
        elif name in _REMEMBERED:
            self.stack.append(self.memo[argument])
        elif name in _REMEMBER:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            self._make(name, [])
        elif name in ("DICT", "LIST"):
            self._make(name, self._since_mark())
        elif name in ("SETITEMS", "APPENDS"):
            self._add(name, self._since_mark())
        elif name in ("SETITEM", "APPEND"):
            self._add(name, self._popped(2 if name == "SETITEM" else 1))
        else:
            operand = self.stack[-2:] if name == "STACK_GLOBAL" else argument
            raise _UnsupportedPickle(name if operand is None else f"{name} {operand!r:.60}")

    def _popped(self, count: int) -> list[Any]:
        values = [self.stack.pop() for _ in range(count)]
        return values[::-1]

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _make(self, name: str, values: list[Any]) -> None:
        if self.container is not None:
            raise _UnsupportedPickle("a container inside of another, or next to it")
        self.container = {} if "DICT" in name else []
        self.stack.append(self)
        self._add("SETITEMS" if "DICT" in name else "APPENDS", values)

    def _add(self, name: str, values: list[Any]) -> None:
        """Add values to the container, which is below them on the stack."""
        if self.stack[-1] is not self or any(value is self for value in values):
            raise _UnsupportedPickle("a container inside of itself, or values without one")
        if name.startswith("SETITEM") and isinstance(self.container, dict) and len(values) % 2 == 0:
            self.container.update(zip(values[::2], values[1::2], strict=True))
        elif name.startswith("APPEND") and isinstance(self.container, list):
            self.container.extend(values)
        else:
            raise _UnsupportedPickle(f"{name} on a container of another kind")


def _operations(data: bytes) -> Iterator[tuple[str, Any, int]]:
    """The operations of a pickle: name, argument and position.

    Like ``pickletools.genops``, which fails on a non-ASCII Python 2 string of protocol 0.
    """
    file = io.BytesIO(data)
    name = ""
    while name != "STOP":
        position = file.tell()
        operation = _BY_CODE.get(file.read(1).decode("latin-1"))
        if operation is None:
            raise ValueError(f"no operation of a pickle at byte {position:,}")
        name = operation.name
        argument: Any = None
        if name == "STRING":
            argument = _quoted(file.readline())
        elif operation.arg is not None:
            argument = operation.arg.reader(file)
        yield name, argument, position


def _quoted(line: bytes) -> str:
    """A quoted and escaped byte string at the end of its line, as Latin-1."""
    text = line.removesuffix(b"\n").strip()
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise ValueError("a string without its quotes")
    return codecs.escape_decode(text[1:-1])[0].decode("latin-1")


def _integer(value: Any) -> int:
    """A 64-bit integer; protocol 0 also writes booleans as numbers."""
    if isinstance(value, bool) or not -_WIDEST <= value < _WIDEST:
        raise _UnsupportedPickle("a truth value" if isinstance(value, bool) else "a number beyond 64 bits")
    return int(value)


def _decoded(latin: str) -> str:
    """Python 2's byte string, which pickletools returns as Latin-1; decoded as UTF-8 if it is valid."""
    try:
        return latin.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return latin


def read_plain_pickle(path: Path, or_list: bool = False) -> Plain:
    """The dict (or list, with ``or_list``) in a pickle of any protocol, including Python 2's.

    The file is never unpickled: its operations are read one by one, and reading stops at the first that does
    more than add strings and integers to one container.

    Raises:
        HvxError: no such file, not a pickle, or a pickle with other content, which is named.
    """
    data = _bytes(path)
    reader, at, name = _Reader(), 0, ""
    try:
        for name, argument, at in _operations(data):  # noqa: B007
            if name != "STOP" and name not in _FRAMING:
                reader.step(name, argument)
    except _UnsupportedPickle as error:
        raise HvxError(f"{path}: holds {error} at byte {at:,}, so it stays unopened; {_EXPECTED}") from None
    except (IndexError, KeyError):
        raise HvxError(
            f"{path}: not a whole pickle: {name} at byte {at:,} finds nothing to work on"
        ) from None
    except Exception as error:  # pickletools raises errors of many kinds
        reason = str(error).partition("\n")[0]
        raise HvxError(f"{path}: not a pickle that can be read: {reason:.120}; {_EXPECTED}") from None
    if reader.container is None or reader.stack != [reader] or reader.marks:
        raise HvxError(f"{path}: a pickle of no dict; {_EXPECTED}")
    if isinstance(reader.container, list) and not or_list:
        raise HvxError(f"{path}: a pickle of a list; {_EXPECTED}")
    return reader.container


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise HvxError(f"{path}: no such file (a pickled vocabulary)")
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise HvxError(f"{path}: {size:,} bytes; a vocabulary's pickle has {_MOST_BYTES:,} at most")
        return path.read_bytes()
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
