"""The network of Teney et al. 2017, *Tips and Tricks for Visual Question Answering*, on grid features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvx.config import ModelConfig
from hvx.models.base import HadamardHead, HadamardProduct, HeadOutput


class GatedTanh(nn.Module):
    """y = tanh(W x + b) ∘ σ(W' x + b'). The gates are a nonlinearity, not a product of two modalities."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * torch.sigmoid(self.gate(x))


class Gated(HadamardHead):
    """Top-down attention, the features' weighted sum v̂, and h = f_q(q) ∘ f_v(v̂), each f a gated tanh.

    A cell's weight is the softmax over the grid of w_a · f_a([v_i, q]). A linear layer maps f_o(h) to the
    answers: the authors' output stage without the parts that start from embeddings of the answers. The output
    is a softmax; the authors use sigmoids, which allow several answers.

    Args:
        config: sizes, and d, the width of every f.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """

    feature_weight_name = "attention_visual.weight"

    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        d, question = config.joint, config.encoder.hidden
        # f_a's linear map and gate, split into the parts for v_i and for q.
        self.attention_visual = nn.Linear(channels, 2 * d, bias=False)
        self.attention_textual = nn.Linear(question, 2 * d)
        self.attention_output = nn.Linear(d, 1, bias=False)  # a bias would shift all logits equally
        self.visual = GatedTanh(channels, d)
        self.textual = GatedTanh(question, d)
        self.output = GatedTanh(d, d)
        self.classifier = nn.Linear(d, answers)

    def feature_projections(self) -> Sequence[nn.Module]:
        return self.attention_visual, self.visual.linear, self.visual.gate

    def image_terms(self, features: Tensor) -> Tensor:
        """The image's part of f_a's two linear maps, (B, S², 2d)."""
        terms: Tensor = self.attention_visual(self._drop(features.flatten(2).transpose(1, 2)))
        return terms

    def image_terms_vjp(self, features: Tensor, terms: Tensor, cotangent: Tensor) -> Tensor:
        gradient = cotangent @ self.attention_visual.weight
        return gradient.transpose(1, 2).unflatten(2, features.shape[2:])

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        question = self._drop(question)
        both = terms.index_select(0, images) + self.attention_textual(question).unsqueeze(1)
        linear, gate = both.chunk(2, dim=2)
        attention = self.attention_output(torch.tanh(linear) * torch.sigmoid(gate)).softmax(1)
        cells = features.index_select(0, images).flatten(2)
        pooled = torch.bmm(cells, attention).squeeze(2)
        joint = HadamardProduct.of(self.visual(self._drop(pooled)), self.textual(question))
        logits = self.classifier(self.output(self._drop(joint.product)))
        return HeadOutput((joint,), attention.transpose(1, 2).unflatten(2, features.shape[2:]), logits)
