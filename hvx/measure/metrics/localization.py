"""Localization: does a map point at the object that the question asks about?"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from hvx.explain.threshold import attention_threshold


def points_inside(saliency: np.ndarray, inside: np.ndarray) -> float:
    """Whether a map's maximum is in a region: the pointing game (Zhang et al. 2016), without a margin.

    For several equal maxima, the share inside the region: the expected value of a random choice. Maps are
    stored in float16, where a flat map has several maxima; the first one would be near the top. A constant
    map has no maximum and points nowhere.

    Args:
        saliency: (h, w), a heat map or an attention map; if it is coarser than the region, the
            center of its largest cell counts.
        inside: (H, W) bool, the region.
    """
    return covers(inside, peaks(saliency))


Peaks = np.ndarray | None
"""The positions of a map's maxima (k, 2), in shares of its height and width; None if it is constant."""


def peaks(saliency: np.ndarray) -> Peaks:
    """The centers of the largest pixels or cells of a map (h, w): one, unless values are equal."""
    largest = saliency.max()
    if saliency.min() == largest:
        return None
    centers: np.ndarray = (np.argwhere(saliency == largest) + 0.5) / saliency.shape
    return centers


def covers(inside: np.ndarray, points: Peaks) -> float:
    """The share of maxima inside a region (H, W) bool; 0 for a constant map."""
    if points is None:
        return 0.0
    rows, columns = (points * inside.shape).astype(int).T
    return float(inside[rows, columns].mean())


def energy_inside(saliency: np.ndarray, inside: np.ndarray) -> float:
    """The share of a map's energy inside a region: Σ_inside max(H, 0) / Σ max(H, 0).

    The energy-based pointing game of Wang et al. 2020 (Score-CAM). 0 for a map without energy.

    Args:
        saliency: (H, W).
        inside: (H, W) bool.
    """
    energy = np.asarray(saliency, np.float64).clip(0)
    total = energy.sum()
    return float(energy[inside].sum() / total) if total > 0 else 0.0


def attended(saliency: np.ndarray) -> np.ndarray:
    """The pixels (H, W) bool above ``attention_threshold``; none of a constant map."""
    values = np.asarray(saliency, np.float64)
    return values > attention_threshold(values)


def overlap(saliency: np.ndarray, inside: np.ndarray) -> float:
    """Intersection over union of a map's attended pixels and a region, |A ∩ R| / |A ∪ R|.

    Args:
        saliency: (H, W).
        inside: (H, W) bool, not empty.
    """
    region = attended(saliency)
    return float((region & inside).sum() / (region | inside).sum())


def enlarged(saliency: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) resized bilinearly to (H, W) pixels; unchanged if it has that size."""
    if saliency.shape == size:
        return np.asarray(saliency, np.float64)
    tensor = torch.from_numpy(np.asarray(saliency, np.float64))[None, None]
    return functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0].numpy()
