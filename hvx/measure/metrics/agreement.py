"""Rank correlation of maps."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def pooled(heatmap: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The mean of a heat map (H, W) over each cell of a grid (S, S)."""
    import torch  # imported here: ranks alone do not need it
    from torch.nn import functional

    tensor = torch.from_numpy(np.asarray(heatmap, np.float64))[None, None]
    return functional.adaptive_avg_pool2d(tensor, grid)[0, 0].numpy()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two maps of the same shape; 0 if either is constant."""
    return float(rank_correlations(np.stack([first.ravel(), second.ravel()]))[0, 1])


def rank_correlations(maps: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of all pairs of K maps: (K, …) → (K, K); 0 if either is constant."""
    unit = unit_ranks(maps)
    correlations: np.ndarray = unit @ unit.T
    return correlations


def unit_ranks(maps: np.ndarray) -> np.ndarray:
    """The ranks of each map's cells, with mean 0 and norm 1: (K, …) → (K, cells); 0 for a constant map.

    The scalar product of two of them is Spearman's rank correlation.
    """
    ranks = rankdata(maps.reshape(len(maps), -1), axis=1)
    centered = ranks - ranks.mean(1, keepdims=True)
    length = np.sqrt((centered * centered).sum(1, keepdims=True))
    unit: np.ndarray = centered / np.where(length > 0, length, 1)
    return unit
