"""Tables as text: aligned and no wider than the terminal, or Markdown if stdout is a pipe or a file."""

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
"""Smallest width of a wrapped text column in characters."""
_LEAST_WIDTH = 30
"""Smallest width of a table, also in a narrower terminal."""
_NUMBER = re.compile(r"[-+−±≥≤<>~]?\s*\d")
"""The beginning of cells in right-aligned columns."""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    markdown: bool | None = None,
    width: int | None = None,
) -> str:
    """A table as text of several lines, without a newline at the end.

    Columns in which all cells begin with a number are right-aligned. In a terminal, text is wrapped, numbers
    are not. Columns that do not fit follow in another table, which repeats the first column. Control
    characters are escaped, and in Markdown the cell separators.

    Args:
        header: title of each column.
        rows: cells of each row, as many as ``header`` has.
        markdown: whether to make a Markdown table, of any width; if None, unless stdout is a terminal.
        width: maximum line length in characters, at least 30; the width of the terminal if None.

    Raises:
        ValueError: a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells in a row of a table with {len(header)} columns: {row!r:.100}")
    cells = [[_one_line(cell) for cell in row] for row in (header, *rows)]
    columns = [_Column.of(column) for column in zip(*cells, strict=True)]
    if not columns:
        return ""
    if not sys.stdout.isatty() if markdown is None else markdown:
        return _markdown(columns)
    line_width = max(shutil.get_terminal_size().columns if width is None else width, _LEAST_WIDTH)
    return "\n\n".join(_aligned(group, line_width) for group in _groups(columns, line_width))


@dataclass
class _Column:
    """The cells of a column, title first; its minimum and its preferred width; whether it holds numbers."""

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
    """Columns in groups that fit the width; each group begins with the first column."""
    first, rest = columns[0], columns[1:]
    groups = [[first]]
    for column in rest:
        group = [*groups[-1], column]
        needed = sum(column.least for column in group) + len(_GAP) * (len(group) - 1)
        if len(groups[-1]) > 1 and needed > width:
            group = [first, column]
            groups.append(group)
        groups[-1] = group
    return groups


def _aligned(columns: list[_Column], width: int) -> str:
    """A table with text wrapped to fit the width."""
    widths = [column.least for column in columns]
    available = width - len(_GAP) * (len(columns) - 1)
    while sum(widths) > available and max(widths) > 1:  # a number longer than the line is cut too
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < available:
        missing = [column.best - column_width for column, column_width in zip(columns, widths, strict=True)]
        if max(missing) <= 0:
            break
        widths[missing.index(max(missing))] += 1
    lines = []
    for row, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        wrapped = [_wrapped(cell, column_width) for cell, column_width in zip(cells, widths, strict=True)]
        for parts in zip_longest(*wrapped, fillvalue=""):
            padded = [
                _padded(part, column_width, column.numbers)
                for part, column_width, column in zip(parts, widths, columns, strict=True)
            ]
            lines.append(_GAP.join(padded).rstrip())
        if row == 0:
            lines.append(_GAP.join("─" * column_width for column_width in widths))
    return "\n".join(lines)


def _markdown(columns: list[_Column]) -> str:
    rule = "|".join("---:" if column.numbers else "---" for column in columns)
    rows = zip(*(column.cells for column in columns), strict=True)
    lines = [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def _escaped(cell: str) -> str:
    """A cell with HTML and vertical bars escaped, also bars after backslashes."""
    cell = cell.replace("<", "&lt;")
    return re.sub(r"\\*\|", lambda match: "\\" * (2 * len(match[0]) - 1) + "|", cell)


def _one_line(cell: str) -> str:
    return safe(" ".join(cell.split()))


def _width(text: str) -> int:
    """Terminal columns that a text occupies."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _padded(text: str, column_width: int, align_right: bool) -> str:
    space = " " * (column_width - _width(text))
    return space + text if align_right else text + space


def _wrapped(cell: str, line_width: int) -> list[str]:
    """A cell in lines of at most ``line_width`` columns, broken at spaces; longer words are split."""
    lines, line = [], ""
    for word in cell.split():
        if line and _width(line) + 1 + _width(word) <= line_width:
            line += " " + word
            continue
        if line:
            lines.append(line)
        line = ""
        for character in word:
            if line and _width(line) + _character_width(character) > line_width:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line]
