"""The paper's "two standard deviation threshold" of a heat map; figures use it without PyTorch."""

from __future__ import annotations

import numpy as np

DEVIATIONS = 2
"""Standard deviations above the mean."""


def attention_threshold(saliency: np.ndarray) -> float:
    """The paper's "two standard deviation threshold" of a map (H, W): larger values are attended.

    It is mean + 2·std with the sample standard deviation (n − 1), as in Eqs 9 and 11; for a map of one pixel,
    it is that pixel's value.
    """
    values = np.asarray(saliency, np.float64)
    deviation = values.std(ddof=1) if values.size > 1 else 0.0
    return float(values.mean() + DEVIATIONS * deviation)
