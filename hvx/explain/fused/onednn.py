"""oneDNN's convolutions on the CPU, with packed weights, fused with the sum and the ReLU after them.

PyTorch has them only as operators that are not public: everything that depends on them is in this module.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

_NO_KERNEL = "could not create a", "needs the cpu support"
"""Texts of PyTorch's errors: no kernel for such a convolution, as for some with a single channel; none for
bfloat16 on this processor, where plain convolutions still work."""

Size = tuple[int, int]


class Options(NamedTuple):
    """How a convolution's window moves."""

    padding: Size = (0, 0)
    stride: Size = (1, 1)
    dilation: Size = (1, 1)
    groups: int = 1


def has_fused_convolutions(weight: Tensor) -> bool:
    """Whether PyTorch has oneDNN's convolutions with fused sum and ReLU for such weights."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.aten, "mkldnn_reorder_conv2d_weight")
    )


def pack(weight: Tensor, options: Options, shape: torch.Size) -> Tensor:
    """Weights (K, M / groups, u, v) in the layout that suits inputs of this shape."""
    packed: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(
        weight.contiguous().to_mkldnn(), *options, list(shape)
    )
    return packed


def convolve(
    x: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    options: Options,
    other: Tensor | None = None,
    overwrite: bool = False,
    relu: bool = False,
) -> Tensor:
    """W * x + b, plus ``other``, with an optional ReLU. The sum may overwrite ``other`` if ``overwrite``.

    Raises:
        RuntimeError: see ``has_no_kernel``.
    """
    arguments: Any = packed, bias, *options
    if other is None:
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *arguments, "relu" if relu else "none", [], "")
        return y
    epilogue: Any = "add", 1.0, "relu" if relu else None, [], ""
    if overwrite:
        y = torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *arguments, *epilogue)
    else:
        y = torch.ops.mkldnn._convolution_pointwise.binary(x, other, *arguments, *epilogue)
    return y


def has_no_kernel(error: RuntimeError) -> bool:
    """Whether the error says that oneDNN lacks this convolution. PyTorch raises it when it is requested."""
    return any(reason in str(error) for reason in _NO_KERNEL)
