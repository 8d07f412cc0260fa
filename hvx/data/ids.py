"""Ids of questions and images as their files have them: integers, or texts of any form."""

from __future__ import annotations

import re
from typing import Any, Protocol

from hvx.errors import HvxError, shown

Id = int | str
_LEAST, _MOST = -(2**63), 2**63 - 1

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What HDF5's UTF-8 strings cannot hold."""
NO_TEXT = "holds the character NUL or half a surrogate pair, which no run can store"


class Places(Protocol):
    """Rows that can say where one of them lies."""

    def place(self, number: int, field: str = "") -> str: ...


class Ids:
    """Checks that the ids of one kind are all integers, or all texts."""

    def __init__(self) -> None:
        self._kind: type | None = None

    def check(self, value: Any, rows: Places, number: int, field: str) -> Id:
        """An id of the row of this number, as it is given.

        Raises:
            HvxError: it is neither, of the other kind than those before it, or cannot be stored.
        """
        kind = type(value)
        if kind is self._kind and (
            (value != "" and value.isascii() and "\0" not in value)  # nearly all texts
            if kind is str
            else _LEAST <= value <= _MOST
        ):
            found: Id = value
            return found
        place = rows.place(number, field)
        if kind not in (int, str) or value == "":
            raise HvxError(f"{place}: expected an integer or a text, not {shown(value)}")
        if self._kind not in (kind, None):
            words = {int: "an integer", str: "a text"}
            raise HvxError(
                f"{place}: {shown(value)} is {words[kind]}, an id before it {words[self._kind]}; "
                "expected ids of one kind"
            )
        if not storable(value):
            reason = NO_TEXT if kind is str else "does not fit 64 bits; write it as a text"
            raise HvxError(f"{place}: {shown(value)} {reason}")
        self._kind = kind
        return value


def storable(value: int | str) -> bool:
    """Whether a run can keep a text, or an integer, as it is."""
    if isinstance(value, str):
        return (value.isascii() and "\0" not in value) or not _UNSTORABLE.search(value)
    return _LEAST <= value <= _MOST
