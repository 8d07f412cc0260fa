"""The number of CPUs. Without PyTorch, which takes seconds to import."""

from __future__ import annotations

import os


def cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
