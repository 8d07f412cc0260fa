"""The Ray engine: shards on several GPUs or machines, by workers that Ray starts and restarts when lost."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hvx.config import Config
from hvx.errors import HvxError
from hvx.progress import Log
from hvx.run.identity import RunIdentity
from hvx.run.ray.connection import connected, import_ray
from hvx.run.ray.placement import Placement, Workers, place
from hvx.run.ray.remote import RemoteWorker, absolute
from hvx.run.shards import Shard

_DEATHS = 5
"""If so many workers die on one shard, or while loading the model, that is assumed to be the cause."""
_PATIENCE = 30
"""Seconds without a worker before the user is told what hvx waits for."""
_FILE_TIMEOUT = 60
"""Seconds after which a file that a worker wrote must be visible here, over a network file system."""


@dataclass(eq=False)
class _WorkerHandle:
    """The driver's state of a worker.

    Attributes:
        actor: Ray's handle of it.
        device: of its model; None if it is not loaded yet, or not loaded again after a loss.
        held: its assigned shards that are not done; it works on the first of them.
        deaths: how often in a row it died while loading the model.
    """

    actor: Any
    device: str | None = None
    held: list[Shard] = field(default_factory=list)
    deaths: int = 0


class _Call(Enum):
    """Calls to a worker other than shards."""

    START = "its process is there"
    LOAD = "its model is loaded"


class RayEngine:
    """Computes shards by workers of a cluster that this process is connected to.

    A worker gets its next shard before it finishes the last. If a worker dies, its shards go to free workers;
    Ray starts it again, on this or another machine, and it takes part again once its model is loaded. A shard
    may then be computed twice, which does no harm: it is written atomically, with the same content.

    Args:
        ray: the module.
        config: the whole tree, with ``explain``.
        placement: how many workers, and what each gets.
        identity: the run that the shards belong to.
        log: receives messages for the user, a line at a time.

    Raises:
        HvxError: as ``RemoteWorker.load``, if a worker fails before the first is ready; or none could be
            started.
    """

    def __init__(
        self, ray: Any, config: Config, placement: Placement, identity: RunIdentity, log: Log
    ) -> None:
        self._ray, self._placement, self._log = ray, placement, log
        self._calls: dict[Any, tuple[_WorkerHandle, Shard | _Call]] = {}
        self._todo: deque[Shard] = deque()
        self._deaths: Counter[int] = Counter()
        remote = ray.remote(RemoteWorker).options(
            num_cpus=placement.cpus, num_gpus=placement.gpus, max_restarts=-1
        )
        arguments = absolute(config), placement.gpus > 0, placement.cpus, socket.gethostname(), identity
        self._workers = [_WorkerHandle(remote.remote(*arguments)) for _ in range(placement.count)]
        for worker in self._workers:
            self._await_start(worker)
        if placement.count > placement.room:
            log(
                f"Ray: room for {placement.room} of {placement.count} workers; "
                "the others begin when there is more"
            )
        while not self._ready():
            self._step()
        self.about = f"{self._ready()[0].device}, in {placement.count} Ray workers of {placement}"

    def compute(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
        """Write each shard into ``folder``; yields each shard when it is done."""
        folder = folder.absolute()
        self._todo.extend(shards)
        for _ in shards:
            shard = None
            while shard is None:
                self._assign_shards(folder)
                shard = self._step()
            _wait_for(folder / shard.name)
            yield shard
        for worker in self._workers:
            self._ray.kill(worker.actor)
        for part in folder.glob(".*.part"):  # of workers that died
            part.unlink(missing_ok=True)

    def _ready(self) -> list[_WorkerHandle]:
        return [worker for worker in self._workers if worker.device]

    def _await_start(self, worker: _WorkerHandle) -> None:
        """Call a worker, which answers once it has started; Ray repeats this call if it loses the worker."""
        self._calls[worker.actor.__ray_ready__.options(max_task_retries=-1).remote()] = worker, _Call.START

    def _assign_shards(self, folder: Path) -> None:
        """Give each worker a shard, and a second one in advance while there are more shards than workers."""
        ready = self._ready()
        while self._todo and ready:
            worker = min(ready, key=lambda worker: len(worker.held))
            if len(worker.held) >= (2 if len(self._todo) > len(ready) else 1):
                return
            shard = self._todo.popleft()
            worker.held.append(shard)
            self._calls[worker.actor.explain.remote(shard, folder / shard.name)] = worker, shard

    def _step(self) -> Shard | None:
        """Handle the next call that returns; the shard if one is done.

        Raises:
            HvxError: raised by a worker; or too many workers were lost.
        """
        call = self._next()
        worker, task = self._calls.pop(call)
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from (None if isinstance(error.cause, HvxError) else error)
        except self._ray.exceptions.RayError as error:
            self._handle_loss(worker, task, _reason(error))
            return None
        if isinstance(task, Shard):
            worker.held.remove(task)
            return task
        if task is _Call.START:
            self._calls[worker.actor.load.remote()] = worker, _Call.LOAD
        else:
            worker.device, worker.deaths = result, 0
        return None

    def _next(self) -> Any:
        """The next call that returns; of several that have, the one that was made first.

        A worker that completes a shard and dies of the next one is thus not taken to have died of the first.
        """
        reported = False
        while True:
            finished, _ = self._ray.wait(list(self._calls), timeout=_PATIENCE)
            if finished:
                return self._ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)[0][0]
            if not reported and not self._ready():
                self._log(f"Ray: no worker has begun yet; waiting for {self._placement}")
                reported = True

    def _handle_loss(self, worker: _WorkerHandle, task: Shard | _Call, reason: str) -> None:
        """Take back the shards of a dead worker, and wait for its restart.

        Raises:
            HvxError: too many workers died on one shard, or no worker is left.
        """
        if isinstance(task, Shard):
            worked_on, names = worker.held[0], ", ".join(shard.name for shard in worker.held)
            self._deaths[worked_on.number] += 1
            if self._deaths[worked_on.number] >= _DEATHS:
                raise HvxError(f"{worked_on.name}: {_DEATHS} workers died of this shard; the last: {reason}")
            self._log(f"Ray: a worker was lost; {names} will be done again")
        else:
            worker.deaths += 1
            if task is _Call.START or worker.deaths >= _DEATHS:
                self._remove_worker(worker, reason)
                return
        self._calls = {call: pending for call, pending in self._calls.items() if pending[0] is not worker}
        self._todo.extendleft(reversed(worker.held))
        worker.held, worker.device = [], None
        self._await_start(worker)

    def _remove_worker(self, worker: _WorkerHandle, reason: str) -> None:
        """Continue without a worker that Ray cannot start, or that dies whenever it loads the model."""
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        if not self._workers:
            raise HvxError(f"Ray: no worker can be started: {reason}")
        self._log(f"Ray: a worker cannot be started, {len(self._workers)} are left: {reason}")


def _reason(error: Exception) -> str:
    """Ray's reason for a loss, as one line: the last one of a traceback."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[-1] if "Traceback" in text else " ".join(text.split())


def _wait_for(path: Path) -> None:
    """Wait until a file that a worker wrote is visible here.

    Raises:
        HvxError: it is not visible in time.
    """
    for _ in range(_FILE_TIMEOUT):
        if path.exists():
            return
        any(path.parent.iterdir())  # listing a folder makes a network file system ask its server again
        time.sleep(1)
    raise HvxError(
        f"{path}: a worker wrote it, and it is not here; a run folder must be one that all machines see"
    )


@contextmanager
def ray_engine(asked: Workers, log: Log) -> Iterator[Callable[[Config, RunIdentity], RayEngine]]:
    """A function that starts an engine with Ray workers; on exit, workers and connection are closed.

    Args:
        asked: address, number of workers, and GPUs of each.
        log: receives messages for the user, a line at a time.

    Raises:
        HvxError: Ray is not installed.
    """
    ray = import_ray(local=asked.address is None)
    with ExitStack() as stack:

        def start(config: Config, identity: RunIdentity) -> RayEngine:
            stack.enter_context(connected(ray, asked.address))
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            return RayEngine(ray, config, place(nodes, asked), identity, log)

        yield start
