"""A frozen convolution and its transpose, each fused with the sum and the ReLU after it.

On the CPU both use oneDNN's convolution, with weights converted once to its layout. The transpose of a
convolution of stride 1 is a convolution with flipped weights. For the network's first convolution, which has
few input channels, the transpose is computed phase by phase as convolutions, since oneDNN's own transpose is
slow there. A sum with another tensor and a final ReLU need no extra pass over memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.explain.fused.cudnn import Epilogues, has_epilogues

_FEW_CHANNELS = 4
"""Largest number of input channels for which a strided convolution is transposed phase by phase."""
_NO_KERNEL = "could not create a", "needs the cpu support"
"""Texts of PyTorch's errors: no kernel for such a convolution, as for some with a single channel; none for
bfloat16 on this processor, where plain convolutions still work."""

_PACKING = Lock()
"""Held while weights are converted: threads that pass images at once share them."""

Size = tuple[int, int]


@dataclass
class Convolution:
    """y = W * x + b with frozen weights, and the transpose of W.

    Attributes:
        weight: (K, M / groups, u, v).
        bias: (K).
        packs: use oneDNN's or cuDNN's fused kernels, if available; oneDNN's have weights in their own layout.
    """

    weight: Tensor
    bias: Tensor
    stride: Size
    padding: Size
    dilation: Size
    groups: int
    packs: bool = True

    def __post_init__(self) -> None:
        self._packed: dict[str, Tensor] = {}
        self._turned = self._turned_padding()
        few = self.weight.shape[1] <= _FEW_CHANNELS and self.groups == 1 and self.dilation == (1, 1)
        self._in_phases = few and self.stride[0] == self.stride[1] > 1
        self._epilogues = Epilogues() if self.packs and has_epilogues(self.weight) else None
        self.packs = self.packs and _use_onednn_fusion(self.weight)

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
        return Convolution(
            weight, bias.to(dtype), _pair(module.stride), _pair(module.padding), _pair(module.dilation),
            module.groups, packs,
        )  # fmt: skip

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
                packed = self._reordered("forward", lambda: self.weight, self.padding, self.stride, x)
                options = packed, self.bias, self.padding, self.stride, self.dilation, self.groups
                return _in_one(x, options, other, overwrite, relu)
        options = self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        return self._with_epilogue(x, options, other, relu)

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
        if self.packs and self._turned is not None:
            with self._with_fallback():
                packed = self._reordered("turned", self._turned_weights, self._turned, (1, 1), g)
                options = packed, None, self._turned, (1, 1), self.dilation, 1
                return _in_one(g, options, into, overwrite, relu)
        if self._epilogues is not None and relu and self._turned is not None:
            return self._with_epilogue(g, self._turned_options(), into, relu)
        return _sum_and_relu(self._plain_transpose(g, size), into, relu)

    def _with_epilogue(self, x: Tensor, options: Any, other: Tensor | None, relu: bool) -> Tensor:
        """A convolution, a sum and a ReLU: in one kernel of cuDNN if it has one."""

        def separate(x: Tensor, other: Tensor | None) -> Tensor:
            return _sum_and_relu(functional.conv2d(x, *options), other, relu)

        return (
            self._epilogues(x, options, other, separate) if self._epilogues and relu else separate(x, other)
        )

    def _turned_options(self) -> Any:
        """The transpose as a convolution: weights, a bias of zeros, and the other options."""
        if "turned" not in self._packed:
            weight = self.weight.transpose(0, 1).flip(2, 3)
            self._packed["turned"] = weight.contiguous(memory_format=torch.channels_last)
            self._packed["zeros"] = self.bias.new_zeros(len(weight))
        return self._packed["turned"], self._packed["zeros"], (1, 1), self._turned, self.dilation, 1

    @contextmanager
    def _with_fallback(self) -> Iterator[None]:
        """Continue without oneDNN, now and later, if it has no kernel for such a convolution.

        PyTorch only raises this error when the kernel is requested.
        """
        try:
            yield
        except RuntimeError as error:
            if not any(reason in str(error) for reason in _NO_KERNEL):
                raise
            self.packs = False
            self._packed.clear()

    def _turned_padding(self) -> Size | None:
        """Padding of the convolution that equals the transpose, if there is one."""
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.weight.shape[2:], strict=True)]
        turned = spans[0] - self.padding[0], spans[1] - self.padding[1]
        return turned if self.stride == (1, 1) and self.groups == 1 and min(turned) >= 0 else None

    def _plain_transpose(self, g: Tensor, size: Size) -> Tensor:
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.weight.shape[2:], strict=True)]
        # Rows and columns at the end that the stride does not reach.
        left = [
            (length + 2 * p - span - 1) % s
            for length, p, span, s in zip(size, self.padding, spans, self.stride, strict=True)
        ]
        return functional.conv_transpose2d(
            g, self.weight, None, self.stride, self.padding, left, self.groups, self.dilation
        )

    def _by_phases(self, g: Tensor, size: Size, packs: bool) -> Tensor:
        """The transpose at each phase of the stride: convolutions of g, concatenated as channels.

        With stride s and padding p, x's row s·q + r meets y's row q − t by the weights' row s·t + r + p.
        """
        step = self.stride[0]
        first, last = zip(*(self._shift_range(axis) for axis in (0, 1)), strict=True)
        counts = [-(-length // step) for length in size]
        # Not less than 0, also where the padding is so wide that some rows of y meet no row of x.
        padding = tuple(max(0, last[axis], counts[axis] - first[axis] - g.shape[2 + axis]) for axis in (0, 1))
        if packs:
            weight = self._reordered("phases", lambda: self._phase_weights(first, last), padding, (1, 1), g)
            phases = _in_one(g, (weight, None, padding, (1, 1), (1, 1), 1), None, False, False)
        else:
            phases = functional.conv2d(g, self._phase_weights(first, last), None, 1, padding)
        top, left = padding[0] - last[0], padding[1] - last[1]
        phases = phases[:, :, top : top + counts[0], left : left + counts[1]]
        return functional.pixel_shuffle(phases, step)[:, :, : size[0], : size[1]]

    def _shift_range(self, axis: int) -> tuple[int, int]:
        """The smallest and the largest t of any phase."""
        step, padding, length = self.stride[axis], self.padding[axis], self.weight.shape[2 + axis]
        shifts = [(k - padding) // step for k in range(length)]
        return min(shifts), max(shifts)

    def _phase_weights(self, first: Any, last: Any) -> Tensor:
        """(M·s², K, u, v) in ``pixel_shuffle``'s order of channels."""
        step, (kinds, channels, *lengths) = self.stride[0], self.weight.shape
        spans = [last[axis] - first[axis] + 1 for axis in (0, 1)]
        weight = self.weight.new_zeros(channels, step, step, kinds, *spans)
        for y in range(lengths[0]):
            for x in range(lengths[1]):
                (t, r), (u, q) = (divmod(k - p, step) for k, p in zip((y, x), self.padding, strict=True))
                weight[:, r, q, :, last[0] - t, last[1] - u] = self.weight[:, :, y, x].T
        return weight.flatten(0, 2)

    def _turned_weights(self) -> Tensor:
        return self.weight.transpose(0, 1).flip(2, 3).contiguous()

    def _reordered(
        self, name: str, weight: Callable[[], Tensor], padding: Size, stride: Size, like: Tensor
    ) -> Tensor:
        """Weights in oneDNN's layout, for inputs of the shape of ``like``."""
        with _PACKING:
            packed = self._packed.get(name)
            if packed is None:
                groups = self.groups if name == "forward" else 1
                packed = self._packed[name] = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                    weight().contiguous().to_mkldnn(),
                    padding,
                    stride,
                    self.dilation,
                    groups,
                    list(like.shape),
                )
        return packed


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


def _use_onednn_fusion(weight: Tensor) -> bool:
    """Whether PyTorch has oneDNN's convolutions with fused sum and ReLU for such weights."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.aten, "mkldnn_reorder_conv2d_weight")
    )


def _in_one(x: Tensor, options: Any, other: Tensor | None, overwrite: bool, relu: bool) -> Tensor:
    """oneDNN's convolution, fused with the sum and the ReLU after it."""
    if other is None:
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *options, "relu" if relu else "none", [], "")
        return y
    epilogue: Any = "add", 1.0, "relu" if relu else None, [], ""
    if overwrite:
        y = torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *options, *epilogue)
    else:
        y = torch.ops.mkldnn._convolution_pointwise.binary(x, other, *options, *epilogue)
    return y


def _sum_and_relu(y: Tensor, other: Tensor | None, relu: bool) -> Tensor:
    """The same sum and ReLU as separate passes; ``y`` is a new tensor and may be changed in place."""
    y = y if other is None else y.add_(other)
    return y.clamp_(min=0) if relu else y
