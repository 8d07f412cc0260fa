"""Dual attention network for reasoning (r-DAN; Nam et al. 2017, *Dual Attention Networks*)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvx.config import ModelConfig
from hvx.models.base import HadamardHead, HadamardProduct, HeadOutput
from hvx.models.encoder import SkipThoughtGRU


class DAN(HadamardHead):
    """Attention over cells and over words, guided by a memory to which their products are added.

    The words' states u_t are the sums of the states of a forward and a backward GRU. m_0 = v_0 ∘ u_0, of
    the means of cells and states. Each of K steps attends to cells and to words by the memory, and
    m_k = m_{k−1} + v_k ∘ u_k, with v_k = tanh(P_k Σ α_i v_i) and u_k = Σ β_t u_t. m_K goes to the classifier.
    The blocks are the products of all steps, the first that of the means: V is v_k, Q is u_k.

    Args:
        config: sizes, ``dan``; d is the width of the attentions; the memory has the encoder's width.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped before each projection in training.
    """

    feature_weight_name = "visual.0.weight"

    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        encoder, d, steps = config.encoder, config.joint, range(config.dan.steps)
        self.from_the_end = SkipThoughtGRU(
            encoder.embedding, encoder.hidden, encoder.candidate, encoder.integration
        )
        self.visual = nn.ModuleList(nn.Linear(channels, encoder.hidden) for _ in (0, *steps))
        self.attention_visual = nn.ModuleList(nn.Linear(channels, d) for _ in steps)
        self.attention_textual = nn.ModuleList(nn.Linear(encoder.hidden, d) for _ in steps)
        self.memory_visual = nn.ModuleList(nn.Linear(encoder.hidden, d) for _ in steps)
        self.memory_textual = nn.ModuleList(nn.Linear(encoder.hidden, d) for _ in steps)
        # A bias would shift all logits equally.
        self.output_visual = nn.ModuleList(nn.Linear(d, 1, bias=False) for _ in steps)
        self.output_textual = nn.ModuleList(nn.Linear(d, 1, bias=False) for _ in steps)
        self.classifier = nn.Linear(encoder.hidden, answers)

    def feature_projections(self) -> Sequence[nn.Module]:
        return [*self.visual, *self.attention_visual]

    def image_terms(self, features: Tensor) -> Tensor:
        """tanh(W_k v_i) of each step, side by side, (B, S², K·d)."""
        cells = self._drop(features.flatten(2).transpose(1, 2))
        return torch.tanh(torch.cat([linear(cells) for linear in self.attention_visual], 2))

    def image_terms_vjp(self, features: Tensor, terms: Tensor, cotangent: Tensor) -> Tensor:
        weights = torch.cat([linear.get_parameter("weight") for linear in self.attention_visual])
        pulled = (cotangent * (1 - terms.square())) @ weights
        return pulled.transpose(1, 2).unflatten(2, features.shape[2:])

    def encode_question(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """The words' states u (N, T, hidden), zero beyond each question's tokens."""
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)
        mask = positions < lengths.unsqueeze(1)
        # Reverse each question but not its padding; the same indices reverse it back.
        reversed_positions = torch.where(mask, lengths.unsqueeze(1) - 1 - positions, positions).unsqueeze(2)
        backward = self.from_the_end.states(_gathered(embeddings, reversed_positions), lengths)
        states = self.encoder.gru.states(embeddings, lengths) + _gathered(backward, reversed_positions)
        return states * mask.unsqueeze(2)

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        states = self._drop(question)
        cells = features.index_select(0, images).flatten(2).transpose(1, 2)
        step_terms = terms.index_select(0, images).chunk(self.config.dan.steps, dim=2)
        mask = torch.arange(states.shape[1], device=states.device) < lengths.unsqueeze(1)
        mean = states.sum(1) / lengths.clamp(min=1).unsqueeze(1)
        blocks = [HadamardProduct.of(torch.tanh(self.visual[0](self._drop(cells.mean(1)))), mean)]
        memory, over_cells, over_words = blocks[0].product, [], torch.zeros_like(mask, dtype=states.dtype)
        for k in range(self.config.dan.steps):
            over_cells.append(self._attend_cells(k, step_terms[k], memory))
            pooled = torch.bmm(over_cells[-1].unsqueeze(1), cells).squeeze(1)
            visual = torch.tanh(self.visual[k + 1](self._drop(pooled)))
            over_words = self._attend_words(k, states, memory, mask)
            blocks.append(HadamardProduct.of(visual, torch.bmm(over_words.unsqueeze(1), states).squeeze(1)))
            memory = memory + blocks[-1].product
        attention = torch.stack(over_cells, 1).unflatten(2, features.shape[2:])
        return HeadOutput(tuple(blocks), attention, self.classifier(self._drop(memory)), over_words)

    def _attend_cells(self, k: int, terms: Tensor, memory: Tensor) -> Tensor:
        """α of step k + 1 (N, S²)."""
        by_memory = self._drop(torch.tanh(self.memory_visual[k](memory)))
        # w (v ∘ m) = (w ∘ m) v avoids the product (N, S², d).
        weights = self.output_visual[k].get_parameter("weight") * by_memory
        return torch.bmm(terms, weights.unsqueeze(2)).squeeze(2).softmax(1)

    def _attend_words(self, k: int, states: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """β of step k + 1 (N, T): a softmax over each question's tokens, zero beyond."""
        by_memory = torch.tanh(self.memory_textual[k](memory))
        # Only the tokens: in a batch with one long question most positions are padding.
        question = mask.nonzero()[:, 0]
        hidden = torch.tanh(self.attention_textual[k](states[mask])) * by_memory[question]
        scores = self.output_textual[k](self._drop(hidden)).squeeze(1)
        lowest = torch.finfo(scores.dtype).min  # not −∞: without tokens the softmax would be NaN
        logits = scores.new_full(mask.shape, lowest).masked_scatter(mask, scores)
        return logits.softmax(1) * mask


def _gathered(x: Tensor, positions: Tensor) -> Tensor:
    """x (N, T, E) at token ``positions`` (N, T, 1)."""
    return x.gather(1, positions.expand(-1, -1, x.shape[2]))
