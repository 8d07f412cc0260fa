"""Multimodal residual networks (MRN; Kim et al. 2016, *Multimodal Residual Learning for Visual QA*)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.config import ModelConfig
from hvx.models.base import HadamardHead, HadamardProduct, HeadOutput


class MRN(HadamardHead):
    """Blocks of Hadamard products, each added to a linear shortcut of the previous state.

    H_0 is the question vector q. Block l computes H_l = W_q' H_{l−1} + F_l with F_l = Q_l ∘ V_l,
    Q_l = tanh(W_q H_{l−1}) and V_l = tanh(W_2 tanh(W_1 v)). H_L goes to the classifier. v is the mean feature
    over the grid, with ``mrn.unit_length`` divided by its L2 norm. With ``mrn.pool`` = ``max`` W_1 is applied
    to each cell, and the maximum over the cells is taken after its tanh. Without ``mrn.shortcuts`` H_l = F_l,
    the author's *MN*. V_l depends only on the image; Q_l, after the first block, on both.

    Args:
        config: sizes, ``mrn`` and d, the width of all blocks.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """

    feature_weight_name = "visual_inner.0.weight"

    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        d, count = config.joint, config.mrn.blocks
        inner = config.mrn.inner or d
        widths = [config.encoder.hidden] + [d] * (count - 1)
        self.textual = nn.ModuleList(nn.Linear(width, d) for width in widths)
        self.shortcut = nn.ModuleList(nn.Linear(width, d) for width in widths if config.mrn.shortcuts)
        self.visual_inner = nn.ModuleList(nn.Linear(channels, inner) for _ in widths)
        self.visual = nn.ModuleList(nn.Linear(inner, d) for _ in widths)
        self.classifier = nn.Linear(d, answers)

    def feature_projections(self) -> Sequence[nn.Module]:
        # Features of unit length have no scale to fold.
        return [] if self.config.mrn.unit_length else list(self.visual_inner)

    def image_terms(self, features: Tensor) -> Tensor:
        """V of each block, (B, L, d)."""
        cells = self._drop(features.flatten(2).transpose(1, 2))
        if self.config.mrn.pool == "mean":
            cells = cells.mean(1, keepdim=True)
        if self.config.mrn.unit_length:
            cells = functional.normalize(cells, dim=2)
        pairs = zip(self.visual_inner, self.visual, strict=True)
        return torch.stack(
            [torch.tanh(outer(self._drop(torch.tanh(inner(cells)).amax(1)))) for inner, outer in pairs], 1
        )

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        state = self._drop(question)
        blocks = []
        for index, visual in enumerate(terms.index_select(0, images).unbind(1)):
            blocks.append(HadamardProduct.of(visual, torch.tanh(self.textual[index](state))))
            shortcut = self.shortcut[index](state) if self.config.mrn.shortcuts else 0
            state = shortcut + blocks[-1].product
        return HeadOutput(tuple(blocks), None, self.classifier(self._drop(state)))
