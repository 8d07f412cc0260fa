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
    relative = _over_mean(own[None])[0]
    if not relative.any():
        return np.zeros(own.shape, np.float32)
    return np.asarray(relative - _over_mean(others).mean(0), np.float32)


def _over_mean(maps: np.ndarray) -> np.ndarray:
    values = np.asarray(maps, np.float64)
    means = values.mean((1, 2), keepdims=True)
    return np.asarray(values / np.where(means > 0, means, 1))
