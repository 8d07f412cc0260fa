"""Ids of questions and images as in their files: integers or strings."""

from __future__ import annotations

import re
from typing import Any, Protocol

from hvx.errors import HvxError, shown

Id = int | str
_LEAST, _MOST = -(2**63), 2**63 - 1

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that HDF5's UTF-8 strings cannot store."""
NO_TEXT = "holds the character NUL or half a surrogate pair, which no run can store"


class Places(Protocol):
    """Rows that can describe the location of one of them, for errors."""

    def place(self, number: int, field: str = "") -> str: ...


class Ids:
    """Checks that the ids of a field are all integers, or all strings."""

    def __init__(self) -> None:
        self._kind: type | None = None

    def check(self, value: Any, rows: Places, number: int, field: str) -> Id:
        """The id of a row, unchanged.

        Raises:
            HvxError: not an integer or a string, not of the same kind as the ids before it, or it cannot be
                stored.
        """
        kind = type(value)
        if kind is self._kind and (
            (value != "" and value.isascii() and "\0" not in value)  # nearly all texts
            if kind is str
            else _LEAST <= value <= _MOST
        ):
            checked: Id = value
            return checked
        location = rows.place(number, field)
        if kind not in (int, str) or value == "":
            raise HvxError(f"{location}: expected an integer or a text, not {shown(value)}")
        if self._kind not in (kind, None):
            kinds = {int: "an integer", str: "a text"}
            raise HvxError(
                f"{location}: {shown(value)} is {kinds[kind]}, an id before it {kinds[self._kind]}; "
                "expected ids of one kind"
            )
        if not storable(value):
            reason = NO_TEXT if kind is str else "does not fit 64 bits; write it as a text"
            raise HvxError(f"{location}: {shown(value)} {reason}")
        self._kind = kind
        return value


def storable(value: int | str) -> bool:
    """Whether a run can store a string, or an integer, unchanged."""
    if isinstance(value, str):
        return (value.isascii() and "\0" not in value) or not _UNSTORABLE.search(value)
    return _LEAST <= value <= _MOST
