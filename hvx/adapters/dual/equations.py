"""Eqs 2, 3, 9-11 for pairs of an image and a text, by either cotangent."""

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
from hvx.explain.explainer import rounds
from hvx.explain.scores import heat_map, standardized, token_saliency, token_z

Cotangent = Literal["joint", "score"]
_TEXTS = 32
"""Texts that are read at once: the graph of each holds all layers of its tower."""


@dataclass(frozen=True)
class Pairs:
    """Explanations of N pairs of image and text; all on the CPU.

    Attributes:
        cosine: Σ v ∘ t (N).
        heatmap: H (N, H, W), of pixels or of the patch grid.
        gradient: ∇̂v of Eq. 9 (N, C, H, W); None unless it was asked for.
        words: of each text.
        saliency: Eq. 10 of each word (N, T), zero beyond each text's words.
        z: Eq. 11 (N, T), NaN beyond.
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

    The image tower runs forward once per image and backward once per round of texts; an image with several
    texts takes part in as many rounds.

    Args:
        encoder: the dual encoder.
        image: ``image_branch`` of B images.
        images: the image, 0 … B − 1, of each text.
        texts: (N).
        cotangent: "joint": V − F in Eq. 2 and Q − F in Eq. 3; "score": ∂ΣF/∂V = Q and ∂ΣF/∂Q = V.
        free: in Eq. 2 F moves with the image: the gradient of ½‖V − F‖² ("joint" only).
        gradient: also return ∇̂v.
    """
    read = encoder.tokenizer(texts)
    index = torch.tensor(list(images), device=image.vectors.device)
    v = image.vectors.detach()[index]
    t, saliency = _texts(encoder, read.ids.to(image.vectors.device), v, cotangent)
    product = v * t
    to_image = t if cotangent == "score" else v - product
    if free:
        to_image = to_image * (1 - t)
    maps, gradients, zero = [], [], []
    order = rounds(list(images))
    start = image.vectors.grad_fn
    assert start is not None
    with guided_relus([start], image.reach, False) if encoder.rule == "guided" else nullcontext():
        for places in order:
            rows = index[places]
            at_output = torch.zeros_like(image.vectors)
            at_output[rows] = to_image[places]
            raw = image.pulled(at_output)[rows]
            standard = standardized(raw)
            maps.append(heat_map(standard).cpu())
            zero.append(~raw.flatten(1).any(1).cpu())
            if gradient:
                gradients.append(standard.cpu())
    back = torch.tensor([place for places in order for place in places]).argsort()
    by_word, lengths = _by_word(saliency, read.words)
    return Pairs(
        product.sum(1).cpu(),
        torch.cat(maps)[back],
        torch.cat(gradients)[back] if gradient else None,
        read.words,
        by_word,
        token_z(by_word, lengths),
        torch.cat(zero)[back],
    )


def _texts(encoder: DualEncoder, ids: Tensor, v: Tensor, cotangent: Cotangent) -> tuple[Tensor, Tensor]:
    """t of texts (N, d), and Eq. 10 at each of their tokens (N, L), a few texts at once."""
    vectors, saliency = [], []
    for rows, own in zip(ids.split(_TEXTS), v.split(_TEXTS), strict=True):
        branch = text_branch(encoder, rows)
        t = branch.vectors.detach()
        vectors.append(t)
        saliency.append(token_saliency(branch.pulled(own if cotangent == "score" else t - own * t)))
    return torch.cat(vectors), torch.cat(saliency).cpu()


def _by_word(saliency: Tensor, words: list[list[Word]]) -> tuple[Tensor, Tensor]:
    """Eq. 10 of words, (N, T), and their numbers (N): D runs over the embeddings of all pieces of a word."""
    lengths = torch.tensor([len(own) for own in words])
    found = saliency.new_zeros(len(words), max(1, int(lengths.max()) if len(words) else 0))
    for row, own in enumerate(words):
        for place, word in enumerate(own):
            found[row, place] = saliency[row, list(word.places)].sum()
    return found, lengths
