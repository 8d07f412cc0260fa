"""A forward pass of an external model with its graph: list its products, choose one, explain it."""

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
from hvx.capture.enable_gradients import Differentiable
from hvx.capture.equations import (
    BackwardRule,
    CotangentName,
    GradientTargets,
    Part,
    Reshape,
    RuleName,
    equations,
    image_gradient,
)
from hvx.capture.fused import WORTH, FusedCNN, fused_cnn
from hvx.capture.graph import WORDS, Dependencies
from hvx.capture.image import InputImage, ModuleImage
from hvx.capture.inputs import Inputs, rebuilt, replaced
from hvx.capture.preserve_state import preserve_state
from hvx.capture.product_choice import ProductChoice
from hvx.capture.recorder import ProductRecorder, watching
from hvx.capture.records import Product, RecordedProduct
from hvx.capture.result import ProductExplanation
from hvx.capture.visual import oriented
from hvx.capture.words import EmbeddingLookup, EmbeddingModule, EmbeddingTensor, Words
from hvx.errors import HvxError

_ONE_AT_A_TIME = RLock()
"""The hooks and saved-tensor mode that a capture sets in PyTorch are global to the process."""


@dataclass
class ForwardPass:
    """A forward pass with its graph: list its products, choose and explain, any number of times.

    Made by ``forward_pass``; valid within that function's ``with`` block.

    Attributes:
        products: the products of image and words, attentions among them, in the order of the forward.
        output: what the model returned, detached.
    """

    model: nn.Module
    recorder: ProductRecorder = field(repr=False)
    image: GradientEdge = field(repr=False)
    images: int
    image_tensor: Tensor | None = field(repr=False)
    words: Words = field(repr=False)
    tokens: int | None
    reach: Dependencies = field(repr=False)
    choice: ProductChoice = field(repr=False)
    output: Any = field(repr=False)
    open: bool = True

    @property
    def products(self) -> list[Product]:
        """The products of image and words, in the order of the forward."""
        return [seen.product for seen in self.recorder.seen]

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
        rules = BackwardRule.of(rule, self.image_tensor, other_activations, reshape, cotangent)
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
            chosen = [[record] for record in self.choice.candidates(visual)]
        else:
            chosen = [self.choice.one(product) for product in products]
        rules = BackwardRule.of(rule, self.image_tensor, other_activations, reshape, cotangent)
        return [self._explained(joined, mask, visual, rules) for joined in chosen]

    def image_gradient(self, names: Sequence[str], visual: str | None, rules: BackwardRule) -> Tensor:
        """Eq. 2 alone (B, C, H, W), of products of these names; ``visual``, ``rules`` as of ``explain``."""
        joined = self.choice.one(list(names))
        return image_gradient(*self._parts(joined, visual), rules)[0]

    def _explained(
        self, joined: list[RecordedProduct], mask: Tensor | None, visual: str | None, rules: BackwardRule
    ) -> ProductExplanation:
        parts, ends = self._parts(joined, visual)
        nodes = [part.visual.edge.node for part in parts]
        attention = attention_of(nodes, self.recorder.softmaxes, ends.questions, self.tokens)
        return equations(
            parts, ends, rules, mask, joined, self.image_tensor,
            products=self.products, output=self.output, attention=attention,
        )  # fmt: skip

    def _parts(self, joined: list[RecordedProduct], visual: str | None) -> tuple[list[Part], GradientTargets]:
        """The factors of a joint, and the targets of their gradients."""
        if not self.open:
            raise HvxError("the forward pass is over: explain within the with block of forward_pass")
        questions, images = self.recorder.questions, self.images
        joined = [oriented(record, visual, self.recorder) for record in joined]
        for record in joined:
            _check_rows(record, questions, images)
        parts = [Part(record.visual, record.textual, record.product.shape, record.rows) for record in joined]
        return parts, GradientTargets(self.image, self.words, self.reach, images, questions, self._fused)

    def _fused(self, visual: list[Node]) -> FusedCNN | None:
        """The fast engine for the CNN, where it is worth its cost."""
        if self.image_tensor is None or not self.recorder.of_image:
            return None
        return fused_cnn(self.recorder.of_image, visual, self.image_tensor, self.reach)


def _check_rows(seen: RecordedProduct, questions: int, images: int) -> None:
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
    """Run a model's forward once and keep its graph; the ``with`` block restores the model at its end.

    The arguments, and what is raised, are those of ``explain_product``.
    """
    model, call = _callable(model)
    _check(image, words)
    with _ONE_AT_A_TIME, ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(allow_mutation_on_saved_tensors())  # an in-place product overwrites its factor
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        source: InputImage | ModuleImage
        if isinstance(image, Tensor):
            source = InputImage(image)
            pairs["image"] = image, source.tensor
        else:
            source = ModuleImage(model, image)
        embeddings: EmbeddingLookup | EmbeddingTensor | EmbeddingModule
        if isinstance(words, Tensor):
            copied = words.detach().clone()
            embeddings = (
                EmbeddingTensor(copied.requires_grad_())
                if copied.is_floating_point()
                else EmbeddingLookup(copied)
            )
            pairs["words"] = words, copied.clone() if copied.is_floating_point() else copied
        else:
            embeddings = EmbeddingModule(model, words)
            stack.enter_context(embeddings.listening())
        arguments, keywords = replaced(inputs, kwargs, pairs)
        reach = Dependencies(source.makes, embeddings.makes)
        positions = embeddings.positions if isinstance(embeddings, EmbeddingLookup) else None
        questions = _questions(image, words)
        one_image = isinstance(image, Tensor) and len(image) == 1 and questions >= WORTH
        recorder = ProductRecorder(questions, reach, positions, one_image)
        stack.enter_context(source.listening(recorder))
        shared = [image] if isinstance(image, Tensor) and not image.is_inference() else []
        stack.enter_context(preserve_state(model, recorder, shared))
        if "words" in pairs:
            recorder.touch(pairs["words"][1], WORDS)
        # Active until the gradients are taken: checkpoints run the forward again.
        stack.enter_context(Differentiable(through_no_grad, recorder))
        with watching(model, recorder):
            output = call(*arguments, **keywords)
        recorder.name_products()
        choice = ProductChoice(model, recorder, embeddings, through_no_grad, output)
        tokens = words.shape[1] if isinstance(words, Tensor) and words.ndim > 1 else None
        image_input = image if isinstance(image, Tensor) else None
        forward = ForwardPass(
            model, recorder, source.edge, source.rows, image_input, embeddings, tokens, reach, choice,
            detached(output),
        )  # fmt: skip
        try:
            yield forward
        finally:
            forward.open = False


def _callable(model: Any) -> tuple[nn.Module, Any]:
    """The module to run, and the callable: the module, or one of its methods."""
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
    """N, from the words; from the image if the words are (T, N) or a module's output.

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
