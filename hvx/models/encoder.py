"""The question encoder: word embeddings and a skip-thought GRU (Kiros et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hvx.config import EncoderConfig
from hvx.data.words import PADDING


class SkipThoughtGRU(nn.Module):
    """A GRU whose state after a question's last token is the question's vector q.

    With gates r = σ(W_r x + b_r + U_r h) and z = σ(W_z x + b_z + U_z h), the state becomes
    h' = (1 − z) h̃ + z h. The candidate h̃ exists in two conventions: ``reset_before``,
    tanh(W x + b + U (r ∘ h)), as in Torch7, and ``reset_after``, tanh(W x + b + r ∘ (U h)), as in
    skip-thoughts.
    """

    def __init__(self, embedding: int, hidden: int, candidate: str) -> None:
        super().__init__()
        self.candidate = candidate
        self.input = nn.Linear(embedding, 3 * hidden)
        """W and b of [r | z | h̃]."""
        self.gates = nn.Linear(hidden, 2 * hidden, bias=False)
        """U of [r | z]."""
        self.state = nn.Linear(hidden, hidden, bias=False)
        """U of h̃."""
        for recurrent in (self.gates, self.state):
            for block in recurrent.weight.data.split(hidden):
                nn.init.orthogonal_(block)

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Encode questions.

        Args:
            embeddings: (N, T, E), padded on the right.
            lengths: (N) tokens of each question.

        Returns:
            q (N, hidden); zeros for a question without tokens.
        """
        order, states = self._run(embeddings, lengths)
        if not states:  # zeros, with a gradient that is zero
            return self._start(embeddings) + 0 * embeddings.sum((1, 2)).unsqueeze(1)
        # A question's last state stands in the last step that it takes part in.
        ended = [len(state) for state in states] + [0]
        last = [state[after:] for state, after in zip(states, ended[1:], strict=True)]
        empty = self._start(embeddings)[ended[0] :]
        return torch.cat([*reversed(last), empty])[order.argsort()]

    def states(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """The state after each token (N, T, hidden); beyond a question's tokens that after its last."""
        order, states = self._run(embeddings, lengths)
        h, whole = self._start(embeddings), []
        for step in range(embeddings.shape[1]):
            if step < len(states):
                h = torch.cat([states[step], h[len(states[step]) :]])
            whole.append(h)
        if not states:  # as in ``forward``
            return h.unsqueeze(1) + 0 * embeddings.sum(2, keepdim=True)
        return torch.stack(whole, 1)[order.argsort()]

    def _start(self, embeddings: Tensor) -> Tensor:
        return embeddings.new_zeros(len(embeddings), self.state.in_features)

    def _run(self, embeddings: Tensor, lengths: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The questions in order of their lengths, the longest first, and the states after each step.

        A step computes those questions alone that have a token there, the first n of that order, so that a
        long question costs its batch no more than its own steps: states (n, hidden).
        """
        order = lengths.argsort(descending=True, stable=True)
        alive = (lengths.unsqueeze(1) > torch.arange(embeddings.shape[1], device=lengths.device)).sum(0)
        hidden = self.state.in_features
        # unbind: the gradient of a slice would fill all of (N, T, 3 · hidden) at each step.
        projected = self.input(embeddings[order]).unbind(1)
        h, states = self._start(embeddings), []
        for x, count in zip(projected, alive.tolist(), strict=True):
            if not count:
                break
            h, x = h[:count], x[:count]
            x_gates, x_candidate = x.split((2 * hidden, hidden), dim=1)
            r, z = torch.sigmoid(x_gates + self.gates(h)).chunk(2, dim=1)
            if self.candidate == "reset_before":
                candidate = torch.tanh(x_candidate + self.state(r * h))
            else:
                candidate = torch.tanh(x_candidate + r * self.state(h))
            h = (1 - z) * candidate + z * h
            states.append(h)
        return order, states


class QuestionEncoder(nn.Module):
    """Rows of the word table → embeddings q_1 … q_T → the question's vector q."""

    def __init__(self, config: EncoderConfig, words: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words + 1, config.embedding, padding_idx=PADDING)
        self.gru = SkipThoughtGRU(config.embedding, config.hidden, config.candidate)

    def embed(self, rows: Tensor) -> Tensor:
        """(N, T) rows → (N, T, E) embeddings, what Eq. 3 differentiates to."""
        embedded: Tensor = self.table(rows)
        return embedded

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        encoded: Tensor = self.gru(embeddings, lengths)
        return encoded
