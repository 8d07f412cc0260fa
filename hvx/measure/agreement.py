"""Do two maps agree?"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def pooled(heatmap: np.ndarray, lattice: tuple[int, int]) -> np.ndarray:
    """The mean of a heat map (H, W) over each cell of a lattice (S, S)."""
    import torch  # here, since ranks alone do without
    from torch.nn import functional

    whole = torch.from_numpy(np.asarray(heatmap, np.float64))[None, None]
    return functional.adaptive_avg_pool2d(whole, lattice)[0, 0].numpy()


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two maps of one shape; 0 where either is constant."""
    return float(rank_correlations(np.stack([one.ravel(), other.ravel()]))[0, 1])


def rank_correlations(maps: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each of K maps with each: (K, …) → (K, K); 0 with a constant one."""
    unit = unit_ranks(maps)
    correlations: np.ndarray = unit @ unit.T
    return correlations


def unit_ranks(maps: np.ndarray) -> np.ndarray:
    """The ranks of each map's cells, of mean 0 and length 1: (K, …) → (K, cells); a constant map's are 0.

    The scalar product of two of them is Spearman's rank correlation.
    """
    ranks = rankdata(maps.reshape(len(maps), -1), axis=1)
    centered = ranks - ranks.mean(1, keepdims=True)
    length = np.sqrt((centered * centered).sum(1, keepdims=True))
    unit: np.ndarray = centered / np.where(length > 0, length, 1)
    return unit
