"""Prints what HDF5's filters cost and save on the heat maps of a run.

python scripts/measure_storage.py runs/reproduce/run
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np

FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "fletcher32": {"fletcher32": True},
    "lzf": {"compression": "lzf"},
    "shuffle + lzf": {"compression": "lzf", "shuffle": True},
    "shuffle + gzip 1": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    "shuffle + gzip 4": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
}
ROUNDS = 5


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--items", default=512, show_default=True, help="Heat maps to write.")
def main(run: Path, items: int) -> None:
    """Write heat maps of RUN with each filter, five times by turns, and print medians."""
    with h5py.File(run / "explanations.h5", "r") as file:
        maps = file["heatmap"][:items]
    seconds: dict[str, list[float]] = {name: [] for name in FILTERS}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for name, options in FILTERS.items():
                start = time.perf_counter()
                with h5py.File(Path(folder) / "maps.h5", "w") as out:
                    stored = out.create_dataset("heatmap", data=maps, chunks=(1, *maps.shape[1:]), **options)
                    sizes[name] = stored.id.get_storage_size()
                seconds[name].append(time.perf_counter() - start)
    click.echo(
        f"{len(maps)} heat maps of {maps.shape[1]}×{maps.shape[2]}, float16, {maps.nbytes / 1e6:.1f} MB"
    )
    for name in FILTERS:
        per_map = 1e3 * float(np.median(seconds[name])) / len(maps)
        click.echo(f"{name:18}{sizes[name] / maps.nbytes:6.2f} of the bytes{per_map:8.3f} ms a map")


if __name__ == "__main__":
    main()
