"""Tables as text: aligned and no wider than the terminal, or Markdown where stdout is a pipe or a file."""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from hvx.terminal import safe

_GAP = "  "
_NARROWEST = 20
"""Characters of a text column that has more; of the first column, which groups of columns repeat, too."""
_LEAST_WIDTH = 30
"""Of a whole table, however narrow the terminal says that it is."""
_NUMBER = re.compile(r"[-+−±≥≤<>~]?\s*\d")
"""How a cell begins whose column stands to the right."""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    markdown: bool | None = None,
    width: int | None = None,
) -> str:
    """A table as text of several lines, without an end of line behind the last.

    Columns whose cells all begin with a number stand to the right. In a terminal, texts are wrapped, numbers
    are not; columns for which there is no room follow in a further table, which repeats the first column.
    What acts on a terminal is escaped, and so is what Markdown takes for a new cell.

    Args:
        header: title of each column.
        rows: cells of each row, as many as ``header`` has.
        markdown: a Markdown table, of any width; None: if stdout is no terminal.
        width: characters of the longest line; None: those of the terminal. Narrower than 30 counts as 30.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells in a row of a table with {len(header)} columns: {row!r:.100}")
    cells = [[_one_line(cell) for cell in row] for row in (header, *rows)]
    columns = [_Column.of(own) for own in zip(*cells, strict=True)]
    if not columns:
        return ""
    if not sys.stdout.isatty() if markdown is None else markdown:
        return _markdown(columns)
    wide = max(shutil.get_terminal_size().columns if width is None else width, _LEAST_WIDTH)
    return "\n\n".join(_aligned(group, wide) for group in _groups(columns, wide))


@dataclass
class _Column:
    """The cells of a column, the title first; its least and its best width; whether it holds numbers."""

    cells: Sequence[str]
    least: int
    best: int
    numbers: bool

    @classmethod
    def of(cls, cells: Sequence[str]) -> _Column:
        title, *body = cells
        filled = [cell for cell in body if cell]
        numbers = bool(filled) and all(_NUMBER.match(cell) for cell in filled)
        widest = max(map(_width, body), default=0)
        words = max((_width(word) for cell in cells for word in cell.split()), default=0)
        title_word = max(map(_width, title.split()), default=0)
        least = max(widest, title_word) if numbers else min(max(words, 1), _NARROWEST)
        return cls(cells, max(least, 1), max(widest, _width(title), 1), numbers)


def _groups(columns: list[_Column], width: int) -> list[list[_Column]]:
    """Columns in groups that fit, each with the first column at its head."""
    first, rest = columns[0], columns[1:]
    groups = [[first]]
    for column in rest:
        together = [*groups[-1], column]
        if (
            len(groups[-1]) > 1
            and sum(own.least for own in together) + len(_GAP) * (len(together) - 1) > width
        ):
            together = [first, column]
            groups.append(together)
        groups[-1] = together
    return groups


def _aligned(columns: list[_Column], width: int) -> str:
    """A table of columns whose texts are wrapped so that it fits."""
    widths = [own.least for own in columns]
    room = width - len(_GAP) * (len(columns) - 1)
    while sum(widths) > room and max(widths) > 1:  # a number too long for the line is cut as well
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < room:
        lacks = [own.best - wide for own, wide in zip(columns, widths, strict=True)]
        if max(lacks) <= 0:
            break
        widths[lacks.index(max(lacks))] += 1
    lines = []
    for number, cells in enumerate(zip(*(own.cells for own in columns), strict=True)):
        wrapped = [_wrapped(cell, wide) for cell, wide in zip(cells, widths, strict=True)]
        for parts in zip_longest(*wrapped, fillvalue=""):
            padded = [
                _padded(part, wide, own.numbers)
                for part, wide, own in zip(parts, widths, columns, strict=True)
            ]
            lines.append(_GAP.join(padded).rstrip())
        if number == 0:
            lines.append(_GAP.join("─" * wide for wide in widths))
    return "\n".join(lines)


def _markdown(columns: list[_Column]) -> str:
    rule = "|".join("---:" if own.numbers else "---" for own in columns)
    rows = zip(*(own.cells for own in columns), strict=True)
    lines = [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def _escaped(cell: str) -> str:
    """A cell in which Markdown sees neither its end nor HTML; a backslash must not undo that of a bar."""
    cell = cell.replace("<", "&lt;")
    return re.sub(r"\\*\|", lambda found: "\\" * (2 * len(found[0]) - 1) + "|", cell)


def _one_line(cell: str) -> str:
    return safe(" ".join(cell.split()))


def _width(text: str) -> int:
    """Places of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_places, text))


def _places(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _padded(text: str, wide: int, right: bool) -> str:
    space = " " * (wide - _width(text))
    return space + text if right else text + space


def _wrapped(cell: str, wide: int) -> list[str]:
    """A cell in lines of at most ``wide`` places, at spaces where it can be; a longer word is cut."""
    lines, line = [], ""
    for word in cell.split():
        if line and _width(line) + 1 + _width(word) <= wide:
            line += " " + word
            continue
        if line:
            lines.append(line)
        line = ""
        for character in word:
            if line and _width(line) + _places(character) > wide:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line]
