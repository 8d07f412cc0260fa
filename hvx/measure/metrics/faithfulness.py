"""Does the answer depend on what a map marks? (deletion and insertion, Petsiuk et al. 2018, RISE)"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

SHARES = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)
"""Shares of the pixels at which a curve is sampled. Finer at the start: objects asked about are small."""

BLUR = 0.1
"""The blur's σ as a share of the picture's side: wide enough to remove an object's shape and color."""

Score = Callable[[Tensor], Tensor]
"""Images (K, C, H, W) → the probability of the answer on each (K)."""


def blurred(images: Tensor) -> Tensor:
    """The replacement for deleted pixels: images (B, C, H, W) under a wide Gaussian.

    Petsiuk et al. use a flat color or a blur. The blur adds fewer edges that a network could respond to.
    """
    height, width = images.shape[-2:]
    sigma = BLUR * min(height, width)
    # Reflection at the edges needs a kernel no larger than the picture.
    kernel = [2 * min(round(3 * sigma), side - 1) + 1 for side in (width, height)]
    for axis in (
        [kernel[0], 1],
        [1, kernel[1]],
    ):  # one after the other: torchvision convolves with both at once
        images = gaussian_blur(images, axis, [sigma, sigma])
    return images


def ranks(saliency: np.ndarray, seed: int) -> np.ndarray:
    """The rank of each pixel (H, W) from the most to the least salient, ties at random."""
    shuffled = _shuffled(saliency.size, seed)
    order = shuffled[np.argsort(-np.asarray(saliency, np.float64).ravel()[shuffled], kind="stable")]
    pixel_ranks = np.empty(saliency.size, np.int64)
    pixel_ranks[order] = np.arange(saliency.size)
    return pixel_ranks.reshape(saliency.shape)


@lru_cache(maxsize=1)
def _shuffled(count: int, seed: int) -> np.ndarray:
    """Pixels in random order, in which a stable sort leaves ties."""
    return np.argsort(np.random.default_rng(seed).random(count))


def curves(
    score: Score, image: Tensor, blur: Tensor, ends: tuple[float, float], pixel_ranks: np.ndarray
) -> tuple[list[float], list[float]]:
    """The answer's probability while pixels are deleted, and while they are inserted, most salient first.

    Args:
        score: of the model.
        image: (C, H, W), as the network sees it.
        blur: (C, H, W), ``blurred`` of it.
        ends: the probability on the image, and on its blur.
        pixel_ranks: (H, W) the pixels' ``ranks``.

    Returns:
        Deletion and insertion, the probability at each of ``SHARES``.
    """
    order = torch.from_numpy(pixel_ranks).to(image.device)
    bounds = [round(share * pixel_ranks.size) for share in SHARES[1:-1]]
    first = torch.stack([order < bound for bound in bounds]).unsqueeze(1)  # the most salient pixels
    both = torch.cat([torch.where(first, blur, image), torch.where(first, image, blur)])
    probabilities = score(both).tolist()
    deletion, insertion = probabilities[: len(bounds)], probabilities[len(bounds) :]
    return [ends[0], *deletion, ends[1]], [ends[1], *insertion, ends[0]]


def area(curve: list[float]) -> float:
    """The area under a curve over the share of pixels, by trapezoids: its mean height."""
    return float(trapezoid(curve, SHARES))
