"""A shard worker in a separate process, possibly on another machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hvx.config import Config
from hvx.errors import HvxError
from hvx.run.identity import RunIdentity
from hvx.run.shards import Shard
from hvx.run.worker import ShardWorker


class RemoteWorker:
    """A shard worker in a process that Ray started.

    Ray creates it again, with the same arguments, when the process or its machine is lost. The model is
    loaded by ``load``, not by the constructor, so that its errors are not mistaken for a lost worker.

    Args:
        config: the whole tree, its paths absolute.
        cuda: whether Ray gave this process a GPU, or a share of one.
        threads: number of PyTorch's threads.
        home: the host of the process that distributes the work.
        identity: the run that the shards belong to, with that process's versions.
    """

    def __init__(self, config: Config, cuda: bool, threads: int, home: str, identity: RunIdentity) -> None:
        self._config, self._cuda, self._home, self._identity = config, cuda, home, identity
        self._worker: ShardWorker | None = None
        torch.set_num_threads(threads)

    def load(self) -> str:
        """Load the model; returns the name of its device.

        Raises:
            HvxError: as ``ShardWorker``; or PyTorch cannot use the GPU.
        """
        with self._named():
            if self._cuda and not torch.cuda.is_available():
                raise HvxError(
                    "Ray gave a worker a GPU that PyTorch cannot use; --gpus-per-worker 0 runs on CPUs"
                )
            device = torch.device("cuda" if self._cuda else "cpu")
            self._worker = ShardWorker(self._config, device, self._identity)
        return f"cuda ({torch.cuda.get_device_name()})" if self._cuda else "cpu"

    def explain(self, shard: Shard, path: Path) -> None:
        """Explain a shard's questions and write them to ``path``, whole or not at all.

        Raises:
            HvxError: as ``ShardWorker.explain``; or this machine does not see the folder.
        """
        assert self._worker is not None
        with self._named():
            if not path.parent.is_dir():
                raise HvxError(
                    f"{path.parent}: no such folder; a run folder must be one that all machines see"
                )
            self._worker.explain(shard, path)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Add the machine's name to errors, where it is not the user's machine."""
        try:
            yield
        except HvxError as error:
            host = socket.gethostname()
            if host == self._home:
                raise
            raise type(error)(f"{error} (on {host})") from None


def absolute(config: Config) -> Config:
    """A config with absolute paths, which is valid in another process's folder and environment."""
    assert config.explain is not None
    name = config.explain.split
    rooted = config.model_copy(update={"root": config.path(Path()).absolute()})
    return rooted.model_copy(
        update={"checkpoint": rooted.path(rooted.checkpoint), "splits": {name: rooted.split(name)}}
    )
