"""The autograd graph of an external forward pass: what a tensor depends on, and guided ReLUs in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from hvx.errors import HvxError

IMAGE, WORDS = 1, 2
"""What a tensor may depend on, as bits."""
DEPENDS = {0: "neither", IMAGE: "image", WORDS: "words", IMAGE | WORDS: "image and words"}


class Dependencies:
    """Whether each node of a graph depends on the image, the words or both.

    Args:
        is_image: whether a node is the image.
        is_words: whether a node computes word embeddings.
    """

    def __init__(self, is_image: Callable[[Node], bool], is_words: Callable[[Node], bool]) -> None:
        self.is_image, self._is_words = is_image, is_words
        self._flags: dict[Node, int] = {}

    def of(self, tensor: Tensor) -> int:
        """What a tensor depends on, through the graph. A leaf, such as a weight, depends on neither."""
        return 0 if tensor.grad_fn is None else self.of_node(tensor.grad_fn)

    def of_node(self, node: Node) -> int:
        """What the output of a node depends on."""
        waiting = [node]  # depth first without recursion: graphs are deeper than Python's stack
        while waiting:
            top = waiting[-1]
            if top in self._flags:
                waiting.pop()
                continue
            inputs = inputs_of(top)
            unknown = [parent for parent in inputs if parent not in self._flags]
            if unknown:
                waiting += unknown
                continue
            flags = (IMAGE if self.is_image(top) else 0) | (WORDS if self._is_words(top) else 0)
            for parent in inputs:
                flags |= self._flags[parent]
            self._flags[waiting.pop()] = flags
        return self._flags[node]


def inputs_of(node: Node) -> list[Node]:
    """The nodes whose outputs a node reads."""
    return [parent for parent, _ in node.next_functions if parent is not None]


def nodes_behind(starts: list[Node]) -> list[Node]:
    """These nodes and all their ancestors."""
    seen = dict.fromkeys(starts)
    waiting = list(starts)
    while waiting:
        for parent in inputs_of(waiting.pop()):
            if parent not in seen:
                seen[parent] = None
                waiting.append(parent)
    return list(seen)


_OTHER_ACTIVATIONS = {
    "Hardtanh", "LeakyRelu", "PreluKernel", "RreluWithNoise", "Elu", "Gelu", "Silu", "Mish", "Hardswish",
    "Hardsigmoid", "Softplus", "Threshold", "Glu", "LogSigmoid", "Softshrink", "Hardshrink",
}  # fmt: skip
_SATURATING = {"Tanh", "Sigmoid"}
_AMBIGUOUS = {"Where", "Maximum", "Minimum", "Abs", "Erf"}
"""Operations that may be part of an activation, or of something else: accepted and reported."""
_MASKED = "Mul by a mask"
"""``x * (x > 0)``: accepted and reported."""
_USER_NAMES = {
    "LeakyRelu": "LeakyReLU", "PreluKernel": "PReLU", "RreluWithNoise": "RReLU", "Elu": "ELU, SELU or CELU",
    "Gelu": "GELU", "Silu": "SiLU", "Glu": "GLU", "LogSigmoid": "LogSigmoid",
}  # fmt: skip
"""PyTorch's names in the graph → the names in user code."""


@dataclass
class Guidance:
    """The activations of the image branch under guided backpropagation.

    Attributes:
        relus: number of guided ReLUs.
        unguided: name → number of the other nonlinearities, which kept their true gradients.
    """

    relus: int = 0
    unguided: dict[str, int] = field(default_factory=dict)


