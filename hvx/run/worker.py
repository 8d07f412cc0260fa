"""The work on one shard."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvx.config import Config, ExplainConfig, SplitConfig
from hvx.data.images import crop_rule, image_path, input_batches
from hvx.data.questions import Question
from hvx.errors import BadImage
from hvx.explain.explainer import TOP, Explainer, Explanations
from hvx.models.checkpoint import check_config, load_checkpoint
from hvx.run.plan import Shard, batches_of_images
from hvx.store.schema import FIELDS
from hvx.store.writer import write_shard


class ShardWorker:
    """What computes shards: the model on its device, and what to explain with it.

    A shard is a function of these and of the shard alone, so that any worker, in any process, on any
    machine that sees the files, writes the same.

    Args:
        config: the whole tree, with ``explain``.
        device: where the network runs.

    Raises:
        HvxError: the checkpoint cannot be loaded, is not the config's, or cannot be explained.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        assert config.explain is not None
        path = config.path(config.checkpoint)
        model = load_checkpoint(path, device)
        check_config(model.config, config, path)
        self._explainer = Explainer(model, config.explain.gradient)
        self._split, self._explain = config.split(config.explain.split), config.explain

    def explain(self, shard: Shard, path: Path) -> None:
        """Explain a shard's questions and write them to ``path``, whole or not at all.

        Raises:
            BadImage: an image cannot be read, and the config says to stop on that.
            HvxError: the file cannot be written.
        """
        explain_shard(self._explainer, self._split, self._explain, shard, path)


def explain_shard(
    explainer: Explainer, split: SplitConfig, config: ExplainConfig, shard: Shard, path: Path
) -> None:
    """Explain a shard's questions and write them to ``path``.

    Raises:
        BadImage: an image cannot be read, and the config says to stop on that; nothing is written.
    """
    image = explainer.model.config.image
    paths = [image_path(split, image_id) for image_id, _ in shard.images]
    found: dict[int, dict[str, Any]] = {}
    failures: list[dict[str, Any]] = []
    batches = batches_of_images(shard, config.batch_images)
    for places, inputs, bad in input_batches(paths, image, batches, config.workers, split.exif_orientation):
        for place, reason in bad.items():
            if config.on_error == "stop":
                raise BadImage(f"{reason} (--on-error skip lists its questions and goes on)")
            failures += [
                _failure(question, paths[place], split, reason) for question in shard.images[place][1]
            ]
        if places:
            asked = [(b, question) for b, place in enumerate(places) for question in shard.images[place][1]]
            explained = explainer.explain(inputs, [b for b, _ in asked], [q.question for _, q in asked])
            for row, (_, question) in enumerate(asked):
                found[question.question_id] = _item(question, explained, row)
    items = [
        found[question.question_id] | {"image_path": path.relative_to(split.images).as_posix()}
        for path, (_, questions) in zip(paths, shard.images, strict=True)
        for question in questions
        if question.question_id in found
    ]
    write_shard(path, _stacked(items), {"crop": crop_rule(image), "shard": shard.number}, failures)


def _failure(question: Question, path: Path, split: SplitConfig, reason: str) -> dict[str, Any]:
    return {
        "question_id": question.question_id,
        "image_id": question.image_id,
        "image_path": path.relative_to(split.images).as_posix(),
        "reason": reason,
    }


def _item(question: Question, explained: Explanations, row: int) -> dict[str, Any]:
    """What the run keeps of one question, by field."""
    length = len(explained.tokens[row])
    answers = explained.answers[row]
    item: dict[str, Any] = {
        "question_id": question.question_id,
        "image_id": question.image_id,
        "question": question.question,
        "answer": answers[0],
        "ground_truth": question.ground_truth,
        "question_type": question.question_type,
        "answer_type": question.answer_type,
        "probability": float(explained.probabilities[row, 0]),
        "top_answers": answers + [""] * (TOP - len(answers)),
        "top_probabilities": _filled(explained.probabilities[row].numpy(), TOP),
        "tokens": explained.tokens[row],
        "length": length,
        "token_saliency": explained.saliency[row, :length].numpy(),
        "token_z": explained.z[row, :length].numpy(),
        "heatmap": explained.heatmap[row].numpy().astype(np.float16),
    }
    if explained.attention is not None:
        item["attention"] = explained.attention[row].numpy()
    if explained.gradient is not None:
        item["gradient"] = explained.gradient[row].numpy().astype(np.float16)
    return item


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    return np.pad(values.astype(np.float32), (0, count - len(values)), constant_values=np.nan)


def _stacked(items: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Items side by side, those of different length (tokens) padded to the longest."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        for name, value in item.items():
            columns[name].append(value)
    stacked = {}
    for name, field in FIELDS.items():
        if field.optional and name not in columns:
            continue
        values = columns[name]
        if field.axes == "T":
            longest = max((len(value) for value in values), default=0)
            values = [[*value, *[field.fill] * (longest - len(value))] for value in values]
        shape = (0,) * (1 + len(field.axes)) if not values else None
        array = np.array(values, dtype=object if field.fill == "" else field.dtype)
        stacked[name] = array if shape is None else array.reshape(shape)
    return stacked
