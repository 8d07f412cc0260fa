"""Storage of heat maps: at a smaller size, and in 8 bits with a scale factor for each map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # code that only reads runs does not need PyTorch
    from torch import Tensor

SCALES = {
    "heatmap": "heatmap_scale",
    "block_heatmaps": "block_heatmap_scale",
    "word_heatmaps": "word_heatmap_scale",
}
"""Dataset of maps → dataset of the factors that multiply the squares of 8-bit values."""


HALF_MAX = float(np.finfo(np.float16).max)
_HALF_INFINITY = 0x7C00
"""The bits of infinity in half precision; those of NaN are larger."""


def shrunk(heatmaps: Tensor, side: int | None) -> Tensor:
    """Heat maps (…, S, S) averaged over squares, (…, side, side); ``side`` divides S; unchanged if None."""
    if side is None or heatmaps.shape[-1] == side:
        return heatmaps
    step = heatmaps.shape[-1] // side
    return heatmaps.reshape(*heatmaps.shape[:-2], side, step, side, step).mean((-3, -1))


def to_half(values: Tensor) -> Tensor:
    """Values in half precision, clamped to its range."""
    import torch

    return values.clamp(-HALF_MAX, HALF_MAX).to(torch.float16)


def is_finite_half(values: np.ndarray) -> bool:
    """Whether no value (of dtype float16) is NaN or infinite.

    By their bits, twenty times as fast as ``np.isfinite``: those of NaN and infinity are the largest of
    each sign.
    """
    # As signed integers the largest are positive values; as unsigned ones, negative values.
    return bool(
        values.view(np.int16).max(initial=0) < _HALF_INFINITY
        and values.view(np.uint16).max(initial=0) < _HALF_INFINITY | 0x8000
    )


def to_8_bits(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative heat maps (…, H, W) as uint8, and the scale factor (…) of each: map ≈ factor · uint8².

    Square roots are stored, since most values of a heat map are far below its peak: with equal steps they
    would be rounded to 0, and rank correlations would be lost. The peak of a map is 255; the factor of a map
    of zeros is 0. The error of the square root is at most half a step.
    """
    factor = np.asarray(maps.max((-2, -1)) / 255**2, np.float32)
    safe = np.where(factor > 0, factor, 1)[..., None, None]
    return np.sqrt(maps / safe).round().clip(0, 255).astype(np.uint8), factor


def from_8_bits(values: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Heat maps from the values and factors of ``to_8_bits``, as float32."""
    return np.asarray(np.float32(values) ** 2 * np.asarray(factor, np.float32)[..., None, None], np.float32)
