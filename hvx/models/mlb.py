"""Multimodal low-rank bilinear attention networks (MLB), Eqs 4-8 of the paper, in their three forms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.config import ModelConfig
from hvx.models.activations import activation, slope
from hvx.models.base import HadamardHead, HadamardProduct, HeadOutput


class MLB(HadamardHead):
    """Attention and joint by low-rank bilinear pooling, over the features of a frozen backbone.

    Without glimpses (G = 0) there is no attention: V comes from the features' mean over the grid.
    The forms (the paper, the author's Torch7 code, the vqa.pytorch port) differ in the options
    ``visual_projection`` and ``*_activation`` of the config; there is one model.

    Args:
        config: sizes, glimpses G and activations.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """

    feature_weight_name = "visual.0.weight"

    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        glimpses, joint, question = config.glimpses, config.joint, config.encoder.hidden
        if glimpses:
            self.attention_textual = nn.Linear(question, joint)
            self.attention_visual = nn.Linear(channels, joint)
            self.attention_output = nn.Linear(joint, glimpses)
        self.textual = nn.Linear(question, config.width)
        pooled = max(1, glimpses)
        if config.visual_projection == "joint":
            self.visual = nn.ModuleList([nn.Linear(channels * pooled, config.width)])
        else:
            self.visual = nn.ModuleList(nn.Linear(channels, joint) for _ in range(pooled))
        self.classifier = nn.Linear(config.width, answers)

    @classmethod
    def channels_of(cls, columns: int, config: ModelConfig) -> int:
        return columns // (max(1, config.glimpses) if config.visual_projection == "joint" else 1)

    def feature_projections(self) -> Sequence[nn.Module]:
        return [*([self.attention_visual] if self.config.glimpses else []), *self.visual]

    def image_terms(self, features: Tensor) -> Tensor:
        """With attention σ(V_F F) of Eq. 4, (B, S², d); without, the features' mean, (B, M)."""
        if not self.config.glimpses:
            return features.flatten(2).mean(2)
        cells = self._drop(features.flatten(2).transpose(1, 2))
        return self._activate("attention_visual", self.attention_visual(cells))

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        question = self._drop(question)
        attention, pooled = self._pool(question, features, terms, images)
        visual = self._activate("visual", self._project(self._drop(pooled)))
        textual = self._activate("textual", self.textual(question))
        joint = HadamardProduct.of(visual, textual)  # Eq. 6
        logits = self.classifier(self._drop(self._activate("product", joint.product)))  # Eq. 7
        return HeadOutput((joint,), attention, logits)

    def image_terms_vjp(self, features: Tensor, terms: Tensor, cotangent: Tensor) -> Tensor:
        grid = features.shape[2:]
        if not self.config.glimpses:
            cells = grid[0] * grid[1]
            return (cotangent / cells)[:, :, None, None].expand(-1, -1, *grid)
        slopes = slope(self.config.attention_visual_activation, terms)
        gradient = (cotangent * slopes) @ self.attention_visual.weight
        return gradient.transpose(1, 2).unflatten(2, grid)

    def _pool(
        self, question: Tensor, features: Tensor, terms: Tensor, images: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """α (N, G, S, S), and the features it pools, (N, G, M) of Eq. 5; without attention their mean."""
        if not self.config.glimpses:
            return None, terms.index_select(0, images).unsqueeze(1)
        attention = self.attend(question, terms.index_select(0, images))
        cells = features.index_select(0, images).flatten(2).transpose(1, 2)
        return attention.unflatten(2, features.shape[-2:]), torch.bmm(attention, cells)

    def attend(self, question: Tensor, terms: Tensor) -> Tensor:
        """α of Eq. 4, (N, G, S²), from q (N, hidden) and the image's terms (N, S², d)."""
        # Dropout of the text channels also drops them from the product, equally in every cell.
        textual = self._drop(self._activate("attention_textual", self.attention_textual(question)))
        if self.config.attention_product_activation == "none":
            # P(q ∘ v) = (P ∘ q) v avoids the product (N, S², d).
            weights = self.attention_output.weight * textual.unsqueeze(1)
            logits = torch.baddbmm(self.attention_output.bias.view(1, -1, 1), weights, terms.transpose(1, 2))
        else:
            product = self._activate("attention_product", textual.unsqueeze(1) * terms)
            logits = self.attention_output(product).transpose(1, 2)
        return functional.softmax(logits, dim=2)

    def _project(self, pooled: Tensor) -> Tensor:
        """W v̂: one Linear over the concatenated glimpses, or one for each. (N, G, M) → (N, d·G)."""
        if len(self.visual) == 1:
            projected: Tensor = self.visual[0](pooled.flatten(1))
            return projected
        return torch.cat([linear(pooled[:, g]) for g, linear in enumerate(self.visual)], dim=1)

    def _activate(self, name: str, x: Tensor) -> Tensor:
        return activation(getattr(self.config, f"{name}_activation"))(x)
