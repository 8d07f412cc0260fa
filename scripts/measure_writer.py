"""What the thread that writes a run spends, by part: HDF5's write, its checksum, the file's digest.

python scripts/measure_writer.py

A shard of 250 heat maps of 448×448 in float16 is written again and again to the same name, alone on the
machine. Milliseconds are of a CPU core for each heat map, the median of some turns; the system's share is
mostly copying to the files' pages, and clearing them.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from hvx.store.checksum import BLOCK, write_checksum
from hvx.store.sink import new_hdf5

MAPS, SIDE = 250, 448


def write(path: Path, maps: np.ndarray, checksum: bool) -> None:
    with new_hdf5(path, BLOCK) as (file, _):
        file.create_dataset("heatmap", data=maps, chunks=(1, SIDE, SIDE), fletcher32=checksum)


def milliseconds(work: Callable[[], None], turns: int) -> tuple[float, float]:
    """CPU milliseconds for each map, and those of the system among them: medians of so many turns."""
    spent = []
    for _ in range(turns + 1):
        before = os.times()
        start = time.thread_time()
        work()
        spent.append((time.thread_time() - start, os.times().system - before.system))
    own, system = zip(*spent[1:], strict=True)  # the first turn writes to new memory
    return 1000 * statistics.median(own) / MAPS, 1000 * statistics.median(system) / MAPS


@click.command()
@click.option("--turns", default=9, show_default=True)
def main(turns: int) -> None:
    """Print the milliseconds of each part."""
    maps = np.random.default_rng(0).random((MAPS, SIDE, SIDE), np.float32).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.h5"
        parts = {
            "HDF5's write": lambda: write(path, maps, checksum=False),
            "HDF5's write with Fletcher-32": lambda: write(path, maps, checksum=True),
            "SHA-256 of the file": lambda: write_checksum(path, [(2 * BLOCK, path.stat().st_size)]),
        }
        for name, work in parts.items():
            own, system = milliseconds(work, turns)
            click.echo(f"{name}: {own:.2f} ms for each heat map, of them {system:.2f} of the system")


if __name__ == "__main__":
    main()
