"""The long rows of the table of faults, each a function that strikes runs and says what came of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import h5py
import numpy as np
import torch
import yaml
from fuzz_kinds import made_items

from hvx.config import Config, load
from hvx.data.scenes import write_scenes
from hvx.files import write_json
from hvx.run.explain import explain_split
from hvx.run.identity import RunIdentity
from hvx.run.local import LocalEngine
from hvx.run.run_directory import RunFolder
from hvx.run.shards import Shard
from hvx.store.reader import RunReader
from hvx.store.schema import run_digest
from hvx.store.writer import write_shard, write_view
from hvx.train.trainer import train_model

REPOSITORY = Path(__file__).resolve().parents[1]
KILLS = 20
MUTATIONS = 10_000
IMAGES, DAMAGED = 2_000, 200
EXPLANATIONS, SETTLED = 5_000, 500
QUESTIONS = 1_000_000
SHARDS = 4_000
TESTS = [
    "faults", "ray", "ray_engine", "sink", "checksum", "lock", "hostile_files", "run_directory", "signals",
    "files", "ray_connection", "poor_file_systems",
]  # fmt: skip

Row = Callable[[Path], str]
"""Works in a folder of its own; returns figures."""


# What rows share: a small built-in split, a model of it, and `hvx explain` in a process of its own.


def made_split(folder: Path, images: int, workers: int = 0) -> Path:
    """The config of a built-in split of so many images, with a model that was trained for a moment."""
    write_scenes(folder / "scenes", 24, images, 64, 0)
    tree = yaml.safe_load((REPOSITORY / "configs" / "scenes.yaml").read_text())
    tree["root"] = str(folder)
    tree["model"] |= {"image": {"size": 64}, "encoder": {"embedding": 8, "hidden": 12}, "joint": 10}
    tree["train"] |= {"epochs": 1, "backbone_epochs": 1}
    tree["explain"] |= {"batch_images": 4, "workers": workers}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    train_model(load(config), torch.device("cpu"))
    return config


def explain(config: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    """`hvx explain` into a run folder."""
    command = [sys.executable, "-m", "hvx", "explain", str(config), "--set", f"explain.run={run}", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], *statuses: int) -> str:
    """What a process said, which must end with one of these statuses."""
    out, err = process.communicate()
    if process.returncode not in statuses:
        raise click.ClickException(f"ended with {process.returncode}: {err}")
    return out + err


def datasets(run: Path) -> dict[str, bytes]:
    with h5py.File(run / "explanations.h5", "r") as file:
        return {
            name: repr(file[name][:].tolist()).encode()
            if h5py.check_string_dtype(file[name].dtype)
            else np.ascontiguousarray(file[name][:]).tobytes()
            for name in file
        }


# The rows.


def kills(folder: Path) -> str:
    """SIGKILL at random moments of a run, then the same command to its end."""
    config = made_split(folder, 60, workers=1)
    small = ("--set", "explain.shard_questions=12")
    run, chance = folder / "undisturbed", random.Random(0)
    process = explain(config, run, *small)
    began = first_sight(run / "run.json", process)
    ended(process, 0)
    lasts = time.monotonic() - began
    whole, shards = datasets(run), len(list((run / "shards").iterdir()))
    at: list[int] = []
    for number in range(KILLS):
        run = folder / f"killed {number}"
        process = explain(config, run, *small)
        first_sight(run / "run.json", process)
        time.sleep(chance.uniform(0, lasts))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        at.append(len(list((run / "shards").glob("*.h5"))))
        said = ended(explain(config, run, *small), 0)
        if datasets(run) != whole or (at[-1] and f"({at[-1]} shards were done before)" not in said):
            raise click.ClickException(f"kill {number}: {said}")
        shutil.rmtree(run)
    where = ", ".join(map(str, sorted(at)))
    return (
        f"{KILLS} kills, uniform over the {lasts:.1f} s of a run of {shards} shards; shards done by then: "
        f"{where}; all {KILLS} runs equal in each of {len(whole)} datasets, no shard done twice"
    )


def first_sight(path: Path, process: subprocess.Popen[str]) -> float:
    """The moment at which a file shows."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)
    return time.monotonic()


