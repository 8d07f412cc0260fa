"""Whether a user's preparation of images keeps what the picture shows where it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from hvx.config import ImageConfig
from hvx.errors import HvxError

_ALIKE = 0.9
"""Correlation of the prepared picture with the picture: another crop, or a mirrored one, is far below."""


def check_framing(prepare: Callable[[Image.Image], Tensor], image: ImageConfig) -> None:
    """Refuse a preparation that crops, mirrors or turns: a heat map would lie on other pixels than it is of.

    It is tried on a smooth random picture. Correlation by channel does not mind another scale of the
    numbers; channels in another order (BGR) are found too.

    Raises:
        HvxError: says what is expected.
    """
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    size = (image.size, image.size)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
    pixels = (smooth * 255).round().byte()
    made = prepare(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    if not isinstance(made, Tensor) or made.shape[1:] != size:
        return  # what it is instead is said where images are prepared
    shown = torch.cat([pixels.float(), pixels.float().mean(0, keepdim=True)]).flatten(1)
    both = torch.cat([made.detach().float().cpu().flatten(1), shown])
    found = torch.corrcoef(both)[: len(made), len(made) :].nan_to_num().amax(1).min()
    if found < _ALIKE:
        raise HvxError(
            f"prepare= moves what the picture shows (correlation {found:.2f}): it is handed the center "
            "square at size=, and must not crop, mirror or turn it"
        )
