"""A dual encoder, whoever built it: two towers, and where Eqs 2 and 3 are taken in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional

from hvx.adapters.dual.words import TextTokenizer
from hvx.capture.graph import Reach
from hvx.config import ImageConfig
from hvx.errors import HvxError

Rule = Literal["guided", "gradient"]


@dataclass(frozen=True)
class DualEncoder:
    """Two towers with a score Σ v ∘ t, where v and t are what they put out, divided by its L2 norm.

    Attributes:
        name: for errors.
        network: holds both towers, in evaluation mode.
        image: how a photograph becomes the image tower's input.
        image_tower: (B, C, H, W) → (B, d), before normalization.
        text_tower: ids (N, L) → (N, d), before normalization.
        tokenizer: makes the ids.
        embeddings: the module that looks up the token embeddings (N, L, E), called once by the text tower.
        patches: the module that puts out the patches' embeddings (B, E, h, w), called once by the image
            tower: Eq. 2 is the true gradient there. None: guided backpropagation to the pixels.
        scale: e^τ.
        bias: b.
        sigmoid: the probability of a pair is sigmoid(e^τ Σ v ∘ t + b), as SigLIP's; else the score of a pair
            is its cosine similarity, and only a softmax over several texts makes probabilities.
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
    """False: the true gradient at the pixels, where there are no patches."""

    @property
    def rule(self) -> Rule:
        """How gradients pass the image tower."""
        return "guided" if self.guided and self.patches is None else "gradient"

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device


@dataclass(frozen=True)
class Branch:
    """What a tower made of some rows, with its graph.

    Attributes:
        vectors: v or t, (N, d), of unit length.
        source: the leaf where gradients arrive: pixels, patches' embeddings, or token embeddings.
    """

    vectors: Tensor
    source: Tensor

    def pulled(self, cotangent: Tensor) -> Tensor:
        """A cotangent at ``vectors`` as the gradient at ``source``."""
        return torch.autograd.grad(self.vectors, self.source, cotangent, retain_graph=True)[0]

    @property
    def reach(self) -> Reach:
        """Which nodes of the graph lead back to ``source``, taken for the image."""
        node = get_gradient_edge(self.source).node
        return Reach(lambda each: each is node, lambda each: False)


def image_branch(encoder: DualEncoder, pixels: Tensor) -> Branch:
    """v of images (B, C, H, W), differentiable to the pixels, or to the patches' embeddings."""
    if encoder.patches is None:
        source = pixels.detach().clone().requires_grad_()
        with torch.enable_grad():
            return Branch(functional.normalize(encoder.image_tower(source), dim=-1), source)
    return _behind(encoder, encoder.patches, encoder.image_tower, pixels)


def text_branch(encoder: DualEncoder, ids: Tensor) -> Branch:
    """t of texts (N, L), differentiable to the token embeddings (N, L, E)."""
    return _behind(encoder, encoder.embeddings, encoder.text_tower, ids)


def _behind(
    encoder: DualEncoder, module: nn.Module, tower: Callable[[Tensor], Tensor], given: Tensor
) -> Branch:
    """A tower's output, differentiable to what one of its modules puts out."""
    found: list[Tensor] = []

    def cut(module: nn.Module, args: object, out: Tensor) -> Tensor:
        found.append(out.detach().requires_grad_())
        return found[-1].clone()  # a leaf may not be written to in place

    handle = module.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            vectors = functional.normalize(tower(given), dim=-1)
    finally:
        handle.remove()
    if len(found) != 1:
        raise HvxError(
            f"{encoder.name}: {type(module).__name__} ran {len(found)} times in a tower; expected once"
        )
    return Branch(vectors, found[0])
