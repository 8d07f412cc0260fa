"""Devices and PyTorch settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import torch
from torch import Tensor, nn

from hvx.device_name import check_device_name
from hvx.errors import HvxError


def pick_device(name: str) -> torch.device:
    """The device for ``auto`` (CUDA if available), ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        HvxError: another name, or a CUDA device that this machine does not have.
    """
    number = check_device_name(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if number is not None and number >= count:
        raise HvxError(f"--device {name}: this machine has {count} CUDA devices; use --device cpu or auto")
    return torch.device(name)


@contextmanager
def standard_mode() -> Iterator[None]:
    """The PyTorch settings that hvx expects, independent of the caller's; also a decorator.

    Inference mode and autocast are off; new tensors are on the CPU and in float32 by default.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            modes.enter_context(torch.autocast(kind, enabled=False))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the CPU, copied to a device; the host does not wait for the GPU's queued work."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def leave_inference_mode(module: nn.Module) -> None:
    """Replace a module's inference-mode tensors, which do not support gradients."""
    for submodule in module.modules():
        for name, weight in submodule._parameters.items():
            if weight is not None and weight.is_inference():
                submodule._parameters[name] = nn.Parameter(weight.detach().clone(), requires_grad=False)
        for name, buffer in submodule._buffers.items():
            if buffer is not None and buffer.is_inference():
                submodule._buffers[name] = buffer.clone()


def free_memory(device: torch.device) -> int:
    """Bytes of free memory on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
