"""``explain_product``: both explanations of any model that joins image and words by a Hadamard product."""

from __future__ import annotations

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
from hvx.capture.equations import Ends, ProductExplanation, Rules, equations
from hvx.capture.graph import IMAGE, WORDS, Reach
from hvx.capture.untouched import untouched
from hvx.capture.watch import Product, Seen, Watch, watching
from hvx.capture.words import Given, LookedUp, MadeBy, Words
from hvx.errors import HvxError

Inputs = Sequence[Any] | Mapping[str, Any]
_ONE_AT_A_TIME = RLock()
"""What PyTorch switches for a capture, hooks and saved tensors, it switches for the whole process."""
_NAMED = 6
"""Products that an error line names; the others are counted."""


def explain_product(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor,
    words: Tensor | str | nn.Module,
    product: int | str | None = None,
    mask: Tensor | None = None,
    guided: bool = True,
    other_activations: bool = False,
    through_no_grad: bool = False,
) -> ProductExplanation:
    """Explain a Hadamard product that a model of one's own takes in its forward.

    The model runs once, unchanged, in evaluation mode, and is left as it was. Each element-wise
    product is noticed of which one factor depends on the image and the other on the words, and one of
    the two on nothing else: ``torch.mul``, ``*``, ``*=``, ``addcmul``, ``einsum``, scripted or not. The one
    chosen gives V, Q and F; Eq. 2 sends V − F to the image, Eq. 3 sends Q − F through Q to the word
    embeddings. A product over a lattice or a sequence is an attention, and chosen only by name.

    Guided backpropagation holds at the ReLUs of the image's side: those that depend on the image
    and not on the words, ahead of V. Other activations there are refused; ``tanh`` and ``sigmoid``
    behind the last convolution keep their true gradients, as do ReLUs behind a fusion with the words.

    Args:
        model: any module.
        inputs: what its forward takes: a sequence of arguments, or a mapping of keywords.
        image: which tensor among the inputs is the image (N, C, H, W), a row for each question; or
            features of any shape (N, …).
        words: the token ids (N, T) among the inputs, whose look-ups in embedding tables are found; or
            embeddings (N, T, E) among the inputs; or the module, or its path, that puts out the embeddings.
            Ids may be (T, N): where T = N, they are read as (N, T).
        product: its number in ``products``, or the path of the module that takes it. Without, the last
            product that is one vector for each question.
        mask: (N, T), true where there is a token; without, everywhere. For ids padded with 0: ``ids != 0``.
        guided: guided backpropagation; else the plain gradient.
        other_activations: let other activations of the image's side keep their true gradients.
        through_no_grad: leave out what the model's forward does to switch gradients off (a frozen CNN
            under ``torch.no_grad``).

    Raises:
        HvxError: the image or the words are not found, there is no such product, the choice is ambiguous,
            no gradient reaches the image or the words, or guided backpropagation is not defined.
    """
    chosen = None if product is None else [product]
    rules = Rules(guided, other_activations)
    with _captured(model, inputs, image, words, through_no_grad) as captured:
        return captured.explain(captured.choose(chosen)[-1], rules, mask)


def explain_products(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor,
    words: Tensor | str | nn.Module,
    products: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    guided: bool = True,
    other_activations: bool = False,
    through_no_grad: bool = False,
) -> list[ProductExplanation]:
    """Explain several products of one forward: a network of several blocks, such as MRN.

    Args:
        products: as ``product`` of ``explain_product``, several. Without, all that are one vector for
            each question, in the order of the forward.

    The other arguments, and what is raised, are those of ``explain_product``.
    """
    rules = Rules(guided, other_activations)
    with _captured(model, inputs, image, words, through_no_grad) as captured:
        return [captured.explain(seen, rules, mask) for seen in captured.choose(products)]


def find_products(
    model: nn.Module,
    inputs: Inputs,
    *,
    image: Tensor,
    words: Tensor | str | nn.Module,
    through_no_grad: bool = False,
) -> list[Product]:
    """The products of image and words in a model's forward, attentions among them; none is explained.

    The arguments are those of ``explain_product``.

    Raises:
        HvxError: there is none; the line says what was seen.
    """
    with _captured(model, inputs, image, words, through_no_grad) as captured:
        captured.choose(())
        return captured.products


