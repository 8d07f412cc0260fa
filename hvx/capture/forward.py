"""A forward pass of a foreign model, kept with its graph: its products, one chosen, and explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, allow_mutation_on_saved_tensors

from hvx.capture.attention import attention_of
from hvx.capture.choice import Choice
from hvx.capture.differentiable import Differentiable
from hvx.capture.equations import (
    CotangentName,
    Ends,
    Part,
    Reshape,
    RuleName,
    Rules,
    equations,
    image_gradient,
)
from hvx.capture.fused import WORTH, FusedCNN, fused_cnn
from hvx.capture.graph import WORDS, Reach
from hvx.capture.image import InputImage, ModuleImage
from hvx.capture.inputs import Inputs, rebuilt, replaced
from hvx.capture.records import Product, Seen
from hvx.capture.result import ProductExplanation
from hvx.capture.untouched import untouched
from hvx.capture.visual import oriented
from hvx.capture.watch import Watch, watching
from hvx.capture.words import Given, LookedUp, MadeBy, Words
from hvx.errors import HvxError

_ONE_AT_A_TIME = RLock()
"""What PyTorch switches for a capture, hooks and saved tensors, it switches for the whole process."""


@dataclass
class ForwardPass:
    """A forward pass with its graph: list its products, choose, explain, as often as one likes.

    Made by ``forward_pass``; it can be used within that function's ``with`` block.

    Attributes:
        products: the products of image and words, attentions among them, in the order of the forward.
        output: what the model returned, detached.
    """

    model: nn.Module
    watch: Watch = field(repr=False)
    image: GradientEdge = field(repr=False)
    images: int
    given: Tensor | None = field(repr=False)
    words: Words = field(repr=False)
    tokens: int | None
    reach: Reach = field(repr=False)
    choice: Choice = field(repr=False)
    output: Any = field(repr=False)
    open: bool = True

    @property
    def products(self) -> list[Product]:
        """The products of image and words, in the order of the forward."""
        return [seen.product for seen in self.watch.seen]

    def explain(
        self,
        product: int | str | Sequence[str] | None = None,
        *,
        visual: str | None = None,
        mask: Tensor | None = None,
        rule: RuleName | None = None,
        other_activations: bool = False,
        reshape: Reshape | None = None,
        cotangent: CotangentName = "joint",
    ) -> ProductExplanation:
        """Explain one joint; the arguments, errors and warnings are those of ``explain_product``."""
        joined = self.choice.default(visual) if product is None else self.choice.one(product)
        rules = Rules.of(rule, self.given, other_activations, reshape, cotangent)
        return self._explained(joined, mask, visual, rules)

    def explain_each(
        self,
        products: Sequence[int | str | Sequence[str]] | None = None,
        *,
        visual: str | None = None,
        mask: Tensor | None = None,
        rule: RuleName | None = None,
        other_activations: bool = False,
        reshape: Reshape | None = None,
        cotangent: CotangentName = "joint",
    ) -> list[ProductExplanation]:
        """Explain several products, each by itself; the arguments are ``explain_products``'."""
        if products is None:
            chosen = [[each] for each in self.choice.candidates(visual)]
        else:
            chosen = [self.choice.one(each) for each in products]
        rules = Rules.of(rule, self.given, other_activations, reshape, cotangent)
        return [self._explained(each, mask, visual, rules) for each in chosen]

    def image_gradient(self, names: Sequence[str], visual: str | None, rules: Rules) -> Tensor:
        """Eq. 2 alone (B, C, H, W), of products of these names; ``visual``, ``rules`` as of ``explain``."""
        joined = self.choice.one(list(names))
        return image_gradient(*self._parts(joined, visual), rules)[0]

    def _explained(
        self, joined: list[Seen], mask: Tensor | None, visual: str | None, rules: Rules
    ) -> ProductExplanation:
        parts, ends = self._parts(joined, visual)
        nodes = [part.visual.edge.node for part in parts]
        attention = attention_of(nodes, self.watch.softmaxes, ends.questions, self.tokens)
        return equations(
            parts, ends, rules, mask, joined, self.given,
            products=self.products, output=self.output, attention=attention,
        )  # fmt: skip

    def _parts(self, joined: list[Seen], visual: str | None) -> tuple[list[Part], Ends]:
        """The factors of a joint, and where their gradients go."""
        if not self.open:
            raise HvxError("the forward pass is over: explain within the with block of forward_pass")
        questions, images = self.watch.questions, self.images
        joined = [oriented(each, visual, self.watch) for each in joined]
        for each in joined:
            _check_rows(each, questions, images)
        parts = [Part(each.visual, each.textual, each.product.shape, each.rows) for each in joined]
        return parts, Ends(self.image, self.words, self.reach, images, questions, self._fused)

    def _fused(self, visual: list[Node]) -> FusedCNN | None:
        """The fast engine for the CNN, where it pays."""
        if self.given is None or not self.watch.of_image:
            return None
        return fused_cnn(self.watch.of_image, visual, self.given, self.reach)


