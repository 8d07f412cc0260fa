"""The operations of the fused engine: forward, with the values saved for backward, and VJP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SavedTensors = tuple[Any, ...]
"""Values that a step saves for its ``vjp``: tensors (B, …) and sizes."""


class Op:
    """One operation on tensors (B, M, H, W).

    ``forward`` takes the inputs and returns the output and the saved values. ``vjp`` takes the cotangent at
    the output and the saved values and returns one for each input, in new memory unless ``passes``.
    """

    passes = False
    """The cotangent is passed to every input unchanged."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, SavedTensors]:
        raise NotImplementedError

    def vjp(self, cotangent: Tensor, saved: SavedTensors) -> tuple[Tensor, ...]:
        raise NotImplementedError


class Add(Op):
    """The sum of two tensors of one shape."""

    passes = True

    def forward(self, *inputs: Tensor) -> tuple[Tensor, SavedTensors]:
        return inputs[0] + inputs[1], ()


class ReLU(Op):
    """max(x, 0), if no step before could include it."""

    passes = True

    def forward(self, *inputs: Tensor) -> tuple[Tensor, SavedTensors]:
        return inputs[0].clamp(min=0), ()


@dataclass
class Affine(Op):
    """A frozen BatchNorm that is not folded into a convolution: scale · x + shift, (1, M, 1, 1) each."""

    scale: Tensor
    shift: Tensor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, SavedTensors]:
        return torch.addcmul(self.shift, inputs[0], self.scale), ()

    def vjp(self, cotangent: Tensor, saved: SavedTensors) -> tuple[Tensor, ...]:
        return (cotangent * self.scale,)


class Concatenate(Op):
    """Tensors concatenated along the channels."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, SavedTensors]:
        return torch.cat(inputs, 1), tuple(x.shape[1] for x in inputs)

    def vjp(self, cotangent: Tensor, saved: SavedTensors) -> tuple[Tensor, ...]:
        parts = cotangent.split(list(saved), 1)
        return tuple(part.contiguous(memory_format=torch.channels_last) for part in parts)


@dataclass
class MaxPool(Op):
    """The largest value of each window; the cotangent goes to the position of this value."""

    kernel: Any
    stride: Any
    padding: Any
    dilation: Any
    ceil_mode: bool

    def forward(self, *inputs: Tensor) -> tuple[Tensor, SavedTensors]:
        pooled, indices = functional.max_pool2d_with_indices(
            inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )
        return pooled, (indices, inputs[0].shape[2:])

    def vjp(self, cotangent: Tensor, saved: SavedTensors) -> tuple[Tensor, ...]:
        indices, size = saved
        # PyTorch takes the input, but reads only its shape.
        like = torch.empty(
            (*cotangent.shape[:2], *size), dtype=cotangent.dtype, device=cotangent.device,
            memory_format=torch.channels_last,
        )  # fmt: skip
        windows = self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        return (torch.ops.aten.max_pool2d_with_indices_backward(cotangent, like, *windows, indices),)


@dataclass
class AveragePool(Op):
    """The mean of each window."""

    kernel: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    count_include_pad: bool
    divisor: int | None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, SavedTensors]:
        pooled = functional.avg_pool2d(
            inputs[0], self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor,
        )  # fmt: skip
        return pooled, (inputs[0].shape[2:],)

    def vjp(self, cotangent: Tensor, saved: SavedTensors) -> tuple[Tensor, ...]:
        like = torch.empty(
            (*cotangent.shape[:2], *saved[0]), dtype=cotangent.dtype, device=cotangent.device,
            memory_format=torch.channels_last,
        )  # fmt: skip
        windows = self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return (torch.ops.aten.avg_pool2d_backward(cotangent, like, *windows, self.divisor),)


@dataclass
class GenericOp(Op):
    """Any other function of tensors: its inputs are saved, and ``vjp`` computes it again."""

    function: Callable[..., Tensor]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, SavedTensors]:
        return self.function(*inputs), inputs

    def vjp(self, cotangent: Tensor, saved: SavedTensors) -> tuple[Tensor, ...]:
        vjp: Any = torch.func.vjp(self.function, *saved)[1]
        return tuple(g.contiguous(memory_format=torch.channels_last) for g in vjp(cotangent))
