"""The local engine: computes shards one after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch

from hvx.config import Config
from hvx.run.identity import RunIdentity
from hvx.run.shards import Shard
from hvx.run.worker import ShardWorker


class LocalEngine:
    """Computes shards in this process.

    Args:
        config: the whole tree, with ``explain``.
        device: where the network runs.
        identity: the run that the shards belong to.

    Raises:
        HvxError: as ``ShardWorker``.
    """

    def __init__(self, config: Config, device: torch.device, identity: RunIdentity) -> None:
        self._worker = ShardWorker(config, device, identity)
        cuda = device.type == "cuda"
        self.about = f"{device} ({torch.cuda.get_device_name(device)})" if cuda else str(device)

    def compute(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
        """Write each shard into ``folder``; yields each shard when it is done."""
        yield from self._worker.explain_all(shards, folder)


def local_engine(device: torch.device) -> Callable[[Config, RunIdentity], LocalEngine]:
    """A function that starts the local engine on a device."""
    return lambda config, identity: LocalEngine(config, device, identity)
