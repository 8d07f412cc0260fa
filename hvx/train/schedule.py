"""The learning rate over training: a short linear warm-up, then half a cosine down to zero."""

from __future__ import annotations

import math

_WARM_UP = 0.1
"""Share of the steps during which the rate increases."""


def warm_cosine(step: int, steps: int) -> float:
    """The share of the full rate at step ``step`` of ``steps``, from 0."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))
