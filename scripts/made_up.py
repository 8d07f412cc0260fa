"""Runs of made-up explanations of real photographs, as large as one likes, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from hvx.config import ImageConfig
from hvx.data.images import crop_rule
from hvx.files import sha256
from hvx.store.schema import run_digest
from hvx.store.writer import write_shard, write_view

_IN_SHARD = 256
_LATTICE, _GLIMPSES, _LONGEST = 14, 2, 12
_MAPS = 64
"""Different heat maps; to draw a new one for each item takes longer than all else."""
_WORDS = [
    "what",
    "color",
    "is",
    "the",
    "sofa",
    "table",
    "left",
    "of",
    "lamp",
    "on",
    "how",
    "many",
    "chairs",
    "?",
]
_ANSWERS = ["yes", "no", "brown", "2", "lamp", "white", "chair", "a long answer of several words"]
_TYPES = ["what color", "how many", "what is", "is the"]


def write_made_up_run(run: Path, images: Path, count: int, side: int) -> None:
    """Write a run of ``count`` explanations, heat maps of ``side`` pixels, of the photographs in a folder."""
    photos = sorted(path.name for path in images.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    if not photos:
        raise click.UsageError(f"{images}: holds no photographs (.jpg, .png)")
    chance = np.random.default_rng(0)
    maps = [_heat_map(chance, side) for _ in range(_MAPS)]
    digests = {name: sha256(images / name) for name in photos}
    shards: list[Path] = []
    for start in range(0, count, _IN_SHARD):
        numbers = range(start, min(start + _IN_SHARD, count))
        shards.append(run / "shards" / f"{len(shards):05d}.h5")
        # As in a run, the questions of an image stand together.
        chosen = [photos[number * len(photos) // count] for number in numbers]
        label = {"shard": len(shards) - 1, "run_digest": run_digest({})}
        items = _items(chance, numbers, chosen, maps)
        items["image_digest"] = np.array([digests[name] for name in chosen], object)
        write_shard(shards[-1], items, label, [])
    image = ImageConfig(size=side)
    write_view(run / "explanations.h5", shards, {"crop": crop_rule(image), "run_digest": run_digest({})})
    about = {"identity": {}, "image": image.model_dump(mode="json"), "images": str(images.resolve())}
    about["integer_ids"] = ["question_id", "image_id"]
    (run / "run.json").write_text(json.dumps(about | {"shards": len(shards)}))


def _heat_map(chance: np.random.Generator, side: int) -> np.ndarray:
    """Speckles that are denser around one place, as guided backpropagation yields them."""
    rows, columns = (np.mgrid[:side, :side] + 0.5) / side
    y, x = chance.random(2)
    hill = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.03)
    speckles = np.abs(chance.laplace(size=(side, side)))
    found: np.ndarray = (speckles * (0.3 + 8 * hill)).astype(np.float16)
    return found


def _items(
    chance: np.random.Generator, numbers: range, photos: list[str], maps: list[np.ndarray]
) -> dict[str, Any]:
    n = len(numbers)
    lengths = chance.integers(4, _LONGEST + 1, n).astype(np.int32)
    tokens = np.full((n, _LONGEST), "", object)
    z = np.full((n, _LONGEST), np.nan, np.float32)
    for place, length in enumerate(lengths):
        tokens[place, :length] = chance.choice(_WORDS, length)
        drawn = chance.normal(size=length)
        z[place, :length] = (drawn - drawn.mean()) / drawn.std(ddof=1)
    attention = chance.random((n, _GLIMPSES, _LATTICE, _LATTICE)).astype(np.float32) ** 6
    answers, top = chance.choice(_ANSWERS, n), np.sort(chance.dirichlet(np.ones(5), n))[:, ::-1]
    return {
        "question_id": np.array(numbers) + 1,
        "image_id": np.array([hash_of(photo) for photo in photos]),
        "question": np.array(
            [" ".join(row[:length]) for row, length in zip(tokens, lengths, strict=True)], object
        ),
        "image_path": np.array(photos, object),
        "answer": answers.astype(object),
        "ground_truth": np.where(chance.random(n) < 0.4, answers, chance.choice(_ANSWERS, n)).astype(object),
        "zero_gradient": np.zeros(n, np.uint8),
        "question_type": chance.choice(_TYPES, n).astype(object),
        "answer_type": chance.choice(["yes/no", "number", "other"], n).astype(object),
        "probability": top[:, 0].astype(np.float32),
        "top_answers": np.array([[a, *_ANSWERS[:4]] for a in answers], object),
        "top_probabilities": top.astype(np.float32),
        "tokens": tokens,
        "length": lengths,
        "unknown": np.zeros((n, _LONGEST), np.uint8),
        "token_saliency": np.abs(z),
        "token_z": z,
        "attention": attention / attention.sum((2, 3), keepdims=True),
        "heatmap": np.stack([maps[number % len(maps)] for number in numbers]),
    }


def hash_of(name: str) -> int:
    """A number for a file, the same in every process."""
    return int.from_bytes(name.encode()[-8:].rjust(8, b"\0"), "big") % 10**9
