"""cuDNN's convolution with the sum and the ReLU after it in one kernel, on CUDA tensors.

PyTorch has these operations, but does not document for which types and shapes they work. Before the first use
for each shape, their result is therefore compared with separate passes, on one image of random values. After
an error or a difference, the separate passes are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 2e-2}
"""By type, the largest relative difference that rounding explains; in float32 cuDNN may compute with TF32."""


def has_epilogues(weight: Tensor) -> bool:
    """Whether PyTorch has cuDNN's convolutions with fused sum and ReLU for such weights."""
    return (
        weight.device.type == "cuda"
        and weight.dtype in _TOLERANCE
        and torch.backends.cudnn.is_acceptable(weight)
        and hasattr(torch, "cudnn_convolution_relu")
        and hasattr(torch, "cudnn_convolution_add_relu")
    )


class Epilogues:
    """The fused convolutions with one set of weights."""

    def __init__(self) -> None:
        self._works: dict[Any, bool] = {}

    def __call__(
        self,
        x: Tensor,
        options: Any,
        other: Tensor | None,
        separate: Callable[[Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        """max(W * x + b + other, 0).

        Args:
            x: (B, M, H, W).
            options: the weight, the bias, and stride, padding, dilation and groups.
            other: added to the result, of the same shape; not changed.
            separate: computes the same from ``x`` and ``other`` in separate passes.
        """
        use = id(options[0]), other is not None, x.shape[1:]
        if use not in self._works:
            self._works[use] = self._agree(x, options, other, separate)
        y = _in_one(x, options, other) if self._works[use] else None
        return separate(x, other) if y is None else y

    def _agree(
        self,
        x: Tensor,
        options: Any,
        other: Tensor | None,
        separate: Callable[[Tensor, Tensor | None], Tensor],
    ) -> bool:
        """Whether cuDNN computes what the separate passes do, on random values and on NaN."""
        random = torch.Generator(x.device).manual_seed(0)
        first, added = (
            None if t is None else torch.empty_like(t[:1]).normal_(generator=random) for t in (x, other)
        )
        assert first is not None
        y = _in_one(first, options, added)
        # A NaN must stay one: it is how an overflow is found.
        odd = _in_one(torch.full_like(first, torch.nan), options, added)
        if y is None or odd is None or not odd.isnan().all():
            return False
        expected = separate(first, added).double()
        difference = (y.double() - expected).norm() / expected.norm().clamp(min=1e-30)
        return bool(difference <= _TOLERANCE[x.dtype])


def _in_one(x: Tensor, options: Any, other: Tensor | None) -> Tensor | None:
    """The result of cuDNN's fused kernel; None if it has none."""
    weight, bias, *shape = options
    try:
        if other is None:
            return torch.cudnn_convolution_relu(x, weight, bias, *shape)
        return torch.cudnn_convolution_add_relu(x, weight, other, 1, bias, *shape)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
