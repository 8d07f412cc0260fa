"""Tables as Markdown, or for the columns of a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from hvx.terminal import safe

_GAP = "  "
_LEAST = 4
"""Columns that a shortened cell keeps, at least."""


@dataclass(frozen=True)
class Table:
    """A header and rows of texts; the first ``left`` columns are texts, the others numbers."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: int = 1


def as_markdown(table: Table) -> str:
    """A table in Markdown; nothing in a cell can end it."""
    rule = ["---" if place < table.left else "---:" for place in range(len(table.header))]
    lines = [_row(table.header), f"|{'|'.join(rule)}|", *map(_row, table.rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    shown = (_one_line(cell).replace("|", r"\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(shown)} |"


def as_text(table: Table, width: int) -> str:
    """A table of aligned columns, ``width`` columns of a terminal wide at most; long texts are cut.

    What is cut is the widest column of texts; numbers stay whole.
    """
    rows = [tuple(map(_one_line, row)) for row in (table.header, *table.rows)]
    sizes = [max(columns(row[place]) for row in rows) for place in range(len(table.header))]
    excess = sum(sizes) + len(_GAP) * (len(sizes) - 1) - width
    while excess > 0:
        widest = max(range(table.left), key=lambda place: sizes[place])
        if sizes[widest] <= _LEAST:
            break
        sizes[widest] -= 1
        excess -= 1
    lines = []
    for row in rows:
        cells = [
            _padded(_cut(cell, size), size, left=place < table.left)
            for place, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        lines.append(_GAP.join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(columns, lines)), *lines[1:]])


def _one_line(cell: str) -> str:
    """A cell without line breaks and what acts on a terminal; its texts are a dataset's, or of paths."""
    return safe(" ".join(cell.split()))


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: letters of East Asia two, marks on letters none."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _cut(text: str, size: int) -> str:
    """A text no wider than ``size``; what is cut from its middle is an ellipsis."""
    if columns(text) <= size:
        return text
    head, tail = text, text
    while columns(head) > size // 2:
        head = head[:-1]
    while columns(tail) > size - columns(head) - 1:
        tail = tail[1:]
    return f"{head}…{tail}"


def _padded(text: str, size: int, left: bool) -> str:
    blank = " " * (size - columns(text))
    return text + blank if left else blank + text
