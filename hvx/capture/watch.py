"""Watching a forward pass: each element-wise product, where it was taken, and what its factors depend on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from hvx.capture.graph import DEPENDS, IMAGE, WORDS, Reach
from hvx.capture.positions import Positions

_MATRICES = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
_FACTORS = {"mul": (0, 1), "mul_": (0, 1), "addcmul": (1, 2), "addcmul_": (1, 2), **_MATRICES}
"""Operations that multiply → where their factors stand. Those of Python (``*``, ``*=``, ``torch.mul``,
``einsum``, ``cosine_similarity``) all come down to these. A product (N, 1, d) × (N, d, 1) of matrices is
one of vectors, element by element, with its sum."""
_NOT_THE_MODEL = (str(Path(torch.__file__).parent), str(Path(__file__).parent), contextlib.__file__)


@dataclass(frozen=True)
class Product:
    """An element-wise product of two tensors, one that depends on the image and one on the words.

    Attributes:
        number: its place among the products, in the order of the forward pass.
        module: path of the module in whose forward it was taken, "" for the model itself.
        line: file and line that took it.
        operation: PyTorch's name of it, such as ``mul``; ``bmm``: a sum of products, as in Σ (v ∘ t).
        shape: of the product; ahead of the sum.
        visual: what the factor V depends on: "image", or "image and words" (behind an attention).
        textual: what the factor Q depends on: "words", or "image and words" (a later block of MRN).
        joint: one vector for each question. Others lie over a lattice or a sequence: an attention.
    """

    number: int
    module: str
    line: str
    operation: str
    shape: tuple[int, ...]
    visual: str
    textual: str
    joint: bool

    def __str__(self) -> str:
        form = "joint" if self.joint else "over a lattice"
        return (
            f"{self.number}: {self.operation} {self.shape} in {self.module or 'the model'!r} ({self.line}), "
            f"V of {self.visual}, Q of {self.textual}, {form}"
        )


@dataclass(frozen=True)
class Factor:
    """One side of a product: its values, and where gradients enter it."""

    values: Tensor
    edge: GradientEdge

    @classmethod
    def of(cls, tensor: Tensor) -> Factor:
        """A tensor of a graph, as it is now: a model may write over it later."""
        return cls(tensor.detach().clone(), get_gradient_edge(tensor))


@dataclass(frozen=True)
class Seen:
    """A product with its factors."""

    product: Product
    visual: Factor
    textual: Factor
    values: Tensor


@dataclass(frozen=True)
class Cut:
    """A product that joins image and words, though no gradient reaches one of them through it."""

    module: str
    line: str
    lost: str
    no_grad: str | None
    """The module that ran without gradients, where one did."""


class Watch:
    """What was seen of one forward pass.

    Args:
        questions: N.
        reach: what the nodes of the graph depend on.
        positions: of the ids' entries; None where the words are no ids.
    """

    def __init__(self, questions: int, reach: Reach, positions: Positions | None) -> None:
        self.seen: list[Seen] = []
        self.cut: list[Cut] = []
        self.both = 0
        """Products whose factors both depend on image and words."""
        self.multiplied = 0
        """Element-wise products of any two tensors."""
        self.matrix: str | None = None
        """Where image and words were multiplied as matrices."""
        self.lookups = 0
        """Look-ups of the ids in embedding tables."""
        self.without_gradients: str | None = None
        self.modules: list[str] = []
        self.questions, self._reach, self._positions = questions, reach, positions
        self._touched: dict[StorageWeakRef, int] = {}

    def touch(self, tensor: Tensor, flags: int) -> None:
        """Note that a tensor's values come from image or words, with gradients or without."""
        if tensor.layout == torch.strided:
            key = StorageWeakRef(tensor.untyped_storage())
            self._touched[key] = self._touched.get(key, 0) | flags

    def run(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation of the forward pass."""
        factors = self._factors(func, args)
        found = self._classified(*factors) if factors else None
        if found:
            self._keep(func, *found)
        elif factors:
            self._note_cut(*factors)
        out = func(*args, **kwargs)
        self._follow(args, kwargs, out)
        if self._positions is not None:
            self._positions.follow(func, args, kwargs, out)
            if func.overloadpacket.__name__ == "embedding" and self._positions.of(args[1]) is not None:
                self.lookups += 1
        return out

    def _factors(self, func: OpOverload, args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
        name = func.overloadpacket.__name__
        if name not in _FACTORS:
            return None
        one, other = (args[place] for place in _FACTORS[name])
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            return None
        if name in _MATRICES and not (one.ndim == 3 and one.shape[1] == other.shape[-1] == 1):
            if _sides(one, other, (self._reach.of(one), self._reach.of(other))):
                self.matrix = f"{self._module() or 'the model'!r} ({_line()})"
            return None
        self.multiplied += 1
        return one, other

    def _classified(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor] | None:
        """V and Q of a product, where one side is the image's or the words' alone."""
        flags = self._reach.of(one), self._reach.of(other)
        if flags == (IMAGE | WORDS, IMAGE | WORDS):
            self.both += 1
        return _sides(one, other, flags)

    def _keep(self, func: OpOverload, visual: Tensor, textual: Tensor) -> None:
        name = func.overloadpacket.__name__
        reached = self._reach.of(visual), self._reach.of(textual)
        factors = Factor.of(visual), Factor.of(textual)
        values = factors[0].values, factors[1].values
        if name == "bmm":  # (N, 1, d) × (N, d, 1), either way round
            values = values[0].flatten(1), values[1].flatten(1)
        product = values[0] * values[1]
        long = [size for size in product.shape[1:] if size != 1]
        about = Product(
            len(self.seen), self._module(), _line(), name.rstrip("_"), tuple(product.shape),
            DEPENDS[reached[0]], DEPENDS[reached[1]],
            product.ndim > 1 and len(product) == self.questions and len(long) <= 1,
        )  # fmt: skip
        self.seen.append(Seen(about, *factors, product))

    def _note_cut(self, one: Tensor, other: Tensor) -> None:
        touched = self._touched_flags(one), self._touched_flags(other)
        if _sides(one, other, touched) is None:
            return
        lost = (touched[0] | touched[1]) & ~(self._reach.of(one) | self._reach.of(other))
        if lost:
            self.cut.append(Cut(self._module(), _line(), DEPENDS[lost], self.without_gradients))

    def _touched_flags(self, tensor: Tensor) -> int:
        if tensor.layout != torch.strided:
            return 0
        return self._touched.get(StorageWeakRef(tensor.untyped_storage()), 0)

    def _follow(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        flags = 0
        for tensor in _tensors((*args, *kwargs.values())):
            flags |= self._touched_flags(tensor)
        if not flags:
            return
        if self.without_gradients is None and not torch.is_grad_enabled():
            self.without_gradients = self._module()
        for tensor in _tensors((out,)):
            self.touch(tensor, flags)

    def _module(self) -> str:
        return self.modules[-1] if self.modules else ""


def _sides(one: Tensor, other: Tensor, flags: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
    """V and Q by what two factors depend on, or None where they are no pair of image and words."""
    if flags[0] == flags[1] or flags[0] | flags[1] != IMAGE | WORDS or not all(flags):
        return None
    return (one, other) if flags[0] == IMAGE or flags[1] == WORDS else (other, one)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _line() -> str:
    """File and line of the innermost frame that is neither PyTorch's nor this package's."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith((*_NOT_THE_MODEL, "<")):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class _Operations(TorchDispatchMode):
    """Shows each operation to a watch: also those of scripted modules and of PyTorch's own functions."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = watch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._watch.run(func, args, kwargs or {})


@contextmanager
def watching(model: nn.Module, watch: Watch) -> Iterator[None]:
    """Within, a watch sees what the model's forward does, and in which module."""
    paths = {module: path for path, module in model.named_modules()}

    def enter(module: nn.Module, _: Any) -> None:
        if module in paths:
            watch.modules.append(paths[module])

    def leave(module: nn.Module, *_: Any) -> None:
        if module in paths:
            watch.modules.pop()

    with ExitStack() as stack:
        # Hooks for all modules: those of one module would be written into it, and scripted ones take none.
        for handle in (
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ):
            stack.callback(handle.remove)
        stack.enter_context(torch.jit.optimized_execution(False))  # type: ignore[attr-defined]  # else fused
        stack.enter_context(_Operations(watch))
        yield
