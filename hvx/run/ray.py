"""Shards on several GPUs or machines: workers that Ray starts, places, and starts again when lost."""

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
from hvx.run.connection import connected, import_ray
from hvx.run.identity import RunIdentity
from hvx.run.lock import Say
from hvx.run.placement import Placement, Workers, place
from hvx.run.plan import Shard
from hvx.run.remote import RemoteWorker, absolute

_DEATHS = 5
"""So many workers may die of one shard, or of loading the model, before that is taken to be the cause."""
_PATIENCE = 30
"""Seconds without any worker before the user is told what is waited for."""
_LAG = 60
"""Seconds for which a network file system may not show here what a worker wrote there."""


@dataclass(eq=False)
class _Hand:
    """A worker as this end knows it.

    Attributes:
        actor: Ray's handle of it.
        device: what its model runs on; none: not loaded yet, or lost and not loaded again.
        held: the shards that it was given and has not done, the one that it works on first.
        deaths: how often it died of loading the model, one time after the other.
    """

    actor: Any
    device: str | None = None
    held: list[Shard] = field(default_factory=list)
    deaths: int = 0


class _Call(Enum):
    """What a worker is asked for, beside shards."""

    START = "its process is there"
    LOAD = "its model is loaded"


class RayEngine:
    """Computes shards by workers of a cluster that this process is connected to.

    A worker gets its next shard ahead of finishing the last. Of one that dies, the shards go to whoever is
    free; Ray starts it again, here or on another machine, and it takes part once its model is loaded. A shard
    may so be done twice, which does no harm: it is whole or absent, and either time the same.

    Args:
        ray: the module.
        config: the whole tree, with ``explain``.
        placement: how many workers, and what each gets.
        identity: the run that the shards belong to.
        say: told what a user should know, a line at a time.

    Raises:
        HvxError: as ``RemoteWorker.load``, of any worker that fails before the first is ready; or none could
            be started.
    """

    def __init__(
        self, ray: Any, config: Config, placement: Placement, identity: RunIdentity, say: Say
    ) -> None:
        self._ray, self._placement, self._say = ray, placement, say
        self._calls: dict[Any, tuple[_Hand, Shard | _Call]] = {}
        self._todo: deque[Shard] = deque()
        self._deaths: Counter[int] = Counter()
        remote = ray.remote(RemoteWorker).options(
            num_cpus=placement.cpus, num_gpus=placement.gpus, max_restarts=-1
        )
        own = absolute(config), placement.gpus > 0, placement.cpus, socket.gethostname(), identity
        self._hands = [_Hand(remote.remote(*own)) for _ in range(placement.count)]
        for hand in self._hands:
            self._await_start(hand)
        if placement.count > placement.room:
            say(
                f"Ray: room for {placement.room} of {placement.count} workers; "
                "the others begin when there is more"
            )
        while not self._ready():
            self._step()
        self.about = f"{self._ready()[0].device}, in {placement.count} Ray workers of {placement}"

    def compute(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
        """Write each shard into ``folder``; yields those done, as they are done."""
        folder = folder.absolute()
        self._todo.extend(shards)
        for _ in shards:
            shard = None
            while shard is None:
                self._hand_out(folder)
                shard = self._step()
            _wait_for(folder / shard.name)
            yield shard
        for hand in self._hands:
            self._ray.kill(hand.actor)
        for part in folder.glob(".*.part"):  # of workers that died
            part.unlink(missing_ok=True)

    def _ready(self) -> list[_Hand]:
        return [hand for hand in self._hands if hand.device]

    def _await_start(self, hand: _Hand) -> None:
        """Have a worker say that it is there; Ray keeps this one call however often it loses the worker."""
        self._calls[hand.actor.__ray_ready__.options(max_task_retries=-1).remote()] = hand, _Call.START

    def _hand_out(self, folder: Path) -> None:
        """Give each worker a shard, and a second one to go on with while there is more than enough."""
        ready = self._ready()
        while self._todo and ready:
            hand = min(ready, key=lambda hand: len(hand.held))
            if len(hand.held) >= (2 if len(self._todo) > len(ready) else 1):
                return
            shard = self._todo.popleft()
            hand.held.append(shard)
            self._calls[hand.actor.explain.remote(shard, folder / shard.name)] = hand, shard

    def _step(self) -> Shard | None:
        """Take the next thing that comes back; the shard, if one is done.

        Raises:
            HvxError: of a worker; or so many were lost that something else is wrong.
        """
        call = self._next()
        hand, task = self._calls.pop(call)
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from (None if isinstance(error.cause, HvxError) else error)
        except self._ray.exceptions.RayError as error:
            self._lost(hand, task, _reason(error))
            return None
        if isinstance(task, Shard):
            hand.held.remove(task)
            return task
        if task is _Call.START:
            self._calls[hand.actor.load.remote()] = hand, _Call.LOAD
        else:
            hand.device, hand.deaths = result, 0
        return None

    def _next(self) -> Any:
        """The next call to come back."""
        said = False
        while True:
            done, _ = self._ray.wait(list(self._calls), timeout=_PATIENCE)
            if done:
                return done[0]
            if not said and not self._ready():
                self._say(f"Ray: no worker has begun yet; waiting for {self._placement}")
                said = True

    def _lost(self, hand: _Hand, task: Shard | _Call, reason: str) -> None:
        """Take back what a dead worker held, and await it again.

        Raises:
            HvxError: too many died of one shard, or no worker is left.
        """
        if isinstance(task, Shard):
            worked_on, names = hand.held[0], ", ".join(shard.name for shard in hand.held)
            self._deaths[worked_on.number] += 1
            if self._deaths[worked_on.number] >= _DEATHS:
                raise HvxError(f"{worked_on.name}: {_DEATHS} workers died of this shard; the last: {reason}")
            self._say(f"Ray: a worker was lost; {names} will be done again")
        else:
            hand.deaths += 1
            if task is _Call.START or hand.deaths >= _DEATHS:
                self._give_up(hand, reason)
                return
        self._calls = {call: (own, of) for call, (own, of) in self._calls.items() if own is not hand}
        self._todo.extendleft(reversed(hand.held))
        hand.held, hand.device = [], None
        self._await_start(hand)

    def _give_up(self, hand: _Hand, reason: str) -> None:
        """Go on without a worker that Ray cannot start, or that dies whenever it loads the model."""
        self._hands.remove(hand)
        self._ray.kill(hand.actor)
        if not self._hands:
            raise HvxError(f"Ray: no worker can be started: {reason}")
        self._say(f"Ray: a worker cannot be started, {len(self._hands)} are left: {reason}")


def _reason(error: Exception) -> str:
    """What Ray says of a loss, as one line: of a traceback its last one."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[-1] if "Traceback" in text else " ".join(text.split())


def _wait_for(path: Path) -> None:
    """Wait until a file that a worker wrote shows here.

    Raises:
        HvxError: it does not.
    """
    for _ in range(_LAG):
        if path.exists():
            return
        any(path.parent.iterdir())  # a network file system asks its server anew when a folder is listed
        time.sleep(1)
    raise HvxError(
        f"{path}: a worker wrote it, and it is not here; a run folder must be one that all machines see"
    )


@contextmanager
def by_ray(asked: Workers, say: Say) -> Iterator[Callable[[Config, RunIdentity], RayEngine]]:
    """What starts an engine of Ray's workers; on leaving, they and the connection are ended.

    Args:
        asked: where, how many, and on what.
        say: told what a user should know, a line at a time.

    Raises:
        HvxError: Ray is not installed.
    """
    ray = import_ray(local=asked.address is None)
    with ExitStack() as opened:

        def start(config: Config, identity: RunIdentity) -> RayEngine:
            opened.enter_context(connected(ray, asked.address))
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            return RayEngine(ray, config, place(nodes, asked), identity, say)

        yield start
