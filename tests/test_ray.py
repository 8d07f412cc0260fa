"""Ray as the engine: the same run by other processes, whoever of them is lost. Ray is really started."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import Tiny, hvx
from processes import explain_command, started

from hvx.config import Config
from hvx.errors import BadImage, HvxError
from hvx.run.explain import Summary, explain_split
from hvx.run.identity import RunIdentity, versions
from hvx.run.local import local_engine
from hvx.run.ray.connection import connected, import_ray
from hvx.run.ray.placement import Workers
from hvx.run.ray.remote import RemoteWorker
from hvx.run.shards import Shard
from hvx.store import writer
from hvx.store.schema import FIELDS

try:
    ray = import_ray(local=True)  # a cluster of this machine alone, which no one else can join
    from ray.cluster_utils import Cluster

    from hvx.run.ray.engine import ray_engine
except (HvxError, ImportError):
    pytest.skip("Ray is not installed", allow_module_level=True)

THREADS = 1
"""Of every process whose run is compared bit by bit: sums over more threads round otherwise."""
NODE = {"node_ip_address": "127.0.0.1", "num_cpus": THREADS, "object_store_memory": 80_000_000}
SOON = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}
"""A lost node is noticed within some seconds."""

LONG = 180
"""Seconds; far more than anything waited for takes, on a machine that has other things to do as well."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two simulated nodes, with room for one worker each."""
    folder = tempfile.mkdtemp(prefix="hvx-test-", dir="/tmp")  # short, as the path of a socket must be
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        made = Cluster()
        try:
            made.add_node(**NODE, include_dashboard=False, _system_config=SOON)
            made.add_node(**NODE)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the tiny split in eight shards of one image each, by one process."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    torch.set_num_threads(THREADS)
    explain_split(_in_eight(tiny, run), local_engine(torch.device("cpu")))
    return run


def _in_eight(tiny: Tiny, run: Path, **more: object) -> Config:
    return tiny.load(run, explain__gradient=True, explain__shard_questions=1, **more)


def _on(cluster: Cluster, config: Config, said: list[str] | None = None, workers: int = 2) -> Summary:
    """The run that a config asks for, by workers of the cluster."""
    say = (said if said is not None else []).append
    with ray_engine(Workers(cluster.address, workers), say) as start:
        return explain_split(config, start, log=say)


def _assert_equal(run: Path, other: Path, to_rounding: bool = False) -> None:
    with h5py.File(run / "explanations.h5") as one, h5py.File(other / "explanations.h5") as two:
        assert set(one) == set(two)
        for name in set(one) & set(FIELDS):
            if to_rounding and FIELDS[name].dtype in (np.float16, np.float32):
                np.testing.assert_allclose(one[name][:], two[name][:], 2e-3, 1e-3, err_msg=name)
            else:
                np.testing.assert_array_equal(one[name][:], two[name][:], name)
    assert (run / "results.json").read_bytes() == (other / "results.json").read_bytes()
    assert not list(run.rglob("*.part"))


def gated(gate: Path) -> type[RemoteWorker]:
    """Workers that stop while they write a shard, and note it, until the gate opens.

    A note is called after the shard and the process, and holds Ray's id of the node. ``gate / "open"`` lets
    all shards pass, ``gate / "00000.h5"`` that one.
    """

    class Gated(RemoteWorker):
        def explain(self, shard: Shard, path: Path) -> None:
            def stop_and_seal(*args: Any) -> None:
                node = ray.get_runtime_context().get_node_id()
                (gate / f"{shard.name}.{os.getpid()}").write_text(node)
                while not ((gate / "open").exists() or (gate / shard.name).exists()):
                    time.sleep(0.02)
                seal(*args)

            seal, writer.write_checksum = writer.write_checksum, stop_and_seal
            try:
                super().explain(shard, path)
            finally:
                writer.write_checksum = seal

    return Gated


def _until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def _notes(
    gate: Path,
    wanted: Callable[[str], bool] = lambda node: True,
    command: subprocess.Popen[str] | None = None,
) -> list[Path]:
    """Notes of workers on nodes that are wanted, once there is one; a command must not end before."""
    found: list[Path] = []

    def look() -> list[Path]:
        assert command is None or command.poll() is None, command.communicate()
        found[:] = [note for note in gate.glob("*.h5.*") if (node := note.read_text()) and wanted(node)]
        return found

    _until(look)
    return found


def _pid(note: Path) -> int:
    return int(note.suffix[1:])


@contextmanager
def _running(run: Callable[[], object]) -> Iterator[None]:
    """Something that runs beside the block, and that the block ends by waiting for."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        yield
        running.result(LONG)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The gate of all workers of a test."""
    made = tmp_path / "gate"
    made.mkdir()
    monkeypatch.setattr("hvx.run.ray.engine.RemoteWorker", gated(made))
    return made


def _but_slow(lines: list[str]) -> list[str]:
    """What was said, less that workers take more than half a minute to begin, as on a busy machine."""
    return [line for line in lines if not line.startswith("Ray: no worker has begun yet")]


