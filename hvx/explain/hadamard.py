"""Eqs 2 and 3: what the joint's deviation from each of its factors says of image and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hvx.models.joint import Block, HadamardHead, Joint


@dataclass
class HeadGradients:
    """The joint of N questions, and its gradients at the head's inputs.

    Attributes:
        joint: the forward pass, detached.
        features: of each block (N, M, S, S), the cotangent (V − F) ∂V/∂features: Eq. 2 up to the features.
        embeddings: (N, T, E), (Q − F) ∂Q/∂q of the last block: Eq. 3. Of a network with a block for each
            word, of all of a question's blocks, whose Qs depend on one word each.
    """

    joint: Joint
    features: list[Tensor]
    embeddings: Tensor


class HeadPullback:
    """Eqs 2 and 3 through the head for the questions on a batch of images.

    V depends on the features through the attention too; in Eq. 3 F is constant, and Q depends on the words as
    the network has it: directly in the first block, through the blocks ahead in a later one. What depends
    on the image alone is computed once per image; the questions are read, and pulled back to their words,
    together.

    Args:
        model: the Hadamard model.
        features: (B, M, S, S) of the batch's images.
        rows: (N, T) rows of the word table.
        lengths: (N) tokens of each question.
        free: in Eq. 2 F moves with the image; otherwise it is held constant.
    """

    def __init__(
        self, model: HadamardHead, features: Tensor, rows: Tensor, lengths: Tensor, free: bool = False
    ) -> None:
        self._model, self._features, self._lengths, self._free = model, features.detach(), lengths, free
        self._embeddings = model.encoder.embed(rows).detach().requires_grad_()
        with torch.no_grad():
            self._terms = model.image_terms(self._features)
        with torch.enable_grad():
            self._question = model.read(self._embeddings, lengths)
        self._to_question = torch.zeros_like(self._question)

    def visual(self, places: Tensor) -> tuple[Joint, Iterator[Tensor]]:
        """The joint of one question on each of the first n images, and Eq. 2 as far as their features.

        Args:
            places: (n) the questions.

        Returns:
            The joint, detached, and for each of its blocks (V − F) ∂V/∂features (n, M, S, S), computed as it
            is asked for. Of a network with a block for each word: zero where the block is not the question's
            own, and without the questions behind the last whose own it is.
        """
        count = len(places)
        features, terms = (x[:count].detach().requires_grad_() for x in (self._features, self._terms))
        question = self._question.detach()[places].requires_grad_()
        own = torch.arange(count, device=features.device)
        with torch.enable_grad():
            joint = self._model.join(features, terms, own, question, self._lengths[places])
            self._to_question[places] = _to_question(joint, question)
        return joint.detach(), self._pulled(joint, features, terms)

    def _pulled(self, joint: Joint, features: Tensor, terms: Tensor) -> Iterator[Tensor]:
        """Eq. 2 of each block, as far as the features."""
        for place, block in enumerate(joint.blocks):
            pulled = self._pull(block, features, terms)
            if joint.steps is not None:
                own = joint.steps > place
                count = int(own.nonzero().max()) + 1
                pulled = pulled[:count] * own[:count].view(-1, 1, 1, 1)
            yield pulled

    def _pull(self, block: Block, features: Tensor, terms: Tensor) -> Tensor:
        """Eq. 2 of one block, as far as the features."""
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
            return direct + self._model.pull_image_terms(features, terms, by_terms)

    def textual(self) -> Tensor:
        """Eq. 3 of all questions: (Q − F) ∂Q/∂q at their embeddings (N, T, E), once ``visual`` had each."""
        return torch.autograd.grad(self._question, self._embeddings, self._to_question)[0]


def _to_question(joint: Joint, question: Tensor) -> Tensor:
    """Eq. 3 as far as the questions as they were read: of the last block, or of each word's."""
    if joint.steps is None:
        outputs, cotangents = [joint.textual], [joint.textual - joint.product]
    else:
        outputs = [block.textual for block in joint.blocks]
        cotangents = [
            (block.textual - block.product) * (joint.steps > place).unsqueeze(1)
            for place, block in enumerate(joint.blocks)
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
        free: as in ``HeadPullback``.
    """
    pullback = HeadPullback(model, features[images], rows, lengths, free)
    joint, to_features = pullback.visual(torch.arange(len(images), device=images.device))
    return HeadGradients(joint, list(to_features), pullback.textual())
