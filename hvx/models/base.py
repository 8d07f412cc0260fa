"""The interface of every head, for training, explanations and checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.config import ModelConfig
from hvx.models.encoder import QuestionEncoder


@dataclass
class HadamardProduct:
    """One Hadamard product of N questions, d wide.

    Complex vectors are stored as real ones with the same inner products: real and imaginary parts side by
    side.

    Attributes:
        visual: V (N, d).
        textual: Q (N, d).
        product: F = Q ∘ V (N, d).
    """

    visual: Tensor
    textual: Tensor
    product: Tensor

    @classmethod
    def of(cls, visual: Tensor, textual: Tensor) -> HadamardProduct:
        """The block with these two factors."""
        return cls(visual, textual, textual * visual)


@dataclass
class HeadOutput:
    """The output of a head for N questions.

    ``visual``, ``textual``, ``product`` are those of each question's last block, the one nearest to the
    answer.

    Attributes:
        blocks: the network's products, in the order in which they are computed; MLB has one (Eq. 6), a head
            that is not a ``HadamardHead`` has none.
        attention: α (N, G, S, S), each glimpse summing to 1; None for a model without attention.
        logits: (N, A).
        textual_attention: (N, T), summing to 1 over a question's tokens; None for a model without one.
        steps: for a network with one block for each token, (N) the number of blocks of each question, the
            first ones; None for other networks, where all blocks belong to each question.
        earlier_attention: for a network that attends to words on several levels, (N, 2, T): to words and to
            phrases, while ``textual_attention`` is that of the question level; None for other networks.
    """

    blocks: tuple[HadamardProduct, ...]
    attention: Tensor | None
    logits: Tensor
    textual_attention: Tensor | None = None
    steps: Tensor | None = None
    earlier_attention: Tensor | None = None

    @property
    def visual(self) -> Tensor:
        """V (N, d)."""
        return self._last([block.visual for block in self.blocks])

    @property
    def textual(self) -> Tensor:
        """Q (N, d)."""
        return self._last([block.textual for block in self.blocks])

    @property
    def product(self) -> Tensor:
        """F = Q ∘ V (N, d)."""
        return self._last([block.product for block in self.blocks])

    def _last(self, of_blocks: list[Tensor]) -> Tensor:
        if self.steps is None:
            return of_blocks[-1]
        return torch.stack(of_blocks)[self.steps - 1, torch.arange(len(self.steps), device=self.steps.device)]

    def detach(self) -> HeadOutput:
        """The same values, detached from the autograd graph."""
        blocks = (
            HadamardProduct(b.visual.detach(), b.textual.detach(), b.product.detach()) for b in self.blocks
        )
        attention, textual, earlier = (
            None if x is None else x.detach()
            for x in (self.attention, self.textual_attention, self.earlier_attention)
        )
        return HeadOutput(tuple(blocks), attention, self.logits.detach(), textual, self.steps, earlier)


class Head(nn.Module, ABC):
    """Joins the features of a frozen backbone with questions, and answers them.

    ``image_terms`` computes what depends only on the image, once per image. ``encode_question`` computes what
    depends only on the question, once per question. ``join`` computes the rest, for pairs of both.

    Args:
        config: sizes and options.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """

    feature_weight_name: ClassVar[str]
    """Name of a matrix in the state dict whose columns are the channels of the features."""

    def __init__(
        self, config: ModelConfig, channels: int, words: int, answers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.config = config
        self.channels = channels
        self.dropout = dropout
        self.encoder = QuestionEncoder(config.encoder, words)
        self.build(config, channels, answers)

    @abstractmethod
    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        """Create the head's layers, with random weights; the encoder exists already."""

    @classmethod
    def channels_of(cls, columns: int, config: ModelConfig) -> int:
        """M, from the number of columns of ``feature_weight_name``."""
        del config
        return columns

    @abstractmethod
    def feature_projections(self) -> Sequence[nn.Module]:
        """The linear layers whose input is only the features, directly or pooled."""

    def problem(self) -> str | None:
        """What is wrong with the values of loaded tensors; None if nothing is."""
        return None

    @torch.no_grad()
    def fold_feature_scale(self, scale: float) -> None:
        """Fold a factor on the features into the weights that are applied to them.

        The model then returns for ``features`` what it returned for ``scale * features``.
        """
        for linear in self.feature_projections():
            linear.get_parameter("weight").mul_(scale)

    @abstractmethod
    def image_terms(self, features: Tensor) -> Tensor:
        """What depends only on the image (B, …), from features (B, M, S, S)."""

    def encode_question(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """What depends only on the question (N, …), from embeddings (N, T, E): q (N, hidden)."""
        question: Tensor = self.encoder(embeddings, lengths)
        return question

    @abstractmethod
    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        """``forward`` after ``read``, whose output is ``question``."""

    def forward(
        self, features: Tensor, terms: Tensor, images: Tensor, embeddings: Tensor, lengths: Tensor
    ) -> HeadOutput:
        """Join N questions with the images they ask about.

        Args:
            features: (B, M, S, S).
            terms: ``image_terms(features)``.
            images: (N) the image, 0 … B − 1, of each question.
            embeddings: (N, T, E) from ``encoder.embed``.
            lengths: (N) tokens of each question.
        """
        return self.join(features, terms, images, self.encode_question(embeddings, lengths), lengths)

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


class HadamardHead(Head):
    """A head with Hadamard products, which Eqs 2 and 3 explain: its output has blocks."""

    def image_terms_vjp(self, features: Tensor, terms: Tensor, cotangent: Tensor) -> Tensor:
        """Map a cotangent of the output of ``image_terms`` to one of the features, (B, M, S, S).

        Args:
            features: (B, M, S, S).
            terms: ``image_terms(features)``, without dropout.
            cotangent: of the terms' shape.
        """
        del terms
        with torch.enable_grad():
            leaf = features.detach().requires_grad_()
            return torch.autograd.grad(self.image_terms(leaf), leaf, cotangent)[0]
