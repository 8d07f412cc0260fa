"""Eqs 2, 3, 9-11 for pairs of an image and a text, with either cotangent."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hvx.adapters.dual.encoder import Branch, DualEncoder, text_branch
from hvx.adapters.dual.words import Word
from hvx.capture.graph import guided_relus
from hvx.explain.explainer import question_rounds
from hvx.explain.scores import heat_map, standardized, token_saliency, token_z

Cotangent = Literal["joint", "score"]
_TEXTS = 32
"""Texts in one batch: the graph of each text holds all layers of its tower."""


@dataclass(frozen=True)
class Pairs:
    """Explanations of N pairs of image and text; all on the CPU.

    Attributes:
        cosine: Σ v ∘ t (N).
        heatmap: H (N, H, W), of pixels or of the patch grid.
        gradient: ∇̂v of Eq. 9 (N, C, H, W); None unless requested.
        words: of each text.
        saliency: Eq. 10 of each word (N, T), zero after each text's last word.
        z: Eq. 11 (N, T), NaN after each text's last word.
        zero_image_gradient: (N) whether Eq. 2 is zero everywhere.
    """

    cosine: Tensor
    heatmap: Tensor
    gradient: Tensor | None
    words: list[list[Word]]
    saliency: Tensor
    z: Tensor
    zero_image_gradient: Tensor


def explain_pairs(
    encoder: DualEncoder,
    image: Branch,
    images: Sequence[int],
    texts: Sequence[str],
    cotangent: Cotangent = "joint",
    *,
    free: bool = False,
    gradient: bool = False,
) -> Pairs:
    """Explain the score of each text with its image.

    The image tower runs forward once per image and backward once per round of texts; an image is part of one
    round for each of its texts.

    Args:
        encoder: the dual encoder.
        image: ``image_branch`` of B images.
        images: the image, 0 … B − 1, of each text.
        texts: (N).
        cotangent: "joint": V − F in Eq. 2 and Q − F in Eq. 3; "score": ∂ΣF/∂V = Q and ∂ΣF/∂Q = V.
        free: in Eq. 2, F varies with the image: the gradient of ½‖V − F‖² ("joint" only).
        gradient: also return ∇̂v.
    """
    tokenized = encoder.tokenizer(texts)
    index = torch.tensor(list(images), device=image.vectors.device)
    v = image.vectors.detach()[index]
    t, saliency = _texts(encoder, tokenized.ids.to(image.vectors.device), v, cotangent)
    product = v * t
    to_image = t if cotangent == "score" else v - product
    if free:
        to_image = to_image * (1 - t)
    maps, gradients, zero = [], [], []
    round_indices = question_rounds(list(images))
    start = image.vectors.grad_fn
    assert start is not None
    with guided_relus([start], image.reach, False) if encoder.rule == "guided" else nullcontext():
        for indices in round_indices:
            rows = index[indices]
            at_output = torch.zeros_like(image.vectors)
            at_output[rows] = to_image[indices]
            raw = image.pulled(at_output)[rows]
            standard = standardized(raw)
            maps.append(heat_map(standard).cpu())
            zero.append(~raw.flatten(1).any(1).cpu())
            if gradient:
                gradients.append(standard.cpu())
    inverse = torch.tensor([position for indices in round_indices for position in indices]).argsort()
    by_word, lengths = _by_word(saliency, tokenized.words)
    return Pairs(
        product.sum(1).cpu(),
        torch.cat(maps)[inverse],
        torch.cat(gradients)[inverse] if gradient else None,
        tokenized.words,
        by_word,
        token_z(by_word, lengths),
        torch.cat(zero)[inverse],
    )


def _texts(encoder: DualEncoder, ids: Tensor, v: Tensor, cotangent: Cotangent) -> tuple[Tensor, Tensor]:
    """t of texts (N, d), and Eq. 10 at each of their tokens (N, L), in batches of texts."""
    vectors, saliency = [], []
    for rows, visual in zip(ids.split(_TEXTS), v.split(_TEXTS), strict=True):
        branch = text_branch(encoder, rows)
        t = branch.vectors.detach()
        vectors.append(t)
        saliency.append(token_saliency(branch.pulled(visual if cotangent == "score" else t - visual * t)))
    return torch.cat(vectors), torch.cat(saliency).cpu()


def _by_word(saliency: Tensor, words: list[list[Word]]) -> tuple[Tensor, Tensor]:
    """Eq. 10 of words (N, T), summed over the pieces of each word, and the number of words (N)."""
    lengths = torch.tensor([len(text_words) for text_words in words])
    by_word = saliency.new_zeros(len(words), max(1, int(lengths.max()) if len(words) else 0))
    for row, text_words in enumerate(words):
        for position, word in enumerate(text_words):
            by_word[row, position] = saliency[row, list(word.positions)].sum()
    return by_word, lengths
