"""Zero-shot classification: which of some labels an image bears, by a template such as "a photo of a {}"."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hvx.adapters.dual.encoder import DualEncoder

_TEXTS = 64


@dataclass(frozen=True)
class Labels:
    """Labels, the text of each, and what the text tower makes of them, (K, d) of unit length."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    vectors: Tensor

    @classmethod
    def of(cls, encoder: DualEncoder, names: tuple[str, ...], template: str) -> Labels:
        """Labels put into a template, and read."""
        texts = tuple(template.replace("{}", name) for name in names)
        with torch.no_grad():
            parts = [
                encoder.text_tower(encoder.tokenizer(texts[start : start + _TEXTS]).ids.to(encoder.device))
                for start in range(0, len(texts), _TEXTS)
            ]
        return cls(names, texts, functional.normalize(torch.cat(parts), dim=-1))

    def probabilities(self, encoder: DualEncoder, v: Tensor) -> Tensor:
        """Each label's, of images: softmax(e^τ Σ v ∘ t) over the labels; (N, d) → (N, K)."""
        return (encoder.scale * v @ self.vectors.t()).softmax(1)
