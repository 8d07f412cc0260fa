"""Recording a forward pass: each element-wise product, where it was computed, what its factors depend on."""

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
from hvx.capture.graph import DEPENDS, IMAGE, WORDS, Dependencies
from hvx.capture.records import Cut, Factor, Product, RecordedProduct, Softmax
from hvx.capture.token_positions import Positions
from hvx.capture.where import lines, site
from hvx.errors import HvxError

_MATRICES = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
_FACTORS = {"mul": (0, 1), "mul_": (0, 1), "addcmul": (1, 2), "addcmul_": (1, 2), **_MATRICES}
"""Operations that multiply → the positions of their factors among the arguments. ``*``, ``*=``,
``torch.mul``, ``einsum`` and ``cosine_similarity`` all end in these. A matrix product (N, 1, d) × (N, d, 1)
is an element-wise product of vectors and its sum."""


class ProductRecorder:
    """What was recorded of one forward pass.

    Args:
        questions: N.
        reach: what the nodes of the graph depend on.
        positions: of the ids' entries; None if the words are not ids.
        one_image: all questions are about one image; calls of modules with the image alone are recorded.
    """

    def __init__(
        self, questions: int, reach: Dependencies, positions: Positions | None, one_image: bool = False
    ) -> None:
        self.seen: list[RecordedProduct] = []
        self.inside = 0
        """Calls of PyTorch's RNNs and attentions in progress: products inside them are not counted."""
        self.softmaxes: list[Softmax] = []
        """Softmaxes of values that depend on image and words."""
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
        """Module path or ``file:line`` → the nodes of its outputs."""
        self._unwritten: dict[StorageWeakRef, list[Factor]] = {}
        """Storage → the factors in it, until an operation writes to it."""
        self.before_write: Callable[[Tensor], None] = lambda tensor: None
        """Called with each tensor that an operation is about to write to."""

    def depends(self, tensor: Tensor) -> int:
        """What a tensor depends on, through the autograd graph."""
        return self._reach.of(tensor)

    def touch(self, tensor: Tensor, flags: int) -> None:
        """Record that a tensor's values come from image or words, with or without gradients."""
        if tensor.layout == torch.strided:
            key = StorageWeakRef(tensor.untyped_storage())
            self._touched[key] = self._touched.get(key, 0) | flags

    def run(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run and record one operation of the forward pass."""
        factors = self._factors(func, args)
        if factors:
            self._note_product(func, *factors)
        if func._schema.is_mutable:
            self._report_writes(func, args, kwargs)
        out = func(*args, **kwargs)
        self._propagate(args, kwargs, out)
        if func.overloadpacket.__name__ == "_softmax":
            self._note_softmax(args[0], args[1], out)
        if self._positions is not None:
            self._positions.follow(func, args, kwargs, out)
            if func.overloadpacket.__name__ == "embedding" and self._positions.of(args[1]) is not None:
                self.lookups += 1
        return out

    def _report_writes(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_inference_mode_enabled():
            raise HvxError(
                f"{self._module() or 'the model'!r} writes to a tensor under torch.inference_mode(), so that "
                "no graph can be kept; write torch.no_grad() there, and pass through_no_grad=True"
            )
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[index] if index < len(args) else kwargs.get(argument.name)
                for tensor in _tensors((value,)):
                    self.before_write(tensor)
                    self._copy_factors(tensor)

    def note_made(self, name: str, value: Any) -> None:
        """Record the output of a module or a line."""
        for tensor in _tensors(value.values() if isinstance(value, dict) else (value,)):
            if tensor.grad_fn is not None:
                self.made.setdefault(name, []).append(tensor.grad_fn)

    def note_call(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Record a call of a module whose only argument is the one image."""
        if self._one_image and len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            node = args[0].grad_fn
            if node is not None and self._reach.is_image(node) and output.grad_fn is not None:
                self.of_image.append(ImageCall(module, get_gradient_edge(output), output.detach()))

    def note_line(self, value: Any) -> None:
        """Record the output of the model's line that runs, also for the lines that called it."""
        if isinstance(value, Tensor) and value.grad_fn is not None:
            for line in lines():
                self.made.setdefault(line, []).append(value.grad_fn)

    def _factors(self, func: OpOverload, args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
        name = func.overloadpacket.__name__
        if name not in _FACTORS or self.inside:
            return None
        left, right = (args[position] for position in _FACTORS[name])
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return None
        if name in _MATRICES and not (left.ndim == 3 and left.shape[1] == right.shape[-1] == 1):
            if _as_visual_textual(left, right, (self._reach.of(left), self._reach.of(right))):
                self.matrix = f"{self._module() or 'the model'!r} ({site()[0][0]})"
            return None
        self.multiplied += 1
        return left, right

    def _note_product(self, func: OpOverload, left: Tensor, right: Tensor) -> None:
        """Record a product if it is one of image and words."""
        flags = self._reach.of(left), self._reach.of(right)
        pair = _as_visual_textual(left, right, flags)
        if pair is None and flags != (IMAGE | WORDS, IMAGE | WORDS):
            self._note_cut(left, right)
            return
        location, in_layer = site()
        if in_layer:
            return
        summed = func.overloadpacket.__name__ == "bmm"  # (N, 1, d) × (N, d, 1), in either order
        factors = tuple(factor.flatten(1) if summed else factor for factor in pair or (left, right))
        shape = tuple(torch.broadcast_shapes(*(factor.shape for factor in factors)))
        kind = form((factors[0], factors[1]), shape, self.questions)
        if pair is None:
            self.both += 1
            if kind is not Form.JOINT or left.grad_fn is right.grad_fn:
                return
            kind = Form.MIXED
        self._record_product(func, pair or (left, right), shape, kind, location)

    def _record_product(
        self,
        func: OpOverload,
        pair: tuple[Tensor, Tensor],
        shape: tuple[int, ...],
        kind: Form,
        location: tuple[str, int],
    ) -> None:
        module, line = self._module(), location[0]
        visual, textual = (DEPENDS[self._reach.of(factor)] for factor in pair)
        product = Product(
            len(self.seen), f"{module}:{line}" if module else line, module, line,
            func.overloadpacket.__name__.rstrip("_"), shape, visual, textual, kind,
        )  # fmt: skip
        rows = rows_axis(shape, self.questions)
        self.seen.append(
            RecordedProduct(product, self._factor(pair[0]), self._factor(pair[1]), rows, location)
        )

    def _factor(self, tensor: Tensor) -> Factor:
        """A factor whose values are copied before an operation writes to its storage."""
        factor = Factor(tensor)
        if tensor.layout == torch.strided:
            self._unwritten.setdefault(StorageWeakRef(tensor.untyped_storage()), []).append(factor)
        return factor

    def _copy_factors(self, tensor: Tensor) -> None:
        if self._unwritten and tensor.layout == torch.strided:
            for factor in self._unwritten.pop(StorageWeakRef(tensor.untyped_storage()), []):
                factor.keep()

    def name_products(self) -> None:
        """Number the products of one line, after all are known: ``model.py:16#1``, ``model.py:16#2``."""
        names = [record.product.name for record in self.seen]
        for index, name in enumerate(names):
            if names.count(name) > 1:
                numbered = f"{name}#{names[: index + 1].count(name)}"
                unnumbered = self.seen[index]
                self.seen[index] = replace(unnumbered, product=replace(unnumbered.product, name=numbered))

    def _note_softmax(self, scores: Tensor, dim: int, out: Tensor) -> None:
        if scores.grad_fn is not None and self._reach.of(scores) == IMAGE | WORDS:
            self.softmaxes.append(Softmax(out.detach(), dim, scores.grad_fn, site()[0][0]))

    def _note_cut(self, left: Tensor, right: Tensor) -> None:
        touched = self._touched_flags(left), self._touched_flags(right)
        if _as_visual_textual(left, right, touched) is None:
            return
        lost = (touched[0] | touched[1]) & ~(self._reach.of(left) | self._reach.of(right))
        if lost:
            self.cut.append(
                Cut(self._module(), site()[0][0], DEPENDS[lost], self.without_gradients, self.inference)
            )

    def _touched_flags(self, tensor: Tensor) -> int:
        if tensor.layout != torch.strided:
            return 0
        return self._touched.get(StorageWeakRef(tensor.untyped_storage()), 0)

    def _propagate(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
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


def _as_visual_textual(left: Tensor, right: Tensor, flags: tuple[int, int]) -> tuple[Tensor, Tensor] | None:
    """Two factors as (V, Q), by what they depend on; None if they are no pair of image and words."""
    if flags[0] == flags[1] or flags[0] | flags[1] != IMAGE | WORDS or not all(flags):
        return None
    return (left, right) if flags[0] == IMAGE or flags[1] == WORDS else (right, left)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class _Operations(TorchDispatchMode):
    """Passes each operation to a recorder, including those of scripted modules and of PyTorch's functions."""

    def __init__(self, recorder: ProductRecorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._watch.run(func, args, kwargs or {})


@contextmanager
def watching(model: nn.Module, recorder: ProductRecorder) -> Iterator[None]:
    """Within the context, a recorder records the operations of the model's forward and their modules."""
    paths = {module: path for path, module in model.named_modules()}

    def enter(module: nn.Module, _: Any) -> None:
        if module in paths:
            recorder.modules.append(paths[module])

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if module in paths:
            recorder.note_made(recorder.modules.pop(), output)
            recorder.note_call(module, args, output)

    with ExitStack() as stack:
        # Global hooks: a module's own hooks would change the module, and scripted modules accept none.
        for handle in (
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ):
            stack.callback(handle.remove)
        stack.enter_context(torch.jit.optimized_execution(False))  # type: ignore[attr-defined]  # no fused kernels
        stack.enter_context(_Operations(recorder))
        yield
