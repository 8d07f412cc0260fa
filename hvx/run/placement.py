"""How many workers a cluster gets, and what each has of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvx.errors import HvxError

_CPUS = 8
"""CPUs for each worker where none has a GPU and no number of workers is asked for."""


@dataclass(frozen=True)
class Workers:
    """What is asked of Ray.

    Attributes:
        address: a cluster that runs already, as ``ray.init`` takes it; none: a Ray of this machine alone.
        count: workers; none: as many as there are GPUs for, or CPUs.
        gpus: for each worker, from 0 to 1 (workers may share one); none: 1 where there are any.
    """

    address: str | None = None
    count: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class Placement:
    """Workers to start, the CPUs and GPUs of each, and how many of them there is room for now."""

    count: int
    cpus: int
    gpus: float
    room: int

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus} CPU{'s' * (self.cpus > 1)}{gpus} each"


def place(nodes: Sequence[Mapping[str, float]], asked: Workers) -> Placement:
    """Share out the CPUs and GPUs of a cluster.

    Args:
        nodes: the resources of each machine, by Ray's names.
        asked: what the user fixed of it.

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

    most = room(1)
    if not most:
        needs = f"--gpus-per-worker {gpus:g}: no machine" if gpus else "no machine"
        raise HvxError(
            f"{needs} of the Ray cluster has what one worker needs; `ray status` shows what they have"
        )
    usual = (
        most
        if gpus
        else sum(max(1, int(cpus // _CPUS)) for node in nodes if (cpus := node.get("CPU", 0)) >= 1)
    )
    count = asked.count or usual
    largest = int(max(node.get("CPU", 0) for node in nodes))
    cpus = next(cpus for cpus in range(largest, 0, -1) if room(cpus) >= min(count, most))
    return Placement(count, cpus, gpus, most)
