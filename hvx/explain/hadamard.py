"""Eqs 2 and 3: what the joint's deviation from each of its factors says of image and words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hvx.models.joint import Joint
from hvx.models.mlb import MLB


@dataclass
class HeadGradients:
    """The joint of N questions, and its two gradients at the head's inputs.

    Attributes:
        joint: the forward pass, detached.
        features: (N, M, S, S), the cotangent (V − F) ∂V/∂features: Eq. 2 as far as the features.
        embeddings: (N, T, E), (Q − F) ∂Q/∂q: Eq. 3.
    """

    joint: Joint
    features: Tensor
    embeddings: Tensor


class HeadPullback:
    """Eqs 2 and 3 through the head, F held constant in both, for the questions on a batch of images.

    V depends on the features through the attention too; Eq. 3 goes through Q alone. What depends on the image
    alone is computed once per image; the questions are encoded, and pulled back to their words, together.

    Args:
        model: the Hadamard model.
        features: (B, M, S, S) of the batch's images.
        rows: (N, T) rows of the word table.
        lengths: (N) tokens of each question.
    """

    def __init__(self, model: MLB, features: Tensor, rows: Tensor, lengths: Tensor) -> None:
        self._model, self._features = model, features.detach()
        self._embeddings = model.encoder.embed(rows).detach().requires_grad_()
        with torch.no_grad():
            self._terms = model.image_terms(self._features)
        with torch.enable_grad():
            self._question = model.encoder(self._embeddings, lengths)

    def visual(self, places: Tensor) -> tuple[Joint, Tensor]:
        """The joint of one question on each of the first n images, and Eq. 2 as far as their features.

        Args:
            places: (n) the questions.

        Returns:
            The joint, detached, and (V − F) ∂V/∂features (n, M, S, S).
        """
        count = len(places)
        features, terms = (x[:count].detach().requires_grad_() for x in (self._features, self._terms))
        own = torch.arange(count, device=features.device)
        with torch.enable_grad():
            joint = self._model.join(features, terms, own, self._question.detach()[places])
            cotangent = (joint.visual - joint.product).detach()
            direct, by_terms = torch.autograd.grad(
                joint.visual, (features, terms), cotangent, materialize_grads=True
            )
        with torch.no_grad():
            lattice = features.shape[2], features.shape[3]
            return joint.detach(), direct + self._model.pull_image_terms(terms, by_terms, lattice)

    def textual(self, product: Tensor) -> Tensor:
        """Eq. 3 of all questions: (Q − F) ∂Q/∂q at their embeddings (N, T, E), from their F (N, d)."""
        with torch.enable_grad():
            textual = self._model.textual_vector(self._question)
            return torch.autograd.grad(textual, self._embeddings, textual.detach() - product)[0]


def head_gradients(
    model: MLB, features: Tensor, images: Tensor, rows: Tensor, lengths: Tensor
) -> HeadGradients:
    """Eqs 2 and 3 through the head for N questions at once, each on a copy of its image's features.

    Args:
        model: the Hadamard model.
        features: (B, M, S, S) of the batch's images.
        images: (N) the image, 0 … B − 1, of each question.
        rows: (N, T) rows of the word table.
        lengths: (N) tokens of each question.
    """
    pullback = HeadPullback(model, features[images], rows, lengths)
    joint, to_features = pullback.visual(torch.arange(len(images), device=images.device))
    return HeadGradients(joint, to_features, pullback.textual(joint.product))
