"""The packages of the extra ``clip``."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Literal

from hvx.errors import HvxError
from hvx.extras import require

RANDOM = "random"
"""Instead of weights, for benchmarks and tests only."""


def needed(module: Literal["open_clip", "transformers"]) -> ModuleType:
    """A module of the extra.

    Raises:
        HvxError: it is not installed.
    """
    require("clip", "model.network: this dual encoder", module)
    return import_module(module)


def three(values: Sequence[float]) -> tuple[float, float, float]:
    """A mean or deviation of red, green and blue."""
    red, green, blue = map(float, values)
    return red, green, blue


@contextmanager
def one_line(prefix: str) -> Iterator[None]:
    """Turn any error of another package into one line that begins with ``prefix``.

    Raises:
        HvxError: that line.
    """
    try:
        yield
    except HvxError:
        raise
    except Exception as error:  # other packages may raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HvxError(f"{prefix}: {reason:.300}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence other packages' warnings; hvx reports the relevant ones itself.

    The progress bars that transformers shows while loading stay off afterwards.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    disable_bars = getattr(sys.modules.get("transformers.utils.logging"), "disable_progress_bar", None)
    if disable_bars is not None:
        disable_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
