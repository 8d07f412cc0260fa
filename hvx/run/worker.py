"""The work on shards: decoded ahead, explained, written behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.config import Config, HeatmapConfig, SplitConfig
from hvx.cpu_count import cpus
from hvx.data.image_files import image_path
from hvx.data.images import Decoded, crop_rule, input_batches
from hvx.data.questions import Question
from hvx.device import free_memory
from hvx.errors import BadImage, HvxError, OutOfMemory
from hvx.explain.explainer import TOP, Answered, Explanations
from hvx.run.identity import RunIdentity
from hvx.run.plan import Shard, batches_of_images
from hvx.run.source import CheckpointSource, SplitExplainer
from hvx.store.heatmaps import SCALES, shrunk, to_8_bits
from hvx.store.schema import EARLIER, FIELDS, ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT
from hvx.store.writer import write_shard

_OF_USE = {"cpu": 2**29, "cuda": 2**33}
"""Bytes for a batch of images, by type of device: with larger ones it is no faster."""
_SHARE = 0.5
"""Of the free memory, what a batch may take: the head and the scores need some, too."""
_MOST_IMAGES = 32
_GPU_DECODERS = 8


@dataclass
class _Explained:
    """A shard, explained: what is to be written."""

    shard: Shard
    items: dict[str, np.ndarray]
    failures: list[dict[str, Any]]


class ShardWorker:
    """What computes shards: the model on its device, and what to explain with it.

    A shard is a function of these and of the shard alone, so that any worker, in any process, on any
    machine that sees the files, writes the same.

    Args:
        config: the whole tree, with ``explain``.
        device: where the network runs.
        identity: the run that the shards belong to.

    Raises:
        HvxError: the checkpoint cannot be loaded, is not the config's or the run's, or cannot be explained;
            the versions here are others than the run's.
    """

    def __init__(self, config: Config, device: torch.device, identity: RunIdentity) -> None:
        assert config.explain is not None
        identity.check_versions()
        source = identity.source or CheckpointSource(config)
        self._explainer = source.load(device)
        # After loading: a file replaced since the run was begun, even during the loading, is then rejected.
        source.check(identity.values)
        self._identity = identity
        self._explain, self._split = config.explain, config.split(config.explain.split)
        self._image, self._device = source.image, device
        self._batch = config.explain.batch_images or _batch_images(self._explainer)

    def explain(self, shard: Shard, path: Path) -> None:
        """Explain a shard's questions and write them to ``path``, whole or not at all.

        Raises:
            BadImage: an image cannot be read, and the config says to stop on that.
            HvxError: the file cannot be written.
        """
        (batches,) = self._decoded([shard])
        self._write(self._explained(shard, batches), path)

    def explain_all(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
        """Explain shards and write each into ``folder``; yields those done, in order.

        While one shard is explained, images of the next are decoded and the last one is written.

        Raises:
            HvxError: as ``explain``; what was explained before is written all the same.
        """
        with ThreadPoolExecutor(1, "hvx-writer") as writer:
            behind: tuple[Shard, Future[None]] | None = None
            for shard, batches in zip(shards, self._decoded(shards), strict=True):
                explained = self._explained(shard, batches)
                if behind:
                    behind[1].result()
                    yield behind[0]
                behind = shard, writer.submit(self._write, explained, folder / shard.name)
                del explained
            if behind:
                behind[1].result()
                yield behind[0]

    def _decoded(self, shards: Sequence[Shard]) -> Iterator[Iterator[Decoded]]:
        """For each shard its images, batch by batch, by their places in it; to be taken in order."""
        plan = [batches_of_images(shard, self._batch) for shard in shards]
        starts = list(accumulate((len(shard.images) for shard in shards), initial=0))
        places = [
            [start + place for place in batch]
            for start, own in zip(starts, plan, strict=False)
            for batch in own
        ]
        names = [own[0].image for shard in shards for _, own in shard.images]
        cuda, workers = self._device.type == "cuda", self._explain.workers
        if workers is None:
            workers = min(_GPU_DECODERS, max(1, cpus() - 1)) if cuda else 1
        turned = self._split.exif_orientation
        stream = input_batches(_Paths(self._split, names), self._image, places, workers, turned, pinned=cuda)
        for start, own in zip(starts, plan, strict=False):
            yield (_moved(decoded, -start) for decoded in islice(stream, len(own)))

    def _explained(self, shard: Shard, batches: Iterator[Decoded]) -> _Explained:
        found: dict[int | str, dict[str, Any] | str] = {}
        failures: list[dict[str, Any]] = []
        digests: dict[int, str] = {}
        for batch in batches:
            digests |= zip(batch.places, batch.digests, strict=True)
            for place, reason in batch.failures.items():
                if self._explain.on_error == "stop":
                    raise BadImage(f"{reason} (--on-error skip lists its questions and goes on)")
                failures += [_failure(question, reason) for question in shard.images[place][1]]
            if batch.places:
                found |= self._items([shard.images[place][1] for place in batch.places], batch.inputs)
        items = []
        for place, (_, questions) in enumerate(shard.images):
            for question in questions:
                result = found.get(question.question_id)
                if isinstance(result, str):
                    if self._explain.on_error == "stop":
                        raise HvxError(f"question_id {question.question_id}: {result}")
                    failures.append(_failure(question, result))
                elif result is not None:
                    items.append(result | {"image_path": question.image, "image_digest": digests[place]})
        return _Explained(shard, _stacked(items), failures)

    def _items(
        self, asked: list[tuple[Question, ...]], inputs: Tensor
    ) -> dict[int | str, dict[str, Any] | str]:
        """What the run keeps of the questions asked on each of some images, by question_id.

        For a question whose explanation is not finite, the reason.

        Where memory does not suffice for all of them, they are done in halves, and so are later batches.
        """
        if len(asked) <= self._batch:
            questions = [(b, question) for b, own in enumerate(asked) for question in own]
            try:
                explained = self._explainer.explain(
                    inputs, [b for b, _ in questions], [question.question for _, question in questions]
                )
            except OutOfMemory:
                if len(asked) == 1:
                    raise
                torch.cuda.empty_cache()  # does nothing where there is no GPU
            else:
                return {
                    question.question_id: _item(question, explained, row, self._explain.heatmap)
                    for row, (_, question) in enumerate(questions)
                }
        half = -(-len(asked) // 2)
        self._batch = min(self._batch, half)
        return self._items(asked[:half], inputs[:half]) | self._items(asked[half:], inputs[half:])

    def _write(self, explained: _Explained, path: Path) -> None:
        if not path.parent.is_dir():  # or it would be made again, with one shard in it
            raise HvxError(f"{path.parent}: the folder is gone; it was renamed or deleted during the run")
        own = {"crop": crop_rule(self._image), "product": self._explain.product}
        attributes = own | {"shard": explained.shard.number, "run_digest": self._identity.digest}
        write_shard(path, explained.items, attributes, explained.failures)


class _Paths(Sequence[Path]):
    """The images' files, each named when it is asked for: a split may have a hundred thousand."""

    def __init__(self, split: SplitConfig, names: list[str]) -> None:
        self._split, self._names = split, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, place: Any) -> Any:
        return image_path(self._split, self._names[place])


