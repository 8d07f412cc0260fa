"""The current line of the model's own code: of the stack frames that are neither PyTorch's nor hvx's."""

from __future__ import annotations

import contextlib
import sys
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

_NOT_THE_MODEL = (str(Path(torch.__file__).parent), str(Path(__file__).parent), contextlib.__file__, "<")
_RUNS_THE_MODEL = str(Path(__file__).with_name("forward.py"))
_LAYERS = str(Path(nn.modules.__file__).parent)
_TAKE_THEIR_INPUTS = {"module.py", "container.py", "distance.py", "loss.py"}
"""Files of torch.nn whose products count as the model's: containers, ``nn.CosineSimilarity``."""


@lru_cache(maxsize=4096)
def _short(file: str) -> str | None:
    """Name of a file of the model's own code; None if it is PyTorch's, this package's, or not a file."""
    return None if file.startswith(_NOT_THE_MODEL) else Path(file).name


@lru_cache(maxsize=4096)
def _is_layer(file: str) -> bool:
    path = Path(file)
    return str(path.parent) == _LAYERS and path.name not in _TAKE_THEIR_INPUTS


def site() -> tuple[tuple[str, int], bool]:
    """Line and instruction of the model's own code; and whether a layer of torch.nn is running.

    The frame is the innermost one that is neither PyTorch's nor this package's.
    """
    frame, in_layer = sys._getframe(1), False
    while frame.f_back and _short(frame.f_code.co_filename) is None:
        in_layer = in_layer or _is_layer(frame.f_code.co_filename)
        frame = frame.f_back
    file = frame.f_code.co_filename
    return (f"{_short(file) or Path(file).name}:{frame.f_lineno}", frame.f_lasti), in_layer


def lines() -> list[str]:
    """The lines of the model's own code that are running."""
    frame, running = sys._getframe(1), []
    while frame.f_back and frame.f_code.co_filename != _RUNS_THE_MODEL:
        name = _short(frame.f_code.co_filename)
        if name is not None:
            running.append(f"{name}:{frame.f_lineno}")
        frame = frame.f_back
    return running
