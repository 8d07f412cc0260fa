"""Runs of made-up items, written without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hvx.store.schema import FIELDS, run_digest
from hvx.store.writer import write_shard, write_solid, write_view

ITEMS = 3
"""In a shard."""
DIGEST = run_digest({})
"""Of the runs that are made up here."""


def items(seed: int, count: int = ITEMS) -> dict[str, np.ndarray]:
    """Made-up items, other ones for each seed."""
    chance = np.random.default_rng(seed)
    maps = {"GSR": (2, 3, 3), "HW": (24, 24), "LHW": (3, 24, 24), "CHW": (3, 24, 24)}
    shapes = {"K": (5,), "L": (3,), "T": (2 + seed,), "": (), **maps, "THW": (2 + seed, 24, 24)}
    made = {}
    for name, field in FIELDS.items():
        numbers = 100 * chance.random((count, *shapes[field.axes]))
        text = np.array([f"{name} {number:.3f}" for number in numbers.flat], object).reshape(numbers.shape)
        made[name] = text if field.fill == "" else numbers.astype(field.dtype)
    made["word_heatmaps"][:, 2:] = 0
    ids = {
        "question_id": 100 * seed + np.arange(count),
        "image_id": chance.integers(0, 100, count),
    }
    return made | ids | {"length": np.full(count, 2, np.int32)}


def written(run: Path, solid: bool) -> Path:
    (run / "shards").mkdir(parents=True)
    shards = [run / "shards" / f"{number:05d}.h5" for number in range(2)]
    for number, path in enumerate(shards):
        write_shard(path, items(number), {"shard": number, "run_digest": DIGEST}, [])
    (write_solid if solid else write_view)(
        run / "explanations.h5", shards, {"crop": {}, "run_digest": DIGEST}
    )
    about = {"identity": {}, "image": {}, "images": "images", "shards": 2, "packed": solid}
    about["integer_ids"] = ["question_id", "image_id"]
    (run / "run.json").write_text(json.dumps(about))
    return run
