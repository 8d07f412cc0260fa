"""Activations by their names in configs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}
_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": torch.ones_like,
    "tanh": lambda y: 1 - y.square(),
    "relu": lambda y: (y > 0).to(y.dtype),
    "sigmoid": lambda y: y * (1 - y),
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation with a name."""
    return _ACTIVATIONS[name]


def slope(name: str, output: Tensor) -> Tensor:
    """The derivative of an activation, from its output."""
    return _SLOPES[name](output)
