"""Where the network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import torch
from torch import nn

from hvx.device_name import check_device_name
from hvx.errors import HvxError


def pick_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:i``.

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
    """PyTorch as hvx expects it, whatever its caller has set: also a decorator.

    Inference mode and autocast off, tensors made on the CPU and in float32 unless said otherwise.
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


def leave_inference_mode(module: nn.Module) -> None:
    """Replace a module's tensors that were made in inference mode, which gradients cannot pass."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None and weight.is_inference():
                part._parameters[name] = nn.Parameter(weight.detach().clone(), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_inference():
                part._buffers[name] = buffer.clone()


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device, and for us to take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
