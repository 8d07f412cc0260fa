"""The engine of Ray without Ray: who gets which shard, what a loss leads to, what is said of it."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Tiny

from hvx.config import Config
from hvx.errors import BadImage, HvxError
from hvx.run.identity import RunIdentity, versions
from hvx.run.ray import engine, remote
from hvx.run.ray.engine import RayEngine
from hvx.run.ray.placement import Placement, Workers, place
from hvx.run.ray.remote import RemoteWorker, absolute
from hvx.run.shards import Shard

IDENTITY = RunIdentity({}, {})


class Call:
    """A call of a worker; ``due``: it has come back."""

    def __init__(self, actor: Actor, name: str, given: tuple[Any, ...]) -> None:
        self.actor, self.name, self.given = actor, name, given

    def __repr__(self) -> str:
        shard = f" {self.given[0].number}" if self.given else ""
        return f"{self.actor.number} {self.name}{shard}"


class Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def options(self, **given: Any) -> Method:
        assert given == {"max_task_retries": -1}
        return self

    def remote(self, *given: Any) -> Call:
        call = Call(self._actor, self._name, given)
        self._actor.ray.pending.append(call)
        self._actor.ray.log.append(repr(call))
        return call


class Actor:
    def __init__(self, ray: FakeRay, number: int) -> None:
        self.ray, self.number = ray, number
        self.__ray_ready__ = Method(self, "start")
        self.load, self.explain = Method(self, "load"), Method(self, "explain")


class Exceptions:
    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        def __init__(self, cause: Exception) -> None:
            super().__init__(str(cause))
            self.cause = cause


class FakeRay:
    """Runs no process: calls come back in the order in which they were made, or as ``order`` says.

    ``faults``: what a call raises, by its representation ("0 explain 2"), one time after the other.
    """

    exceptions = Exceptions

    def __init__(self, faults: dict[str, list[Exception]] | None = None, late: Sequence[str] = ()) -> None:
        self.pending: list[Call] = []
        self.log: list[str] = []
        self.faults = faults or {}
        self.late = set(late)
        """Calls that come back only if no other does."""
        self.empty_waits = 0
        self.actors: list[Actor] = []
        self.made_with: list[Any] = []

    def remote(self, kind: type) -> FakeRay:
        assert kind is RemoteWorker
        ray = self

        class Maker:
            def options(self, **given: Any) -> Maker:
                ray.made_with.append(given)
                return self

            def remote(self, *given: Any) -> Actor:
                ray.made_with.append(given)
                ray.actors.append(Actor(ray, len(ray.actors)))
                return ray.actors[-1]

        return Maker()  # type: ignore[return-value]

    def wait(self, calls: list[Call], timeout: float, num_returns: int = 1) -> tuple[list[Call], list[Call]]:
        """As Ray's: up to ``num_returns`` of the calls that are ready, in the order of ``calls``.

        If one is asked for, Ray may give any of them; here it is the last.
        """
        assert timeout in (0, 30)
        if self.empty_waits and timeout:
            self.empty_waits -= 1
            return [], calls
        known = [call for call in calls if call in self.pending]
        ready = [call for call in known if repr(call) not in self.late] or known
        return (ready[:num_returns] if num_returns > 1 else ready[-1:]), []

    def get(self, call: Call) -> Any:
        self.pending.remove(call)
        faults = self.faults.get(repr(call))
        if faults:
            raise faults.pop(0)
        if call.name == "explain":
            call.given[1].write_text(repr(call))
        return f"device of {call.actor.number}" if call.name == "load" else None

    def kill(self, actor: Actor) -> None:
        self.log.append(f"{actor.number} killed")


def lost(text: str = "the node died") -> Exception:
    return Exceptions.RayError(text)


def shards(count: int) -> list[Shard]:
    return [Shard(number, ()) for number in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shards"
    made.mkdir()
    return made


def started(tiny: Tiny, ray: FakeRay, count: int = 2, room: int | None = None) -> tuple[RayEngine, list[str]]:
    said: list[str] = []
    placement = Placement(count, 3, 0.5, count if room is None else room)
    return RayEngine(ray, tiny.load(tiny.root / "run"), placement, IDENTITY, said.append), said


def numbers(done: Any) -> list[int]:
    return [shard.number for shard in done]


def test_workers_are_made_as_they_are_placed(tiny: Tiny) -> None:
    ray = FakeRay()
    made, said = started(tiny, ray, count=2)
    assert ray.made_with[0] == {"num_cpus": 3, "num_gpus": 0.5, "max_restarts": -1}
    assert len(ray.made_with) == 3 and ray.made_with[1] == ray.made_with[2]
    config, cuda, threads, home, identity = ray.made_with[1]
    assert (cuda, threads, home, identity) == (True, 3, socket.gethostname(), IDENTITY)
    assert config == absolute(tiny.load(tiny.root / "run"))
    assert made.about == "device of 0, in 2 Ray workers of 3 CPUs and 0.5 GPU each"
    assert said == []
    assert ray.log == ["0 start", "1 start", "0 load", "1 load"]


@pytest.mark.parametrize(("room", "told"), [(1, True), (2, True), (3, False), (4, False)])
def test_too_little_room_is_said(tiny: Tiny, room: int, told: bool) -> None:
    _, said = started(tiny, FakeRay(), count=3, room=room)
    line = f"Ray: room for {room} of 3 workers; the others begin when there is more"
    assert said == ([line] if told else [])


def test_a_wait_for_the_first_worker_is_said_once(tiny: Tiny) -> None:
    ray = FakeRay()
    ray.empty_waits = 3
    _, said = started(tiny, ray)
    assert said == ["Ray: no worker has begun yet; waiting for 3 CPUs and 0.5 GPU each"]


def test_later_waits_are_not_said(tiny: Tiny, folder: Path) -> None:
    ray = FakeRay()
    made, said = started(tiny, ray)
    ray.empty_waits = 3
    assert numbers(made.compute(shards(2), folder)) == [0, 1]
    assert said == []


def test_each_worker_gets_a_second_shard_only_while_there_are_more_than_workers(
    tiny: Tiny, folder: Path
) -> None:
    ray = FakeRay()
    made, _ = started(tiny, ray)
    ray.log.clear()
    ray.late = {"1 load"}
    (folder / ".00000.h5.ab.part").touch()
    (folder / "other").touch()
    assert numbers(made.compute(shards(6), folder)) == [0, 1, 2, 3, 4, 5]
    # The second worker's model is loaded only when nothing else comes back.
    assert ray.log == [
        "0 explain 0", "0 explain 1", "0 explain 2", "0 explain 3", "0 explain 4", "0 explain 5",
        "0 killed", "1 killed",
    ]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == [*(f"{n:05d}.h5" for n in range(6)), "other"]


def test_two_workers_share_the_shards(tiny: Tiny, folder: Path) -> None:
    ray = FakeRay()
    made, _ = started(tiny, ray)
    while len(made._ready()) < 2:
        made._step()
    ray.log.clear()
    assert sorted(numbers(made.compute(shards(7), folder))) == list(range(7))
    assert ray.log == [
        "0 explain 0", "1 explain 1", "0 explain 2", "1 explain 3",
        "0 explain 4", "1 explain 5", "0 explain 6", "0 killed", "1 killed",
    ]  # fmt: skip
    assert {path.name: path.read_text()[0] for path in folder.iterdir()} == {
        "00000.h5": "0", "00001.h5": "1", "00002.h5": "0", "00003.h5": "1", "00004.h5": "0", "00005.h5": "1",
        "00006.h5": "0",
    }  # fmt: skip


def test_of_a_worker_that_dies_the_shards_go_to_others_and_it_comes_back(tiny: Tiny, folder: Path) -> None:
    ray = FakeRay({"0 explain 0": [lost()]})
    made, said = started(tiny, ray)
    while len(made._ready()) < 2:
        made._step()
    ray.log.clear()
    assert sorted(numbers(made.compute(shards(5), folder))) == list(range(5))
    assert said == ["Ray: a worker was lost; 00000.h5, 00002.h5 will be done again"]
    assert ray.log.index("0 start") < ray.log.index("0 load")
    # Before the others, in order.
    again = [entry for entry in ray.log if entry.endswith((" explain 0", " explain 2"))][2:]
    assert [entry.split()[-1] for entry in again] == ["0", "2"]
    assert len(list(folder.iterdir())) == 5


def test_a_shard_of_which_workers_die_is_named_at_the_fifth(tiny: Tiny, folder: Path) -> None:
    trace = "\x1b[36mRay\x1b[0m: Traceback (most recent call last)\n  File x\nKilled by the kernel"
    ray = FakeRay({"0 explain 1": [lost(trace) for _ in range(9)]})
    made, said = started(tiny, ray, count=1)
    with pytest.raises(HvxError) as refused:
        list(made.compute(shards(2), folder))
    assert str(refused.value) == "00001.h5: 5 workers died of this shard; the last: Killed by the kernel"
    assert said == ["Ray: a worker was lost; 00001.h5 will be done again"] * 4


def test_a_worker_that_dies_of_loading_is_given_up_at_the_fifth_time(tiny: Tiny, folder: Path) -> None:
    ray = FakeRay({"0 load": [lost() for _ in range(5)]})
    made, said = started(tiny, ray)
    ray.late = {"1 explain 0", "1 explain 1"}
    assert numbers(made.compute(shards(2), folder)) == [0, 1]
    assert said == ["Ray: a worker cannot be started, 1 are left: the node died"]
    assert ray.log.count("0 load") == 5 and ray.log.count("0 killed") == 1


def test_deaths_of_loading_are_forgotten_once_the_model_is_loaded(tiny: Tiny, folder: Path) -> None:
    loads = [lost() for _ in range(4)]
    ray = FakeRay({"0 load": loads, "0 explain 0": [lost()]})
    made, said = started(tiny, ray, count=1)
    loads.extend(lost() for _ in range(4))
    assert numbers(made.compute(shards(1), folder)) == [0]
    assert ray.log.count("0 load") == 10
    assert said == ["Ray: a worker was lost; 00000.h5 will be done again"]


def test_where_no_worker_can_be_started_that_is_an_error(tiny: Tiny) -> None:
    ray = FakeRay({"0 start": [lost("no  such\n node")]})
    with pytest.raises(HvxError) as refused:
        started(tiny, ray, count=1)
    assert str(refused.value) == "Ray: no worker can be started: no such node"
    assert ray.log == ["0 start", "0 killed"]


@pytest.mark.parametrize("error", [HvxError("a line"), BadImage("an image"), ValueError("a fault")])
def test_what_a_worker_raises_is_raised_here(tiny: Tiny, folder: Path, error: Exception) -> None:
    made, _ = started(tiny, FakeRay({"0 explain 0": [Exceptions.RayTaskError(error)]}))
    with pytest.raises(type(error)) as raised:
        list(made.compute(shards(1), folder))
    assert raised.value is error
    cause = raised.value.__cause__
    assert cause is None if isinstance(error, HvxError) else isinstance(cause, Exceptions.RayTaskError)


def test_a_shard_that_does_not_show_here_is_an_error(
    tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(engine.time, "sleep", slept.append)
    made, _ = started(tiny, FakeRay())
    monkeypatch.setattr(Path, "write_text", lambda path, text: None)
    with pytest.raises(HvxError) as refused:
        list(made.compute(shards(1), folder))
    assert str(refused.value) == (
        f"{folder / '00000.h5'}: a worker wrote it, and it is not here; a run folder must be one that all "
        "machines see"
    )
    assert slept == [1] * 60


def test_a_shard_that_shows_late_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "00000.h5"
    monkeypatch.setattr(engine.time, "sleep", lambda seconds: path.touch())
    engine._wait_for(path)


def test_a_folder_is_given_by_its_whole_path(tiny: Tiny, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder.parent)
    made, _ = started(tiny, FakeRay())
    assert numbers(made.compute(shards(1), Path("shards"))) == [0]
    assert (folder / "00000.h5").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a\n b", "a b"), ("\x1b[1;31mred\x1b[0m", "red"), ("Traceback\nfirst\nlast\n", "last"), ("", "")],
)
def test_a_loss_is_told_in_one_line(text: str, reason: str) -> None:
    assert engine._reason(Exception(text)) == reason


def test_the_engine_takes_nodes_that_are_alive(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4}},
        {"Alive": False, "Resources": {"CPU": 400}},
        {"Alive": True, "Resources": {"CPU": 2}},
    ]
    ray.nodes = lambda: nodes  # type: ignore[attr-defined]
    events: list[Any] = []

    class Connected:
        def __init__(self, module: Any, address: str | None) -> None:
            events.append((module, address))

        def __enter__(self) -> None:
            events.append("connected")

        def __exit__(self, *error: object) -> None:
            events.append("left")

    def imported(local: bool) -> Any:
        events.append(local)
        return ray

    monkeypatch.setattr(engine, "import_ray", imported)
    monkeypatch.setattr(engine, "connected", Connected)
    for address, local in ((None, True), ("auto", False)):
        events.clear()
        with engine.ray_engine(Workers(address, count=3), print) as start:
            assert events == [local]
            made = start(tiny.load(tiny.root / "run"), IDENTITY)
            assert events[1:] == [(ray, address), "connected"]
            assert made.about == "device of 0, in 3 Ray workers of 2 CPUs each"
            ray.actors.clear()
            ray.pending.clear()
        assert events[-1] == "left"


# A worker, in this process.


def worker(tiny: Tiny, run: Path, **changed: Any) -> RemoteWorker:
    own = {"cuda": False, "threads": 1, "home": socket.gethostname(), **changed}
    return RemoteWorker(tiny.load(run), **own)


def identity_of(tiny: Tiny, **changed: str) -> RunIdentity:
    from hvx.files import sha256

    digest = sha256(tiny.root / "model.safetensors")
    return RunIdentity({"checkpoint_sha256": digest}, versions() | changed)


@pytest.mark.parametrize("name", ["hvx", "torch"])
@pytest.mark.parametrize("far", [False, True])
def test_another_version_on_a_machine_is_refused_and_the_machine_named(
    tiny: Tiny, tmp_path: Path, name: str, far: bool
) -> None:
    home = "elsewhere" if far else socket.gethostname()
    made = worker(tiny, tmp_path, home=home, identity=identity_of(tiny, **{name: "0.old"}))
    with pytest.raises(HvxError) as refused:
        made.load()
    where = f" (on {socket.gethostname()})" if far else ""
    assert str(refused.value) == (
        f"a worker has {name} {versions()[name]}, the run 0.old; install the same version everywhere{where}"
    )


def test_another_checkpoint_on_a_machine_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    identity = RunIdentity({"checkpoint_sha256": "0" * 64}, versions())
    with pytest.raises(HvxError) as refused:
        worker(tiny, tmp_path, identity=identity).load()
    assert str(refused.value) == (
        f"{tiny.root / 'model.safetensors'}: replaced since this run began; restore it, or give explain.run "
        "a new folder"
    )


def test_the_kind_of_an_error_is_kept_where_the_machine_is_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def explain(self, shard: Shard, path: Path) -> None:
            raise BadImage("an image")

    made = worker(tiny, tmp_path, home="elsewhere", identity=IDENTITY)
    made._worker = Failing()  # type: ignore[assignment]
    with pytest.raises(BadImage, match=rf"^an image \(on {re.escape(socket.gethostname())}\)$"):
        made.explain(Shard(0, ()), tmp_path / "00000.h5")


def test_a_run_folder_that_a_machine_does_not_see_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    made = worker(tiny, tmp_path, identity=identity_of(tiny))
    assert made.load() == "cpu"
    with pytest.raises(HvxError) as refused:
        made.explain(Shard(0, ()), tmp_path / "shards" / "00000.h5")
    assert str(refused.value) == (
        f"{tmp_path / 'shards'}: no such folder; a run folder must be one that all machines see"
    )
    assert not (tmp_path / "shards").exists()


def test_a_gpu_that_pytorch_cannot_use_is_said(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HvxError) as refused:
        worker(tiny, tmp_path, cuda=True, identity=identity_of(tiny)).load()
    assert str(refused.value) == (
        "Ray gave a worker a GPU that PyTorch cannot use; --gpus-per-worker 0 runs on CPUs"
    )


def test_a_worker_takes_its_device_and_threads(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(remote, "ShardWorker", lambda config, device, identity: devices.append(str(device)))
    before = torch.get_num_threads()
    try:
        assert worker(tiny, tmp_path, cuda=True, threads=3, identity=IDENTITY).load() == "cuda (a card)"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert worker(tiny, tmp_path, identity=IDENTITY).load() == "cpu"
    assert devices == ["cuda", "cpu"]


def test_a_config_means_the_same_in_another_folder(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.root.parent)
    monkeypatch.setenv("SCENES_HERE", "scenes")
    near: Config = tiny.load(tmp_path / "run", root=tiny.root.name, splits__val__images="$SCENES_HERE/images")
    far = absolute(near)
    monkeypatch.chdir("/")
    monkeypatch.delenv("SCENES_HERE")
    assert far.root == tiny.root
    assert far.checkpoint == tiny.root / "model.safetensors"
    assert set(far.splits) == {"val"}
    assert far.split("val").images == tiny.root / "scenes" / "images"
    assert far.split("val").questions.is_file()


# How many workers, and what each has.


@pytest.mark.parametrize(
    ("nodes", "asked", "found"),
    [
        ([{"CPU": 4}], {}, (1, 4, 0, 4)),
        ([{"CPU": 15}], {}, (1, 15, 0, 15)),
        ([{"CPU": 16}], {}, (2, 8, 0, 16)),
        ([{"CPU": 64}], {}, (8, 8, 0, 64)),
        ([{"CPU": 16}, {"CPU": 4}, {"CPU": 0}], {}, (3, 5, 0, 20)),
        ([{"CPU": 16}, {"GPU": 0}], {"count": 3}, (3, 5, 0, 16)),
        ([{"CPU": 1}, {"CPU": 0.5}], {}, (1, 1, 0, 1)),
        ([{"CPU": 4}, {"CPU": 4}], {"count": 3}, (3, 2, 0, 8)),
        ([{"CPU": 2}], {"count": 5}, (5, 1, 0, 2)),
        ([{"CPU": 32, "GPU": 4}], {}, (4, 8, 1, 4)),
        ([{"CPU": 32, "GPU": 0.5}], {}, (4, 8, 0, 32)),
        ([{"CPU": 32, "GPU": 4}, {"CPU": 8}], {}, (4, 8, 1, 4)),
        ([{"CPU": 32, "GPU": 4}], {"gpus": 0}, (4, 8, 0, 32)),
        ([{"CPU": 32, "GPU": 4}], {"gpus": 0.5}, (8, 4, 0.5, 8)),
        ([{"CPU": 32, "GPU": 1}], {"gpus": 0.1}, (10, 3, 0.1, 10)),
        ([{"CPU": 2, "GPU": 4}], {}, (2, 1, 1, 2)),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 4, "GPU": 1}], {}, (2, 4, 1, 2)),
    ],
)
def test_workers_share_a_cluster_out(
    nodes: list[dict[str, float]], asked: dict[str, Any], found: tuple[int, int, float, int]
) -> None:
    placed = place(nodes, Workers(**asked))
    assert (placed.count, placed.cpus, placed.gpus, placed.room) == found


@pytest.mark.parametrize(
    ("nodes", "asked", "needs"),
    [
        ([{"CPU": 0}], {}, "no machine"),
        ([{}], {}, "no machine"),
        ([{"CPU": 8}], {"gpus": 1}, "--gpus-per-worker 1: no machine"),
        ([{"CPU": 8, "GPU": 0.2}], {"gpus": 0.25}, "--gpus-per-worker 0.25: no machine"),
        ([{"GPU": 8}], {}, "--gpus-per-worker 1: no machine"),
    ],
)
def test_a_cluster_that_lacks_what_a_worker_needs_is_refused(
    nodes: list[dict[str, float]], asked: dict[str, Any], needs: str
) -> None:
    with pytest.raises(HvxError) as refused:
        place(nodes, Workers(**asked))
    assert str(refused.value) == (
        f"{needs} of the Ray cluster has what one worker needs; `ray status` shows what they have"
    )


@pytest.mark.parametrize(
    ("placement", "text"),
    [
        (Placement(1, 1, 0, 1), "1 CPU each"),
        (Placement(1, 2, 0, 1), "2 CPUs each"),
        (Placement(1, 1, 1, 1), "1 CPU and 1 GPU each"),
        (Placement(1, 8, 0.25, 1), "8 CPUs and 0.25 GPU each"),
    ],
)
def test_a_placement_is_told(placement: Placement, text: str) -> None:
    assert str(placement) == text
