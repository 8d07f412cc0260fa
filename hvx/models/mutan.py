"""MUTAN (Ben-younes et al. 2017, *MUTAN: Multimodal Tucker Fusion for Visual Question Answering*)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.config import ModelConfig
from hvx.models.activations import activation
from hvx.models.base import HadamardHead, HadamardProduct, HeadOutput


class Mutan(HadamardHead):
    """Attention and joint by sums of R Hadamard products (a Tucker decomposition of rank R).

    With x = act(W v̂) of the attended features and y = act(W q), the sum is Σ_r a(A_r y) ∘ b(B_r x). It is
    stored as **one** product: V = [b(B_1 x); …; b(B_R x)] and Q likewise, F = Q ∘ V, R·d wide. The
    classifier's input is F summed over its R parts. Eq. 2 with this V and F is the sum over the parts. The
    attention has the same form, with the sums in every cell of the grid. Without glimpses x comes from the
    features' mean.

    Args:
        config: sizes, glimpses G, activations, and ``mutan``; d is ``joint``.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """

    feature_weight_name = "visual.0.weight"

    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        sizes, question, glimpses = config.mutan, config.encoder.hidden, config.glimpses
        if glimpses:
            parts = sizes.attention_rank * sizes.attention_joint
            self.attention_visual = nn.Linear(channels, sizes.attention_visual)
            self.attention_textual = nn.Linear(question, sizes.attention_textual)
            self.attention_visual_parts = nn.Linear(sizes.attention_visual, parts)
            self.attention_textual_parts = nn.Linear(sizes.attention_textual, parts)
            self.attention_output = nn.Linear(sizes.attention_joint, glimpses)
        pooled = max(1, glimpses)
        self.visual = nn.ModuleList(nn.Linear(channels, sizes.visual // pooled) for _ in range(pooled))
        self.textual = nn.Linear(question, sizes.textual)
        self.visual_parts = nn.Linear(sizes.visual, sizes.rank * config.joint)
        self.textual_parts = nn.Linear(sizes.textual, sizes.rank * config.joint)
        self.classifier = nn.Linear(config.joint, answers)

    def feature_projections(self) -> Sequence[nn.Module]:
        return [*([self.attention_visual] if self.config.glimpses else []), *self.visual]

    def image_terms(self, features: Tensor) -> Tensor:
        """With attention its visual factors in every cell, (B, S², R·d); without, the mean, (B, M)."""
        if not self.config.glimpses:
            return features.flatten(2).mean(2)
        cells = self._drop(features.flatten(2).transpose(1, 2))
        x = self._activate("attention_visual", self.attention_visual(cells))
        return self._part("attention_visual", self.attention_visual_parts(x))

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        question = self._drop(question)
        attention, pooled = self._pool(question, features, terms, images)
        glimpses = [linear(self._drop(pooled[:, g])) for g, linear in enumerate(self.visual)]
        x = self._activate("visual", torch.cat(glimpses, 1))
        y = self._activate("textual", self.textual(question))
        joint = HadamardProduct.of(
            self._part("visual", self.visual_parts(self._drop(x))),
            self._part("textual", self.textual_parts(self._drop(y))),
        )
        summed = joint.product.unflatten(1, (self.config.mutan.rank, -1)).sum(1)
        summed = self._activate("product", activation(self.config.mutan.sum_activation)(summed))
        return HeadOutput((joint,), attention, self.classifier(self._drop(summed)))

    def _pool(
        self, question: Tensor, features: Tensor, terms: Tensor, images: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """α (N, G, S, S), and the features it pools, (N, G, M); without attention their mean."""
        if not self.config.glimpses:
            return None, terms.index_select(0, images).unsqueeze(1)
        attention = self._attend(question, terms.index_select(0, images))
        cells = features.index_select(0, images).flatten(2).transpose(1, 2)
        return attention.unflatten(2, features.shape[-2:]), torch.bmm(attention, cells)

    def _attend(self, question: Tensor, terms: Tensor) -> Tensor:
        """α (N, G, S²), from q (N, hidden) and the image's factors (N, S², R·d)."""
        rank = self.config.mutan.attention_rank
        y = self._activate("attention_textual", self.attention_textual(question))
        textual = self._drop(self._part("attention_textual", self.attention_textual_parts(self._drop(y))))
        if self.config.attention_product_activation == "none":
            # P Σ_r (y_r ∘ x_r) = Σ_r (P ∘ y_r) x_r avoids the products (N, S², R·d).
            weights = self.attention_output.weight.repeat(1, rank) * textual.unsqueeze(1)
            logits = torch.baddbmm(self.attention_output.bias.view(1, -1, 1), weights, terms.transpose(1, 2))
        else:
            summed = (textual.unsqueeze(1) * terms).unflatten(2, (rank, -1)).sum(2)
            # Twice, as in vqa.pytorch: inside the fusion and after it.
            twice = self._activate("attention_product", self._activate("attention_product", summed))
            logits = self.attention_output(twice).transpose(1, 2)
        return functional.softmax(logits, dim=2)

    def _activate(self, name: str, x: Tensor) -> Tensor:
        return activation(getattr(self.config, f"{name}_activation"))(x)

    def _part(self, name: str, x: Tensor) -> Tensor:
        return activation(getattr(self.config.mutan, f"{name}_part_activation"))(x)
