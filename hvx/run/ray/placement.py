"""How many workers to start on a cluster, and the CPUs and GPUs of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvx.errors import HvxError

_CPUS = 8
"""CPUs for each worker if there are no GPUs and no number of workers is given."""


@dataclass(frozen=True)
class Workers:
    """The user's options for Ray.

    Attributes:
        address: of a running cluster, as for ``ray.init``; a local Ray is started if None.
        count: number of workers; as many as the GPUs, or the CPUs, allow if None.
        gpus: for each worker, from 0 to 1 (workers may share one); if None, 1 where there are GPUs.
    """

    address: str | None = None
    count: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class Placement:
    """Number of workers to start, CPUs and GPUs of each, and how many workers fit now (``room``)."""

    count: int
    cpus: int
    gpus: float
    room: int

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus} CPU{'s' * (self.cpus > 1)}{gpus} each"


def place(nodes: Sequence[Mapping[str, float]], asked: Workers) -> Placement:
    """Divide the CPUs and GPUs of a cluster among workers.

    Args:
        nodes: the resources of each machine, by Ray's names.
        asked: the user's options.

    Raises:
        HvxError: no machine has what one worker needs.
    """
    gpus = asked.gpus if asked.gpus is not None else float(any(node.get("GPU", 0) >= 1 for node in nodes))

    def room(cpus: int) -> int:
        by_cpu = [int(node.get("CPU", 0) // cpus) for node in nodes]
        if not gpus:
            return sum(by_cpu)
        by_gpu = [math.floor(node.get("GPU", 0) / gpus + 1e-6) for node in nodes]
        return sum(map(min, by_cpu, by_gpu))

    capacity = room(1)
    if not capacity:
        needs = f"--gpus-per-worker {gpus:g}: no machine" if gpus else "no machine"
        raise HvxError(
            f"{needs} of the Ray cluster has what one worker needs; `ray status` shows what they have"
        )
    default = (
        capacity
        if gpus
        else sum(max(1, int(cpus // _CPUS)) for node in nodes if (cpus := node.get("CPU", 0)) >= 1)
    )
    count = asked.count or default
    largest = int(max(node.get("CPU", 0) for node in nodes))
    cpus = next(cpus for cpus in range(largest, 0, -1) if room(cpus) >= min(count, capacity))
    return Placement(count, cpus, gpus, capacity)
