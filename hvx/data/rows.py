"""The rows of a VQA file, one at a time: memory holds one row, however large the file.

A file is VQA JSON (an object with a list of rows under a key) or JSON Lines (a row a line).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from pydantic_core import from_json

from hvx.errors import HvxError

_DECODER = json.JSONDecoder()
_AFTER = set(",:]} \t\r\n")
"""Characters that may follow a value."""
_OPENING = re.compile(r'\{\s*"[^"\\]*"\s*:')
"""How an object begins, up to its first value."""
_SPACE = re.compile(r"[ \t\r\n]+")
_CHUNK = 1 << 20
"""Characters read at a time."""
_LINES = {".jsonl", ".ndjson"}
_FIRST_ROW = 1 << 16
"""Bytes; a longer first line is not taken for a row."""


class Rows:
    """The rows of a file in its order, each with its number; iterating reads the file anew.

    Raises:
        HvxError: on iterating: the file is missing, unreadable, or neither VQA JSON nor JSON Lines.
    """

    def __init__(self, path: Path, key: str) -> None:
        """The rows in the list ``key`` of ``path``, or on its lines."""
        self.path, self._key = path, key
        self._what = f"the split's {key}"
        self._by_line = path.suffix.lower() in _LINES

    def place(self, number: int, field: str = "") -> str:
        """Where a row, or a field of it, lies, as errors name it."""
        if self._by_line:
            return f"{self.path}: line {number + 1}" + (f": {field}" if field else "")
        return f"{self.path}: {self._key}[{number}]" + (f".{field}" if field else "")

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        try:
            with self.path.open("rb") as file:
                self._by_line = self._by_line or _starts_with_row(file, self._key)
                yield from self._lines(file) if self._by_line else self._items(file)
        except FileNotFoundError:
            raise HvxError(f"{self.path}: no such file ({self._what})") from None
        except OSError as error:
            raise HvxError(f"{self.path}: cannot be read ({self._what}): {error.strerror}") from None

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(file):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise HvxError(f"{self.place(number)}: not valid JSON: {error}") from None
            yield number, row

    def _items(self, file: BinaryIO) -> Iterator[tuple[int, Any]]:
        text = _Text(io.TextIOWrapper(file, encoding="utf-8-sig"))
        wrong = f"{self.path}: not valid JSON ({self._what})"
        try:
            yield from enumerate(_listed(text, self._key))
        except _NoListError:
            raise HvxError(
                f"{self.path}: not VQA JSON: expected an object with a list '{self._key}'"
            ) from None
        except json.JSONDecodeError as error:
            raise HvxError(f"{wrong}: {error.msg}: char {text.before + error.pos}") from None
        except (ValueError, RecursionError) as error:
            raise HvxError(f"{wrong}: {error}") from None


class _NoListError(Exception):
    """JSON, but not an object with the list that is wanted."""


class _Text:
    """JSON text read a piece at a time.

    Raises:
        ValueError: what is asked for is not there.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._held, self._at, self._ended = file, "", 0, False
        self._alike = True
        """Whether objects in a list begin alike, and as none inside them does, so far as is known."""
        self.before = 0
        """Characters of the file ahead of those held."""

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            found = self._held[self._at : self._at + 1]
            if found and found not in " \t\r\n":
                return found
            space = _SPACE.match(self._held, self._at)
            self._at = space.end() if space else self._at
            if self._at == len(self._held):
                if self._ended:
                    return ""
                self._read_on()

    def take(self, wanted: str) -> str:
        """The next character that is no white space, which must be one of ``wanted``."""
        found = self.peek()
        if not found or found not in wanted:
            raise json.JSONDecodeError(f"Expecting {' or '.join(map(repr, wanted))}", self._held, self._at)
        self._at += 1
        return found

    def value(self) -> Any:
        """The next JSON value, whole."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except ValueError:  # cut off where the held text ends, or wrong
                if self._ended:
                    raise
            else:
                if self._ended or self._held[end : end + 1] in _AFTER:  # else a number may go on
                    self._at = end
                    return value
            self._read_on()

    def between(self, opening: str, closing: str) -> Iterator[None]:
        """Halt ahead of each of the items between two brackets; who iterates takes the item."""
        self.take(opening)
        if self.peek() == closing:
            self.take(closing)
            return
        while True:
            yield
            if self.take(closing + ",") == closing:
                return

    def objects(self) -> list[Any]:
        """Items of a list from here on that are held whole, short of the last; none where it cannot tell.

        Taking them at once is three times as fast. The text is cut where the last object begins that begins
        as the next one does. Were that inside another value, the brackets would not match, and no JSON
        would come of it.
        """
        self.peek()
        opening = _OPENING.match(self._held, self._at)
        if opening is None or not self._alike:
            return []
        cut = self._held.rfind(opening[0], self._at)
        try:
            found = from_json(f"[{self._held[self._at : cut]}null]")
        except ValueError:
            self._alike = False
            return []
        self._at = cut
        return found[:-1]

    def _read_on(self) -> None:
        """Drop what has been taken, and hold at least twice as much of the rest."""
        self.before += self._at
        self._held, self._at = self._held[self._at :], 0
        read = self._file.read(max(_CHUNK, len(self._held)))
        self._held, self._ended = self._held + read, not read


def _listed(text: _Text, key: str) -> Iterator[Any]:
    """The items of the list under ``key`` of the object that a text is.

    Raises:
        ValueError: the text is not JSON.
        _NoListError: it is no such object.
    """
    found = False
    if text.peek() != "{":
        text.value()
        raise _NoListError
    for _ in text.between("{", "}"):
        name = text.value()
        text.take(":")
        if name != key:
            text.value()
            continue
        if found:
            raise ValueError(f"the key '{key}' occurs twice")
        found = True
        if text.peek() != "[":
            text.value()
            raise _NoListError
        for _ in text.between("[", "]"):
            yield from text.objects()
            yield text.value()
    if text.peek():
        raise ValueError("more text after the end of the object")
    if not found:
        raise _NoListError


def _starts_with_row(file: BinaryIO, key: str) -> bool:
    """Whether the first line is a row, not the beginning of an object with the list ``key``."""
    first = file.readline(_FIRST_ROW)
    while first.isspace():
        first = file.readline(_FIRST_ROW)
    file.seek(0)
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "question_id" in row and key not in row
