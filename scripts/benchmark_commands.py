"""What commands cost, in seconds of CPU: those that need no PyTorch, a large gallery, `hvx measure`.

python scripts/benchmark_commands.py CHECKPOINT
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

from made_up import write_made_up_run

TIMES = 5
ITEMS = 10_000
"""Explanations of the gallery."""


def cpu_seconds(*arguments: str, times: int = TIMES, succeeds: bool = False) -> float:
    """Of `hvx` with these arguments, the least of so many runs; ``succeeds``: its exit status must be 0."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(times):
        before = used()
        subprocess.run([sys.executable, "-m", "hvx", *arguments], capture_output=True, check=succeeds)
        seconds.append(used() - before)
    return min(seconds)


def costs(checkpoint: Path) -> dict[str, float]:
    """By command. ``checkpoint``: a native one."""
    return {
        "hvx -h": cpu_seconds("-h"),
        "hvx explain --wrong": cpu_seconds("explain", "--wrong"),
        "hvx explain, no such config": cpu_seconds("explain", str(checkpoint.parent / "none.yaml")),
        "hvx info of a checkpoint": cpu_seconds("info", str(checkpoint)),
    }


def gallery_cost(folder: Path, photographs: Path) -> float:
    """Of a gallery of ``ITEMS`` made-up explanations with heat maps of 448×448 over these photographs."""
    write_made_up_run(folder / "run", photographs, ITEMS, 448)
    return cpu_seconds("gallery", str(folder / "run"), "-o", str(folder / "gallery"), times=1, succeeds=True)


def measure_cost(folder: Path, run: Path) -> float:
    """Of `hvx measure` of a run with its defaults, from the beginning."""
    shutil.copytree(run, folder / "measured", ignore=shutil.ignore_patterns("measure"))
    return cpu_seconds(
        "measure", str(folder / "measured"), "-o", str(folder / "report"), times=1, succeeds=True
    )


if __name__ == "__main__":
    for _command, _seconds in costs(Path(sys.argv[1])).items():
        print(f"{_command}: {_seconds:.2f} s")
