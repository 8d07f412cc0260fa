"""Zero-shot classification: the label of an image, by a template such as "a photo of a {}"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hvx.adapters.dual.encoder import DualEncoder

_TEXTS = 64


@dataclass(frozen=True)
class Labels:
    """Labels, their texts, and the text tower's embeddings of them (K, d), of unit length."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    vectors: Tensor

    @classmethod
    def of(cls, encoder: DualEncoder, names: tuple[str, ...], template: str) -> Labels:
        """Labels filled into a template and encoded."""
        texts = tuple(template.replace("{}", name) for name in names)
        with torch.no_grad():
            parts = [
                encoder.text_tower(encoder.tokenizer(texts[start : start + _TEXTS]).ids.to(encoder.device))
                for start in range(0, len(texts), _TEXTS)
            ]
        return cls(names, texts, functional.normalize(torch.cat(parts), dim=-1))

    def probabilities(self, encoder: DualEncoder, v: Tensor) -> Tensor:
        """Probabilities of the labels: softmax(e^τ Σ v ∘ t) over the labels; images (N, d) → (N, K)."""
        return (encoder.scale * v @ self.vectors.t()).softmax(1)
