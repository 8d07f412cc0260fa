"""The learning rate over training: a short linear warm-up, then half a cosine down to zero."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_WARM_UP = 0.1
"""Share of the steps in which the rate rises."""


def warm_cosine(optimiser: Optimizer, steps: int) -> LambdaLR:
    """A schedule of ``steps`` steps for an optimiser; step it after each of the optimiser's steps."""
    warm = max(1, round(_WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return LambdaLR(optimiser, factor)
