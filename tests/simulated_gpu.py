"""A GPU that computes on the CPU, and records what would make the host wait for a real one.

Its tensors report another device than the CPU, so that code takes the path for GPUs, and compute with a
tensor on the CPU that they hold. Recorded are: values read by the host (``item``, ``tolist``, ``cpu``,
branches), operations whose output's size depends on values (``nonzero``, boolean indices), and copies to the
device that are not ``non_blocking``. A plain operation on tensors of both devices is refused, as on a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from hvx.explain.explainer import Explainer
from hvx.explain.fused.convolution import Convolution

ATEN = torch.ops.aten
DEVICE = torch.device("lazy:0")
"""A device type that PyTorch knows and has no kernels for; its autograd needs no driver."""
_READS = (
    ATEN._local_scalar_dense.default,
    ATEN.nonzero.default,
    ATEN.masked_select.default,
    ATEN.equal.default,
)
_INDEXED = (ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default)
_COPIES = (ATEN._to_copy.default, ATEN.copy_.default)

_PHYSICAL = {ATEN._conj.default: ATEN.conj_physical.default, ATEN._neg_view.default: ATEN.neg.default}
"""Views that are a flag of the tensor, which a mode does not see → operations that compute them."""


class _OnDevice(Tensor):
    """A tensor of the simulated GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _OnDevice:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=DEVICE, **layout)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of simulated_gpu()")


class _Dispatch(TorchDispatchMode):
    def __init__(self, waits: list[tuple[str, str]]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, Tensor)]
        was_on_device = any(isinstance(tensor, _OnDevice) for tensor in tensors)
        on_device = was_on_device
        if given.get("device") is not None:
            on_device = torch.device(given["device"]).type == DEVICE.type
            given["device"] = torch.device("cpu")
        if was_on_device or on_device:
            self._record(func, args, given, tensors, was_on_device, on_device)
        func = _PHYSICAL.get(func, func)
        result = func(*tree_map(_held, args), **tree_map(_held, given))
        if was_on_device and func._schema.name.endswith("_"):
            return args[0]
        return tree_map(lambda x: _OnDevice(x) if isinstance(x, Tensor) and on_device else x, result)

    def _record(
        self, func: Any, args: Any, given: Any, tensors: list[Tensor], was_on_device: bool, on_device: bool
    ) -> None:
        from_cpu = any(tensor.ndim and not isinstance(tensor, _OnDevice) for tensor in tensors)
        if func in _COPIES:
            blocking = not (given.get("non_blocking") or (len(args) > 2 and args[2]))
            if was_on_device and not on_device:
                self._waits.append(("read", caller()))
            elif from_cpu and blocking:
                self._waits.append(("copy", caller()))
            return
        by_values = func in _INDEXED and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if func in _READS or by_values:
            self._waits.append(("read", caller()))
        if from_cpu and func in _INDEXED:
            self._waits.append(("copy", caller()))
        elif from_cpu:
            raise AssertionError(f"{func}: tensors on two devices")


class _Functions(TorchFunctionMode):
    """What PyTorch does before it dispatches an operation: lists that become tensors of the device."""

    def __init__(self, waits: list[tuple[str, str]]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], _OnDevice):
            self._waits.append(("read", caller()))
            return args[0].held.tolist()
        device = given.get("device")
        if func is torch.tensor and device is not None and torch.device(device).type == DEVICE.type:
            self._waits.append(("copy", caller()))
            return _OnDevice(func(*args, **given | {"device": "cpu"}))
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], _OnDevice):
            index, *rest = args[1:]
            parts = index if isinstance(index, tuple) else (index,)
            if any(isinstance(part, list) for part in parts):
                self._waits.append(("copy", caller()))
            moved = tuple(_OnDevice(torch.tensor(x)) if isinstance(x, list) else x for x in parts)
            args = args[0], moved if isinstance(index, tuple) else moved[0], *rest
        return func(*args, **given)


def caller() -> str:
    """The function of hvx that runs, as module.function."""
    frame = sys._getframe(1)
    while frame is not None and "hvx" not in Path(frame.f_code.co_filename).parts[:-1]:
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return "outside of hvx"
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


def _held(x: Any) -> Any:
    return x.held if isinstance(x, _OnDevice) else x


def on_cpu(x: Tensor) -> Tensor:
    """The values of a tensor of the simulated GPU, without a record."""
    return _held(x)


def move(explainer: Explainer) -> None:
    """Move an explainer, made on the CPU, to the simulated GPU; inside of ``simulated_gpu()``."""
    explainer.device = DEVICE
    for module in explainer.model.head.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(weight.detach().to(DEVICE), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(DEVICE)
    for step in explainer._network.steps:
        for name, value in vars(step.op).items():
            if isinstance(value, Tensor):
                setattr(step.op, name, value.to(DEVICE))
        if isinstance(step.op, Convolution):
            step.op.packs = False


@contextmanager
def simulated_gpu() -> Iterator[list[tuple[str, str]]]:
    """Computes on the simulated GPU; yields the waits, as ("read" or "copy", function of hvx)."""
    waits: list[tuple[str, str]] = []
    with _Functions(waits), _Dispatch(waits):
        yield waits
