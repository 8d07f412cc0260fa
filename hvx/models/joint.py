"""What every Hadamard model exposes to the explanation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Joint:
    """The joint of N questions (Eq. 6), d wide, with what surrounds it.

    Attributes:
        visual: V (N, d).
        textual: Q (N, d).
        product: F = Q ∘ V (N, d).
        attention: α (N, G, S, S), each glimpse summing to 1; None for a model without attention.
        logits: (N, A).
    """

    visual: Tensor
    textual: Tensor
    product: Tensor
    attention: Tensor | None
    logits: Tensor

    def detach(self) -> Joint:
        """The same values, cut from the graph that made them."""
        attention = None if self.attention is None else self.attention.detach()
        return Joint(
            self.visual.detach(),
            self.textual.detach(),
            self.product.detach(),
            attention,
            self.logits.detach(),
        )
