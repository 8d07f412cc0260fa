"""Heads written out a second, slow way in float64: numpy loops, and derivatives by complex steps.

A complex step differentiates an analytic function exactly: the imaginary part of f(x + ih) over h is
f'(x) to rounding, with no difference of near numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hvx.models.base import HadamardHead

TOLERANCE = 1e-9
STEP = 1e-30


class SlowHead:
    """What the written-out heads share: maps of one vector, and the GRU. Analytic in its arguments."""

    def __init__(self, model: HadamardHead) -> None:
        self.p = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
        self.config = model.config

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        bias = self.p.get(f"{name}.bias")
        rows = self.p[f"{name}.weight"]
        product = np.array([sum(w * v for w, v in zip(row, x, strict=True)) for row in rows])
        return product if bias is None else product + bias

    def activate(self, kind: str, x: np.ndarray) -> np.ndarray:
        functions: dict[str, Any] = {
            "none": lambda v: v,
            "tanh": np.tanh,
            "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
            "relu": lambda v: np.where(v.real > 0, v, 0),
        }
        found: np.ndarray = functions[kind](x)
        return found

    def question(self, embeddings: np.ndarray) -> np.ndarray:
        """The GRU's last state."""
        return self.states("encoder.gru", embeddings)[-1]

    def states(self, gru: str, embeddings: np.ndarray) -> list[np.ndarray]:
        """A GRU's state after each token."""
        hidden = self.config.encoder.hidden
        h = np.zeros(hidden, embeddings.dtype)
        states = []
        for x in embeddings:
            projected = self.linear(f"{gru}.input", x)
            recurrent = self.linear(f"{gru}.gates", h)
            r = self.activate("sigmoid", projected[:hidden] + recurrent[:hidden])
            z = self.activate("sigmoid", projected[hidden : 2 * hidden] + recurrent[hidden:])
            if self.config.encoder.candidate == "reset_before":
                inner = self.linear(f"{gru}.state", r * h)
            else:
                inner = r * self.linear(f"{gru}.state", h)
            h = (1 - z) * np.tanh(projected[2 * hidden :] + inner) + z * h
            states.append(h)
        return states


def derivative(function: Any, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    """cotangent · ∂function/∂x, element by element of x, by complex steps."""
    gradient = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        moved = x.astype(complex)
        moved[place] += 1j * STEP
        gradient[place] = np.sum(cotangent * function(moved).imag) / STEP
    return gradient


def agree(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=TOLERANCE, rtol=0)
