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

RANDOM = "random"
"""In place of weights: what a benchmark or a test needs, and nothing to learn from."""
_OF = {"open_clip": "open_clip_torch", "transformers": "transformers"}
"""Module → package."""


def needed(module: Literal["open_clip", "transformers"]) -> ModuleType:
    """A module of the extra.

    Raises:
        HvxError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise HvxError(
            f"model.network: {module} needs {_OF[module]} ({error}); pip install 'hvx[clip]'"
        ) from None


def three(values: Sequence[float]) -> tuple[float, float, float]:
    """A mean or deviation of red, green and blue."""
    red, green, blue = map(float, values)
    return red, green, blue


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Within, whatever another package raises becomes one line that begins with ``what``.

    Raises:
        HvxError: as said.
    """
    try:
        yield
    except HvxError:
        raise
    except Exception as error:  # other packages raise whatever a file or a network leads them to
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HvxError(f"{what}: {reason:.300}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Within, other packages' warnings are not heard; what matters of them hvx says itself.

    The bars that transformers draws while it loads are off from then on.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    bars = getattr(sys.modules.get("transformers.utils.logging"), "disable_progress_bar", None)
    if bars is not None:
        bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
