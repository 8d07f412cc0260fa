"""Eqs 2 and 3: gradients of the joint's deviation from each of its factors, at the image and the words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hvx.models.base import HadamardHead, HadamardProduct, Head, HeadOutput


@dataclass
class HeadGradients:
    """The joint of N questions, and its gradients at the head's inputs.

    Attributes:
        joint: the forward pass, detached.
        features: for each block (N, M, S, S), (V − F) ∂V/∂features: Eq. 2 up to the features.
        embeddings: (N, T, E), (Q − F) ∂Q/∂q of the last block: Eq. 3. For a network with a block for each
            word, of all blocks of a question; each block's Q depends on one word.
    """

    joint: HeadOutput
    features: list[Tensor]
    embeddings: Tensor


def encode_questions(model: Head, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The embeddings (N, T, E) of questions, and what the head reads from them, differentiable by them."""
    embeddings = model.encoder.embed(rows).detach().requires_grad_()
    with torch.enable_grad():
        return embeddings, model.encode_question(embeddings, lengths)


class HeadVJP:
    """Eqs 2 and 3 through the head for the questions on a batch of images.

    V depends on the features through the attention too. In Eq. 3 F is constant, and Q depends on the words as
    in the network: directly in the first block, through the blocks before it in a later one. Terms of the
    image alone are computed once per image; all questions are encoded, and differentiated with respect to
    their words, together.

    Args:
        model: the Hadamard model.
        features: (B, M, S, S) of the batch's images.
        rows: (N, T) rows of the word table.
        lengths: (N) tokens of each question.
        free: in Eq. 2, F varies with the image; otherwise it is held constant.
        encoded: what ``encode_questions`` returns for the questions, if known.
    """

    def __init__(
        self,
        model: HadamardHead,
        features: Tensor,
        rows: Tensor,
        lengths: Tensor,
        free: bool = False,
        encoded: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self._model, self._features, self._lengths, self._free = model, features.detach(), lengths, free
        self._embeddings, self._question = encoded or encode_questions(model, rows, lengths)
        with torch.no_grad():
            self._terms = model.image_terms(self._features)
        self._to_question = torch.zeros_like(self._question)

    def visual(self, indices: Tensor) -> tuple[HeadOutput, Iterator[Tensor]]:
        """The joint of one question on each of the first n images, and Eq. 2 up to their features.

        Args:
            indices: (n) of the questions.

        Returns:
            The joint, detached, and a generator of (V − F) ∂V/∂features (n, M, S, S) for each block. In a
            network with a block for each word, rows of questions without this block are zero, and rows after
            the last question with this block are left out.
        """
        count = len(indices)
        features, terms = (x[:count].detach().requires_grad_() for x in (self._features, self._terms))
        question = self._question.detach()[indices].requires_grad_()
        images = torch.arange(count, device=features.device)
        with torch.enable_grad():
            joint = self._model.join(features, terms, images, question, self._lengths[indices])
            self._to_question[indices] = _to_question(joint, question)
        return joint.detach(), self._block_gradients(joint, features, terms)

    def _block_gradients(self, joint: HeadOutput, features: Tensor, terms: Tensor) -> Iterator[Tensor]:
        """Eq. 2 of each block, up to the features."""
        for index, block in enumerate(joint.blocks):
            gradient = self._block_gradient(block, features, terms)
            if joint.steps is not None:
                has_block = joint.steps > index
                count = int(has_block.nonzero().max()) + 1
                gradient = gradient[:count] * has_block[:count].view(-1, 1, 1, 1)
            yield gradient

    def _block_gradient(self, block: HadamardProduct, features: Tensor, terms: Tensor) -> Tensor:
        """Eq. 2 of one block, up to the features."""
        if self._free:
            with torch.enable_grad():
                distance = (block.visual - block.product).square().sum() / 2
            output, cotangent = distance, None
        else:
            output, cotangent = block.visual, (block.visual - block.product).detach()
        direct, by_terms = torch.autograd.grad(
            output, (features, terms), cotangent, retain_graph=True, materialize_grads=True
        )
        with torch.no_grad():
            return direct + self._model.image_terms_vjp(features, terms, by_terms)

    def textual(self) -> Tensor:
        """Eq. 3 of all questions: (Q − F) ∂Q/∂q at their embeddings (N, T, E); call ``visual`` before."""
        return torch.autograd.grad(self._question, self._embeddings, self._to_question)[0]


def _to_question(joint: HeadOutput, question: Tensor) -> Tensor:
    """Eq. 3 up to the encoded questions: of the last block, or of the block of each word."""
    if joint.steps is None:
        outputs, cotangents = [joint.textual], [joint.textual - joint.product]
    else:
        outputs = [block.textual for block in joint.blocks]
        cotangents = [
            (block.textual - block.product) * (joint.steps > index).unsqueeze(1)
            for index, block in enumerate(joint.blocks)
        ]
    constant = [cotangent.detach() for cotangent in cotangents]
    return torch.autograd.grad(outputs, question, constant, retain_graph=True)[0]


def head_gradients(
    model: HadamardHead,
    features: Tensor,
    images: Tensor,
    rows: Tensor,
    lengths: Tensor,
    free: bool = False,
) -> HeadGradients:
    """Eqs 2 and 3 through the head for N questions at once, each on a copy of its image's features.

    Args:
        model: the Hadamard model.
        features: (B, M, S, S) of the batch's images.
        images: (N) the image, 0 … B − 1, of each question.
        rows: (N, T) rows of the word table.
        lengths: (N) tokens of each question.
        free: as in ``HeadVJP``.
    """
    pullback = HeadVJP(model, features[images], rows, lengths, free)
    joint, to_features = pullback.visual(torch.arange(len(images), device=images.device))
    return HeadGradients(joint, list(to_features), pullback.textual())
