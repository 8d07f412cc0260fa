"""A dual encoder of any library: two towers, and where Eqs 2 and 3 are taken in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional

from hvx.adapters.dual.words import TextTokenizer
from hvx.capture.graph import Dependencies
from hvx.config import ImageConfig
from hvx.errors import HvxError

Rule = Literal["guided", "gradient"]


@dataclass(frozen=True)
class DualEncoder:
    """Two towers with a score Σ v ∘ t, where v and t are their outputs, normalized to unit length.

    Attributes:
        name: for errors.
        network: contains both towers, in evaluation mode.
        image: how a photograph becomes the image tower's input.
        image_tower: (B, C, H, W) → (B, d), before normalization.
        text_tower: ids (N, L) → (N, d), before normalization.
        tokenizer: makes the ids.
        embeddings: the module that looks up the token embeddings (N, L, E), called once by the text tower.
        patches: the module that returns the patch embeddings (B, E, h, w), called once by the image
            tower: Eq. 2 is the true gradient there. If None, guided backpropagation to the pixels.
        scale: e^τ.
        bias: b.
        sigmoid: the probability of a pair is sigmoid(e^τ Σ v ∘ t + b), as in SigLIP; else the score of a pair
            is its cosine similarity, and only a softmax over several texts gives probabilities.
    """

    name: str
    network: nn.Module
    image: ImageConfig
    image_tower: Callable[[Tensor], Tensor]
    text_tower: Callable[[Tensor], Tensor]
    tokenizer: TextTokenizer
    embeddings: nn.Module
    patches: nn.Module | None
    scale: float
    bias: float = 0.0
    sigmoid: bool = False
    guided: bool = True
    """If False and there are no patches, the true gradient at the pixels."""

    @property
    def rule(self) -> Rule:
        """How gradients pass the image tower."""
        return "guided" if self.guided and self.patches is None else "gradient"

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device


@dataclass(frozen=True)
class Branch:
    """A tower's output for some rows, with its graph.

    Attributes:
        vectors: v or t, (N, d), of unit length.
        source: the leaf where gradients arrive: pixels, patch embeddings, or token embeddings.
    """

    vectors: Tensor
    source: Tensor

    def pulled(self, cotangent: Tensor) -> Tensor:
        """Cotangent at ``vectors`` → gradient at ``source``."""
        return torch.autograd.grad(self.vectors, self.source, cotangent, retain_graph=True)[0]

    @property
    def reach(self) -> Dependencies:
        """The dependencies of the graph's nodes, with ``source`` as the image."""
        node = get_gradient_edge(self.source).node
        return Dependencies(lambda candidate: candidate is node, lambda candidate: False)


def image_branch(encoder: DualEncoder, pixels: Tensor) -> Branch:
    """v of images (B, C, H, W), differentiable with respect to the pixels or the patch embeddings."""
    if encoder.patches is None:
        source = pixels.detach().clone().requires_grad_()
        with torch.enable_grad():
            return Branch(functional.normalize(encoder.image_tower(source), dim=-1), source)
    return _cut_branch(encoder, encoder.patches, encoder.image_tower, pixels)


def text_branch(encoder: DualEncoder, ids: Tensor) -> Branch:
    """t of texts (N, L), differentiable with respect to the token embeddings (N, L, E)."""
    return _cut_branch(encoder, encoder.embeddings, encoder.text_tower, ids)


def _cut_branch(
    encoder: DualEncoder, module: nn.Module, tower: Callable[[Tensor], Tensor], inputs: Tensor
) -> Branch:
    """A tower's output, differentiable with respect to the output of one of its modules."""
    outputs: list[Tensor] = []

    def detach(module: nn.Module, args: object, out: Tensor) -> Tensor:
        outputs.append(out.detach().requires_grad_())
        return outputs[-1].clone()  # a leaf may not be written to in place

    handle = module.register_forward_hook(detach)
    try:
        with torch.enable_grad():
            vectors = functional.normalize(tower(inputs), dim=-1)
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise HvxError(
            f"{encoder.name}: {type(module).__name__} ran {len(outputs)} times in a tower; expected once"
        )
    return Branch(vectors, outputs[0])
