"""The rows of a file of questions or annotations, in any JSON structure; each row is decoded on demand."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Raw

from hvx.data.compressed import read_unpacked
from hvx.errors import HvxError, shown

Row = dict[str, Any]
Shape = Literal["list", "keyed", "lines", "parquet", "text"]
"""A JSON list, an object of rows by question id, JSON Lines, Parquet, lines of plain text."""

_LINES = {".jsonl", ".ndjson"}
_FIRST_ROW = 1 << 20
"""Bytes; a longer first line is not considered a row."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
KEYS = {"questions": ("questions", "data"), "annotations": ("annotations", "answers")}
"""Keys of the list of rows in an object, by the purpose of the file."""
_CAPTIONS = ("annotations", "images")
"""Keys of COCO's captions, which have both lists and no list of questions. The first has the rows, the second
the names of the images."""


class _Key(str):
    """A key of the outermost object: msgspec creates one for each key, so that repeated keys are detected."""

    __slots__ = ()


_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


class VQARecords:
    """The rows of a JSON file in its order, each with its number.

    Attributes:
        path: the file.
        shape: the structure of the file.
        key: the key of the list of rows; empty if the rows are in none.
        about: plain-text values of the object with the list, such as ``data_subtype``.
        images: the rows of COCO's list of images, if the file has captions; else empty.

    Raises:
        HvxError: the file is missing, unreadable or has none of these structures.
    """

    def __init__(self, path: Path, what: Literal["questions", "annotations"]) -> None:
        self.path, self._what = path, f"the split's {what}"
        self.shape: Shape = "list"
        self.key = ""
        self.about: Mapping[str, str] = {}
        self.images: list[Any] = []
        self._names: list[str] = []
        name, data = read_unpacked(path, self._what)
        self._data = data.removeprefix(b"\xef\xbb\xbf")
        if Path(name).suffix.lower() in _LINES or _starts_with_row(self._data):
            self.shape = "lines"
        else:
            self._raw = self._listed(KEYS[what])

    def place(self, number: int, field: str = "") -> str:
        """The location of a row, or of a field of it, for errors."""
        if self.shape == "lines":
            return f"{self.path}: line {number + 1}" + (f": {field}" if field else "")
        entry = shown(self._names[number]) if self.shape == "keyed" else f"{self.key}[{number}]"
        return f"{self.path}: {entry}" + (f".{field}" if field else "")

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        keyed = self.shape == "keyed"
        for number, raw in self._pieces():
            try:
                row = _decode(raw)
            except _NOT_JSON as error:
                raise HvxError(f"{self.place(number)}: not valid JSON: {error}") from None
            if keyed and isinstance(row, dict):
                row.setdefault("question_id", self._names[number])
            yield number, row

    def _pieces(self) -> Iterator[tuple[int, Any]]:
        if self.shape == "lines":
            lines = enumerate(io.BytesIO(self._data))
            return ((number, line) for number, line in lines if line and not line.isspace())
        return enumerate(self._raw)

    def _listed(self, keys: tuple[str, ...]) -> list[Raw]:
        """The rows of one JSON text, each still encoded."""
        try:
            start = self._data.lstrip()[:1]
            if start == b"[":
                return _decode_list(self._data)
            tree, repeated = _object(self._data) if start == b"{" else (_decode(self._data), None)
            if repeated is not None:
                raise HvxError(f"{self.path}: the key {repeated!r:.60} occurs twice")
            key = next((key for key in keys if start == b"{" and key in tree), None)
            lists = [name for name in _CAPTIONS if start == b"{" and _begins(tree.get(name, Raw()), b"[")]
            if key is None and len(lists) == len(_CAPTIONS) and self._what == "the split's questions":
                key, self.images = lists[0], _decode(tree[lists[1]])
            if key is not None and _begins(tree[key], b"["):
                self.key = key
                texts = {name: _decode(value) for name, value in tree.items() if _begins(value, b'"')}
                self.about = {name: text for name, text in texts.items() if _NAME.fullmatch(text)}
                return _decode_list(tree[key])
            if (
                start == b"{"
                and key is None
                and tree
                and all(_begins(value, b"{") for value in tree.values())
            ):
                self.shape, self._names = "keyed", list(map(str, tree))
                return list(tree.values())
        except _NOT_JSON as error:
            raise HvxError(f"{self.path}: not valid JSON ({self._what}): {error}") from None
        raise HvxError(
            f"{self.path}: neither VQA JSON nor JSON Lines: expected an object with a list '{keys[0]}', "
            "a list of rows, or a row a line"
        )


def _begins(raw: Raw, character: bytes) -> bool:
    """Whether an encoded value begins with a character."""
    return bytes(memoryview(raw)[:1]) == character


def _object(data: bytes) -> tuple[dict[str, Raw], str | None]:
    """An object with its values still encoded, and the first repeated key."""
    names: set[str] = set()
    repeated: list[str] = []

    def check_key(kind: type, name: str) -> _Key:
        del kind
        if name in names:
            repeated.append(name)
        names.add(name)
        return _Key(name)

    tree = msgspec.json.Decoder(dict[_Key, Raw], dec_hook=check_key).decode(data)
    return {str(name): value for name, value in tree.items()}, next(iter(repeated), None)


def _starts_with_row(data: bytes) -> bool:
    """Whether the first line is a row by itself."""
    first_line = next((line for line in io.BytesIO(data[:_FIRST_ROW]) if line and not line.isspace()), b"")
    try:
        row = _decode(first_line)
    except _NOT_JSON:
        return False
    fields = ("question_id", "question", "caption", "label")
    return isinstance(row, dict) and any(isinstance(row.get(field), (str, int)) for field in fields)