@contextmanager
def guided_relus(visual: list[Node], reach: Dependencies, other_activations: bool) -> Iterator[Guidance]:
    """Within the context, gradients from V to the image pass the image branch's ReLUs by the guided rule.

    The image branch is what depends on the image and not on the words, before V. The rule is that of
    ``hvx.explain.guided``: pass g where input > 0 and g > 0. A ReLU's own backward passes nothing
    where the input is 0 or less; g is clamped before it. Only this graph is changed, so that
    modules, functions, methods and in-place ReLUs are all guided. A ReLU after a fusion with the words
    keeps its true gradient, as in the heads of hvx's own models. So do tanh and sigmoid, unless a
    convolution of the image branch reads their output: then they belong to the CNN.

    Args:
        visual: the nodes that computed V, or its parts.
        reach: what each node depends on.
        other_activations: let other activations keep their true gradients; else they are refused.

    Raises:
        HvxError: the image branch has an activation other than ReLU, a function whose operations are not in
            the graph, or no ReLU.
    """
    ancestors = nodes_behind(visual)
    side = [node for node in ancestors if reach.of_node(node) == IMAGE and not reach.is_image(node)]
    relus = [node for node in side if kind(node) == "Relu"]
    if not other_activations:
        _refuse_others(side, bool(relus))
    if not relus:
        raise HvxError(
            "no ReLU between the image and the product that the words do not reach: guided backpropagation "
            "is defined for ReLU; pass rule='gradient' for the plain gradient"
        )
    names = Counter(_MASKED if _is_masked(node) else kind(node) for node in side)
    reported = _OTHER_ACTIVATIONS | _SATURATING | _AMBIGUOUS | {_MASKED}
    unguided = {name: count for name, count in names.items() if name in reported}
    unguided |= Counter(_opaque(node) for node in side if _opaque(node))
    handles = [node.register_prehook(_clamped) for node in relus]
    try:
        yield Guidance(len(relus), unguided)
    finally:
        for handle in handles:
            handle.remove()


def _clamped(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (gradients[0].clamp(min=0),)


def _refuse_others(side: list[Node], relus: bool) -> None:
    hint = "other_activations=True to keep its true gradient, or " if relus else ""
    convolutions = [node for node in side if "Convolution" in node.name()]
    in_cnn = set(nodes_behind(convolutions))
    for node in side:
        opaque = _opaque(node)
        if opaque:
            raise HvxError(
                f"between the image and the product, activations inside '{opaque}' cannot be seen (a "
                "compiled model, a checkpoint with use_reentrant=True or a function of one's own); run the "
                "model without it, or pass other_activations=True to keep its own gradient"
            )
        cut = _cuts_at_zero(node)
        if cut or kind(node) in _OTHER_ACTIVATIONS or (kind(node) in _SATURATING and node in in_cnn):
            name = "clamp(min=0)" if cut else _user_name(node)
            raise HvxError(
                f"guided backpropagation is defined for ReLU; the image's network has {name}: pass {hint}"
                "rule='gradient' for the plain gradient"
            )


def kind(node: Node) -> str:
    """The operation of a node: ``Relu`` for ``ReluBackward0``."""
    return node.name().partition("Backward")[0]


def _user_name(node: Node) -> str:
    """The name of an activation in user code."""
    name = kind(node)
    if name == "Hardtanh":
        bounds = getattr(node, "_saved_min_val", None), getattr(node, "_saved_max_val", None)
        return "ReLU6" if bounds == (0, 6) else "Hardtanh"
    return _USER_NAMES.get(name, name)


def _is_masked(node: Node) -> bool:
    """A product with a mask that was computed without a gradient, such as ``x > 0``."""
    if kind(node) != "Mul" or len(inputs_of(node)) != 1:
        return False
    factors = getattr(node, "_saved_self", None), getattr(node, "_saved_other", None)
    return any(isinstance(factor, Tensor) and factor.dtype == torch.bool for factor in factors)


def _opaque(node: Node) -> str:
    """The name of a node that hides a whole function, else an empty string."""
    kind: type = type(node)
    if issubclass(kind, BackwardCFunction):
        return kind.__name__.removesuffix("Backward")
    return node.name() if kind.__name__ == "CppFunction" else ""


def _cuts_at_zero(node: Node) -> bool:
    """Whether a node is a clamp at 0, so a ReLU; a clamp at a small positive value guards a division."""
    return kind(node) in ("Clamp", "ClampMin") and getattr(node, "_saved_min", None) == 0
