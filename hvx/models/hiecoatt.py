"""Hierarchical co-attention (Lu et al. 2016, *Hierarchical Question-Image Co-Attention for Visual Question
Answering*), in its parallel form: the network without a Hadamard product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvx.config import ModelConfig
from hvx.models.base import Head, HeadOutput

WINDOWS = (1, 2, 3)
"""Numbers of words in a phrase."""


class CoAttention(nn.Module):
    """Attention to cells and words by their affinity, on one level.

    C = tanh(Qᵀ W_b V); H^v = tanh(W_v V + (W_q Q) C), H^q = tanh(W_q Q + (W_v V) Cᵀ);
    a^v = softmax(w_hvᵀ H^v) over cells, a^q = softmax(w_hqᵀ H^q) over tokens.

    Args:
        width: d, of cells and words.
        hidden: k, of H^v and H^q.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # No biases, as in the paper; those of the outputs would shift all logits equally.
        self.affinity = nn.Linear(width, width, bias=False)
        self.visual = nn.Linear(width, hidden, bias=False)
        self.textual = nn.Linear(width, hidden, bias=False)
        self.output_visual = nn.Linear(hidden, 1, bias=False)
        self.output_textual = nn.Linear(hidden, 1, bias=False)

    def terms(self, cells: Tensor) -> Tensor:
        """W_b V and W_v V side by side, (B, S², d + k), of the cells (B, S², d)."""
        return torch.cat([self.affinity(cells), self.visual(cells)], 2)

    def forward(self, terms: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """a^v (N, S²) and a^q (N, T), zero beyond each question's tokens.

        Args:
            terms: ``terms`` of each question's image (N, S², d + k).
            words: (N, T, d), zero beyond each question's tokens, so that padding has no effect on C.
            mask: (N, T) bool, False for padding.
        """
        projected, visual = terms.split([words.shape[2], terms.shape[2] - words.shape[2]], 2)
        textual = self.textual(words)
        affinity = torch.tanh(torch.bmm(words, projected.transpose(1, 2)))  # C (N, T, S²)
        visual_hidden = torch.tanh(visual + torch.bmm(affinity.transpose(1, 2), textual))
        textual_hidden = torch.tanh(textual + torch.bmm(affinity, visual))
        logits = self.output_textual(textual_hidden).squeeze(2)
        lowest = torch.finfo(logits.dtype).min  # not −∞: without tokens the softmax would be NaN
        to_words = logits.masked_fill(~mask, lowest).softmax(1) * mask
        return self.output_visual(visual_hidden).squeeze(2).softmax(1), to_words


class HieCoAtt(Head):
    """Co-attention to cells and words on three levels of the question: words, phrases, question.

    Words are the embeddings. A phrase is the maximum, at each word, of tanh(W_n [q_t; …; q_{t+n−1}]) over
    windows n of 1, 2 and 3 words, zeros beyond the question. The question level consists of the states of a
    GRU over the phrases; the authors use an LSTM. Cells are V = tanh(W f_s). The answer is computed from the
    sums of what each level attends to: h^w = tanh(W_w (q̂^w + v̂^w)), h^p = tanh(W_p [q̂^p + v̂^p; h^w]),
    h^s = tanh(W_s [q̂^s + v̂^s; h^p]), p = softmax(W_h h^s). Image and question are never multiplied element
    by element, so there is no product that Eqs 2 and 3 could explain. The glimpses of ``attention`` are the
    levels' a^v; ``textual_attention`` is a^q of the question level, ``earlier_attention`` those before it.

    Args:
        config: sizes; d is the encoder's width, for embeddings and states; k, of the attentions, is
            ``joint``.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """

    feature_weight_name = "visual.weight"

    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        d = config.encoder.hidden
        self.visual = nn.Linear(channels, d)
        self.phrases = nn.ModuleList(nn.Linear(window * d, d) for window in WINDOWS)
        self.attend = nn.ModuleList(CoAttention(d, config.joint) for _ in range(3))
        self.levels = nn.ModuleList(nn.Linear(d if level == 0 else 2 * d, d) for level in range(3))
        self.classifier = nn.Linear(d, answers)

    def feature_projections(self) -> Sequence[nn.Module]:
        return [self.visual]

    def image_terms(self, features: Tensor) -> Tensor:
        """V, and W_b V and W_v V of each level, side by side: (B, S², d + 3 (d + k))."""
        cells = torch.tanh(self.visual(self._drop(features.flatten(2).transpose(1, 2))))
        dropped = self._drop(cells)
        return torch.cat([cells, *(level.terms(dropped) for level in self._attending())], 2)

    def encode_question(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Words, phrases, question (N, T, 3 · d), zero beyond each question's tokens."""
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)
        mask = (positions < lengths.unsqueeze(1)).unsqueeze(2)
        words = self._drop(embeddings) * mask
        phrases = self._phrases(words) * mask
        states = self.encoder.gru.states(self._drop(phrases), lengths) * mask
        return torch.cat([words, phrases, states], 2)

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        d, k = self.config.encoder.hidden, self.config.joint
        mask = torch.arange(question.shape[1], device=question.device) < lengths.unsqueeze(1)
        cells, *level_terms = terms.index_select(0, images).split([d] + 3 * [d + k], 2)
        over_cells: list[Tensor] = []
        over_words: list[Tensor] = []
        state: Tensor | None = None
        for level, attend in enumerate(self._attending()):
            words = question[:, :, level * d : (level + 1) * d]
            to_cells, to_words = attend(level_terms[level], self._drop(words), mask)
            joined = _weighted(to_words, words) + _weighted(to_cells, cells)
            over_cells.append(to_cells)
            over_words.append(to_words)
            inputs = joined if state is None else torch.cat([joined, state], 1)
            state = torch.tanh(self.levels[level](self._drop(inputs)))
        assert state is not None
        attention = torch.stack(over_cells, 1).unflatten(2, features.shape[2:])
        logits = self.classifier(self._drop(state))
        return HeadOutput(
            (), attention, logits, over_words[2], earlier_attention=torch.stack(over_words[:2], 1)
        )

    def _attending(self) -> list[CoAttention]:
        return [level for level in self.attend if isinstance(level, CoAttention)]

    def _phrases(self, words: Tensor) -> Tensor:
        """The maximum over windows of tanh(W_n [q_t; …; q_{t+n−1}]), of words (N, T, d)."""
        length = words.shape[1]
        padded = nn.functional.pad(words, (0, 0, 0, WINDOWS[-1] - 1))
        shifted = [padded[:, start : start + length] for start in range(WINDOWS[-1])]
        return torch.stack(
            [
                torch.tanh(linear(torch.cat(shifted[:window], 2)))
                for window, linear in zip(WINDOWS, self.phrases, strict=True)
            ]
        ).amax(0)


def _weighted(weights: Tensor, vectors: Tensor) -> Tensor:
    """Σ_i w_i x_i (N, d), from weights (N, I) and vectors (N, I, d)."""
    return torch.bmm(weights.unsqueeze(1), vectors).squeeze(1)
