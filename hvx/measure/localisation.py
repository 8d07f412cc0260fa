"""Does a map point at what the question asks about? (the pointing game, Zhang et al. 2016)"""

from __future__ import annotations

import numpy as np


def points_inside(saliency: np.ndarray, inside: np.ndarray) -> bool:
    """Whether a map's maximum lies in a region.

    Args:
        saliency: (h, w), a heat map or an attention map; where it is coarser than the region, the
            centre of its largest cell counts.
        inside: (H, W) bool, the region.
    """
    row, column = np.unravel_index(int(np.argmax(saliency)), saliency.shape)
    height, width = inside.shape
    y = int((row + 0.5) * height / saliency.shape[0])
    x = int((column + 0.5) * width / saliency.shape[1])
    return bool(inside[y, x])
