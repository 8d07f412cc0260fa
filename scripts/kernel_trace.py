"""Records the CUDA kernels of the fused engine, without a GPU: on PyTorch's fake CUDA tensors.

Fake tensors have shapes but no numbers. The engine takes them for CUDA tensors and runs as on a GPU. Each
ATen operation is recorded as a kernel, with what it reads and writes; views are no kernels. A convolution
with a bias counts as two kernels, since PyTorch adds the bias after cuDNN's kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from hvx.explain.fused import FusedGuidedBackbone
from hvx.explain.scores import heat_map, standardized

ATEN = torch.ops.aten
_COPIES = (ATEN._to_copy.default, ATEN.clone.default, ATEN.copy_.default, ATEN.pixel_shuffle.default)
"""Operations that compute each value from one value, which PyTorch does not mark as pointwise."""
_EMPTY = "empty", "empty_like", "empty_strided", "new_empty"


@dataclass(frozen=True)
class Kernel:
    """One CUDA kernel.

    Attributes:
        name: of the operation.
        reads: bytes by memory that it reads.
        writes: bytes by memory that it writes.
        flops: of a convolution; 0 for others.
        pointwise: each value depends on one value of each input.
        has_epilogue: cuDNN can compute a sum and a ReLU in the same kernel.
    """

    name: str
    reads: dict[int, int]
    writes: dict[int, int]
    flops: int = 0
    pointwise: bool = False
    has_epilogue: bool = False


class KernelTrace(TorchDispatchMode):
    """Records the kernels of the operations in its context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Kernel] = []
        self._unset: set[int] = set()
        self._alive: list[Any] = []
        """Keeps all memory in use, so that none is used twice: it is identified by its address."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs, outputs = _tensors((args, kwargs)), _tensors(result)
        self._alive += [*inputs, *outputs]
        if func._schema.name.removeprefix("aten::") in _EMPTY:
            self._unset.update(memory_of(outputs))
        elif func._schema.is_mutable or not memory_of(outputs).keys() <= memory_of(inputs).keys():
            self._record(func, args, kwargs, inputs, outputs)
        return result

    def _record(self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        reads = {place: size for place, size in memory_of(inputs).items() if place not in self._unset}
        writes = memory_of(outputs)
        self._unset.difference_update(writes)
        name = func._schema.name.removeprefix("aten::")
        if func is not ATEN.convolution.default:
            pointwise = torch.Tag.pointwise in func.tags or func in _COPIES
            self.kernels.append(Kernel(name, reads, writes, pointwise=pointwise))
            return
        x, weight, bias, stride, _, _, transposed, _, groups = args
        flops = int(flop_registry[ATEN.convolution](*args, **kwargs, out_val=outputs[0]))
        # The transpose of stride 1 is a convolution with flipped weights, which has an epilogue.
        has_epilogue = not transposed or (set(stride) == {1} and groups == 1)
        self.kernels.append(Kernel(name, memory_of([x, weight]), writes, flops, has_epilogue=has_epilogue))
        if bias is not None:
            self.kernels.append(Kernel("bias", writes | memory_of([bias]), writes, pointwise=True))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def memory_of(tensors: Sequence[Tensor]) -> dict[int, int]:
    """Bytes by memory that some tensors use."""
    return {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in tensors}


@dataclass(frozen=True)
class Pass:
    """The kernels of a pass, and the memory of its results."""

    kernels: list[Kernel]
    results: set[int]


def trace(network: fx.GraphModule, dtype: torch.dtype, batch: int, size: int) -> dict[str, Pass]:
    """The kernels of a forward pass, of a backward pass, and of the scores of its gradient.

    Args:
        network: cut by ``cut_network``; its weights are not read.
        dtype: of the engine's computation.
        batch: images.
        size: their height and width.
    """
    engine = FusedGuidedBackbone(network.to("meta").eval(), dtype)
    with FakeTensorMode():
        for step in engine.steps:
            for name, value in vars(step.op).items():
                if isinstance(value, Tensor):
                    on_cuda = torch.empty_strided(
                        value.shape, value.stride(), dtype=value.dtype, device="cuda"
                    )
                    setattr(step.op, name, on_cuda)
        images = torch.empty(batch, 3, size, size, device="cuda")
        first = engine(images)
        cotangent = torch.empty_like(first.features)
        first.vjp(cotangent)  # computes what is computed once
        with KernelTrace() as forward:
            pullback = engine(images)
        with KernelTrace() as backward:
            gradient = pullback.vjp(cotangent)
        with KernelTrace() as scores:
            maps = heat_map(standardized(gradient))
    return {
        "forward": Pass(forward.kernels, set(memory_of([pullback.features]))),
        "backward": Pass(backward.kernels, set(memory_of([gradient]))),
        "scores": Pass(scores.kernels, set(memory_of([maps]))),
    }
