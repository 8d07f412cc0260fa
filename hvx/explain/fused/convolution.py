"""A frozen convolution and its transpose, each fused with the sum and the ReLU after it.

On the CPU both use oneDNN's convolution, with weights converted once to its layout. The transpose of a
convolution of stride 1 is a convolution with flipped weights. For the network's first convolution, which has
few input channels, the transpose is computed phase by phase as convolutions, since oneDNN's own transpose is
slow there. A sum with another tensor and a final ReLU need no extra pass over memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.explain.fused.cudnn import Epilogues, has_epilogues
from hvx.explain.fused.onednn import Options, Size, convolve, has_fused_convolutions, has_no_kernel, pack
from hvx.explain.fused.winograd import Winograd, winograd_pays

_FEW_CHANNELS = 4
"""Largest number of input channels for which a strided convolution is transposed phase by phase."""
_PACKING = Lock()
"""Held while weights are converted: threads that pass images at once share them."""


class Convolution:
    """y = W * x + b with frozen weights, and the transpose of W.

    Args:
        weight: (K, M / groups, u, v).
        bias: (K).
        options: how the window moves.
        packs: use oneDNN's or cuDNN's fused kernels, if available; oneDNN's have weights in their own layout.
    """

    def __init__(self, weight: Tensor, bias: Tensor, options: Options, packs: bool = True) -> None:
        self._shape, self.bias, self.options = weight.shape, bias, options
        self._weight: Tensor | None = weight
        self._packed: dict[str, Any] = {}
        self._flipped = self._flipped_options()
        few = weight.shape[1] <= _FEW_CHANNELS and options.groups == 1 and options.dilation == (1, 1)
        self._in_phases = few and options.stride[0] == options.stride[1] > 1
        self._same_size = weight.shape[2:] == (3, 3) and options == Options(padding=(1, 1))
        self._epilogues = Epilogues() if packs and has_epilogues(weight) else None
        self.packs = packs and has_fused_convolutions(weight)

    @staticmethod
    def of(
        module: nn.Conv2d, dtype: torch.dtype | None, packs: bool, norm: nn.BatchNorm2d | None = None
    ) -> Convolution:
        """A module's convolution; ``norm``: the BatchNorm after it, which is folded in."""
        weight = module.weight.detach()
        bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
        if norm is not None:
            scale, shift = batchnorm_scale_shift(norm)
            weight, bias = weight * scale.view(-1, 1, 1, 1), bias * scale + shift
        dtype = dtype or weight.dtype
        weight = weight.to(dtype, memory_format=torch.channels_last)
        pairs = _pair(module.padding), _pair(module.stride), _pair(module.dilation)
        return Convolution(weight, bias.to(dtype), Options(*pairs, module.groups), packs)

    @property
    def weight(self) -> Tensor:
        """(K, M / groups, u, v)"""
        if self._weight is not None:
            return self._weight
        weight: Tensor = self._packed["forward"].to_dense()
        return weight.contiguous(memory_format=torch.channels_last)

    def __call__(
        self, x: Tensor, other: Tensor | None = None, overwrite: bool = False, relu: bool = False
    ) -> Tensor:
        """W * x + b, plus ``other``, with an optional ReLU.

        Args:
            x: (B, M, H, W).
            other: added to the result, of the same shape.
            overwrite: the sum may overwrite ``other``.
            relu: negative values become zero.
        """
        if self.packs:
            with self._with_fallback():
                arguments = x, "forward", lambda: self.weight, self.bias, self.options
                return self._onednn(*arguments, other, overwrite, relu)
        return self._with_epilogue(x, (self.weight, self.bias, self.options), other, relu)

    def transposed(
        self, g: Tensor, size: Size, into: Tensor | None = None, overwrite: bool = False, relu: bool = False
    ) -> Tensor:
        """Cotangent at y → cotangent at x, plus ``into``, with an optional ReLU.

        Args:
            g: (B, K, H', W').
            size: H and W of x.
            into, overwrite, relu: as ``other``, ``overwrite`` and ``relu`` of the convolution itself.
        """
        if self._in_phases:
            if self.packs:
                with self._with_fallback():
                    return _sum_and_relu(self._by_phases(g, size, True), into, relu)
            return _sum_and_relu(self._by_phases(g, size, False), into, relu)
        if self.packs and self._flipped is not None:
            with self._with_fallback():
                arguments = g, "flipped", self._flipped_weight, None, self._flipped
                return self._onednn(*arguments, into, overwrite, relu)
        if self._epilogues is not None and relu and self._flipped is not None:
            zeros = self._once("zeros", lambda: self.bias.new_zeros(self._shape[1]))
            options = self._once("flipped", self._flipped_weight), zeros, self._flipped
            return self._with_epilogue(g, options, into, relu)
        return _sum_and_relu(self._plain_transpose(g, size), into, relu)

    def _onednn(
        self,
        x: Tensor,
        name: str,
        weight: Callable[[], Tensor],
        bias: Tensor | None,
        options: Options,
        *epilogue: Any,
    ) -> Tensor:
        """``convolve`` or Winograd's algorithm; packs the weights at the first call of this name.

        ``epilogue``: ``other``, ``overwrite`` and ``relu``, or nothing.
        """
        if self._same_size and winograd_pays(self._shape, x):
            winograd: Winograd = self._once(f"{name} winograd", lambda: Winograd(weight(), bias))
            return winograd(x, *epilogue)
        packed = self._once(name, lambda: pack(weight(), options, x.shape))
        return convolve(x, packed, bias, options, *epilogue)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made once. Drops the plain weights when both passes have packed ones."""
        with _PACKING:
            if name not in self._packed:
                self._packed[name] = make()
            if self.packs and {"forward", "phases" if self._in_phases else "flipped"} <= self._packed.keys():
                self._weight = None
            return self._packed[name]

    def _with_epilogue(self, x: Tensor, arguments: Any, other: Tensor | None, relu: bool) -> Tensor:
        """A convolution, a sum and a ReLU: in one kernel of cuDNN if it has one."""
        weight, bias, (padding, stride, dilation, groups) = arguments
        options = weight, bias, stride, padding, dilation, groups

        def separate(x: Tensor, other: Tensor | None) -> Tensor:
            return _sum_and_relu(functional.conv2d(x, *options), other, relu)

        return (
            self._epilogues(x, options, other, separate) if self._epilogues and relu else separate(x, other)
        )

    @contextmanager
    def _with_fallback(self) -> Iterator[None]:
        """Continue without oneDNN, now and later, if it has no kernel for such a convolution."""
        try:
            yield
        except RuntimeError as error:
            if not has_no_kernel(error):
                raise
            with _PACKING:
                self._weight, self.packs = self.weight, False
                self._packed.clear()

    def _flipped_options(self) -> Options | None:
        """The options of the convolution that equals the transpose, if there is one."""
        padding, stride, dilation, groups = self.options
        flipped = tuple(span - p for span, p in zip(self._spans(), padding, strict=True))
        if stride != (1, 1) or groups > 1 or min(flipped) < 0:
            return None
        return Options(padding=(flipped[0], flipped[1]), dilation=dilation)

    def _flipped_weight(self) -> Tensor:
        """Its weights (M, K, u, v)."""
        flipped = self.weight.transpose(0, 1).flip(2, 3)
        return flipped.contiguous(memory_format=torch.channels_last)

    def _spans(self) -> list[int]:
        """Rows and columns between the first and the last tap."""
        return [d * (k - 1) for d, k in zip(self.options.dilation, self._shape[2:], strict=True)]

    def _plain_transpose(self, g: Tensor, size: Size) -> Tensor:
        padding, stride, dilation, groups = self.options
        # Rows and columns at the end that the stride does not reach.
        left = [
            (length + 2 * p - span - 1) % s
            for length, p, span, s in zip(size, padding, self._spans(), stride, strict=True)
        ]
        return functional.conv_transpose2d(g, self.weight, None, stride, padding, left, groups, dilation)

    def _by_phases(self, g: Tensor, size: Size, packs: bool) -> Tensor:
        """The transpose at each phase of the stride: convolutions of g, concatenated as channels.

        With stride s and padding p, x's row s·q + r meets y's row q − t by the weights' row s·t + r + p.
        """
        step = self.options.stride[0]
        first, last = zip(*(self._shift_range(axis) for axis in (0, 1)), strict=True)
        counts = [-(-length // step) for length in size]
        # Not less than 0, also where the padding is so wide that some rows of y meet no row of x.
        padding = tuple(max(0, last[axis], counts[axis] - first[axis] - g.shape[2 + axis]) for axis in (0, 1))
        if packs:
            options = Options(padding=(padding[0], padding[1]))
            phases = self._onednn(g, "phases", lambda: self._phase_weights(first, last), None, options)
        else:
            phases = functional.conv2d(g, self._phase_weights(first, last), None, 1, padding)
        top, left = padding[0] - last[0], padding[1] - last[1]
        phases = phases[:, :, top : top + counts[0], left : left + counts[1]]
        return functional.pixel_shuffle(phases, step)[:, :, : size[0], : size[1]]

    def _shift_range(self, axis: int) -> tuple[int, int]:
        """The smallest and the largest t of any phase."""
        step, padding, length = self.options.stride[axis], self.options.padding[axis], self._shape[2 + axis]
        shifts = [(k - padding) // step for k in range(length)]
        return min(shifts), max(shifts)

    def _phase_weights(self, first: Any, last: Any) -> Tensor:
        """(M·s², K, u, v) in ``pixel_shuffle``'s order of channels."""
        step, (kinds, channels, *lengths), plain = self.options.stride[0], self._shape, self.weight
        spans = [last[axis] - first[axis] + 1 for axis in (0, 1)]
        weight = plain.new_zeros(channels, step, step, kinds, *spans)
        for y in range(lengths[0]):
            for x in range(lengths[1]):
                (t, r), (u, q) = (
                    divmod(k - p, step) for k, p in zip((y, x), self.options.padding, strict=True)
                )
                weight[:, r, q, :, last[0] - t, last[1] - u] = plain[:, :, y, x].T
        return weight.flatten(0, 2)


def _pair(sizes: Any) -> Size:
    return int(sizes[0]), int(sizes[1])


def batchnorm_scale_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A frozen BatchNorm as y = scale · x + shift, (C) each."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach()


def _sum_and_relu(y: Tensor, other: Tensor | None, relu: bool) -> Tensor:
    """The same sum and ReLU as separate passes; ``y`` is a new tensor and may be changed in place."""
    y = y if other is None else y.add_(other)
    return y.clamp_(min=0) if relu else y
