"""MCB (Fukui et al. 2016, *Multimodal Compact Bilinear Pooling for Visual Question Answering and Visual
Grounding*)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hvx.config import ModelConfig
from hvx.models.base import HadamardHead, HadamardProduct, HeadOutput


class CountSketch(nn.Module):
    """ψ: R^n → R^d, ψ(x)_k = Σ σ_i x_i over the i with h_i = k. It has no trained parameters.

    ``table`` (2, n) contains h (0 … d − 1) and σ (−1 or 1). It is drawn once and stored in the checkpoint.

    Args:
        inputs: n.
        outputs: d.
    """

    table: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        h, sign = torch.randint(outputs, (inputs,)), torch.randint(2, (inputs,)) * 2 - 1
        self.register_buffer("table", torch.stack([h, sign]))

    def problem(self) -> str | None:
        """What is wrong with the values of a loaded table; None if nothing is."""
        h, sign = self.table
        if bool(((h < 0) | (h >= self.outputs)).any()):
            return f"row 0 has values beyond 0 to {self.outputs - 1}"
        return None if bool((sign.abs() == 1).all()) else "row 1 has values other than -1 and 1"

    def forward(self, x: Tensor) -> Tensor:
        """(…, n) → (…, d)."""
        h, sign = self.table
        return x.new_zeros(*x.shape[:-1], self.outputs).index_add(-1, h, x * sign)


class MCB(HadamardHead):
    """Attention and joint by Hadamard products of the spectra of two count sketches.

    Φ(x, q) = FFT⁻¹(FFT(ψ(x)) ∘ FFT(ψ(q))) is the circular convolution of the sketches; its signed square root
    is divided by its L2 norm. The block is V = FFT(ψ(v̂)), Q = FFT(ψ(q)), F = Q ∘ V, complex. It is stored as
    real vectors of the same length and the same gradient: half of each spectrum (the other half is its
    conjugate), real and imaginary parts side by side, times the square root of how often each occurs in the
    whole. The layers after F have no effect on Eqs 2 and 3.

    The features of a cell have L2 norm 1, as in the authors' model. The question is encoded by hvx's encoder;
    the authors use a two-layer LSTM. On a GPU the order of summation in a sketch varies (``index_add``), so
    two passes are equal only up to rounding.

    Args:
        config: sizes, glimpses G, and ``mcb``; d, the sketches' width, is ``joint``.
        channels: M, channels of the features.
        words: size of the vocabulary.
        answers: A.
        dropout: share dropped of the question, and before the classifier, in training.
    """

    feature_weight_name = "visual_sketch.table"

    def build(self, config: ModelConfig, channels: int, answers: int) -> None:
        question, glimpses, hidden = config.encoder.hidden, config.glimpses, config.mcb.attention
        if glimpses:
            self.attention_visual_sketch = CountSketch(channels, config.joint)
            self.attention_textual_sketch = CountSketch(question, config.joint)
            self.attention_hidden = nn.Linear(config.joint, hidden)
            self.attention_output = nn.Linear(hidden, glimpses)
        self.visual_sketch = CountSketch(max(1, glimpses) * channels, config.joint)
        self.textual_sketch = CountSketch(question, config.joint)
        self.classifier = nn.Linear(config.joint, answers)

    @classmethod
    def channels_of(cls, columns: int, config: ModelConfig) -> int:
        return columns // max(1, config.glimpses)

    def feature_projections(self) -> Sequence[nn.Module]:
        """None: features with L2 norm 1 have no scale to fold."""
        return []

    def problem(self) -> str | None:
        sketches = ((name, part) for name, part in self.named_modules() if isinstance(part, CountSketch))
        problems = ((name, part.problem()) for name, part in sketches)
        return next((f"tensor '{name}.table': {problem}" for name, problem in problems if problem), None)

    def image_terms(self, features: Tensor) -> Tensor:
        """With attention the spectra of the cells' sketches (B, S², d/2 + 1, 2); without, the mean (B, M)."""
        cells = _of_unit_length(features.flatten(2).transpose(1, 2))
        if not self.config.glimpses:
            return cells.mean(1)
        return torch.view_as_real(torch.fft.rfft(self.attention_visual_sketch(cells)))

    def join(
        self, features: Tensor, terms: Tensor, images: Tensor, question: Tensor, lengths: Tensor
    ) -> HeadOutput:
        question = self._drop(question)
        attention, pooled = self._pool(question, features, terms, images)
        visual = torch.fft.rfft(self.visual_sketch(pooled))
        textual = torch.fft.rfft(self.textual_sketch(question))
        product = textual * visual
        block = HadamardProduct(self._real(visual), self._real(textual), self._real(product))
        return HeadOutput((block,), attention, self.classifier(self._drop(self._fused(product))))

    def _pool(
        self, question: Tensor, features: Tensor, terms: Tensor, images: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """α (N, G, S, S), and v̂ (N, G·M), the glimpses side by side; without attention their mean."""
        if not self.config.glimpses:
            return None, terms.index_select(0, images)
        spectra = torch.view_as_complex(terms.index_select(0, images))
        spectrum = torch.fft.rfft(self.attention_textual_sketch(question)).unsqueeze(1)
        hidden = torch.relu(self.attention_hidden(self._fused(spectrum * spectra)))
        attention = functional.softmax(self.attention_output(hidden).transpose(1, 2), dim=2)
        cells = _of_unit_length(features.flatten(2).transpose(1, 2))  # once per image, not per question
        pooled = torch.bmm(attention, cells.index_select(0, images)).flatten(1)
        return attention.unflatten(2, features.shape[-2:]), pooled

    def _fused(self, product: Tensor) -> Tensor:
        """Φ of its spectrum (…, d/2 + 1), its signed square root of L2 norm 1: (…, d)."""
        fused: Tensor = _SignedRoot.apply(torch.fft.irfft(product, n=self.config.joint))
        return fused

    def _real(self, spectrum: Tensor) -> Tensor:
        """Half a spectrum (N, d/2 + 1) as a real vector (N, d + 2) with the inner products of all of it."""
        counts = torch.full((spectrum.shape[-1],), 2.0, dtype=spectrum.real.dtype, device=spectrum.device)
        counts[0] = 1
        if self.config.joint % 2 == 0:
            counts[-1] = 1
        return torch.view_as_real(spectrum * counts.sqrt()).flatten(1)


def _of_unit_length(x: Tensor) -> Tensor:
    """x over its L2 norm along the last axis; zeros stay zeros, with a finite gradient."""
    squares = x.square().sum(-1, keepdim=True)
    return x / torch.where(squares == 0, 1, squares).sqrt()


class _SignedRoot(torch.autograd.Function):
    """y = sign(x) √|x|, divided by its L2 norm n along the last axis; zeros stay zeros.

    n² = Σ|x|, and ∂y/∂x = (1 − y yᵀ) / (2 n² |y|); where x is 0 the slope of the root is set to 1, to be
    finite. One function instead of several autograd steps, each of which would store a tensor for every grid
    cell.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        size = x.abs()
        square = size.sum(-1, keepdim=True)
        square = torch.where(square == 0, 1, square)
        root = size.div_(square).sqrt_().copysign_(x)
        ctx.save_for_backward(root, square)
        return root

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        root, square = ctx.saved_tensors
        along = (gradient.unsqueeze(-2) @ root.unsqueeze(-1)).squeeze(-1)
        result = torch.addcmul(gradient, root, along, value=-1)
        slope = root.abs().mul_(2 * square)
        return result.div_(torch.where(slope == 0, square.sqrt(), slope))
