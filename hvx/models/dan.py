"""Dual attention network for reasoning (r-DAN; Nam et al. 2017, *Dual Attention Networks*)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hvx.config import ModelConfig
from hvx.models.encoder import SkipThoughtGRU
from hvx.models.joint import Block, HadamardHead, Joint


class DAN(HadamardHead):
    """Attention over cells and over words, steered by a memory that grows by their product.

    The words' states u_t are those of a GRU and of one that reads from the end, added up. m_0 = v_0 ∘ u_0, of
    the means of cells and states. Each of K steps attends to cells and to words by what the memory holds, and
    m_k = m_{k−1} + v_k ∘ u_k, with v_k = tanh(P_k Σ α_i v_i) and u_k = Σ β_t u_t. m_K goes to the classifier.
    The blocks are the products of all steps, the first that of the means: V is v_k, Q is u_k.

    Args:
        config: sizes, ``dan``; d, here of the attentions; the memory is as wide as the encoder.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped ahead of each projection in training.
    """

    reads_features = "visual.0.weight"

    def __init__(
        self, config: ModelConfig, channels: int, words: int, answers: int, dropout: float = 0.0
    ) -> None:
        super().__init__(config, channels, words, dropout)
        encoder, d, steps = config.encoder, config.joint, range(config.dan.steps)
        self.from_the_end = SkipThoughtGRU(
            encoder.embedding, encoder.hidden, encoder.candidate, encoder.integration
        )
        self.visual = nn.ModuleList(nn.Linear(channels, encoder.hidden) for _ in (0, *steps))
        self.attention_visual = nn.ModuleList(nn.Linear(channels, d) for _ in steps)
        self.attention_textual = nn.ModuleList(nn.Linear(encoder.hidden, d) for _ in steps)
        self.memory_visual = nn.ModuleList(nn.Linear(encoder.hidden, d) for _ in steps)
        self.memory_textual = nn.ModuleList(nn.Linear(encoder.hidden, d) for _ in steps)
        # A bias would shift all logits alike.
        self.output_visual = nn.ModuleList(nn.Linear(d, 1, bias=False) for _ in steps)
        self.output_textual = nn.ModuleList(nn.Linear(d, 1, bias=False) for _ in steps)
        self.classifier = nn.Linear(encoder.hidden, answers)

    def readers(self) -> Sequence[nn.Module]:
        return [*self.visual, *self.attention_visual]

    def image_terms(self, features: Tensor) -> Tensor:
        """tanh(W_k v_i) of each step, side by side, (B, S², K·d)."""
        cells = self._drop(features.flatten(2).transpose(1, 2))
        return torch.tanh(torch.cat([linear(cells) for linear in self.attention_visual], 2))

    def pull_image_terms(self, features: Tensor, terms: Tensor, cotangent: Tensor) -> Tensor:
        weights = torch.cat([linear.get_parameter("weight") for linear in self.attention_visual])
        pulled = (cotangent * (1 - terms.square())) @ weights
        return pulled.transpose(1, 2).unflatten(2, features.shape[2:])

    def read(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """The words' states u (N, T, hidden), zero beyond each question's tokens."""
        places = torch.arange(embeddings.shape[1], device=embeddings.device)
        alive = places < lengths.unsqueeze(1)
        # A question turned round, its padding left where it is; turning it again brings it back.
        turned = torch.where(alive, lengths.unsqueeze(1) - 1 - places, places).unsqueeze(2)
        back = self.from_the_end.states(_taken(embeddings, turned), lengths)
        states = self.encoder.gru.states(embeddings, lengths) + _taken(back, turned)
        return states * alive.unsqueeze(2)

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> Joint:
        states = self._drop(question)
        cells = features.index_select(0, images).flatten(2).transpose(1, 2)
        own = terms.index_select(0, images).chunk(self.config.dan.steps, dim=2)
        alive = torch.arange(states.shape[1], device=states.device) < lengths.unsqueeze(1)
        mean = states.sum(1) / lengths.clamp(min=1).unsqueeze(1)
        blocks = [Block.of(torch.tanh(self.visual[0](self._drop(cells.mean(1)))), mean)]
        memory, seen, said = blocks[0].product, [], torch.zeros_like(alive, dtype=states.dtype)
        for k in range(self.config.dan.steps):
            seen.append(self._attend_cells(k, own[k], memory))
            pooled = torch.bmm(seen[-1].unsqueeze(1), cells).squeeze(1)
            visual = torch.tanh(self.visual[k + 1](self._drop(pooled)))
            said = self._attend_words(k, states, memory, alive)
            blocks.append(Block.of(visual, torch.bmm(said.unsqueeze(1), states).squeeze(1)))
            memory = memory + blocks[-1].product
        attention = torch.stack(seen, 1).unflatten(2, features.shape[2:])
        return Joint(tuple(blocks), attention, self.classifier(self._drop(memory)), said)

    def _attend_cells(self, k: int, own: Tensor, memory: Tensor) -> Tensor:
        """α of step k + 1 (N, S²)."""
        by_memory = self._drop(torch.tanh(self.memory_visual[k](memory)))
        # w (v ∘ m) = (w ∘ m) v: the product (N, S², d) need not be laid out.
        weights = self.output_visual[k].get_parameter("weight") * by_memory
        return torch.bmm(own, weights.unsqueeze(2)).squeeze(2).softmax(1)

    def _attend_words(self, k: int, states: Tensor, memory: Tensor, alive: Tensor) -> Tensor:
        """β of step k + 1 (N, T): a softmax over each question's own tokens, zero beyond."""
        by_memory = torch.tanh(self.memory_textual[k](memory))
        # The tokens alone, without the padding, which is most of a batch with one long question.
        question = alive.nonzero()[:, 0]
        hidden = torch.tanh(self.attention_textual[k](states[alive])) * by_memory[question]
        scores = self.output_textual[k](self._drop(hidden)).squeeze(1)
        lowest = torch.finfo(scores.dtype).min  # not −∞: a question without tokens has no softmax then
        logits = scores.new_full(alive.shape, lowest).masked_scatter(alive, scores)
        return logits.softmax(1) * alive


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """Along the tokens, x (N, T, E) at ``places`` (N, T, 1)."""
    return x.gather(1, places.expand(-1, -1, x.shape[2]))
