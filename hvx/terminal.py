"""What hvx prints: each line made safe for a terminal, and errors of the output itself.

Texts come from checkpoints, runs, datasets and file names. None of them may move the cursor, color or
rewrite what stands on the screen, turn the direction of the text, or make a second line.
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
"""Unicode's categories of what is not drawn but acts: controls, format characters, surrogates, separators."""
_KEPT = set("\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
"""Format characters that Arabic, Syriac, Persian and Indic scripts, and emoji, are written with."""

_LONGEST = 2000
"""Characters of an error; texts from outside may be of any length."""


class OutputClosed(BrokenPipeError):
    """The reader of the output is gone (``hvx info … | head -1``): end, and say nothing (exit status 1)."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "the reader of the output is gone")


def safe(text: str) -> str:
    """``text`` with a Python escape (``\\x1b``) in place of each character that acts on a terminal."""
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

    A stderr that cannot be written is ignored: there is no other way to say so, and the work counts.

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
    """Print a text of several lines, such as a table; its own line ends are the only ones."""
    for line in text.split("\n"):
        echo(line, err)


def printed_as_is(text: str) -> bool:
    """Whether ``echo_lines`` prints ``text`` on stdout without an escape."""
    return all(_printable(line, sys.stdout) == line for line in text.split("\n"))


def _printable(line: str, stream: IO[str]) -> str:
    """``line``, made safe, with an escape for what the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return safe(line).encode(encoding, "backslashreplace").decode(encoding)


def output_error(error: OSError) -> HvxError | OutputClosed:
    """What to raise where stdout cannot be written."""
    if error.errno == errno.EPIPE:
        return OutputClosed()
    return HvxError(f"standard output: cannot be written: {error.strerror or error}")


def _discard(stream: IO[str]) -> None:
    """Send what a stream still holds, and all that follows, nowhere: Python would fail on it at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def printing() -> Iterator[None]:
    """While this is open, warnings of Python and of libraries are one safe line, and stdout is there.

    Raises:
        HvxError: stdout is closed, or an error of writing it, for what libraries print.
    """
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        raise HvxError("standard output is closed; send it to a file, or to /dev/null")
    before = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        yield
    except OSError as error:
        if error.filename is not None or isinstance(error, OutputClosed):
            raise
        _discard(sys.stdout)
        raise output_error(error) from None
    finally:
        warnings.formatwarning = before


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
