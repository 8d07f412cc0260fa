"""A check that a user's preprocessing leaves the content of an image in its position."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from hvx.config import ImageConfig
from hvx.errors import HvxError

_ALIKE = 0.9
"""Smallest correlation of the image with its prepared version; another crop or a mirror is far below."""


def check_framing(prepare: Callable[[Image.Image], Tensor], image: ImageConfig) -> None:
    """Refuse preprocessing that crops, mirrors or rotates: the heat map would not match the photograph.

    The check uses a smooth random image. The correlation of channels does not depend on the scale of the
    values; each channel is matched with any channel, so that BGR passes too.

    Raises:
        HvxError: the preprocessing moves the content.
    """
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    size = (image.size, image.size)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
    pixels = (smooth * 255).round().byte()
    prepared = prepare(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    if not isinstance(prepared, Tensor) or prepared.shape[1:] != size:
        return  # the error is raised where images are prepared
    shown = torch.cat([pixels.float(), pixels.float().mean(0, keepdim=True)]).flatten(1)
    channels = torch.cat([prepared.detach().float().cpu().flatten(1), shown])
    correlation = torch.corrcoef(channels)[: len(prepared), len(prepared) :].nan_to_num().amax(1).min()
    if correlation < _ALIKE:
        raise HvxError(
            f"prepare= moves what the picture shows (correlation {correlation:.2f}): it is handed the center "
            "square at size=, and must not crop, mirror or turn it"
        )
