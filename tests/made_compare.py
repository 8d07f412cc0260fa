"""Runs of made-up items of which a test says what matters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hvx.store.schema import run_digest
from hvx.store.writer import write_shard, write_view

SHARD = 3
"""Items in a shard."""


@dataclass
class Made:
    """Columns of a run of n items; what is not given is made up, the same for each seed."""

    ids: Sequence[int | str]
    seed: int = 0
    side: int = 28
    grid: int | None = 7
    given: dict[str, Any] = field(default_factory=dict)
    crop: dict[str, Any] = field(default_factory=lambda: {"square": "center", "scaled_to": [28, 28]})
    about: dict[str, Any] = field(default_factory=dict)

    def columns(self) -> dict[str, np.ndarray]:
        """All of them."""
        rng, n = np.random.default_rng(self.seed), len(self.ids)
        lengths = np.full(n, 4, np.int32)
        texts = np.array([f"what is {number} ?" for number in range(n)], object)
        z = rng.normal(size=(n, 4)).astype(np.float32)
        found: dict[str, Any] = {
            "question_id": np.array(self.ids, object),
            "image_id": np.array([f"i{number // 2}" for number in range(n)], object),
            "question": texts,
            "image_path": np.array([f"i{number // 2}.jpg" for number in range(n)], object),
            "image_digest": np.array([f"digest {number // 2}" for number in range(n)], object),
            "answer": np.array([f"answer {number}" for number in range(n)], object),
            "ground_truth": np.array([f"answer {number}" for number in range(n)], object),
            "question_type": np.array(["what is"] * n, object),
            "answer_type": np.array(["other"] * n, object),
            "probability": rng.random(n).astype(np.float32),
            "top_answers": np.full((n, 5), "x", object),
            "top_probabilities": np.full((n, 5), 0.2, np.float32),
            "tokens": np.array([text.split() for text in texts], object),
            "length": lengths,
            "token_saliency": np.abs(z),
            "token_z": z,
            "heatmap": rng.random((n, self.side, self.side)).astype(np.float16),
            "unknown": np.zeros((n, 4), np.uint8),
            "zero_gradient": np.zeros(n, np.uint8),
        }
        if self.grid:
            found["attention"] = rng.random((n, 2, self.grid, self.grid)).astype(np.float32)
        return found | self.given

    def write(self, run: Path) -> Path:
        """The run's folder."""
        columns, n = self.columns(), len(self.ids)
        identity = {"seed": self.seed, "made": run.name}
        digest = run_digest(identity)
        shards = []
        for number, start in enumerate(range(0, n, SHARD)):
            path = run / "shards" / f"{number:05d}.h5"
            own = {name: values[start : start + SHARD] for name, values in columns.items()}
            write_shard(path, own, {"shard": number, "run_digest": digest, "crop": self.crop}, [])
            shards.append(path)
        write_view(run / "explanations.h5", shards, {"crop": self.crop, "run_digest": digest})
        integers = ["question_id"] if all(isinstance(one, int) for one in self.ids) else []
        about = {"identity": identity, "image": {}, "images": "images", "integer_ids": integers} | self.about
        (run / "run.json").write_text(json.dumps(about))
        return run


def changed(values: np.ndarray, **places: object) -> np.ndarray:
    """A copy of a column with other values at some places, ``n3="x"`` at place 3."""
    copy = values.copy()
    for place, value in places.items():
        copy[int(place[1:])] = value
    return copy
