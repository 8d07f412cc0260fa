"""Where the network runs."""

from __future__ import annotations

import os
import re

import psutil
import torch

from hvx.errors import HvxError


def pick_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        HvxError: another name, or a CUDA device that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    cuda = re.fullmatch("cuda(:(0|[1-9][0-9]*))?", name)
    if name != "cpu" and not cuda:
        raise HvxError(f"--device {name}: expected auto, cpu, cuda or cuda:i")
    if cuda and int(cuda[2] or 0) >= count:
        raise HvxError(f"--device {name}: this machine has {count} CUDA devices; use --device cpu or auto")
    return torch.device(name)


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device, and for us to take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