def _moved(decoded: Decoded, by: int) -> Decoded:
    """A decoded batch with other places."""
    return replace(
        decoded,
        places=[place + by for place in decoded.places],
        failures={place + by: reason for place, reason in decoded.failures.items()},
    )


def _batch_images(explainer: SplitExplainer) -> int:
    """How many images to explain at once: as many as are of use, and fit into the memory that is free."""
    device, each = explainer.device, explainer.memory()
    most = min(_OF_USE[device.type], _SHARE * free_memory(device))
    return max(1, min(_MOST_IMAGES, int(most / each)))


def _failure(question: Question, reason: str) -> dict[str, Any]:
    return {
        "question_id": question.question_id,
        "image_id": question.image_id,
        "image_path": question.image,
        "reason": reason,
    }


def _item(question: Question, explained: Answered, row: int, heatmap: HeatmapConfig) -> dict[str, Any] | str:
    """What the run keeps of one question, by field; the reason, where that is not finite."""
    length = len(explained.tokens[row])
    odd = _not_finite(explained, row, length)
    if odd:
        return f"{odd} is not finite (NaN or infinite): the network's numbers overflow on this question"
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
        "unknown": np.array(explained.unknown[row], np.uint8),
    }
    if explained.attention is not None:
        item["attention"] = explained.attention[row].numpy()
    if explained.textual_attention is not None:
        item["textual_attention"] = explained.textual_attention[row, :length].numpy()
    if explained.earlier_attention is not None:
        item |= dict(zip(EARLIER, explained.earlier_attention[row, :, :length].numpy(), strict=True))
    return item | (_explaining(explained, row, heatmap) if isinstance(explained, Explanations) else {})


