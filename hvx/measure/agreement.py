"""Does the heat map agree with the attention?"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata
from torch.nn import functional


def pooled(heatmap: np.ndarray, lattice: tuple[int, int]) -> np.ndarray:
    """The mean of a heat map (H, W) over each cell of a lattice (S, S)."""
    whole = torch.from_numpy(np.asarray(heatmap, np.float64))[None, None]
    return functional.adaptive_avg_pool2d(whole, lattice)[0, 0].numpy()


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two maps of one shape; 0 where either is constant."""
    ranks = [rankdata(values.ravel()) for values in (one, other)]
    centred = [r - r.mean() for r in ranks]
    scale = np.sqrt(np.prod([np.sum(c * c) for c in centred]))
    return float(centred[0] @ centred[1] / scale) if scale > 0 else 0.0
