"""The question-specific map: what one question's map has that those of others on the image lack."""

from __future__ import annotations

import numpy as np


def question_specific(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A map over its mean, less the mean of other questions' maps on the same image, each over its own mean.

    Heat maps of two questions on one photograph are mostly alike: each shows the photograph. What they share
    falls out. The result is signed and sums to 0: above 0 lies what this question's map has more of.

    Args:
        own: (H, W), not negative.
        others: (K, H, W) of the other questions, K ≥ 1, not negative.

    Returns:
        (H, W) float32. A map that is zero everywhere (no gradient) counts as zero; an own map without
        gradient gives zeros, since it says nothing of the question.

    Raises:
        ValueError: there is no other map.
    """
    if not len(others):
        raise ValueError("a question-specific map needs another question on the image")
    return less_others(over_mean(own), over_mean(others).mean(0))


def less_others(relative: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``question_specific`` of what is known already.

    Args:
        relative: the own map over its mean (H, W).
        others: the mean of the others, each over its own mean (H, W).
    """
    if not relative.any():
        return np.zeros(relative.shape, np.float32)
    return np.asarray(relative - others, np.float32)


def over_mean(maps: np.ndarray) -> np.ndarray:
    """Maps (..., H, W), each over its mean; one that is zero everywhere stays so."""
    values = np.asarray(maps, np.float64)
    means = values.mean((-2, -1), keepdims=True)
    return np.asarray(values / np.where(means > 0, means, 1))
