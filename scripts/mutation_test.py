"""Measures which deliberate faults the tests detect: mutants of Cosmic Ray, sampled with a fixed seed.

    python scripts/mutation_test.py -o build/mutants                       # all areas, 40 mutants each
    python scripts/mutation_test.py -o build/mutants --area store --tests tests/test_checksum.py

Works on the committed files, in copies. First every test runs once under coverage, to know the lines that
it reaches. Then each mutant meets the tests that reach its line, the fastest first, until one fails. A mutant
that no test reaches, or that passes all tests the time allowed has room for, counts as a survivor.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import click
from mutants import AREAS, Mutant, sample_mutants

REPOSITORY = Path(__file__).resolve().parents[1]
PRELOADED = ["torch", "torchvision", "h5py", "scipy.stats", "pydantic", "matplotlib.figure", "pytest"]
"""Imported once, before a process is forked for each mutant. Nothing of hvx is among them."""
SLOWER = 20.0
"""A test that takes this many times its usual time, and a minute, is stopped: the mutant is detected."""
COVERAGE = """
[run]
source = hvx
parallel = true
context = ${PYTEST_CURRENT_TEST-}
patch = subprocess
data_file = {folder}/coverage
"""


@dataclass(frozen=True)
class Result:
    """What became of a mutant: the tests that reach it, those that ran, how it ended, and its seconds."""

    mutant: Mutant
    reached_by: int
    ran: int
    outcome: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.outcome in ("failed", "timeout")


class TestMap:
    """Which tests reach which lines, and how long each takes.

    Args:
        folder: where ``measure`` left its files.
    """

    def __init__(self, folder: Path) -> None:
        stored = json.loads((folder / "tests.json").read_text())
        self.seconds: dict[str, float] = stored["seconds"]
        self._lines: dict[str, dict[str, list[str]]] = stored["lines"]

    def tests(self, mutant: Mutant, allowed: float) -> tuple[list[str], int]:
        """The tests for a mutant, as many as ``allowed`` seconds hold, and how many reach it.

        First those that reach its line, the fastest first; then those that reach its file, since a line that
        runs once, as the file is imported, is noted for one test only.
        """
        of_file = self._lines.get(mutant.file, {})
        of_line = {test for line in mutant.lines for test in of_file.get(str(line), [])}
        others = {test for tests in of_file.values() for test in tests} - of_line
        ordered = [
            test for group in (of_line, others) for test in sorted(group, key=self.seconds.__getitem__)
        ]
        chosen: list[str] = []
        for test in ordered:
            allowed -= self.seconds[test]
            if allowed < 0 and chosen:
                break
            chosen.append(test)
        return chosen, len(of_line)


def measure(copy: Path, folder: Path, tests: list[str]) -> None:
    """Run the tests once under coverage; leaves ``tests.json`` in ``folder``.

    Raises:
        ClickException: pytest could not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("coverage*"):
        old.unlink()
    settings, junit = folder / "settings.ini", folder / "junit.xml"
    settings.write_text(COVERAGE.replace("{folder}", str(folder)))
    arguments = [
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        f"--junit-xml={junit}",
        "-o",
        "junit_family=xunit1",
    ]
    coverage = [f"--cov-config={settings}", "--cov=hvx", "--cov-context=test", "--cov-report="]
    command = [sys.executable, "-m", "pytest", *arguments, *coverage, *tests]
    status = subprocess.run(command, cwd=copy, env=_environment(copy), check=False).returncode
    if status not in (0, 1):  # 1: some tests failed; they are left out
        raise click.ClickException(f"pytest ended with exit status {status}")
    seconds, failed = _durations(junit)
    for test in failed:
        click.echo(f"fails without a mutant, left out: {test}", err=True)
    lines = _lines(folder, copy, set(seconds))
    (folder / "tests.json").write_text(json.dumps({"seconds": seconds, "lines": lines}))


def _durations(junit: Path) -> tuple[dict[str, float], list[str]]:
    """Seconds of each test that passed, and those that failed, by node id."""
    seconds: dict[str, float] = {}
    failed: list[str] = []
    for case in ElementTree.parse(junit).iter("testcase"):
        name = f"{case.get('file')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif case.find("skipped") is None:
            seconds[name] = float(case.get("time", 0))
    return seconds, failed


def _lines(folder: Path, copy: Path, known: set[str]) -> dict[str, dict[str, list[str]]]:
    """File → line → the tests that reach it, in their process or in one that they start."""
    from coverage import Coverage
    from coverage.exceptions import NoDataError

    found: dict[str, dict[str, list[str]]] = {}
    measured = Coverage(data_file=str(folder / "coverage"), config_file=False)
    measured.load()  # pytest's own processes; then those that tests started
    with contextlib.suppress(NoDataError):
        measured.combine([str(folder)])
    data = measured.get_data()
    for file in data.measured_files():
        by_line = data.contexts_by_lineno(file)
        name = str(Path(file).resolve().relative_to(copy.resolve()))
        found[name] = {
            str(line): sorted({test for context in contexts for test in _named(context)} & known)
            for line, contexts in by_line.items()
        }
    return found


def _named(context: str) -> list[str]:
    """The tests that a coverage context names, such as ``tests/a.py::test_b (call)`` or ``…::test_b|run``."""
    return [
        part.rsplit(" (", 1)[0] if part.endswith(")") and " (" in part else part
        for part in context.split("|")
    ]


