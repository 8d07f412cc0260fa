"""The question encoder: word embeddings and a skip-thought GRU (Kiros et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.config import EncoderConfig
from hvx.data.tokenize import PADDING
from hvx.device import to_device


class SkipThoughtGRU(nn.Module):
    """A GRU; its state after the last token is the question's vector q.

    With gates r = σ(W_r x + b_r + U_r h) and z = σ(W_z x + b_z + U_z h), the state becomes
    h' = (1 − z) h̃ + z h. The candidate h̃ has three variants: ``reset_before``,
    tanh(W x + b + U (r ∘ h)), as in Torch7; ``reset_after``, tanh(W x + b + r ∘ (U h)), as in
    skip-thoughts; and ``reset_after_bias``, tanh(W x + b + r ∘ (U h + c)), as in PyTorch's own GRU.

    With ``multiplicative`` integration (Wu et al. 2016, *On Multiplicative Integration with Recurrent Neural
    Networks*) each of the three sums W x + b + u, where u depends on the state, is replaced by
    α ∘ W x ∘ u + β₁ ∘ u + β₂ ∘ W x + b; α, β₁, β₂ and b are learned, starting at 1, 0.5, 0.5 and 0.

    Args:
        embedding: E.
        hidden: width of the state.
        candidate: ``reset_before``, ``reset_after`` or ``reset_after_bias``.
        integration: ``additive`` or ``multiplicative``.
    """

    def __init__(self, embedding: int, hidden: int, candidate: str, integration: str = "additive") -> None:
        super().__init__()
        self.candidate = candidate
        self.multiplicative = integration == "multiplicative"
        self.input = nn.Linear(embedding, 3 * hidden)
        """W and b of [r | z | h̃]."""
        self.gates = nn.Linear(hidden, 2 * hidden, bias=False)
        """U of [r | z]."""
        self.state = nn.Linear(hidden, hidden, bias=candidate == "reset_after_bias")
        """U of h̃, and its c."""
        for recurrent in (self.gates, self.state):
            for block in recurrent.weight.data.split(hidden):
                nn.init.orthogonal_(block)
        if self.multiplicative:
            self.alpha = nn.Parameter(torch.ones(3 * hidden))
            """α of [r | z | h̃]; likewise β₁ of the state and β₂ of the input."""
            self.beta_state = nn.Parameter(torch.full((3 * hidden,), 0.5))
            self.beta_input = nn.Parameter(torch.full((3 * hidden,), 0.5))
            nn.init.zeros_(self.input.bias)

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Encode questions.

        Args:
            embeddings: (N, T, E), padded on the right.
            lengths: (N) tokens of each question.

        Returns:
            q (N, hidden); zeros for a question without tokens.
        """
        states, rows = self._run(embeddings, lengths)
        return states.index_select(0, rows(lengths - 1))

    def states(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """The state after each token (N, T, hidden); beyond the last token, the last state."""
        states, rows = self._run(embeddings, lengths)
        steps = torch.arange(embeddings.shape[1], device=embeddings.device)
        return states[rows(torch.minimum(steps, lengths.unsqueeze(1) - 1))]

    def _run(self, embeddings: Tensor, lengths: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The states after all tokens (1 + ΣT, hidden), and a function that returns their rows.

        The questions are sorted by length, and step t computes only those with a token t. So one long
        question does not add padded steps to the others.

        Returns:
            The states, with the initial state, zero, in row 0; and a function from steps (N, …), −1 being
            before the first token, to rows of the states.
        """
        hidden = self.state.in_features
        order = lengths.argsort(descending=True, stable=True)
        steps = torch.arange(embeddings.shape[1], device=embeddings.device).unsqueeze(1)
        counts = (steps < lengths[order]).sum(1)
        # Without any token, one step with no questions, so that q stays connected to the embeddings.
        sizes = [count for count in counts.tolist() if count] or [0]
        h = embeddings.new_zeros(len(embeddings), hidden)
        states = [embeddings.new_zeros(1, hidden)]
        rank, step = (to_device(index, embeddings.device) for index in _token_indices(sizes))
        # split instead of a slice per step: the gradient of a slice has the size of all steps.
        for size, projected in zip(
            sizes, self.project(embeddings[order[rank], step]).split(sizes), strict=True
        ):
            h = self._step(projected, h if len(h) == size else h[:size])
            states.append(h)
        starts = 1 + counts.cumsum(0) - counts
        rank = order.argsort()

        def rows(steps: Tensor) -> Tensor:
            ranks = rank.view(-1, *[1] * (steps.ndim - 1))
            return torch.where(steps < 0, 0, starts[steps.clamp(min=0)] + ranks) if len(starts) else steps + 1

        return torch.cat(states), rows

    def project(self, embeddings: Tensor) -> Tensor:
        """W x (…, 3 · hidden) of embeddings (…, E); with additive integration, W x + b."""
        if self.multiplicative:
            return functional.linear(embeddings, self.input.weight)
        projected: Tensor = self.input(embeddings)
        return projected

    def _step(self, projected: Tensor, h: Tensor) -> Tensor:
        """h' (n, hidden) of the projected inputs (n, 3 · hidden) and h."""
        hidden = self.state.in_features
        x_gates, x_candidate = projected.split((2 * hidden, hidden), dim=1)
        gates, rest = slice(0, 2 * hidden), slice(2 * hidden, None)
        r, z = torch.sigmoid(self._integrated(x_gates, self.gates(h), gates)).chunk(2, dim=1)
        by_state = self.state(r * h) if self.candidate == "reset_before" else r * self.state(h)
        candidate = torch.tanh(self._integrated(x_candidate, by_state, rest))
        return (1 - z) * candidate + z * h

    def _integrated(self, by_input: Tensor, by_state: Tensor, part: slice) -> Tensor:
        """Input and state combined, for the part ``part`` of [r | z | h̃]."""
        if not self.multiplicative:
            return by_input + by_state
        return self.integrate(by_input, by_state, by_input * by_state, part)

    def integrate(self, by_input: Tensor, by_state: Tensor, product: Tensor, part: slice) -> Tensor:
        """α ∘ F + β₁ ∘ u + β₂ ∘ W x + b, F = W x ∘ u, for the part ``part`` of [r | z | h̃]."""
        alpha, beta_state, beta_input = self.alpha[part], self.beta_state[part], self.beta_input[part]
        return alpha * product + beta_state * by_state + beta_input * by_input + self.input.bias[part]


def _token_indices(sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Of each token, step after step: its question's rank by length, and its step.

    A mask as an index would make the host wait for the GPU.
    """
    step = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    rank = torch.cat([torch.arange(size) for size in sizes])
    return rank, step


class QuestionEncoder(nn.Module):
    """Rows of the word table → embeddings q_1 … q_T → the question's vector q."""

    def __init__(self, config: EncoderConfig, words: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words + 1, config.embedding, padding_idx=PADDING)
        self.gru = SkipThoughtGRU(config.embedding, config.hidden, config.candidate, config.integration)

    def embed(self, rows: Tensor) -> Tensor:
        """(N, T) rows → (N, T, E) embeddings, with respect to which Eq. 3 differentiates."""
        embedded: Tensor = self.table(rows)
        return embedded

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        encoded: Tensor = self.gru(embeddings, lengths)
        return encoded