def _explaining(explained: Explanations, row: int, heatmap: HeatmapConfig) -> dict[str, Any]:
    """What Eqs 2 and 3 say of one question, by field."""
    length = len(explained.tokens[row])
    item: dict[str, Any] = {
        "token_saliency": explained.saliency[row, :length].numpy(),
        "token_z": explained.z[row, :length].numpy(),
        "zero_gradient": ZERO_IMAGE_GRADIENT * bool(explained.zero_image_gradient[row])
        | ZERO_WORD_GRADIENT * bool(explained.zero_word_gradient[row]),
    }
    if explained.scores is not None:
        item["score"] = float(explained.scores[row])
    if explained.gradient is not None:
        item["gradient"] = explained.gradient[row].numpy().astype(np.float16)
    return item | _stored_maps(explained, row, heatmap)


def _stored_maps(explained: Explanations, row: int, stored: HeatmapConfig) -> dict[str, Any]:
    """The heat maps of one question as the run stores them, by field."""
    maps = {"heatmap": explained.heatmap[row]}
    if explained.block_heatmaps is not None:
        maps["block_heatmaps"] = explained.block_heatmaps[row]
    if explained.word_heatmaps is not None:
        maps["word_heatmaps"] = explained.word_heatmaps[row]
    items: dict[str, Any] = {}
    for name, map in maps.items():
        small = shrunk(map, stored.size).numpy()
        if stored.dtype == "uint8":
            items[name], items[SCALES[name]] = to_8_bits(small)
        else:
            items[name] = small.astype(np.float16)
    return items


def _not_finite(explained: Answered, row: int, length: int) -> str | None:
    """The first part of an explanation that holds a NaN or an infinity, by name."""
    scored = isinstance(explained, Explanations) and explained.scores is not None
    parts = {} if scored else {"the answer's probability": explained.probabilities[row]}
    if isinstance(explained, Explanations):
        parts |= _explaining_parts(explained, row, length)
    if explained.attention is not None:
        parts["the attention"] = explained.attention[row]
    if explained.textual_attention is not None:
        parts["the attention to words"] = explained.textual_attention[row, :length]
    if explained.earlier_attention is not None:
        parts["the attention to words and phrases"] = explained.earlier_attention[row, :, :length]
    return next((name for name, part in parts.items() if not bool(part.isfinite().all())), None)


def _explaining_parts(explained: Explanations, row: int, length: int) -> dict[str, Tensor]:
    """What must be finite of Eqs 2 and 3, by name."""
    parts = {
        "the score": None if explained.scores is None else explained.scores[row],
        "the heat map (Eqs 2, 9)": explained.heatmap[row],
        "the tokens' saliency (Eqs 3, 10)": explained.saliency[row, :length],
        "the tokens' z-score (Eq. 11)": explained.z[row, :length],
        "a block's heat map": None if explained.block_heatmaps is None else explained.block_heatmaps[row],
        "a word's heat map": None if explained.word_heatmaps is None else explained.word_heatmaps[row],
        "the gradient (Eq. 9)": None if explained.gradient is None else explained.gradient[row],
    }
    return {name: part for name, part in parts.items() if part is not None}


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
        if field.ragged:
            stacked[name] = _side_by_side(values)
            continue
        if field.axes == "T":
            longest = max((len(value) for value in values), default=0)
            values = [[*value, *[field.fill] * (longest - len(value))] for value in values]
        shape = (0,) * (1 + len(field.axes)) if not values else None
        in_8_bits = name in SCALES and bool(values) and values[0].dtype == np.uint8
        dtype = object if field.fill == "" else np.uint8 if in_8_bits else field.dtype
        array = np.array(values, dtype=dtype)
        stacked[name] = array if shape is None else array.reshape(shape)
    return stacked


def _side_by_side(values: list[np.ndarray]) -> np.ndarray:
    """Arrays of different length as an array of objects."""
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array