def _environment(copy: Path) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "CI": "true"}
    return {**os.environ, **threads, "PYTHONPATH": str(copy)}


def run_tests(copy: Path, tests: list[str], log: Path) -> None:
    """In a new process: run pytest in a copy of the project; exits with 1 if a test fails."""
    os.setsid()  # its own processes end with it
    os.chdir(copy)
    os.environ.update(_environment(copy))
    sys.path[:] = [str(copy), *(p for p in sys.path if p and Path(p).resolve() not in (REPOSITORY, copy))]
    with log.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    import pytest

    os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])))


def judge(mutant: Mutant, copy: Path, tests: TestMap, allowed: float) -> Result:
    """Put a mutant into a copy of the project, run its tests, and take it out again."""
    chosen, reached = tests.tests(mutant, allowed)
    if not chosen:
        return Result(mutant, reached, 0, "not reached", 0.0)
    file = copy / mutant.file
    original = file.read_text(encoding="utf-8")
    file.write_text(mutant.code, encoding="utf-8")
    started = time.monotonic()
    limit = 60 + SLOWER * sum(tests.seconds[test] for test in chosen)
    process = multiprocessing.get_context("forkserver").Process(
        target=run_tests, args=(copy, chosen, copy / "pytest.log")
    )
    try:
        process.start()
        process.join(min(limit, 300.0))
        outcome = {None: "timeout", 0: "survived"}.get(process.exitcode, "failed")
    finally:
        file.write_text(original, encoding="utf-8")
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        process.join()
    return Result(mutant, reached, len(chosen), outcome, round(time.monotonic() - started, 1))


def judge_all(
    mutants: list[Mutant], copies: list[Path], tests: TestMap, allowed: float, log: Path
) -> list[Result]:
    """Judge mutants, one in each copy at a time; writes each result to ``log`` as it is known."""
    free: Queue[Path] = Queue()
    for copy in copies:
        free.put(copy)

    def one(mutant: Mutant) -> Result:
        copy = free.get()
        try:
            result = judge(mutant, copy, tests, allowed)
        finally:
            free.put(copy)
        with log.open("a", encoding="utf-8") as file:
            entry: dict[str, Any] = asdict(result)
            entry["mutant"].pop("code")
            file.write(json.dumps(entry) + "\n")
        click.echo(f"{result.outcome:<11} {result.seconds:6.1f} s  {mutant.name}", err=True)
        return result

    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(one, mutants))


def report(results: list[Result]) -> str:
    """A table of the areas, then every survivor with its change."""
    by_area: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_area[result.mutant.area].append(result)
    out = io.StringIO()
    out.write("| area | mutants | killed | share |\n|---|---|---|---|\n")
    for area, own in [*by_area.items(), ("all", results)]:
        killed = sum(result.killed for result in own)
        out.write(f"| {area} | {len(own)} | {killed} | {killed / max(1, len(own)):.1%} |\n")
    out.write("\nSurvivors:\n")
    for result in results:
        if not result.killed:
            reached = f"{result.outcome}; {result.reached_by} tests reach the line, {result.ran} tests ran"
            out.write(f"\n{result.mutant.name} ({reached})\n{result.mutant.difference}\n")
    return out.getvalue()


def _copy(revision: str, into: Path) -> Path:
    """The committed files of a revision, next to a link to the shared data that some tests use."""
    into.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", revision], cwd=REPOSITORY, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(into)], input=archive, check=True)
    shared = REPOSITORY.parent / "shared"
    if shared.is_dir() and not (into.parent / "shared").exists():
        (into.parent / "shared").symlink_to(shared)
    return into


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the results.")
@click.option(
    "--area", "areas", multiple=True, type=click.Choice(list(AREAS)), help="Only these; repeatable."
)
@click.option("--each", default=40, show_default=True, help="Mutants of each area.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--tests", multiple=True, help="Only these test files; repeatable. Default: all.")
@click.option("--allowed", default=60.0, show_default=True, help="Seconds of tests for each mutant.")
@click.option("--jobs", default=2, show_default=True, help="Mutants tested at the same time.")
@click.option("--revision", default="HEAD", show_default=True, help="Commit that is tested.")
@click.option("--keep-map", is_flag=True, help="Use tests.json of an earlier call.")
def main(
    output: Path, areas: tuple[str, ...], each: int, seed: int, tests: tuple[str, ...], allowed: float,
    jobs: int, revision: str, keep_map: bool,
) -> None:  # fmt: skip
    """Sample mutants, run the tests that reach them, print how many were detected."""
    output = output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="hvx-mutants-"))
    try:
        copies = [_copy(revision, root / f"copy{n}") for n in range(jobs)]
        if not (keep_map and (output / "tests.json").is_file()):
            measure(copies[0], output, list(tests))
        mutants = sample_mutants(copies[0], areas or tuple(AREAS), each, seed)
        random.Random(seed).shuffle(mutants)  # so that a run cut short still samples every area
        log = output / "results.jsonl"
        log.unlink(missing_ok=True)
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        results = judge_all(mutants, copies, TestMap(output), allowed, log)
        results.sort(key=lambda result: result.mutant.name)
        text = report(results)
        (output / "report.md").write_text(text, encoding="utf-8")
        click.echo(text)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