def _check_rows(seen: Seen, questions: int, images: int) -> None:
    shape = seen.product.shape
    if not shape or (shape[0] % questions and seen.rows is None):
        raise HvxError(
            f"product {seen.product}: {shape[:1]} rows, {questions} questions: which row belongs to "
            "which question cannot be told"
        )
    if questions != images and seen.rows is None:
        raise HvxError(
            f"product {seen.product}: it has no row for each of the {questions} questions on "
            f"{images} image(s); repeat the image for each question"
        )


@contextmanager
def forward_pass(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor | str | nn.Module,
    words: Tensor | str | nn.Module,
    kwargs: Mapping[str, Any] | None = None,
    through_no_grad: bool = False,
) -> Iterator[ForwardPass]:
    """Run a model's forward once and keep its graph; after the ``with`` block the model is as it was.

    The arguments, and what is raised, are those of ``explain_product``.
    """
    model, call = _callable(model)
    _check(image, words)
    with _ONE_AT_A_TIME, ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(allow_mutation_on_saved_tensors())  # a product in place writes over its factor
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        source: InputImage | ModuleImage
        if isinstance(image, Tensor):
            source = InputImage(image)
            pairs["image"] = image, source.tensor
        else:
            source = ModuleImage(model, image)
        found: LookedUp | Given | MadeBy
        if isinstance(words, Tensor):
            own = words.detach().clone()
            found = Given(own.requires_grad_()) if own.is_floating_point() else LookedUp(own)
            pairs["words"] = words, own.clone() if own.is_floating_point() else own
        else:
            found = MadeBy(model, words)
            stack.enter_context(found.listening())
        arguments, keywords = replaced(inputs, kwargs, pairs)
        reach = Reach(source.makes, found.makes)
        positions = found.positions if isinstance(found, LookedUp) else None
        questions = _questions(image, words)
        one_image = isinstance(image, Tensor) and len(image) == 1 and questions >= WORTH
        watch = Watch(questions, reach, positions, one_image)
        stack.enter_context(source.listening(watch))
        shared = [image] if isinstance(image, Tensor) and not image.is_inference() else []
        stack.enter_context(untouched(model, watch, shared))
        if "words" in pairs:
            watch.touch(pairs["words"][1], WORDS)
        # Kept until the gradients are taken: checkpoints run the forward again.
        stack.enter_context(Differentiable(through_no_grad, watch))
        with watching(model, watch):
            output = call(*arguments, **keywords)
        watch.name_products()
        choice = Choice(model, watch, found, through_no_grad, output)
        tokens = words.shape[1] if isinstance(words, Tensor) and words.ndim > 1 else None
        given = image if isinstance(image, Tensor) else None
        made = ForwardPass(
            model, watch, source.edge, source.rows, given, found, tokens, reach, choice, detached(output)
        )
        try:
            yield made
        finally:
            made.open = False


def _callable(model: Any) -> tuple[nn.Module, Any]:
    """The module to run, and what to call: itself, or one of its methods."""
    if isinstance(model, nn.Module):
        return model, model
    owner = getattr(model, "__self__", None)
    if isinstance(owner, nn.Module) and callable(model):
        return owner, model
    raise HvxError(
        f"model: {type(model).__name__} given; pass a torch.nn.Module or a method of one: a function does "
        "not say which modules it runs, so that they could not be left as they were"
    )


def _questions(image: Any, words: Any) -> int:
    """N: of the words, unless they are (T, N) or made by a module, then of the image.

    Raises:
        HvxError: neither is a tensor.
    """
    if not isinstance(image, Tensor):
        if not isinstance(words, Tensor):
            raise HvxError("words: pass the ids or embeddings (N, T, …): with image a module, they give N")
        return len(words)
    if not isinstance(words, Tensor) or (len(image) in words.shape[:2] and len(image) > 1):
        return len(image)
    return len(image) if words.ndim > 1 and words.shape[1] == 1 else len(words)


def _check(image: Any, words: Any) -> None:
    if isinstance(words, Tensor) and not words.is_floating_point() and words.ndim != 2:
        packed = "pass padded ids, and pack them inside the model"
        rounds = "of several rounds of questions, pass one round"
        why = packed if words.ndim < 2 else rounds
        raise HvxError(f"words: ids {tuple(words.shape)} given; they must be (N, T): {why}")
    if isinstance(image, str | nn.Module):
        return
    if not isinstance(image, Tensor):
        raise HvxError(
            f"image: {type(image).__name__} given; pass one tensor (N, C, H, W) of the inputs, or a module"
        )
    if not image.is_floating_point():
        raise HvxError(
            f"image: {image.dtype} given; integers have no gradient: put image.float() among the inputs and "
            "pass that tensor"
        )
    if image.ndim < 2:
        raise HvxError(f"image: {tuple(image.shape)} given; pass a batch (N, C, H, W) or features (N, …)")


def detached(output: Any) -> Any:
    """A model's output without its graph."""
    return rebuilt(output, lambda value: value.detach() if isinstance(value, Tensor) else value)
