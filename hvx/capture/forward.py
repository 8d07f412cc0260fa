"""A forward pass of a foreign model, kept with its graph: its products, one chosen, and explained."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, allow_mutation_on_saved_tensors, get_gradient_edge

from hvx.capture.diagnosis import why_none
from hvx.capture.differentiable import Differentiable
from hvx.capture.equations import Ends, Part, ProductExplanation, Rules, equations
from hvx.capture.factors import Form
from hvx.capture.graph import IMAGE, WORDS, Reach
from hvx.capture.inputs import Inputs, rebuilt, replaced
from hvx.capture.joining import joints
from hvx.capture.untouched import untouched
from hvx.capture.visual import oriented
from hvx.capture.watch import Product, Seen, Watch, watching
from hvx.capture.words import Given, LookedUp, MadeBy, Words
from hvx.errors import HvxError

_ONE_AT_A_TIME = RLock()
"""What PyTorch switches for a capture, hooks and saved tensors, it switches for the whole process."""
_NAMED = 6
"""Products that an error line names; the others are counted."""


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass with its graph."""

    model: nn.Module
    watch: Watch
    image: GradientEdge
    images: int
    words: Words
    reach: Reach
    through_no_grad: bool
    output: Any

    @property
    def products(self) -> list[Product]:
        return [seen.product for seen in self.watch.seen]

    def check(self) -> None:
        """Raise if no product was found.

        Raises:
            HvxError: the line says what was seen.
        """
        if not self.watch.seen:
            raise HvxError(why_none(self.model, self.watch, self.words, self.through_no_grad, self.output))

    def default(self, visual: str | None) -> list[Seen]:
        """The joint that a reader of the model would name.

        Raises:
            HvxError: there is none, or more than one could be meant.
        """
        found = self.candidates(visual)
        groups = joints(found, self.output)
        if len({each.site for group in groups for each in group[-1:]}) > 1:
            raise HvxError(
                f"{len(groups)} products of image and words could be the joint; choose by product=, a name "
                f"or a number: {_named(found)}"
            )
        others = [each for each in self.watch.seen if each not in found and _is_vector(each)]
        if others:
            warnings.warn(
                f"explained: {groups[-1][-1].product}; product= chooses another: {_named(others)}",
                UserWarning, stacklevel=4,
            )  # fmt: skip
        return groups[-1]

    def candidates(self, visual: str | None) -> list[Seen]:
        """The products that are one vector for each question; gates only if there is nothing else.

        Raises:
            HvxError: there is none.
        """
        self.check()
        seen = self.watch.seen
        known = [each for each in seen if each.product.joint or (visual and each.product.form is Form.MIXED)]
        plain = [each for each in known if each.product.form is not Form.GATE]
        mixed = [each for each in seen if each.product.form is Form.MIXED]
        if plain or (known and not mixed):
            return plain or known
        if self.watch.cut:
            raise HvxError(why_none(self.model, self.watch, self.words, self.through_no_grad, self.output))
        if mixed:
            raise HvxError(
                "both factors of the joint depend on image and words; say which is V by visual=, the path of "
                f"a module or a file:line that its values come from: {_named(mixed + known)}"
            )
        raise HvxError(
            f"no product of image and words is one vector for each question; choose by product=: "
            f"{_named(seen)}"
        )

    def one(self, choice: int | str) -> list[Seen]:
        """The product asked for; several if the name stands for one joint.

        Raises:
            HvxError: there is no such product, or several that are no joint.
        """
        self.check()
        seen = self.watch.seen
        if isinstance(choice, int):
            if not -len(seen) <= choice < len(seen):
                raise HvxError(f"product {choice}: there are {len(seen)}: {_named(seen)}")
            return [seen[choice]]
        named = [each for each in seen if each.product.name == choice]
        if named:
            return named
        inside = [each for each in seen if choice in (each.product.module, each.product.line)]
        if len(inside) > 1:
            vector = [each for each in inside if _is_vector(each)]
            groups = joints(vector, self.output) if len(vector) == len(inside) else []
            if len(groups) == 1:
                return groups[0]
        if len(inside) != 1:
            what = f"there are {len(inside)}; choose by number or name" if inside else "there is none"
            raise HvxError(f"product '{choice}': {what}: {_named(inside or seen)}")
        return inside

    def explain(
        self, joined: list[Seen], rules: Rules, mask: Tensor | None, visual: str | None
    ) -> ProductExplanation:
        """Eqs 2, 3 and 9-11 for the products of one joint."""
        joined = [oriented(each, visual, self.watch) for each in joined]
        questions = self.watch.questions
        for each in joined:
            shape = each.product.shape
            if not shape or (shape[0] % questions and each.rows is None):
                raise HvxError(
                    f"product {each.product}: {shape[:1]} rows, {questions} questions: which row belongs to "
                    "which question cannot be told"
                )
            if questions != self.images and each.rows is None:
                raise HvxError(
                    f"product {each.product}: it has no row for each of the {questions} questions on "
                    f"{self.images} image(s); repeat the image for each question"
                )
        parts = [Part(each.visual, each.textual, each.product.shape, each.rows) for each in joined]
        ends = Ends(self.image, self.words, self.reach, self.images, questions)
        return equations(parts, ends, rules, mask, joined, self.products, detached(self.output))


