"""The paper's figure for an explanation of the user's own model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hvx.capture.result import ProductExplanation
from hvx.errors import HvxError
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT
from hvx.view.figure import FigureRow, draw_figure
from hvx.view.style import FigureStyle

_COLORS = 3


def can_be_drawn(explained: ProductExplanation) -> bool:
    """Whether the explanation has scores and pixels, so that a figure needs no further arguments."""
    scored = explained.heatmap is not None and explained.z is not None
    return scored and _has_pixels(explained.image)


def product_figure(
    explained: ProductExplanation,
    photos: Sequence[Image.Image] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
    answers: Sequence[str] | None = None,
    width: int = 1200,
    style: FigureStyle | None = None,
) -> Image.Image:
    """A row for each question; see ``ProductExplanation.figure``."""
    if explained.heatmap is None or explained.z is None:
        raise HvxError(
            "a figure needs a heat map and z-scores: an image (N, C, H, W), or reshape=, and words (N, T, E)"
        )
    scores = [z[~z.isnan()].tolist() for z in explained.z.float().cpu()]
    lengths = [len(z) for z in scores]
    photos = _pixels(explained.image, len(lengths)) if photos is None else photos
    words = [list(map(str, range(1, n + 1))) for n in lengths] if tokens is None else tokens
    answer_texts = [""] * len(lengths) if answers is None else answers
    if not len(photos) == len(answer_texts) == len(words) == len(lengths):
        raise HvxError(f"{len(lengths)} questions explained; pass a photo, tokens and an answer for each")
    if lengths != [len(row) for row in words]:
        raise HvxError(f"tokens: {[len(row) for row in words]} given; the questions have {lengths} scores")
    attention = _attention(explained, len(lengths))
    maps = explained.heatmap.float().cpu().numpy()
    rows = [
        FigureRow(photo, glimpses, heatmap, list(row), z, answer, "", zero_gradient=zero)
        for photo, glimpses, heatmap, row, z, answer, zero in zip(
            photos, attention, maps, words, scores, answer_texts, _zero_gradients(explained), strict=True
        )
    ]
    return draw_figure(rows, width, style=style or FigureStyle())


def _attention(explained: ProductExplanation, questions: int) -> np.ndarray:
    """(N, G, S, S); G = 0 if none was recognized."""
    if explained.attention is None:
        return np.zeros((questions, 0, 1, 1), np.float32)
    values: np.ndarray = explained.attention.float().cpu().numpy()
    return values


def _zero_gradients(explained: ProductExplanation) -> list[int]:
    """The flags, for the figure, of gradients that are zero everywhere, for each question."""
    image, words = (
        (gradient == 0).flatten(1).all(1).tolist()
        for gradient in (explained.image_map, explained.word_gradient)
        if gradient is not None
    )
    return [
        ZERO_IMAGE_GRADIENT * image_zero | ZERO_WORD_GRADIENT * words_zero
        for image_zero, words_zero in zip(image, words, strict=True)
    ]


def _has_pixels(image: Tensor | None) -> bool:
    return image is not None and image.ndim == 4 and image.shape[1] in (1, _COLORS)


def _pixels(image: Tensor | None, questions: int) -> list[Image.Image]:
    """Images (N or 1, C, H, W) as pictures, each scaled from its smallest to its largest value."""
    if image is None or not _has_pixels(image):
        raise HvxError("photos: none given, and the image is no pixels (N, 3, H, W); pass a photo for each")
    values = image.detach().float().cpu().expand(questions, _COLORS, -1, -1)
    least, largest = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    scaled = (values - least) / (largest - least).clamp_min(torch.finfo(torch.float32).tiny)
    return [Image.fromarray(pixels) for pixels in (scaled * 255).round().byte().permute(0, 2, 3, 1).numpy()]
