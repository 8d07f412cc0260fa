"""What commands cost that need no PyTorch: seconds of CPU, the least of a few runs.

python scripts/benchmark_commands.py CHECKPOINT
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

TIMES = 5


def cpu_seconds(*arguments: str) -> float:
    """Of `hvx` with these arguments, whatever its exit status."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(TIMES):
        before = used()
        subprocess.run([sys.executable, "-m", "hvx", *arguments], capture_output=True, check=False)
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


if __name__ == "__main__":
    for _command, _seconds in costs(Path(sys.argv[1])).items():
        print(f"{_command}: {_seconds:.2f} s")
