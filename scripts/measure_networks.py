"""Prints how networks answer the built-in split and where their heat maps point, block by block.

python scripts/measure_networks.py runs/mrn/run runs/gated/run runs/dan/run

Each run must be of `configs/scenes.yaml`, with the network set by `--set model.network=…`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from hvx.config import Config, parse
from hvx.data.object_masks import ObjectTable
from hvx.measure.metrics.localization import points_inside
from hvx.store.reader import RunReader

SINGLE = ("attribute", "shape", "existence")


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def main(runs: Sequence[Path]) -> None:
    """A row of a Markdown table for each of RUNS."""
    print("| run | network | answers right | maximum in the object asked about | the same of attention |")
    print("|---|---|---|---|---|")
    for run in runs:
        print(f"| {run.parent.name} | {' | '.join(_row(RunReader(run)))} |")


def _row(reader: RunReader) -> list[str]:
    config = parse(reader.about["config"], str(reader.path / "run.json"))
    assert config.explain is not None
    right, maps, glimpses = _tally(reader, config, config.explain.split)
    network = config.model.network + (f", {config.model.mrn.pool}" if config.model.network == "mrn" else "")
    said = f"{np.mean(right):.3f} (n = {len(right):,})"
    return [network, said, _shares(maps) or "–", _shares(glimpses) or "–"]


def _tally(
    reader: RunReader, config: Config, name: str
) -> tuple[list[bool], list[list[float]], list[list[float]]]:
    """Of questions about one object: whether the answer is right; of those with one to point at, also whether
    each block's and each glimpse's map points into it."""
    table = ObjectTable(config.split(name))
    right, maps, glimpses = [], [], []
    for number in range(len(reader)):
        item = reader[number]
        asked = table.asked[item.question_id]
        if asked.kind in SINGLE:
            right.append(item.answer == item.ground_truth)
            if asked.labels:
                inside = np.isin(table.mask(item.image_id), asked.labels)
                if reader.has_heatmaps:
                    blocks = list(item.block_heatmaps) or [item.heatmap]
                    maps.append([points_inside(map, inside) for map in blocks])
                glimpses.append([points_inside(map, inside) for map in item.attention])
    return right, maps, glimpses


def _shares(hits: list[list[float]]) -> str:
    return ", ".join(f"{share:.3f}" for share in np.mean(hits, axis=0)) if hits else ""


if __name__ == "__main__":
    main()
