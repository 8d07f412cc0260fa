"""How heat maps are stored: at a smaller size, and in 8 bits with a factor for each map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # what only reads runs needs no PyTorch
    from torch import Tensor

SCALES = {
    "heatmap": "heatmap_scale",
    "block_heatmaps": "block_heatmap_scale",
    "word_heatmaps": "word_heatmap_scale",
}
"""Dataset of maps → dataset of the factors by which the squares of 8-bit values are multiplied."""


HALF_MAX = float(np.finfo(np.float16).max)


def shrunk(heatmaps: Tensor, side: int | None) -> Tensor:
    """Heat maps (…, S, S) as means over squares, (…, side, side); ``side`` divides S, None leaves them."""
    if side is None or heatmaps.shape[-1] == side:
        return heatmaps
    step = heatmaps.shape[-1] // side
    return heatmaps.reshape(*heatmaps.shape[:-2], side, step, side, step).mean((-3, -1))


def to_half(values: Tensor) -> Tensor:
    """Numbers in half precision; those beyond its range become its largest: an infinity has no use."""
    import torch

    return values.clamp(-HALF_MAX, HALF_MAX).to(torch.float16)


def to_8_bits(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heat maps (…, H, W), nowhere negative, as uint8, and the factor (…) of each: map ≈ factor · uint8².

    Square roots, since most of a heat map lies far below its peak: in even steps all of that would be 0, and
    rank correlations with it would be lost. The peak of a map is 255; the factor of a map of zeros is 0. The
    square root is off by half a step at most.
    """
    factor = np.asarray(maps.max((-2, -1)) / 255**2, np.float32)
    safe = np.where(factor > 0, factor, 1)[..., None, None]
    return np.sqrt(maps / safe).round().clip(0, 255).astype(np.uint8), factor


def from_8_bits(values: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """What ``to_8_bits`` stored, as float32."""
    return np.asarray(np.float32(values) ** 2 * np.asarray(factor, np.float32)[..., None, None], np.float32)
