"""A GRU with multiplicative integration (Wu et al. 2016) that joins the image with every word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvx.config import ModelConfig
from hvx.models.base import HadamardHead, HadamardProduct, HeadOutput
from hvx.models.encoder import SkipThoughtGRU


class MI(HadamardHead):
    """A GRU with multiplicative integration; the image is its initial state, its last state gives the answer.

    Initially h_0 = tanh(W_0 v̄). Step t has one product, that of its three gates side by side:
    F_t = Q_t ∘ V_t with Q_t = W x_t from word t only, and V_t = U h_{t−1} from the image and the previous
    words. The reset gate is applied to U h; otherwise V_t would depend on word t. v̄ is the features' mean
    over the grid, or the maximum over the cells of tanh(W_1 v_s) (``mi.pool``).

    With ``mi.attention`` each step also attends to the image: V_t = U h_{t−1} + U_v v̂_t with
    v̂_t = Σ_s α_s v_s, α = softmax_s(w (tanh(W_a v_s) ∘ tanh(P u_t))). This is MLB's attention of Eq. 4, with
    the words so far instead of the question; u_t is the state of a GRU over the words. V_t then depends on
    word t through α, as MLB's V depends on the question; Q_t is unchanged.

    Args:
        config: sizes, ``mi``; d, of the attention and of W_1; the state has the encoder's width.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """

    feature_weight_name = "start.weight"

    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        hidden, d = config.encoder.hidden, config.joint
        self.attends = config.mi.attention
        # ``start`` is applied to the features: W_1 for the maximum, W_0 for the mean.
        self.start = nn.Linear(channels, d if config.mi.pool == "max" else hidden)
        if config.mi.pool == "max":
            self.initial = nn.Linear(d, hidden)
        if self.attends:
            self.attention_visual = nn.Linear(channels, d)
            self.reader = SkipThoughtGRU(config.encoder.embedding, hidden, config.encoder.candidate)
            self.attention_textual = nn.Linear(hidden, d)
            self.attention_output = nn.Linear(d, 1, bias=False)
            self.seen = nn.Linear(channels, 3 * hidden, bias=False)
        self.classifier = nn.Linear(hidden, answers)

    def feature_projections(self) -> Sequence[nn.Module]:
        return [self.start, *([self.attention_visual, self.seen] if self.attends else [])]

    def image_terms(self, features: Tensor) -> Tensor:
        """h_0 (B, hidden); with attention also tanh(W_a v_s) of each cell: (B, 1 + S², max(hidden, d)), with
        h_0 in the first row."""
        cells = self._drop(features.flatten(2).transpose(1, 2))
        start = self._start(cells)
        if not self.attends:
            return start
        keys = torch.tanh(self.attention_visual(cells))
        width = max(start.shape[1], keys.shape[2])
        rows = [start.unsqueeze(1), keys]
        return torch.cat([nn.functional.pad(row, (0, width - row.shape[2])) for row in rows], 1)

    def _start(self, cells: Tensor) -> Tensor:
        """h_0 (B, hidden), from the cells (B, S², M)."""
        if self.config.mi.pool == "mean":
            return torch.tanh(self.start(cells.mean(1)))
        return torch.tanh(self.initial(self._drop(torch.tanh(self.start(cells)).amax(1))))

    def encode_question(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """W x_t of each token (N, T, 3 · hidden); with attention followed by tanh(P u_t), (N, T, … + d).

        A question without tokens has one step, without input.
        """
        if not embeddings.shape[1]:
            embeddings = nn.functional.pad(embeddings, (0, 0, 0, 1))
        projected = self.encoder.gru.project(embeddings)
        if not self.attends:
            return projected
        states = self._drop(self.reader.states(embeddings, lengths))
        return torch.cat([projected, torch.tanh(self.attention_textual(states))], 2)

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        gru, hidden = self.encoder.gru, self.config.encoder.hidden
        steps = lengths.clamp(min=1)
        words, queries = question.tensor_split([3 * hidden], dim=2)
        terms = terms.index_select(0, images)
        h, attention, attended = terms, None, None
        if self.attends:
            h, keys = terms[:, 0, :hidden], terms[:, 1:, : self.config.joint]
            alpha = self._attend(keys, queries)
            cells = features.index_select(0, images).flatten(2).transpose(1, 2)
            attended = self.seen(self._drop(torch.bmm(alpha, cells)))
            last = alpha[torch.arange(len(steps), device=steps.device), steps - 1]
            attention = last.unflatten(1, features.shape[2:]).unsqueeze(1)
        blocks: list[HadamardProduct] = []
        for t in range(int(steps.max()) if len(steps) else 1):
            visual = torch.cat([gru.gates(h), gru.state(h)], 1)
            blocks.append(
                HadamardProduct.of(visual if attended is None else visual + attended[:, t], words[:, t])
            )
            h = torch.where((t < lengths).unsqueeze(1), self._next(blocks[-1], h), h)
        return HeadOutput(tuple(blocks), attention, self.classifier(self._drop(h)), steps=steps)

    def _next(self, block: HadamardProduct, h: Tensor) -> Tensor:
        """h' (N, hidden), from a step's factors and h."""
        gru, hidden = self.encoder.gru, self.config.encoder.hidden
        gates, rest = slice(0, 2 * hidden), slice(2 * hidden, None)
        x, u, product = block.textual, block.visual, block.product
        r, z = torch.sigmoid(gru.integrate(x[:, gates], u[:, gates], product[:, gates], gates)).chunk(2, 1)
        candidate = torch.tanh(gru.integrate(x[:, rest], r * u[:, rest], r * product[:, rest], rest))
        return (1 - z) * candidate + z * h

    def _attend(self, keys: Tensor, queries: Tensor) -> Tensor:
        """α of all steps (N, T, S²)."""
        # w (v ∘ m) = (w ∘ m) v avoids the product (N, T, S², d).
        weights = self.attention_output.weight * self._drop(queries)
        return torch.bmm(weights, keys.transpose(1, 2)).softmax(2)