@dataclass(frozen=True)
class _Captured:
    """A forward pass with its graph."""

    model: nn.Module
    watch: Watch
    image: GradientEdge
    words: Words
    reach: Reach
    through_no_grad: bool

    @property
    def products(self) -> list[Product]:
        return [seen.product for seen in self.watch.seen]

    def choose(self, wanted: Sequence[int | str] | None) -> list[Seen]:
        """The products asked for, else all joints.

        Raises:
            HvxError: there is none, or not one for a choice.
        """
        seen = self.watch.seen
        joints = [each for each in seen if each.product.joint]
        if not seen or (wanted is None and not joints and self.watch.cut):
            raise HvxError(why_none(self.model, self.watch, self.words, self.through_no_grad))
        if wanted is not None:
            return [self._one(choice) for choice in wanted]
        if not joints:
            raise HvxError(
                f"no product of image and words is one vector for each question; choose among {_named(seen)}"
            )
        return joints

    def _one(self, choice: int | str) -> Seen:
        seen = self.watch.seen
        if isinstance(choice, int):
            if not -len(seen) <= choice < len(seen):
                raise HvxError(f"product {choice}: there are {len(seen)}: {_named(seen)}")
            return seen[choice]
        inside = [each for each in seen if each.product.module == choice]
        if len(inside) != 1:
            found = "takes none" if not inside else f"takes {len(inside)}; choose by number"
            raise HvxError(f"product '{choice}': that module {found}: {_named(inside or seen)}")
        return inside[0]

    def explain(self, seen: Seen, rules: Rules, mask: Tensor | None) -> ProductExplanation:
        """Eqs 2, 3 and 9-11 for one product."""
        rows = len(seen.values)
        if rows != self.watch.questions:
            raise HvxError(
                f"product {seen.product} has {rows} rows for {self.watch.questions} images; each question "
                "needs an image of its own: repeat the image for each"
            )
        return equations(
            seen.visual, seen.textual, Ends(self.image, self.words, self.reach), rules, mask,
            seen.product, self.products,
        )  # fmt: skip


@contextmanager
def _captured(
    model: nn.Module,
    inputs: Inputs,
    image: Tensor,
    words: Tensor | str | nn.Module,
    through_no_grad: bool,
) -> Iterator[_Captured]:
    """Run the forward and keep its graph; afterwards the model is as it was."""
    _check_floating("image", image)
    with _ONE_AT_A_TIME, ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(allow_mutation_on_saved_tensors())  # a product in place writes over its factor
        stack.enter_context(untouched(model))
        leaf = image.detach().clone().requires_grad_()
        replaced: list[tuple[Tensor, Tensor]] = [(image, leaf.clone())]
        found: LookedUp | Given | MadeBy
        if isinstance(words, Tensor):
            own = words.detach().clone()
            found = Given(own.requires_grad_()) if own.is_floating_point() else LookedUp(own)
            replaced.append((words, own.clone() if own.is_floating_point() else own))
        else:
            found = MadeBy(model, words)
            stack.enter_context(found.listening())
        edge = get_gradient_edge(leaf)
        reach = Reach(edge, found.makes)
        watch = Watch(len(image), reach, found.positions if isinstance(found, LookedUp) else None)
        for (_, tensor), flag in zip(replaced, (IMAGE, WORDS), strict=False):
            watch.touch(tensor, flag)
        arguments = _replaced(inputs, replaced)
        # Kept until the gradients are taken: checkpoints run the forward again.
        stack.enter_context(Differentiable(through_no_grad))
        with watching(model, watch):
            if isinstance(arguments, Mapping):
                model(**arguments)
            else:
                model(*arguments)
        yield _Captured(model, watch, edge, found, reach, through_no_grad)


def _check_floating(name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        what = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise HvxError(f"{name}: {what} given; it must be the floating-point tensor that the model takes")


def _replaced(inputs: Inputs, pairs: list[tuple[Tensor, Tensor]]) -> Any:
    """The inputs with these tensors put in the place of others, however deep in tuples, lists and dicts.

    Raises:
        HvxError: a tensor is not among the inputs.
    """
    met: set[int] = set()

    def put(value: Any) -> Any:
        for number, (old, new) in enumerate(pairs):
            if value is old:
                met.add(number)
                return new
        if isinstance(value, dict):
            return {key: put(each) for key, each in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(put, value))
        return type(value)(map(put, value)) if isinstance(value, list | tuple) else value

    if not isinstance(inputs, Sequence | Mapping):
        raise HvxError(f"inputs: {type(inputs).__name__} given; pass a sequence of arguments or a mapping")
    made = {key: put(v) for key, v in inputs.items()} if isinstance(inputs, Mapping) else [*map(put, inputs)]
    for number, name in enumerate(("image", "words")[: len(pairs)]):
        if number not in met:
            raise HvxError(
                f"{name}: not among the inputs; pass the very tensor that inputs holds, not a copy"
            )
    return made


def _named(seen: list[Seen]) -> str:
    named = "; ".join(str(each.product) for each in seen[:_NAMED])
    return named + (f"; and {len(seen) - _NAMED} more" if len(seen) > _NAMED else "")
