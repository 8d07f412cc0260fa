"""The question-specific map: the difference between one question's map and the others' on the same image."""

from __future__ import annotations

import numpy as np


def question_specific(heatmap: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A map minus the mean of the other questions' maps on the same image, each map divided by its mean.

    Heat maps of two questions on one photograph are similar, since both show the photograph. The difference
    removes the common part. It is signed and sums to 0; it is positive where this question's map is stronger.

    Args:
        heatmap: (H, W), not negative.
        others: (K, H, W) of the other questions, K ≥ 1, not negative.

    Returns:
        (H, W) float32. A map that is zero everywhere (no gradient) counts as zero; if ``heatmap`` has no
        gradient, the result is zero.

    Raises:
        ValueError: there is no other map.
    """
    if not len(others):
        raise ValueError("a question-specific map needs another question on the image")
    return less_others(over_mean(heatmap), over_mean(others).mean(0))


def less_others(relative: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``question_specific`` of maps that are already divided by their means.

    Args:
        relative: the question's map divided by its mean (H, W).
        others: the mean of the others, each divided by its own mean (H, W).
    """
    if not relative.any():
        return np.zeros(relative.shape, np.float32)
    return np.asarray(relative - others, np.float32)


def over_mean(maps: np.ndarray) -> np.ndarray:
    """Maps (..., H, W), each divided by its mean; a map of zeros stays zero."""
    values = np.asarray(maps, np.float64)
    means = values.mean((-2, -1), keepdims=True)
    return np.asarray(values / np.where(means > 0, means, 1))
