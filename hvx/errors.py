"""The errors that are shown to a user. Imports nothing from hvx, so that every module can raise them."""

from __future__ import annotations

import difflib
import reprlib
import signal
from collections.abc import Iterable
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask the process to stop: Ctrl-C, and what a system or a scheduler sends."""


class HvxError(Exception):
    """The request cannot be carried out as written (exit status 2).

    The message is one line that names the file, the key or the value, and what is expected.
    """

    exit_status = 2


class Interrupted(HvxError):
    """The user or the system stopped the work; finished work is kept (exit status 130)."""

    exit_status = 130


class OutOfMemory(HvxError):
    """A device has too little memory for a batch; a smaller batch may fit."""


class BadImage(HvxError):
    """One image cannot be read; other images of the split may be fine."""


class ReplacedImage(BadImage):
    """An image file no longer holds the image that was explained."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` if a known word is close to ``word``, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def cut(text: str, most: int = 40) -> str:
    """A text cut to ``most`` characters, with an ellipsis at the end if it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def shown(value: Any) -> str:
    """``repr(value)`` for an error, at most 60 characters, however large or deep the value is."""
    short = reprlib.Repr()
    short.maxlevel = 3
    short.maxstring = short.maxlong = short.maxother = 60
    try:
        text = short.repr(value)
    except ValueError:  # an int with more digits than Python prints
        text = f"a number of {value.bit_length():,} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
