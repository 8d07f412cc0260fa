"""The operations of the fused engine: forward, with the values saved for backward, and VJP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Kept = tuple[Any, ...]
"""Values that a step saves for its ``pull``: tensors (B, …) and sizes."""


class Rule:
    """One operation on tensors (B, M, H, W).

    ``forward`` takes the inputs and returns the output and the saved values. ``pull`` takes the cotangent at
    the output and the saved values and returns one for each input, in new memory unless ``passes``.
    """

    passes = False
    """The cotangent is passed to every input unchanged."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Kept]:
        raise NotImplementedError

    def pull(self, cotangent: Tensor, saved: Kept) -> tuple[Tensor, ...]:
        raise NotImplementedError


class Add(Rule):
    """The sum of two tensors of one shape."""

    passes = True

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Kept]:
        return inputs[0] + inputs[1], ()


class ReLU(Rule):
    """max(x, 0), if no step before could include it."""

    passes = True

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Kept]:
        return inputs[0].clamp(min=0), ()


@dataclass
class Affine(Rule):
    """A frozen BatchNorm that is not folded into a convolution: scale · x + shift, (1, M, 1, 1) each."""

    scale: Tensor
    shift: Tensor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Kept]:
        return torch.addcmul(self.shift, inputs[0], self.scale), ()

    def pull(self, cotangent: Tensor, saved: Kept) -> tuple[Tensor, ...]:
        return (cotangent * self.scale,)


class Concatenate(Rule):
    """Tensors concatenated along the channels."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Kept]:
        return torch.cat(inputs, 1), tuple(x.shape[1] for x in inputs)

    def pull(self, cotangent: Tensor, saved: Kept) -> tuple[Tensor, ...]:
        parts = cotangent.split(list(saved), 1)
        return tuple(part.contiguous(memory_format=torch.channels_last) for part in parts)


@dataclass
class MaxPool(Rule):
    """The largest value of each window; the cotangent goes to the position of this value."""

    kernel: Any
    stride: Any
    padding: Any
    dilation: Any
    ceil_mode: bool

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Kept]:
        pooled, indices = functional.max_pool2d_with_indices(
            inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )
        return pooled, (indices, inputs[0].shape[2:])

    def pull(self, cotangent: Tensor, saved: Kept) -> tuple[Tensor, ...]:
        indices, size = saved
        # PyTorch takes the input, but reads only its shape.
        like = torch.empty(
            (*cotangent.shape[:2], *size), dtype=cotangent.dtype, device=cotangent.device,
            memory_format=torch.channels_last,
        )  # fmt: skip
        windows = self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        return (torch.ops.aten.max_pool2d_with_indices_backward(cotangent, like, *windows, indices),)


@dataclass
class AveragePool(Rule):
    """The mean of each window."""

    kernel: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    count_include_pad: bool
    divisor: int | None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Kept]:
        pooled = functional.avg_pool2d(
            inputs[0], self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor,
        )  # fmt: skip
        return pooled, (inputs[0].shape[2:],)

    def pull(self, cotangent: Tensor, saved: Kept) -> tuple[Tensor, ...]:
        like = torch.empty(
            (*cotangent.shape[:2], *saved[0]), dtype=cotangent.dtype, device=cotangent.device,
            memory_format=torch.channels_last,
        )  # fmt: skip
        windows = self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return (torch.ops.aten.avg_pool2d_backward(cotangent, like, *windows, self.divisor),)


@dataclass
class Other(Rule):
    """Any other function of tensors: its inputs are saved, and ``pull`` computes it again."""

    function: Callable[..., Tensor]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Kept]:
        return self.function(*inputs), inputs

    def pull(self, cotangent: Tensor, saved: Kept) -> tuple[Tensor, ...]:
        vjp: Any = torch.func.vjp(self.function, *saved)[1]
        return tuple(g.contiguous(memory_format=torch.channels_last) for g in vjp(cotangent))
