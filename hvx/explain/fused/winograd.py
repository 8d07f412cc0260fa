"""Winograd's F(4×4, 3×3): a 3×3 convolution of stride 1 with a quarter of the multiplications.

Tiles of 6×6 input values become 36 values each (BᵀdB), those are multiplied by the transformed weights, a
matrix for each of the 36, and become 4×4 output values (AᵀmA). Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016. The transforms are sums of slices, along the rows and then the columns.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

_STEP, _TILE = 4, 6
_WEIGHTS = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
"""The transform G of the weights, GgGᵀ."""
_TILES_AT_ONCE = 200
"""Tiles per block of rows: their values stay in the cache."""
_FEWEST_CHANNELS, _FEWEST_VALUES = 128, 4096
"""Below them, of channels and of channels times the tiles of an image, the transforms cost too much."""

_thread = threading.local()


def winograd_pays(weights: torch.Size, x: Tensor) -> bool:
    """Whether it is faster than oneDNN's direct convolution, and exact enough, for weights of this shape.

    It depends on an image's size only: the number of images in a batch may not change the results.
    """
    tiles = -(-x.shape[2] // _STEP) * -(-x.shape[3] // _STEP)
    channels = min(weights[:2])
    pays = channels >= _FEWEST_CHANNELS and channels * tiles >= _FEWEST_VALUES
    return pays and x.dtype == torch.float32


class Winograd:
    """y = W * x + b with a padding of 1 and a stride of 1.

    Args:
        weight: (K, M, 3, 3).
        bias: (K), or no bias.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        g = torch.tensor(_WEIGHTS, dtype=torch.float64, device=weight.device)
        factors = torch.einsum("ai,bj,kmij->abmk", g, g, weight.double()).flatten(0, 1)
        self._factors, self._bias = factors.to(weight.dtype, memory_format=torch.contiguous_format), bias

    def __call__(
        self, x: Tensor, other: Tensor | None = None, overwrite: bool = False, relu: bool = False
    ) -> Tensor:
        """As ``Convolution.__call__``."""
        count, channels, height, width = x.shape
        down, across = -(-height // _STEP), -(-width // _STEP)
        padded = x.new_zeros(count, _STEP * down + 2, _STEP * across + 2, channels)
        padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
        y = x.new_empty(count, _STEP * down, _STEP * across, self._factors.shape[2])
        blocks = -(-down // max(1, _TILES_AT_ONCE // (count * across)))
        rows = -(-down // blocks)
        for first in range(0, down, rows):
            top, bottom = _STEP * first, _STEP * min(first + rows, down)
            self._convolve(padded[:, top : bottom + 2], y[:, top:bottom])
        result = y[:, :height, :width].permute(0, 3, 1, 2)
        if other is not None:
            result = (other if overwrite else result).add_(result if overwrite else other)
        if not result.is_contiguous(memory_format=torch.channels_last):
            result = result.contiguous(memory_format=torch.channels_last)
        return result.clamp_(min=0) if relu else result

    def _convolve(self, x: Tensor, y: Tensor) -> None:
        """A block of whole tiles: x (B, 4h + 2, 4w + 2, M) → y (B, 4h, 4w, K)."""
        count, height, width, kinds = y.shape
        tiles, channels = (count, height // _STEP, width // _STEP), x.shape[3]
        row_values, values, products, row_products = _workspace(
            (_TILE, *tiles[:2], *x.shape[2:]),
            (_TILE, _TILE, *tiles, channels),
            (_TILE**2, prod(tiles), kinds),
            (_STEP, _TILE, *tiles, kinds),
        )
        _transform_input([x[:, i : i + height - 3 : _STEP] for i in range(_TILE)], row_values.unbind())
        columns = [row_values[..., j : j + width - 3 : _STEP, :] for j in range(_TILE)]
        _transform_input(columns, values.unbind(1))
        torch.bmm(values.view(_TILE**2, -1, channels), self._factors, out=products)
        products = products.view(_TILE, _TILE, *tiles, kinds)  # of each row and column of a tile
        if self._bias is not None:
            products[1, 1] += self._bias  # which each of the outputs of a tile contains once
        _transform_output(products.unbind(), row_products.unbind())
        # (column, row, B, h, w, K)
        parts = y.unflatten(2, (-1, _STEP)).unflatten(1, (-1, _STEP)).permute(4, 2, 0, 1, 3, 5)
        _transform_output(row_products.unbind(1), parts.unbind())


def _workspace(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Memory without defined values that a thread uses again at each call: new memory is slow to write."""
    sizes = [prod(shape) for shape in shapes]
    if getattr(_thread, "memory", None) is None or len(_thread.memory) < sum(sizes):
        with torch.inference_mode(False):  # memory made within that mode could not be written outside of it
            _thread.memory = torch.empty(sum(sizes), dtype=torch.float32)
    parts = _thread.memory[: sum(sizes)].split(sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _transform_input(d: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """out = Bᵀd, of 6 tensors."""
    even, odd = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.sub(d[4], d[2], out=even)
    torch.sub(d[3], d[1], out=odd)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
    torch.add(even, d[0] - d[2], alpha=4, out=out[0])
    torch.sub(d[5] - d[3], odd, alpha=4, out=out[5])


def _transform_output(m: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """out = Aᵀm, 4 tensors of 6."""
    even, odd = m[1] + m[2], m[1] - m[2]
    even_far, odd_far = m[3] + m[4], m[3] - m[4]
    torch.add(odd, odd_far, alpha=2, out=out[1])
    torch.add(even, even_far, alpha=4, out=out[2])
    torch.add(even.add_(even_far), m[0], out=out[0])
    torch.add(odd.add_(odd_far, alpha=8), m[5], out=out[3])