@contextmanager
def forward_pass(
    model: nn.Module,
    inputs: Inputs,
    image: Tensor,
    words: Tensor | str | nn.Module,
    through_no_grad: bool,
) -> Iterator[ForwardPass]:
    """Run the forward and keep its graph; afterwards the model is as it was."""
    model, call = _callable(model)
    _check(image, words)
    with _ONE_AT_A_TIME, ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(allow_mutation_on_saved_tensors())  # a product in place writes over its factor
        leaf = image.detach().clone().requires_grad_()
        pairs: list[tuple[Tensor, Tensor]] = [(image, leaf.clone())]
        found: LookedUp | Given | MadeBy
        if isinstance(words, Tensor):
            own = words.detach().clone()
            found = Given(own.requires_grad_()) if own.is_floating_point() else LookedUp(own)
            pairs.append((words, own.clone() if own.is_floating_point() else own))
        else:
            found = MadeBy(model, words)
            stack.enter_context(found.listening())
        edge = get_gradient_edge(leaf)
        reach = Reach(edge, found.makes)
        watch = Watch(
            _questions(image, words), reach, found.positions if isinstance(found, LookedUp) else None
        )
        stack.enter_context(untouched(model, watch))
        for (_, tensor), flag in zip(pairs, (IMAGE, WORDS), strict=False):
            watch.touch(tensor, flag)
        arguments = replaced(inputs, pairs)
        # Kept until the gradients are taken: checkpoints run the forward again.
        stack.enter_context(Differentiable(through_no_grad, watch))
        with watching(model, watch):
            output = call(**arguments) if isinstance(arguments, Mapping) else call(*arguments)
        watch.name_products()
        yield ForwardPass(model, watch, edge, len(image), found, reach, through_no_grad, output)


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


def _questions(image: Tensor, words: Any) -> int:
    """N: of the words, unless they are (T, N) or made by a module, then of the image."""
    if not isinstance(words, Tensor) or (len(image) in words.shape[:2] and len(image) > 1):
        return len(image)
    return len(image) if words.ndim > 1 and words.shape[1] == 1 else len(words)


def _check(image: Any, words: Any) -> None:
    if not isinstance(image, Tensor):
        raise HvxError(f"image: {type(image).__name__} given; pass one tensor (N, C, H, W) of the inputs")
    if not image.is_floating_point():
        raise HvxError(
            f"image: {image.dtype} given; integers have no gradient: put image.float() among the inputs and "
            "pass that tensor"
        )
    if image.ndim < 2:
        raise HvxError(f"image: {tuple(image.shape)} given; pass a batch (N, C, H, W) or features (N, …)")
    if isinstance(words, Tensor) and not words.is_floating_point() and words.ndim != 2:
        packed = "pass padded ids, and pack them inside the model"
        rounds = "of several rounds of questions, pass one round"
        why = packed if words.ndim < 2 else rounds
        raise HvxError(f"words: ids {tuple(words.shape)} given; they must be (N, T): {why}")


def detached(output: Any) -> Any:
    """A model's output without its graph."""
    return rebuilt(output, lambda value: value.detach() if isinstance(value, Tensor) else value)


def _is_vector(seen: Seen) -> bool:
    return seen.product.form in (Form.JOINT, Form.GATE, Form.MIXED)


def _named(seen: Sequence[Seen]) -> str:
    named = "; ".join(str(each.product) for each in seen[:_NAMED])
    return named + (f"; and {len(seen) - _NAMED} more" if len(seen) > _NAMED else "")