def test_two_nodes_do_what_one_process_does(
    cluster: Cluster, tiny: Tiny, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for more workers than there is room for, with paths that mean something to the asking process."""
    monkeypatch.chdir(tiny.root.parent)
    monkeypatch.setenv("SCENES_HERE", "scenes")
    relative = {"root": tiny.root.name, "splits__val__images": "$SCENES_HERE/images"}
    config = _in_eight(tiny, Path(os.path.relpath(tmp_path / "run", tiny.root)), **relative)
    assert not config.root.is_absolute()
    said: list[str] = []
    with ray_engine(Workers(cluster.address, 3), said.append) as start:
        summary = explain_split(config, start)
    assert _but_slow(said) == ["Ray: room for 2 of 3 workers; the others begin when there is more"]
    assert (summary.done_now, summary.failed) == (8, 0)
    _assert_equal(tmp_path / "run", undisturbed)


def test_a_worker_killed_in_the_middle_of_a_shard_is_made_up_for(
    cluster: Cluster, tiny: Tiny, undisturbed: Path, gate: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said: list[str] = []
    with _running(lambda: _on(cluster, _in_eight(tiny, run), said)):
        killed = _notes(gate)[0]
        assert list((run / "shards").glob(f".{killed.stem}.*.part"))
        os.kill(_pid(killed), signal.SIGKILL)
        (gate / "open").touch()
    assert len(list(gate.glob(f"{killed.stem}.*"))) == 2  # written by another once more
    assert [line for line in said if killed.stem in line and "will be done again" in line]
    _assert_equal(run, undisturbed)


def test_a_node_lost_in_the_middle_of_a_shard_is_made_up_for(
    cluster: Cluster, tiny: Tiny, undisturbed: Path, gate: Path, tmp_path: Path
) -> None:
    """The other node goes on alone; a node that joins gets the lost worker."""
    (lost,) = cluster.worker_nodes
    run = tmp_path / "run"
    with _running(lambda: _on(cluster, _in_eight(tiny, run))):
        _notes(gate, lambda node: node == lost.node_id)
        (first,) = _notes(gate, lambda node: node != lost.node_id)
        cluster.remove_node(lost, allow_graceful=False)
        (gate / first.stem).touch()
        _until(lambda: len(_notes(gate, lambda node: node != lost.node_id)) == 2)
        assert (run / "shards" / first.stem).exists()
        joined = cluster.add_node(**NODE)
        _notes(gate, lambda node: node == joined.node_id)
        (gate / "open").touch()
    _assert_equal(run, undisturbed)


def test_a_killed_drivers_workers_end(cluster: Cluster, tiny: Tiny, gate: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver = started(_gated_command(gate, tiny, run, "--address", cluster.address))
    notes = _notes(gate, command=driver)
    driver.kill()
    out, errors = driver.communicate(timeout=LONG)
    assert (out, _but_slow(errors.splitlines())) == ("", [])
    _until(lambda: not any(Path(f"/proc/{_pid(note)}").exists() for note in notes))
    assert not list((run / "shards").glob("0*"))


def test_a_shard_of_which_every_worker_dies_is_named(
    cluster: Cluster, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly(RemoteWorker):
        def explain(self, shard: Shard, path: Path) -> None:
            if shard.number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            super().explain(shard, path)

    monkeypatch.setattr("hvx.run.ray.engine.RemoteWorker", Deadly)
    monkeypatch.setattr("hvx.run.ray.engine._DEATHS", 2)
    with pytest.raises(HvxError, match=r"^00001\.h5: 2 workers died of this shard; the last: [^\n]*$"):
        _on(cluster, _in_eight(tiny, tmp_path / "run"), workers=1)


def test_a_model_of_whose_loading_every_worker_dies_is_an_error(
    cluster: Cluster, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly(RemoteWorker):
        def load(self) -> str:
            os.kill(os.getpid(), signal.SIGKILL)
            return ""

    monkeypatch.setattr("hvx.run.ray.engine.RemoteWorker", Deadly)
    monkeypatch.setattr("hvx.run.ray.engine._DEATHS", 2)
    with pytest.raises(HvxError, match=r"^Ray: no worker can be started: [^\n]*$"):
        _on(cluster, tiny.load(tmp_path / "run"), workers=1)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_a_worker_does_not_find_is_one_line(
    cluster: Cluster, tiny: Tiny, tmp_path: Path
) -> None:
    config = tiny.load(tmp_path / "run", checkpoint=tmp_path / "absent.safetensors")
    with (
        ray_engine(Workers(cluster.address, 1), print) as start,
        pytest.raises(HvxError, match=r"^[^\n]*absent\.safetensors: no such checkpoint$") as caught,
    ):
        start(config, RunIdentity({}, versions()))
    assert type(caught.value) is HvxError


def test_a_bad_image_stops_the_run_where_the_config_says_so(
    cluster: Cluster, tiny: Tiny, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(tiny.root / "scenes" / "images", images)
    (images / "SCENES_val_000001000001.png").write_bytes(b"not an image")
    config = _in_eight(tiny, tmp_path / "run", explain__on_error="stop", splits__val__images=images)
    with pytest.raises(BadImage, match=r"^[^\n]*SCENES_val_000001000001\.png[^\n]*$") as caught:
        _on(cluster, config, workers=1)
    assert type(caught.value) is BadImage
    assert not (tmp_path / "run" / "explanations.h5").exists()


def test_gpus_that_no_node_has_are_refused(cluster: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    with (
        ray_engine(Workers(cluster.address, gpus=1), print) as start,
        pytest.raises(HvxError, match="--gpus-per-worker 1: no machine"),
    ):
        explain_split(tiny.load(tmp_path / "run"), start)
    assert not (tmp_path / "run").exists()


# The command, with a Ray of its own.

GATED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
import test_ray, hvx.run.ray.engine
hvx.run.ray.engine.RemoteWorker = test_ray.gated(Path(sys.argv.pop(1)))
from hvx.cli import main
main(prog_name="hvx")
"""


def _command(tiny: Tiny, run: Path, *more: str) -> list[str]:
    command = explain_command(tiny, run, explain__gradient=True)
    return [*command, "--engine", "ray", "--workers", "1", *more]


def _gated_command(gate: Path, tiny: Tiny, run: Path, *more: str) -> list[str]:
    """The command by workers that stop at a gate."""
    gated_hvx = ["-c", GATED, str(Path(__file__).parent), str(gate)]
    python, _, _, *arguments = _command(tiny, run, *more)
    return [python, *gated_hvx, *arguments]


def _descendants(command: subprocess.Popen[str]) -> list[int]:
    """A command and all that it led to, whoever has died in between: its session's processes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(session) == command.pid and state != "Z":
                found.append(int(entry.name))
    return found


def _listening(pids: list[int]) -> set[str]:
    """Addresses on which processes accept connections."""
    sockets = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                sockets.add(str(entry.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            local, state, inode = fields[1], fields[3], fields[9]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.add(_address(local.split(":")[0]))
    return found


def _address(digits: str) -> str:
    """An address of /proc/net: words in the machine's order."""
    words = [bytes.fromhex(digits[i : i + 8])[::-1] for i in range(0, len(digits), 8)]
    packed = b"".join(words) if sys.byteorder == "little" else bytes.fromhex(digits)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def test_the_command_starts_and_ends_a_ray_of_its_own_that_only_this_machine_reaches(
    tiny: Tiny, undisturbed: Path, tmp_path: Path
) -> None:
    """Interrupted in the middle of its first shard, and then continued by the same command."""
    gate, run = tmp_path / "gate", tmp_path / "run"
    gate.mkdir()
    command = started(_gated_command(gate, tiny, run))
    _notes(gate, command=command)
    assert _listening(_descendants(command)) == {"127.0.0.1", "::ffff:127.0.0.1"}
    command.send_signal(signal.SIGTERM)
    out, error = command.communicate(timeout=LONG)
    assert (command.returncode, out) == (130, "")
    assert error.startswith(f"Error: {run}: interrupted; 0 of 8 shards are done; the same command resumes ")
    assert error.count("\n") == 1
    assert _descendants(command) == []
    command = started(_command(tiny, run))
    out, error = command.communicate(timeout=LONG)
    assert (command.returncode, error) == (0, "")
    assert _descendants(command) == []
    assert re.fullmatch(rf"{re.escape(str(run))}: [0-9]+ questions explained in [0-9.]+ s\n", out)
    _assert_equal(run, undisturbed, to_rounding=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--workers", "2"], "--workers is for --engine ray"),
        (["--address", "auto"], "--address is for --engine ray"),
        (["--gpus-per-worker", "0"], "--gpus-per-worker is for --engine ray"),
        (["--engine", "ray", "--device", "cpu"], "--device cpu is for --engine local"),
        (["--engine", "ray", "--workers", "0"], "0 is not in the range"),
        (["--engine", "ray", "--gpus-per-worker", "2"], "2.0 is not in the range"),
    ],
)
def test_options_that_make_no_sense_are_refused(tiny: Tiny, options: list[str], named: str) -> None:
    done = hvx("explain", tiny.config, *options)
    assert done.returncode == 2
    assert f"{named}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("127.0.0.1", "expected auto or HOST:PORT"),
        ("127.0.0.1:99999", "expected auto or HOST:PORT"),
        ("127.0.0.1:" + "9" * 5000, "expected auto or HOST:PORT"),
        ("a" * 100 + ".org:6379", "no Ray cluster answers there"),
        ("127.0.0.1:{closed}", "no Ray cluster answers there"),
    ],
)
def test_an_address_where_no_cluster_answers_is_refused_at_once(address: str, named: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and no one listens there
        address = address.format(closed=bound.getsockname()[1])
        with pytest.raises(HvxError, match=named), connected(ray, address):
            pass
