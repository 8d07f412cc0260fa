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
    scaled = gradient / _largest(gradient, (2, 3))
    return _z(scaled, torch.ones_like(scaled, dtype=torch.bool), (2, 3))


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
    z = _z(masked / _largest(masked, (1,)), within, (1,))
    return z.masked_fill(~within, torch.nan)


def _largest(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    largest = x.abs().amax(dims, keepdim=True)
    return torch.where(largest > 0, largest, 1)


def _z(x: Tensor, within: Tensor, dims: tuple[int, ...]) -> Tensor:
    """z-scores of the values ``within`` along ``dims`` with the sample deviation; |x| is at most 1."""
    count = within.sum(dims, keepdim=True)
    mean = x.sum(dims, keepdim=True) / count.clamp(min=1)
    centered = (x - mean).masked_fill(~within, 0)
    deviation = (centered.square().sum(dims, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    flat = deviation <= NEGLIGIBLE * torch.finfo(x.dtype).eps
    return (centered / torch.where(flat, 1, deviation)).masked_fill(flat, 0)
