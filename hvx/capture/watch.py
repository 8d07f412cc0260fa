"""Watching a forward pass: each element-wise product, where it was taken, and what its factors depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.autograd.graph import Node, get_gradient_edge
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from hvx.capture.factors import Form, form, rows_axis
from hvx.capture.fused import ImageCall
from hvx.capture.graph import DEPENDS, IMAGE, WORDS, Reach
from hvx.capture.positions import Positions
from hvx.capture.records import Cut, Factor, Product, Seen, Softmax
from hvx.capture.where import lines, site
from hvx.errors import HvxError

_MATRICES = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
_FACTORS = {"mul": (0, 1), "mul_": (0, 1), "addcmul": (1, 2), "addcmul_": (1, 2), **_MATRICES}
"""Operations that multiply → where their factors stand. Those of Python (``*``, ``*=``, ``torch.mul``,
``einsum``, ``cosine_similarity``) all come down to these. A product (N, 1, d) × (N, d, 1) of matrices is
one of vectors, element by element, with its sum."""


class Watch:
    """What was seen of one forward pass.

    Args:
        questions: N.
        reach: what the nodes of the graph depend on.
        positions: of the ids' entries; None where the words are no ids.
        one_image: the questions are about one image, so that calls of modules with it alone are kept.
    """

    def __init__(
        self, questions: int, reach: Reach, positions: Positions | None, one_image: bool = False
    ) -> None:
        self.seen: list[Seen] = []
        self.inside = 0
        """Calls of PyTorch's own recurrences and attentions that are in progress: no product there counts."""
        self.softmaxes: list[Softmax] = []
        """Those of values that depend on image and words."""
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
        self.inference: str | None = None
        self.modules: list[str] = []
        self.questions, self._reach, self._positions = questions, reach, positions
        self._touched: dict[StorageWeakRef, int] = {}
        self._one_image = one_image
        self.of_image: list[ImageCall] = []
        """Calls of modules with the image alone, if several questions are about it."""
        self.made: dict[str, list[Node]] = {}
        """Module path or ``file:line`` → the nodes of what it made."""
        self._unwritten: dict[StorageWeakRef, list[Factor]] = {}
        """Memory → the factors in it, as long as no operation has written to it."""
        self.before_write: Callable[[Tensor], None] = lambda tensor: None
        """Called with each tensor that an operation is about to write to."""

    def depends(self, tensor: Tensor) -> int:
        """What a tensor depends on, with a gradient."""
        return self._reach.of(tensor)

    def touch(self, tensor: Tensor, flags: int) -> None:
        """Note that a tensor's values come from image or words, with gradients or without."""
        if tensor.layout == torch.strided:
            key = StorageWeakRef(tensor.untyped_storage())
            self._touched[key] = self._touched.get(key, 0) | flags

    def run(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation of the forward pass."""
        factors = self._factors(func, args)
        if factors:
            self._multiply(func, *factors)
        if func._schema.is_mutable:
            self._tell_of_writes(func, args, kwargs)
        out = func(*args, **kwargs)
        self._follow(args, kwargs, out)
        if func.overloadpacket.__name__ == "_softmax":
            self._note_softmax(args[0], args[1], out)
        if self._positions is not None:
            self._positions.follow(func, args, kwargs, out)
            if func.overloadpacket.__name__ == "embedding" and self._positions.of(args[1]) is not None:
                self.lookups += 1
        return out

    def _tell_of_writes(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_inference_mode_enabled():
            raise HvxError(
                f"{self._module() or 'the model'!r} writes to a tensor under torch.inference_mode(), so that "
                "no graph can be kept; write torch.no_grad() there, and pass through_no_grad=True"
            )
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[number] if number < len(args) else kwargs.get(argument.name)
                for tensor in _tensors((value,)):
                    self.before_write(tensor)
                    self._keep_factors(tensor)

    def note_made(self, name: str, value: Any) -> None:
        """Note what a module or a line made."""
        for tensor in _tensors(value.values() if isinstance(value, dict) else (value,)):
            if tensor.grad_fn is not None:
                self.made.setdefault(name, []).append(tensor.grad_fn)

    def note_call(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Note a call of a module with the one image alone."""
        if self._one_image and len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            node = args[0].grad_fn
            if node is not None and self._reach.is_image(node) and output.grad_fn is not None:
                self.of_image.append(ImageCall(module, get_gradient_edge(output), output.detach()))

    def note_line(self, value: Any) -> None:
        """Note what the line of the model that runs made, and the lines that called it."""
        if isinstance(value, Tensor) and value.grad_fn is not None:
            for line in lines():
                self.made.setdefault(line, []).append(value.grad_fn)

    def _factors(self, func: OpOverload, args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
        name = func.overloadpacket.__name__
        if name not in _FACTORS or self.inside:
            return None
        one, other = (args[place] for place in _FACTORS[name])
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            return None
        if name in _MATRICES and not (one.ndim == 3 and one.shape[1] == other.shape[-1] == 1):
            if _sides(one, other, (self._reach.of(one), self._reach.of(other))):
                self.matrix = f"{self._module() or 'the model'!r} ({site()[0][0]})"
            return None
        self.multiplied += 1
        return one, other

    def _multiply(self, func: OpOverload, one: Tensor, other: Tensor) -> None:
        """Note a product if it is one of image and words."""
        flags = self._reach.of(one), self._reach.of(other)
        pair = _sides(one, other, flags)
        if pair is None and flags != (IMAGE | WORDS, IMAGE | WORDS):
            self._note_cut(one, other)
            return
        at, layer = site()
        if layer:
            return
        summed = func.overloadpacket.__name__ == "bmm"  # (N, 1, d) × (N, d, 1), either way round
        factors = tuple(each.flatten(1) if summed else each for each in pair or (one, other))
        shape = tuple(torch.broadcast_shapes(*(each.shape for each in factors)))
        kind = form((factors[0], factors[1]), shape, self.questions)
        if pair is None:
            self.both += 1
            if kind is not Form.JOINT or one.grad_fn is other.grad_fn:
                return
            kind = Form.MIXED
        self._keep(func, pair or (one, other), shape, kind, at)

    def _keep(
        self,
        func: OpOverload,
        pair: tuple[Tensor, Tensor],
        shape: tuple[int, ...],
        kind: Form,
        at: tuple[str, int],
    ) -> None:
        module, line = self._module(), at[0]
        visual, textual = (DEPENDS[self._reach.of(each)] for each in pair)
        product = Product(
            len(self.seen), f"{module}:{line}" if module else line, module, line,
            func.overloadpacket.__name__.rstrip("_"), shape, visual, textual, kind,
        )  # fmt: skip
        rows = rows_axis(shape, self.questions)
        self.seen.append(Seen(product, self._factor(pair[0]), self._factor(pair[1]), rows, at))

    def _factor(self, tensor: Tensor) -> Factor:
        """A factor that is copied if an operation is about to write to its memory."""
        factor = Factor(tensor)
        if tensor.layout == torch.strided:
            self._unwritten.setdefault(StorageWeakRef(tensor.untyped_storage()), []).append(factor)
        return factor

    def _keep_factors(self, tensor: Tensor) -> None:
        if self._unwritten and tensor.layout == torch.strided:
            for factor in self._unwritten.pop(StorageWeakRef(tensor.untyped_storage()), []):
                factor.keep()

    def name_products(self) -> None:
        """Number the products of one line, once all are known: ``model.py:16#1``, ``model.py:16#2``."""
        names = [each.product.name for each in self.seen]
        for place, name in enumerate(names):
            if names.count(name) > 1:
                numbered = f"{name}#{names[: place + 1].count(name)}"
                old = self.seen[place]
                self.seen[place] = replace(old, product=replace(old.product, name=numbered))

    def _note_softmax(self, scores: Tensor, dim: int, out: Tensor) -> None:
        if scores.grad_fn is not None and self._reach.of(scores) == IMAGE | WORDS:
            self.softmaxes.append(Softmax(out.detach(), dim, scores.grad_fn, site()[0][0]))

    def _note_cut(self, one: Tensor, other: Tensor) -> None:
        touched = self._touched_flags(one), self._touched_flags(other)
        if _sides(one, other, touched) is None:
            return
        lost = (touched[0] | touched[1]) & ~(self._reach.of(one) | self._reach.of(other))
        if lost:
            self.cut.append(
                Cut(self._module(), site()[0][0], DEPENDS[lost], self.without_gradients, self.inference)
            )

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
        if self.inference is None and torch.is_inference_mode_enabled():
            self.inference = self._module()
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

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if module in paths:
            watch.note_made(watch.modules.pop(), output)
            watch.note_call(module, args, output)

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
