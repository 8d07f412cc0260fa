"""Eqs 2 and 3 for the factors of one product in an autograd graph, and the scores of what arrives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from hvx.capture.graph import IMAGE, WORDS, Guidance, Reach, guided_relus
from hvx.capture.watch import Factor, Product
from hvx.capture.words import Given, Words
from hvx.errors import HvxError
from hvx.explain.scores import heat_map, standardised, token_saliency, token_z


@dataclass(frozen=True)
class ProductExplanation:
    """Both explanations of one Hadamard product; all tensors detached.

    Attributes:
        visual: V (N, d); over a lattice as the model has it.
        textual: Q (N, d).
        product: F = Q ∘ V (N, d).
        image_gradient: Eq. 2, at the image as the model took it: (N, C, H, W), or features of any shape.
        word_gradient: Eq. 3, (N, T, E); (N, E) where the words are one vector a question.
        gradient: ∇̂v of Eq. 9 (N, C, H, W); None of an image that is no (N, C, H, W).
        heatmap: H (N, H, W); None as ``gradient``.
        saliency: Eq. 10 (N, T); None where the words are one vector a question.
        z: Eq. 11 (N, T), NaN where there is no token; None as ``saliency``.
        relus: ReLUs of the image's side that were guided.
        unguided: nonlinearities of the image's side that kept their true gradient, with their number.
        chosen: the product explained; None of factors that were handed over.
        products: all that were found.
    """

    visual: Tensor
    textual: Tensor
    product: Tensor
    image_gradient: Tensor
    word_gradient: Tensor
    gradient: Tensor | None
    heatmap: Tensor | None
    saliency: Tensor | None
    z: Tensor | None
    relus: int
    unguided: dict[str, int]
    chosen: Product | None
    products: list[Product]


@dataclass(frozen=True)
class Rules:
    """How gradients pass the image's side; see ``guided_relus``."""

    guided: bool = True
    other_activations: bool = False


@dataclass(frozen=True)
class Ends:
    """Where gradients go: the image, the word embeddings; and what each node between depends on."""

    image: GradientEdge
    words: Words
    reach: Reach


def explain_joint(
    visual: Tensor,
    textual: Tensor,
    *,
    image: Tensor,
    embeddings: Tensor,
    mask: Tensor | None = None,
    guided: bool = True,
    other_activations: bool = False,
) -> ProductExplanation:
    """Eqs 2 and 3 of factors that are at hand: those of a dual encoder, say, whose score is Σ (v ∘ t).

    Run the encoders with ``image.requires_grad_()`` and gradients on.

    Args:
        visual: V (N, d), computed from ``image``; for a dual encoder the normalised image embedding.
        textual: Q (N, d), computed from ``embeddings``.
        image: (N, C, H, W), or features of any shape (N, …).
        embeddings: the word embeddings (N, T, E) in Q's graph.
        mask: (N, T), true where there is a token; without, everywhere.
        guided: guided backpropagation through the ReLUs of the image's side; else the plain gradient.
        other_activations: let other activations of the image's side keep their true gradients.

    Raises:
        HvxError: shapes that do not belong together, a factor that does not lead back to its input, or an
            image's side that guided backpropagation is not defined for.
    """
    if visual.shape != textual.shape or visual.ndim != 2:
        raise HvxError(
            f"visual is {tuple(visual.shape)}, textual {tuple(textual.shape)}; both must be (N, d)"
        )
    for name, tensor in (("image", image), ("embeddings", embeddings)):
        if not tensor.requires_grad:
            raise HvxError(f"{name}: has no gradient; call {name}.requires_grad_() ahead of the encoders")
    words = Given(embeddings)
    reach = Reach(get_gradient_edge(image), words.makes)
    for name, tensor, flag, source in (
        ("visual", visual, IMAGE, "image"),
        ("textual", textual, WORDS, "embeddings"),
    ):
        if not reach.of(tensor) & flag:
            raise HvxError(
                f"{name}: no gradient leads from it to {source}; compute it from that tensor, gradients on"
            )
    factors = Factor.of(visual), Factor.of(textual)
    ends = Ends(get_gradient_edge(image), words, reach)
    return equations(*factors, ends, Rules(guided, other_activations), mask)


def equations(
    visual: Factor,
    textual: Factor,
    ends: Ends,
    rules: Rules,
    mask: Tensor | None,
    chosen: Product | None = None,
    products: Sequence[Product] = (),
) -> ProductExplanation:
    """Eqs 2, 3 and 9-11 for two factors, F = Q ∘ V held constant."""
    shape = chosen.shape if chosen else visual.values.shape
    v, q = (_in_product(factor.values, chosen) for factor in (visual, textual))
    product = v * q
    guidance = Guidance()
    way = (
        guided_relus(visual.edge.node, ends.reach, rules.other_activations)
        if rules.guided
        else nullcontext(guidance)
    )
    with way as guidance:
        to_image = torch.autograd.grad(
            [visual.edge], [ends.image], [_cotangent(visual.values, v, product)], retain_graph=True
        )[0]
    to_words = ends.words.gradient(textual.edge, _cotangent(textual.values, q, product))
    if chosen and chosen.joint:
        v, q, product = (t.expand(shape).flatten(1) for t in (v, q, product))
    if to_words.ndim == 3 and len(to_words) != len(product) and to_words.shape[1] == len(product):
        to_words = to_words.transpose(0, 1)  # a model that takes its tokens first, (T, N)
    gradient = standardised(to_image) if to_image.ndim == 4 else None
    heatmap = None if gradient is None else heat_map(gradient)
    saliency, z = (None, None) if to_words.ndim != 3 else _token_scores(to_words, mask)
    return ProductExplanation(
        v, q, product, to_image, to_words, gradient, heatmap, saliency, z,
        guidance.relus, guidance.unguided, chosen, list(products),
    )  # fmt: skip


def _in_product(values: Tensor, chosen: Product | None) -> Tensor:
    """A factor in the product's shape: of a sum of products (N, 1, d) × (N, d, 1), that is (N, d)."""
    return values.flatten(1) if chosen and chosen.operation == "bmm" else values


def _cotangent(factor: Tensor, values: Tensor, product: Tensor) -> Tensor:
    """X − F in the shape of the factor X; what was broadcast over a lattice is added up over it."""
    return (values - product).sum_to_size(values.shape).view(factor.shape)


def _token_scores(gradient: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Eqs 10 and 11, over the tokens of a mask: on the left, on the right or with gaps."""
    saliency = token_saliency(gradient)
    if mask is None:
        mask = torch.ones_like(saliency, dtype=torch.bool)
    if mask.shape != saliency.shape:
        raise HvxError(f"mask: {tuple(mask.shape)} given for tokens {tuple(saliency.shape)}")
    tokens_first = (~mask.bool()).to(saliency.device, torch.uint8).argsort(dim=1, stable=True)
    z = token_z(saliency.gather(1, tokens_first), mask.sum(1).to(saliency.device))
    return saliency, torch.empty_like(z).scatter(1, tokens_first, z)
