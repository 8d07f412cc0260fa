"""From gradients to scores: Eqs 9, 10 and 11, and the heat map.

The scores do not depend on the gradient's scale, so each gradient is first divided by its largest
magnitude: the squares of very small or very large values would otherwise underflow or overflow.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEGLIGIBLE = 16
"""A row scores 0 if its deviation is at most this multiple of the dtype's epsilon: rounding noise."""


def standardized(gradient: Tensor) -> Tensor:
    """Eq. 9: ∇v (N, C, H, W) minus its mean, divided by its standard deviation, per question and channel.

    Both are computed over H×W, the deviation with n − 1. A channel of equal values becomes 0.
    """
    # The engine's gradients have their channels last; with each channel in one piece, sums over its pixels
    # are several times as fast.
    x = gradient.contiguous()
    x = x / _largest(x, (2, 3))
    count = x.shape[2] * x.shape[3]
    x -= x.sum((2, 3), keepdim=True) / max(count, 1)
    return _over_deviation(x, x.square().sum((2, 3), keepdim=True) / max(count - 1, 1))


def heat_map(standardized_gradient: Tensor) -> Tensor:
    """H = Σ_c |∇̂v_c|: (N, C, H, W) → (N, H, W)."""
    return standardized_gradient.abs().sum(1)


def token_saliency(gradient: Tensor) -> Tensor:
    """Eq. 10: Σ_D |∇q|, the gradient at the word embeddings (N, T, E) → (N, T)."""
    return gradient.abs().sum(2)


def token_z(saliency: Tensor, lengths: Tensor) -> Tensor:
    """Eq. 11: z-score of each token's saliency over its question's tokens, with n − 1.

    Args:
        saliency: (N, T).
        lengths: (N) tokens of each question.

    Returns:
        (N, T), NaN after each length. A question with one token, or with equal saliencies, scores 0.
    """
    within = torch.arange(saliency.shape[1], device=saliency.device) < lengths.unsqueeze(1)
    masked = saliency.masked_fill(~within, 0)
    x = masked / _largest(masked, (1,))
    count = lengths.unsqueeze(1)
    x = (x - x.sum(1, keepdim=True) / count.clamp(min=1)).masked_fill(~within, 0)
    z = _over_deviation(x, x.square().sum(1, keepdim=True) / (count - 1).clamp(min=1))
    return z.masked_fill(~within, torch.nan)


def _largest(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    largest = x.abs().amax(dims, keepdim=True)
    return torch.where(largest > 0, largest, 1)


def _over_deviation(centered: Tensor, variance: Tensor) -> Tensor:
    """Values divided by their deviation; 0 where they are equal, but for rounding. |x| is at most 1."""
    deviation = variance.sqrt()
    equal = deviation <= NEGLIGIBLE * torch.finfo(centered.dtype).eps
    # Filled, not divided by infinity, which would leave -0 of negative values, and figures would show a sign.
    return (centered / torch.where(equal, 1, deviation)).masked_fill_(equal, 0)
