"""Does the answer rest on what a map marks? (deletion and insertion, Petsiuk et al. 2018, RISE)"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

SHARES = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)
"""Of the pixels, at which a curve is taken. Finer where most happens: what a question asks about is small."""

BLUR = 0.1
"""The blur's σ as a share of the picture's side: wide enough to take an object's shape and color."""

Score = Callable[[Tensor], Tensor]
"""Images (K, C, H, W) → the probability of the answer on each (K)."""


def blurred(images: Tensor) -> Tensor:
    """What stands in for pixels that are taken away: images (B, C, H, W) under a wide Gaussian.

    Of the two stand-ins of Petsiuk et al., a flat color and a blur, the blur makes fewer edges of its
    own, which a network would answer to.
    """
    height, width = images.shape[-2:]
    sigma = BLUR * min(height, width)
    # Reflection, at the edges, needs a kernel that reaches no farther than the picture does.
    kernel = [2 * min(round(3 * sigma), side - 1) + 1 for side in (width, height)]
    return gaussian_blur(images, kernel, [sigma, sigma])


def ranks(saliency: np.ndarray, seed: int) -> np.ndarray:
    """The place of each pixel (H, W) in the order from the most to the least salient, ties at random."""
    chance = np.random.default_rng(seed).random(saliency.size)
    order = np.lexsort((chance, -np.asarray(saliency, np.float64).ravel()))
    places = np.empty(saliency.size, np.int64)
    places[order] = np.arange(saliency.size)
    return places.reshape(saliency.shape)


def curves(
    score: Score, image: Tensor, blur: Tensor, ends: tuple[float, float], places: np.ndarray
) -> tuple[list[float], list[float]]:
    """The answer's probability while pixels are deleted, and while they are inserted, most salient first.

    Args:
        score: the model's.
        image: (C, H, W), as the network sees it.
        blur: (C, H, W), ``blurred`` of it.
        ends: the probability on the image, and on its blur.
        places: (H, W) the pixels' ``ranks``.

    Returns:
        Deletion and insertion, the probability at each of ``SHARES``.
    """
    order = torch.from_numpy(places).to(image.device)
    bounds = [round(share * places.size) for share in SHARES[1:-1]]
    first = torch.stack([order < bound for bound in bounds]).unsqueeze(1)  # the most salient so many
    both = torch.cat([torch.where(first, blur, image), torch.where(first, image, blur)])
    found = score(both).tolist()
    deletion, insertion = found[: len(bounds)], found[len(bounds) :]
    return [ends[0], *deletion, ends[1]], [ends[1], *insertion, ends[0]]


def area(curve: list[float]) -> float:
    """The area under a curve over the share of pixels, by trapezoids: its mean height."""
    return float(trapezoid(curve, SHARES))