def images(folder: Path) -> str:
    """A tenth of a split's images damaged, then repaired."""
    config = made_split(folder, IMAGES)
    whole = folder / "scenes" / "images"
    kept = folder / "kept"
    shutil.copytree(whole, kept)
    chance = random.Random(0)
    struck = chance.sample(sorted(whole.glob("SCENES_val_*")), DAMAGED)
    for number, path in enumerate(struck):
        data = path.read_bytes()
        kinds = [data[: len(data) // 3], b"", b"no image", bytes(8) + data[8:], None, bytes(len(data))]
        content = kinds[number % len(kinds)]
        path.unlink() if content is None else path.write_bytes(content)
    run, start = folder / "run", time.monotonic()
    ended(explain(config, run), 3)
    seconds = time.monotonic() - start
    failures = [json.loads(line) for line in (run / "failures.jsonl").read_text().splitlines()]
    questions = json.loads(next((folder / "scenes").glob("*val_questions.json")).read_text())["questions"]
    lost_images = {int(path.stem.rpartition("_")[2]) for path in struck}
    lost = {row["question_id"] for row in questions if row["image_id"] in lost_images}
    with h5py.File(run / "explanations.h5", "r") as file:
        explained = set(file["question_id"][:].tolist())
    every = {row["question_id"] for row in questions}
    if {failure["question_id"] for failure in failures} != lost or explained != every - lost:
        raise click.ClickException("other questions failed than those of the damaged images")
    shutil.copytree(kept, whole, dirs_exist_ok=True)
    ended(explain(config, run, "--retry-failed"), 0)
    other = folder / "other"
    ended(explain(config, other), 0)
    if datasets(run) != datasets(other):
        raise click.ClickException("a repaired run is not equal to an undisturbed one")
    return (
        f"{DAMAGED} of {IMAGES:,} images damaged in six ways: exactly their {len(lost):,} of {len(every):,} "
        f"questions in `failures.jsonl`, exit 3, {seconds:.0f} s; repaired and `--retry-failed`: equal to an "
        "undisturbed run"
    )


def memory(folder: Path) -> str:
    """Memory of one process, which did nothing else before, over many explanations."""
    config = made_split(folder, 1_400)
    command = [sys.executable, __file__, str(config), str(folder / "run")]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: list[tuple[int, float]] = json.loads(said)
    after = [(done, size) for done, size in found if done >= SETTLED]
    settled, last, most = after[0][1], found[-1], max(size for _, size in after)
    if last[0] < EXPLANATIONS or most - settled >= 50:
        raise click.ClickException(f"{last[0]} explanations, {most - settled:.0f} MB")
    return (
        f"{last[0]:,} explanations: {settled:.0f} MB after the first {after[0][0]}, {last[1]:.0f} MB at the "
        f"end ({last[1] - settled:+.1f} MB; most {most - settled:+.1f} MB)"
    )


def watched(config: Path, run: Path) -> list[tuple[int, float]]:
    """Explain a split; after each shard: how many explanations there are, and this process's memory."""
    found: list[tuple[int, float]] = []

    class Watched(LocalEngine):
        def compute(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
            done = 0
            for shard in super().compute(shards, folder):
                done += len(shard)
                found.append((done, resident()))
                yield shard

    def start(config: Config, identity: RunIdentity) -> LocalEngine:
        return Watched(config, torch.device("cpu"), identity)

    explain_split(load(config, ["explain.shard_questions=100", f"explain.run={run}"]), start)
    return found


def resident() -> float:
    """Memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def plan(folder: Path) -> str:
    """The plan of a million questions, in a process of its own."""
    del folder
    command = [sys.executable, str(REPOSITORY / "scripts" / "measure_plan.py"), "--questions", str(QUESTIONS)]
    said = subprocess.run([*command, "--images", "200000"], check=True, capture_output=True, text=True)
    alone = subprocess.run(
        [*command, "--images", "200000", "--no-annotations"], check=True, capture_output=True, text=True
    )
    lines = [done.stdout.strip().splitlines()[-1] for done in (alone, said)]
    return f"questions alone: {lines[0]}; joined with ten answers each: {lines[1]}"


def view(folder: Path) -> str:
    """A view over many shards."""
    plan = [Shard(number, ()) for number in range(SHARDS)]
    run = RunFolder(folder / "run", plan)
    for shard in plan:
        label = {"shard": shard.number, "run_digest": run_digest({})}
        write_shard(run.shard_path(shard), made_items(shard.number), label, [])
    write_json(run.path / "run.json", {"identity": {}, "image": {}, "images": ""})
    paths = [run.shard_path(shard) for shard in plan]
    label = {"run_digest": run_digest({})}
    written, _ = timed(lambda: write_view(run.path / "explanations.h5", paths, label))
    missing, _ = timed(lambda: run.missing(print))
    opening, reader = timed(lambda: RunReader(run.path))
    item, _ = timed(lambda: reader[SHARDS])
    column, _ = timed(lambda: reader.column("answer"))
    again, _ = timed(lambda: reader.column("answer"))
    if opening >= 2:
        raise click.ClickException(f"opens in {opening:.1f} s")
    return (
        f"opens in {opening:.2f} s; an item is read in {item:.2f} s, a column of text in {column:.1f} s, the "
        f"second time {again:.1f} s; writing the view takes {written:.1f} s, finding no shard missing "
        f"{missing:.2f} s"
    )


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    done = call()
    return time.perf_counter() - start, done


def mutations(folder: Path) -> str:
    """Every kind of file, damaged in many ways; a table of its own."""
    output = folder / "tallies.json"
    command = [sys.executable, str(REPOSITORY / "scripts" / "fuzz_files.py"), "--mutations", str(MUTATIONS)]
    subprocess.run([*command, "-o", str(output)], check=True, stdout=sys.stderr)
    return output.read_text()


def tests(folder: Path) -> str:
    """The rows that are tests: how many of each file passed, as JSON."""
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={folder / 'tests'}"]
    files = [f"tests/test_{name}.py" for name in TESTS]
    command += [f"--junitxml={report}", *files]
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, cwd=REPOSITORY, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stdout[-3000:])
    cases = list(ElementTree.parse(report).iter("testcase"))
    return json.dumps(
        {
            name: [
                sum(case.get("classname") == f"tests.test_{name}" and len(case) == 0 for case in cases),
                sum(case.get("classname") == f"tests.test_{name}" and len(case) > 0 for case in cases),
            ]
            for name in TESTS
        }
    )


ROWS: dict[str, Row] = {
    "kills": kills,
    "images": images,
    "memory": memory,
    "plan": plan,
    "view": view,
    "tests": tests,
    "mutations": mutations,
}


if __name__ == "__main__":
    print(json.dumps(watched(Path(sys.argv[1]), Path(sys.argv[2]))))
