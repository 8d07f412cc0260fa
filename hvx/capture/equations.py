"""Eqs 2 and 3 for the factors of one product in an autograd graph, and the scores of the gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from hvx.capture.factors import Form, vectors
from hvx.capture.fused import FusedCNN
from hvx.capture.graph import IMAGE, WORDS, Dependencies, Guidance, guided_relus
from hvx.capture.records import Factor, RecordedProduct
from hvx.capture.result import ProductExplanation
from hvx.capture.words import EmbeddingTensor, Words
from hvx.errors import HvxError
from hvx.explain.scores import token_saliency, token_z

_CHANNELS = 4
"""Largest number of channels of pixels."""


RuleName = Literal["guided", "gradient"]
CotangentName = Literal["joint", "score"]
Reshape = Callable[[Tensor], Tensor] | tuple[int, int]


def rule_of(rule: RuleName | None, guided: bool | None) -> RuleName | None:
    """The rule; ``guided`` is the older argument.

    Raises:
        HvxError: both are given.
    """
    if guided is None:
        return rule
    if rule is not None:
        raise HvxError("guided: rule is given, too; pass rule alone")
    warnings.warn("guided= is now rule='guided' or rule='gradient'", DeprecationWarning, stacklevel=3)
    return "guided" if guided else "gradient"


@dataclass(frozen=True)
class BackwardRule:
    """How gradients pass the image branch, and how they become a map; see ``explain_product``."""

    guided: bool
    other_activations: bool
    reshape: Reshape | None = None
    cotangent: CotangentName = "joint"

    @classmethod
    def of(
        cls,
        rule: RuleName | None,
        image: Tensor | None,
        other_activations: bool,
        reshape: Reshape | None = None,
        cotangent: CotangentName = "joint",
    ) -> BackwardRule:
        """The requested rule; if None, guided for pixels, plain for features (only a head's ReLUs follow).

        Raises:
            HvxError: there is no such rule, or no such cotangent.
        """
        if cotangent not in ("joint", "score"):
            raise HvxError(f"cotangent: {cotangent!r} given; expected 'joint' or 'score'")
        if rule not in (None, "guided", "gradient"):
            raise HvxError(f"rule: {rule!r} given; expected 'guided' or 'gradient'")
        pixels = image is not None and image.ndim == 4 and image.shape[1] <= _CHANNELS
        guided = pixels if rule is None else rule == "guided"
        return cls(guided, other_activations, reshape, cotangent)

    def map(self, gradient: Tensor) -> Tensor | None:
        """Eq. 2 as (N, C, H, W); None if the shape is another and there is no ``reshape``.

        Raises:
            HvxError: ``reshape`` returns another shape.
        """
        if self.reshape is None:
            return gradient if gradient.ndim == 4 else None
        grid = self.reshape(gradient) if callable(self.reshape) else _grid(gradient, *self.reshape)
        if not isinstance(grid, Tensor) or grid.ndim != 4 or len(grid) != len(gradient):
            shape = tuple(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
            raise HvxError(f"reshape: made {shape} of {tuple(gradient.shape)}; expected (N, C, H, W)")
        return grid


def _grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """Patch tokens (N, K, E) as (N, E, H, W); tokens before the patches, such as a class token, are dropped.

    Raises:
        HvxError: there are fewer tokens than patches.
    """
    if tokens.ndim != 3 or tokens.shape[1] < height * width:
        raise HvxError(
            f"reshape: ({height}, {width}) given for a gradient {tuple(tokens.shape)}; it must be "
            f"(N, K, E), K at least {height * width}"
        )
    return tokens[:, tokens.shape[1] - height * width :].transpose(1, 2).unflatten(2, (height, width))


@dataclass(frozen=True)
class GradientTargets:
    """Targets of the gradients: the image and the word embeddings; and what each node depends on.

    Attributes:
        image: the image's edge.
        words: the word embeddings.
        reach: what a node depends on.
        images: B, rows of the image.
        questions: N; if it is not B, several questions are about one image.
        fused: the nodes that made V's parts → the fast engine for their CNN; None if there is none.
    """

    image: GradientEdge
    words: Words
    reach: Dependencies
    images: int
    questions: int
    fused: Callable[[list[Node]], FusedCNN | None] = lambda nodes: None


def explain_joint(
    visual: Tensor,
    textual: Tensor,
    *,
    image: Tensor,
    embeddings: Tensor,
    mask: Tensor | None = None,
    rule: RuleName | None = None,
    other_activations: bool = False,
    reshape: Reshape | None = None,
    guided: bool | None = None,
    cotangent: CotangentName = "joint",
) -> ProductExplanation:
    """Eqs 2 and 3 of two given factors, such as those of a dual encoder, whose score is Σ (v ∘ t).

    Run the encoders with ``image.requires_grad_()`` and gradients on.

    Args:
        visual: V (N, d), computed from ``image``; for a dual encoder the normalized image embedding.
        textual: Q (N, d), computed from ``embeddings``.
        image: (N, C, H, W), or features of any shape (N, …).
        embeddings: the word embeddings (N, T, E) in Q's graph.
        mask: (N, T), true where there is a token; if None, everywhere.
        rule: "guided": guided backpropagation through the ReLUs of the image branch; "gradient": the plain
            gradient. If None, guided if ``image`` is pixels: (N, C, H, W), C at most 4.
        other_activations: let other activations of the image branch keep their true gradients.
        reshape: makes a map (N, C, H, W) of a gradient at tokens (N, K, E); or (H, W) of the patches.
        guided: older name of ``rule``: True for "guided", False for "gradient".
        cotangent: "joint": V − F in Eq. 2, Q − F in Eq. 3; "score": Q and V, those of the score ΣF.

    Raises:
        HvxError: the shapes do not match, a factor does not depend on its input, or guided backpropagation
            is not defined for the image branch.
    """
    if visual.shape != textual.shape or visual.ndim != 2:
        raise HvxError(
            f"visual is {tuple(visual.shape)}, textual {tuple(textual.shape)}; both must be (N, d)"
        )
    for name, tensor in (("image", image), ("embeddings", embeddings)):
        if not tensor.requires_grad:
            raise HvxError(f"{name}: has no gradient; call {name}.requires_grad_() before the encoders")
    words = EmbeddingTensor(embeddings)
    edge = get_gradient_edge(image)
    reach = Dependencies(lambda node: node is edge.node, words.makes)
    for name, tensor, flag, source in (
        ("visual", visual, IMAGE, "image"),
        ("textual", textual, WORDS, "embeddings"),
    ):
        if not reach.of(tensor) & flag:
            raise HvxError(
                f"{name}: no gradient leads from it to {source}; compute it from that tensor, gradients on"
            )
    part = Part(Factor(visual), Factor(textual), tuple(visual.shape), 0)
    ends = GradientTargets(edge, words, reach, len(image), len(visual))
    rules = BackwardRule.of(rule_of(rule, guided), image, other_activations, reshape, cotangent)
    return equations([part], ends, rules, mask, image=image)


@dataclass(frozen=True)
class Part:
    """The factors of one product of a joint.

    Attributes:
        visual: V.
        textual: Q.
        shape: of F.
        rows: the axis of the questions in F; None if F has no vector for each question.
    """

    visual: Factor
    textual: Factor
    shape: tuple[int, ...]
    rows: int | None

    @property
    def values(self) -> tuple[Tensor, Tensor, Tensor]:
        """V and Q in a shape that broadcasts to F's, and F; all (N, d) for a sum (N, 1, d) × (N, d, 1)."""
        v, q = self.visual.values, self.textual.values
        if v.ndim == 3 and len(self.shape) == 2:
            v, q = v.flatten(1), q.flatten(1)
        return v, q, v * q


def equations(
    parts: Sequence[Part],
    ends: GradientTargets,
    rules: BackwardRule,
    mask: Tensor | None,
    joined: Sequence[RecordedProduct] = (),
    image: Tensor | None = None,
    **about: Any,
) -> ProductExplanation:
    """Eqs 2, 3 and 9-11 for the products of one joint, F = Q ∘ V held constant.

    Args:
        about: other attributes of the explanation.
    """
    to_image, guidance = image_gradient(parts, ends, rules)
    to_words = _to_words(parts, ends, rules.cotangent)
    if to_words.ndim == 3 and len(to_words) != ends.questions == to_words.shape[1]:
        to_words = to_words.transpose(0, 1)  # a model that takes its tokens first, (T, N)
    if to_words.ndim == 3 and len(to_words) != ends.questions:
        raise HvxError(
            f"words: embeddings of {len(to_words)} rows found for {ends.questions} questions; name a module "
            "that makes them (N, T, E), or (N, E) for each token"
        )
    _warn_if_degenerate("Eq. 2", "image", to_image)
    _warn_if_degenerate("Eq. 3", "words", to_words)
    # The factors share the model's memory, which the caller may write to afterwards.
    v, q, product = (
        torch.cat(side, -1) if len(side) > 1 else side[0].clone() for side in _factors(parts, ends, joined)
    )
    saliency, z = (None, None) if to_words.ndim != 3 else _token_scores(to_words, mask)
    attributes = {"products": [], "output": None, "attention": None} | about
    return ProductExplanation(
        visual=v, textual=q, product=product, image_gradient=to_image, word_gradient=to_words,
        image_map=rules.map(to_image), saliency=saliency, z=z,
        rule="guided" if rules.guided else "gradient", relus=guidance.relus, unguided=guidance.unguided,
        chosen=joined[-1].product if joined else None, joined=[record.product for record in joined],
        image=image, **attributes,
    )  # fmt: skip


def image_gradient(
    parts: Sequence[Part], ends: GradientTargets, rules: BackwardRule
) -> tuple[Tensor, Guidance]:
    """Eq. 2 by a rule, a row for each question, and the activations that the rule found."""
    with _rule(parts, ends, rules) as guidance:
        return _to_image(parts, ends, rules), guidance


def _rule(parts: Sequence[Part], ends: GradientTargets, rules: BackwardRule) -> Any:
    """The rule by which gradients pass the image branch, as a context."""
    if not rules.guided:
        return nullcontext(Guidance())
    return guided_relus([part.visual.edge.node for part in parts], ends.reach, rules.other_activations)


def _to_image(parts: Sequence[Part], ends: GradientTargets, rules: BackwardRule) -> Tensor:
    """Eq. 2, a row for each question: the sum over all parts, since they share the image."""
    kind = rules.cotangent
    edges = [part.visual.edge for part in parts]
    if ends.questions == ends.images:
        return _vjp(edges, ends.image, [_cotangent(p, 0, kind) for p in parts])
    fused = ends.fused([edge.node for edge in edges]) if rules.guided else None
    rows = []
    for question in range(ends.questions):
        cotangents = [_cotangent(p, 0, kind, _row_mask(p, question)) for p in parts]
        if fused is not None:
            rows.append(fused.image_gradient(edges, cotangents)[0])
        else:
            rows.append(_vjp(edges, ends.image, cotangents).sum(0))  # zero for other images
    return torch.stack(rows)


def _to_words(parts: Sequence[Part], ends: GradientTargets, kind: CotangentName) -> Tensor:
    """Eq. 3."""
    cotangents = [_cotangent(p, 1, kind) for p in parts]
    return ends.words.gradient([part.textual.edge for part in parts], cotangents)


def _vjp(edges: list[GradientEdge], image: GradientEdge, cotangents: list[Tensor]) -> Tensor:
    return torch.autograd.grad(edges, [image], cotangents, retain_graph=True)[0]


def _row_mask(part: Part, question: int) -> Tensor:
    """1 for the entries of F that belong to a question, else 0."""
    assert part.rows is not None
    sizes = [size if axis == part.rows else 1 for axis, size in enumerate(part.shape)]
    chosen = torch.arange(sizes[part.rows], device=part.visual.values.device) == question
    return chosen.view(sizes)


def _cotangent(part: Part, side: int, kind: CotangentName, rows: Tensor | None = None) -> Tensor:
    """Cotangent at V (side 0) or Q (1): X − F, or for the score ΣF the other factor.

    It has the shape of the factor X; it is summed over the axes that X was broadcast along.
    """
    *factors, product = part.values
    factor, other = factors[side], factors[1 - side]
    cotangent = factor - product if kind == "joint" else other.expand_as(product)
    if rows is not None:
        cotangent = cotangent * rows
    original = (part.visual, part.textual)[side].values
    return cotangent.sum_to_size(factor.shape).view(original.shape)


def _factors(
    parts: Sequence[Part], ends: GradientTargets, joined: Sequence[RecordedProduct]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """V, Q and F of each part, (N, d) if the products are vectors."""
    sides: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    vector = all(record.product.form is not Form.LATTICE for record in joined)
    for part in parts:
        for side, values in zip(sides, part.values, strict=True):
            side.append(vectors(values, part.shape, ends.questions) if vector else values)
    return sides


def _warn_if_degenerate(equation: str, name: str, gradient: Tensor) -> None:
    """Warn of questions whose gradient is 0 everywhere or not finite."""
    least, most = gradient.detach().flatten(1).aminmax(dim=1)  # both NaN if the row holds a NaN
    for bad, problem in (
        (~(least.isfinite() & most.isfinite()), "NaN or infinite"),
        ((least == 0) & (most == 0), f"0 everywhere: it says nothing about the {name}"),
    ):
        if bad.any():
            subject = "all questions" if bad.all() else f"questions {bad.nonzero().flatten().tolist()[:10]}"
            warnings.warn(f"{equation} of {subject} is {problem}", UserWarning, stacklevel=2)


def _token_scores(gradient: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Eqs 10 and 11 over the tokens of a mask, which may be padded left, right or in between."""
    saliency = token_saliency(gradient)
    if mask is None:
        mask = torch.ones_like(saliency, dtype=torch.bool)
    if mask.shape != saliency.shape:
        raise HvxError(f"mask: {tuple(mask.shape)} given for tokens {tuple(saliency.shape)}")
    tokens_first = (~mask.bool()).to(saliency.device, torch.uint8).argsort(dim=1, stable=True)
    z = token_z(saliency.gather(1, tokens_first), mask.sum(1).to(saliency.device))
    return saliency, torch.empty_like(z).scatter(1, tokens_first, z)
