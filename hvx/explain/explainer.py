"""Images and questions in, explanations out: the two stages of the pullback, batched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hvx.data.words import TOKENIZERS, padded
from hvx.errors import HvxError
from hvx.explain.guided import GuidedPullback, guided
from hvx.explain.hadamard import head_gradients
from hvx.explain.scores import heat_map, standardised, token_saliency, token_z
from hvx.models.checkpoint import VQAModel

TOP = 5
"""Answers kept with their probabilities."""


@dataclass
class Explanations:
    """Explanations of N questions; tensors lie on the CPU.

    Attributes:
        tokens: each question's own tokens.
        saliency: Eq. 10 (N, T), zero beyond each question's tokens.
        z: Eq. 11 (N, T), NaN beyond each question's tokens.
        attention: α (N, G, S, S), None of a model without attention.
        heatmap: H (N, H, W).
        gradient: ∇̂v of Eq. 9 (N, C, H, W), None unless asked for.
        answers: the five likeliest answers of each question, likeliest first.
        probabilities: theirs (N, 5).
    """

    tokens: list[list[str]]
    saliency: Tensor
    z: Tensor
    attention: Tensor | None
    heatmap: Tensor
    gradient: Tensor | None
    answers: list[list[str]]
    probabilities: Tensor


class Explainer:
    """Explains a model's answers by Eqs 2 and 3, with guided backpropagation through the backbone.

    Args:
        model: the network, on the device to compute on.
        gradient: also return the standardised gradient.

    Raises:
        HvxError: the backbone is not a ReLU network.
    """

    def __init__(self, model: VQAModel, gradient: bool = False) -> None:
        self.model, self.gradient = model, gradient
        self._tokenize = TOKENIZERS[model.config.encoder.tokenizer]
        self._network = guided(model.backbone.network)
        self._device = next(model.head.parameters()).device

    def explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Explanations:
        """Explain questions on a batch of images.

        Args:
            inputs: normalised images (B, C, H, W).
            images: the image, 0 … B − 1, of each question (N).
            questions: (N).
        """
        tokens = [self._tokenize(question) for question in questions]
        rows, lengths = (
            torch.from_numpy(array).to(self._device)
            for array in padded([self.model.vocabulary.rows(own) for own in tokens])
        )
        pullback = GuidedPullback(self._network, inputs.to(self._device))
        self._check(pullback.features)
        which = torch.tensor(images, device=self._device)
        head = head_gradients(self.model.head, pullback.features, which, rows, lengths)
        gradient = standardised(_to_images(pullback, head.features, images, len(inputs)))
        saliency = token_saliency(head.embeddings)
        probabilities, best = head.joint.logits.softmax(1).topk(min(TOP, len(self.model.answers)))
        return Explanations(
            tokens,
            saliency.cpu(),
            token_z(saliency, lengths).cpu(),
            None if head.joint.attention is None else head.joint.attention.cpu(),
            heat_map(gradient).cpu(),
            gradient.cpu() if self.gradient else None,
            [[self.model.answers[a] for a in row] for row in best.tolist()],
            probabilities.cpu(),
        )

    def _check(self, features: Tensor) -> None:
        wanted = self.model.head.channels
        if features.ndim != 4 or features.shape[1] != wanted:
            node, found = self.model.config.backbone.node, tuple(features.shape[1:])
            raise HvxError(
                f"model.backbone.node: '{node}' yields {found}; the head takes {wanted} channels on a lattice"
            )


def rounds(images: list[int]) -> list[list[int]]:
    """Questions in rounds: the r-th round holds the r-th question of every image that has so many.

    Args:
        images: the image of each question.

    Returns:
        Places in ``images``; each occurs once, and no round holds an image twice.
    """
    seen: dict[int, int] = {}
    found: list[list[int]] = []
    for place, image in enumerate(images):
        rank = seen.get(image, 0)
        seen[image] = rank + 1
        if rank == len(found):
            found.append([])
        found[rank].append(place)
    return found


def _to_images(pullback: GuidedPullback, cotangents: Tensor, images: list[int], count: int) -> Tensor:
    """Cotangents (N, M, S, S) → gradients at the images (N, C, H, W), one backward pass a round."""
    gradients: Tensor | None = None
    for places in rounds(images):
        shown = [images[place] for place in places]
        cotangent = cotangents.new_zeros((count, *cotangents.shape[1:]))
        cotangent[shown] = cotangents[places]
        pulled = pullback.pull(cotangent)[shown]
        if gradients is None:
            gradients = pulled.new_empty((len(images), *pulled.shape[1:]))
        gradients[places] = pulled
    assert gradients is not None
    return gradients
