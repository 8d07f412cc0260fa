"""Runs with texts of one's choice over photographs that are made up, for galleries and choices of rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from made_runs import DIGEST, items
from PIL import Image

from hvx.files import sha256
from hvx.store.schema import EARLIER
from hvx.store.writer import write_shard, write_view

SIDE, LATTICE = 24, 3


@dataclass(frozen=True)
class Asked:
    """One explanation. ``agreeing``: the heat map peaks where the attention does, else at the other end."""

    question: str
    answer: str = "yes"
    truth: str = "yes"
    answer_type: str = "yes/no"
    question_type: str = "is the"
    probability: float = 0.5
    agreeing: bool = True
    photo: str = "0.png"
    zero_gradient: int = 0
    unknown: tuple[str, ...] = ()


def write_run(run: Path, asked: list[Asked], glimpses: int = 2, words: bool = False) -> Path:
    """A run of these explanations, question_ids from 1; its photographs lie beside it in ``photos``."""
    photos = run.parent / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    names = sorted({one.photo for one in asked})
    for place, name in enumerate(names):
        shade = np.full((30, 40, 3), (60 + 40 * place) % 200, np.uint8)
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shade).save(photos / name)
    made = items(1, len(asked))
    tokens = [one.question.split() or ["?"] for one in asked]
    longest = max(map(len, tokens))
    ramp = np.linspace(0, 1, LATTICE**2, dtype=np.float32).reshape(LATTICE, LATTICE)
    seen = _glimpses(ramp, glimpses)
    wide = np.kron(ramp, np.ones((SIDE // LATTICE, SIDE // LATTICE)))
    made |= {
        "question_id": np.arange(1, len(asked) + 1),
        "image_id": np.array([names.index(one.photo) for one in asked]),
        "question": _texts(one.question for one in asked),
        "answer": _texts(one.answer for one in asked),
        "ground_truth": _texts(one.truth for one in asked),
        "answer_type": _texts(one.answer_type for one in asked),
        "question_type": _texts(one.question_type for one in asked),
        "image_path": _texts(one.photo for one in asked),
        "image_digest": _texts(sha256(photos / one.photo) for one in asked),
        "zero_gradient": np.array([one.zero_gradient for one in asked], np.uint8),
        "probability": np.array([one.probability for one in asked], np.float32),
        "top_answers": np.array([[one.answer, "no", "two", "", ""] for one in asked], object),
        "top_probabilities": np.array(
            [[one.probability, 0.1, 0.05, np.nan, np.nan] for one in asked], np.float32
        ),
        "tokens": np.array([row + [""] * (longest - len(row)) for row in tokens], object),
        "unknown": np.array(
            [
                [int(token in one.unknown) for token in row] + [0] * (longest - len(row))
                for one, row in zip(asked, tokens, strict=True)
            ],
            np.uint8,
        ),
        "length": np.array([len(row) for row in tokens], np.int32),
        "token_saliency": np.ones((len(asked), longest), np.float32),
        "token_z": np.stack([_padded(np.linspace(-2, 2, len(row)), longest) for row in tokens]),
        "attention": np.tile(seen, (len(asked), 1, 1, 1)),
        "heatmap": np.stack([wide if one.agreeing else wide[::-1, ::-1] for one in asked]).astype(np.float16),
    }
    for name in ("gradient", "word_heatmaps", "word_heatmap_scale", *EARLIER):
        del made[name]
    if words:
        made["word_heatmaps"] = np.empty(len(asked), object)
        for place, row in enumerate(tokens):
            made["word_heatmaps"][place] = _word_maps(len(row))
    if not glimpses:
        del made["attention"]
    label = {"shard": 0, "run_digest": DIGEST}
    write_shard(run / "shards" / "00000.h5", made, label, [])
    write_view(run / "explanations.h5", [run / "shards" / "00000.h5"], {"crop": {}, "run_digest": DIGEST})
    about = {"identity": {}, "image": {"size": SIDE}, "images": str(photos), "shards": 1, "packed": False}
    about["integer_ids"] = ["question_id", "image_id"]
    (run / "run.json").write_text(json.dumps(about))
    return run


def _glimpses(ramp: np.ndarray, count: int) -> np.ndarray:
    """Attention (G, 3, 3), each summing to 1; only their sum has the ranks of the ramp."""
    order = np.arange(LATTICE**2, dtype=np.float32)
    first = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7], np.float32)
    glimpses = (
        np.stack([first, 2 * order - first, *[order] * count])[:count] if count > 1 else order[None][:count]
    )
    return np.asarray(glimpses.reshape(count, *ramp.shape) / order.sum(), np.float32)


def _padded(z: np.ndarray, longest: int) -> np.ndarray:
    return np.pad(z.astype(np.float32), (0, longest - len(z)), constant_values=np.nan)


def _texts(given: object) -> np.ndarray:
    return np.array(list(given), object)  # type: ignore[call-overload]


def _word_maps(count: int) -> np.ndarray:
    """Maps of a question's tokens (T, H, W): that of token t peaks in column t of its picture."""
    maps = np.zeros((count, SIDE, SIDE), np.float16)
    for place in range(count):
        maps[place, 4:20, min(2 * place, SIDE - 4) : min(2 * place, SIDE - 4) + 4] = 1
    return maps
