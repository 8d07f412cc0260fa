"""Prints lines that are safe for a terminal, and handles errors of the output itself.

Texts come from checkpoints, runs, datasets and file names. They must not move the cursor, change colors or
the screen, change the text direction, or add lines.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import click

from hvx.errors import HvxError

_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, format characters, surrogates and separators."""
_KEPT = set("\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
"""Format characters used in Arabic, Syriac, Persian and Indic scripts, and in emoji."""

_LONGEST = 2000
"""Limit of an error's characters; external texts may be of any length."""


class OutputClosed(BrokenPipeError):
    """The reader of the output is gone (``hvx info … | head -1``): exit silently with status 1."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "the reader of the output is gone")


def safe(text: str) -> str:
    """``text`` with each terminal control character as a Python escape (``\\x1b``)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode("ascii")
        if unicodedata.category(character) in _ESCAPED and character not in _KEPT
        else character
        for character in text
    )


def echo(line: str = "", err: bool = False) -> None:
    """Print one line, made safe, on stdout or stderr.

    Errors of writing to stderr are ignored, so that the work goes on.

    Raises:
        HvxError: stdout cannot be written.
        OutputClosed: the reader of stdout is gone.
    """
    stream = sys.stderr if err else sys.stdout
    try:
        click.echo(_printable(line, stream), err=err)
    except OSError as error:
        _discard(stream)
        if not err:
            raise output_error(error) from None


def echo_lines(text: str, err: bool = False) -> None:
    """Print a text of several lines, such as a table, split only at ``\\n``."""
    for line in text.split("\n"):
        echo(line, err)


def printed_as_is(text: str) -> bool:
    """Whether ``echo_lines`` prints ``text`` on stdout without an escape."""
    return all(_printable(line, sys.stdout) == line for line in text.split("\n"))


def _printable(line: str, stream: IO[str]) -> str:
    """``line``, made safe, with escapes for characters that the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return safe(line).encode(encoding, "backslashreplace").decode(encoding)


def output_error(error: OSError) -> HvxError | OutputClosed:
    """The error to raise if stdout cannot be written."""
    if error.errno == errno.EPIPE:
        return OutputClosed()
    return HvxError(f"standard output: cannot be written: {error.strerror or error}")


def _discard(stream: IO[str]) -> None:
    """Redirect a stream to /dev/null; otherwise Python fails at exit when it flushes the stream."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextmanager
def printing() -> Iterator[None]:
    """Print warnings of Python and libraries as one safe line, and check that stdout exists.

    Raises:
        HvxError: stdout is closed, or cannot be written by a library.
    """
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - open until the process ends
    if sys.stdout is None:
        raise HvxError("standard output is closed; send it to a file, or to /dev/null")
    original = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        yield
    except OSError as error:
        if error.filename is not None or isinstance(error, OutputClosed):
            raise
        _discard(sys.stdout)
        raise output_error(error) from None
    finally:
        warnings.formatwarning = original


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    del filename, lineno, line
    return f"{category.__name__}: {safe(' '.join(str(message).split()))}\n"


def echo_error(error: BaseException) -> None:
    """Print an error as one line on stderr."""
    lines = (line.strip() for line in str(error).split("\n"))
    text = " ".join(line for line in lines if line)
    echo(f"Error: {text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}", err=True)


def echo_traceback(error: BaseException) -> None:
    """Print an error with its traceback on stderr."""
    echo_lines("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
