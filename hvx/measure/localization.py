"""Does a map point at what the question asks about?"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from hvx.explain.threshold import attention_threshold


def points_inside(saliency: np.ndarray, inside: np.ndarray) -> float:
    """Whether a map's maximum lies in a region: the pointing game (Zhang et al. 2016), without a margin.

    Of several equal maxima, the share that lies there, which is what a choice by lot gives on average. Maps
    are kept in float16, where a flat map has several: the first of them would lie near the top. A constant
    map has no maximum and points nowhere.

    Args:
        saliency: (h, w), a heat map or an attention map; where it is coarser than the region, the
            center of its largest cell counts.
        inside: (H, W) bool, the region.
    """
    return covers(inside, peaks(saliency))


Peaks = np.ndarray | None
"""Where a map has its maxima (k, 2), in shares of its height and width; None: it is constant."""


def peaks(saliency: np.ndarray) -> Peaks:
    """The centers of the largest pixels or cells of a map (h, w): one, but for equal values."""
    largest = saliency.max()
    if saliency.min() == largest:
        return None
    found: np.ndarray = (np.argwhere(saliency == largest) + 0.5) / saliency.shape
    return found


def covers(inside: np.ndarray, points: Peaks) -> float:
    """The share of maxima that a region (H, W) bool holds; none of a constant map's."""
    if points is None:
        return 0.0
    rows, columns = (points * inside.shape).astype(int).T
    return float(inside[rows, columns].mean())


def energy_inside(saliency: np.ndarray, inside: np.ndarray) -> float:
    """The share of a map's energy that lies in a region: Σ_inside max(H, 0) / Σ max(H, 0).

    The energy-based pointing game of Wang et al. 2020 (Score-CAM). A map without energy has none inside.

    Args:
        saliency: (H, W).
        inside: (H, W) bool.
    """
    energy = np.asarray(saliency, np.float64).clip(0)
    total = energy.sum()
    return float(energy[inside].sum() / total) if total > 0 else 0.0


def attended(saliency: np.ndarray) -> np.ndarray:
    """Where a map is attended (H, W) bool: above ``attention_threshold``; nowhere on a constant map."""
    values = np.asarray(saliency, np.float64)
    return values > attention_threshold(values)


def overlap(saliency: np.ndarray, inside: np.ndarray) -> float:
    """Intersection over union of what a map attends to with a region, |A ∩ R| / |A ∪ R|.

    Args:
        saliency: (H, W).
        inside: (H, W) bool, not empty.
    """
    region = attended(saliency)
    return float((region & inside).sum() / (region | inside).sum())


def enlarged(saliency: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) at (H, W) pixels, bilinearly; a map of that size stays as it is."""
    if saliency.shape == size:
        return np.asarray(saliency, np.float64)
    whole = torch.from_numpy(np.asarray(saliency, np.float64))[None, None]
    return functional.interpolate(whole, size, mode="bilinear", align_corners=False)[0, 0].numpy()
