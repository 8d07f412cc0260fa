"""Computes shards: decodes images in advance, explains them, and writes shards in the background."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.config import Config, SplitConfig
from hvx.cpu_count import cpus
from hvx.data.image_files import image_path
from hvx.data.images import Decoded, crop_rule, input_batches
from hvx.data.questions import Question
from hvx.device import free_memory
from hvx.errors import BadImage, HvxError, OutOfMemory
from hvx.run.columns import BufferPool, ShardColumns
from hvx.run.identity import RunIdentity
from hvx.run.shards import Shard, batches_of_images
from hvx.run.source import CheckpointSource, SplitExplainer
from hvx.store.writer import write_shard

_USEFUL_BATCH_BYTES = {"cpu": 2**29, "cuda": 2**33}
"""Bytes for a batch of images, by type of device; larger batches are not faster."""
_MEMORY_SHARE = 0.5
"""Share of the free memory for a batch: the head and the scores need some as well."""
_MOST_IMAGES = 32
_GPU_DECODERS = 8


@dataclass
class _Explained:
    """An explained shard, to be written."""

    shard: Shard
    items: dict[str, np.ndarray]
    failures: list[dict[str, Any]]
    buffers: list[np.ndarray]


class ShardWorker:
    """Computes shards with a model on its device.

    The result depends only on the arguments and the shard, so that any worker, in any process, on any machine
    that sees the files, writes the same.

    Args:
        config: the whole tree, with ``explain``.
        device: where the network runs.
        identity: the run that the shards belong to.

    Raises:
        HvxError: the checkpoint cannot be loaded, is not the config's or the run's, or cannot be explained;
            or this process's versions are not the run's.
    """

    def __init__(self, config: Config, device: torch.device, identity: RunIdentity) -> None:
        assert config.explain is not None
        identity.check_versions()
        source = identity.source or CheckpointSource(config)
        self._explainer = source.load(device)
        # After loading, so that a file replaced since the run began, even during loading, is rejected.
        source.check(identity.values)
        self._identity = identity
        self._explain, self._split = config.explain, config.split(config.explain.split)
        self._image, self._device = source.image, device
        self._batch = config.explain.batch_images or _batch_images(self._explainer)
        self._pool = BufferPool()

    def explain(self, shard: Shard, path: Path) -> None:
        """Explain a shard's questions and write them to ``path``, whole or not at all.

        Raises:
            BadImage: an image cannot be read, and the config says to stop on that.
            HvxError: the file cannot be written.
        """
        (batches,) = self._decoded([shard])
        explained = self._explained(shard, batches)
        self._write(explained, path)
        self._pool.give(explained.buffers)

    def explain_all(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
        """Explain shards and write each into ``folder``; yields each shard when it is done, in order.

        While one shard is explained, images of the next are decoded and the previous one is written.

        Raises:
            HvxError: as ``explain``; shards explained before are still written.
        """
        with ThreadPoolExecutor(1, "hvx-writer") as writer:
            pending: tuple[_Explained, Future[None]] | None = None
            for shard, batches in zip(shards, self._decoded(shards), strict=True):
                explained = self._explained(shard, batches)
                if pending:
                    yield self._written(*pending)
                pending = explained, writer.submit(self._write, explained, folder / shard.name)
            if pending:
                yield self._written(*pending)

    def _written(self, explained: _Explained, writing: Future[None]) -> Shard:
        """Wait until a shard is written, and use its memory again."""
        writing.result()
        self._pool.give(explained.buffers)
        return explained.shard

    def _decoded(self, shards: Sequence[Shard]) -> Iterator[Iterator[Decoded]]:
        """The decoded images of each shard, in batches, with their indices in it; to be read in order."""
        plan = [batches_of_images(shard, self._batch) for shard in shards]
        starts = list(accumulate((len(shard.images) for shard in shards), initial=0))
        indices = [
            [start + index for index in batch]
            for start, batches in zip(starts, plan, strict=False)
            for batch in batches
        ]
        names = [questions[0].image for shard in shards for _, questions in shard.images]
        cuda, workers = self._device.type == "cuda", self._explain.workers
        if workers is None:
            workers = min(_GPU_DECODERS, max(1, cpus() - 1)) if cuda else 1
        exif = self._split.exif_orientation
        paths = _Paths(self._split, names)
        stream = input_batches(paths, self._image, indices, workers, exif, self._device if cuda else None)
        for start, batches in zip(starts, plan, strict=False):
            yield (_moved(decoded, -start) for decoded in islice(stream, len(batches)))

    def _explained(self, shard: Shard, batches: Iterator[Decoded]) -> _Explained:
        starts = list(accumulate((len(group) for _, group in shard.images), initial=0))
        questions = [question for _, group in shard.images for question in group]
        columns = ShardColumns(questions, self._explain.heatmap, self._pool)
        failures: list[dict[str, Any]] = []
        digests = [""] * len(questions)

        def rows(image: int) -> range:
            return range(starts[image], starts[image + 1])

        for batch in batches:
            for image, reason in batch.failures.items():
                if self._explain.on_error == "stop":
                    raise BadImage(f"{reason} (--on-error skip lists its questions and continues)")
                failures += [_failure(question, reason) for question in shard.images[image][1]]
            for image, digest in zip(batch.indices, batch.digests, strict=True):
                digests[starts[image] : starts[image + 1]] = [digest] * len(rows(image))
            if batch.indices:
                self._add(columns, questions, [rows(image) for image in batch.indices], batch.inputs)
        for row, reason in sorted(columns.odd.items()):
            if self._explain.on_error == "stop":
                raise HvxError(f"question_id {questions[row].question_id}: {reason}")
            failures.append(_failure(questions[row], reason))
        return _Explained(shard, columns.done(digests), failures, columns.buffers)

    def _add(
        self, columns: ShardColumns, questions: Sequence[Question], rows_by_image: list[range], inputs: Tensor
    ) -> None:
        """Explain the questions of each image, given by their rows, and add them to the shard's columns.

        If memory is insufficient for all of them, the batch is halved, and so are later ones.
        """
        if len(rows_by_image) <= self._batch:
            images = [image for image, rows in enumerate(rows_by_image) for _ in rows]
            question_rows = [row for rows in rows_by_image for row in rows]
            try:
                explained = self._explainer.explain(
                    inputs, images, [questions[row].question for row in question_rows]
                )
            except OutOfMemory:
                if len(rows_by_image) == 1:
                    raise
                torch.cuda.empty_cache()  # does nothing where there is no GPU
            else:
                columns.add(question_rows, explained)
                return
        half = -(-len(rows_by_image) // 2)
        self._batch = min(self._batch, half)
        self._add(columns, questions, rows_by_image[:half], inputs[:half])
        self._add(columns, questions, rows_by_image[half:], inputs[half:])

    def _write(self, explained: _Explained, path: Path) -> None:
        if not path.parent.is_dir():  # otherwise it would be created again, with only this shard
            raise HvxError(f"{path.parent}: the folder is gone; it was renamed or deleted during the run")
        options = {"crop": crop_rule(self._image), "product": self._explain.product}
        attributes = options | {"shard": explained.shard.number, "run_digest": self._identity.digest}
        write_shard(path, explained.items, attributes, explained.failures)


class _Paths(Sequence[Path]):
    """The paths of images, each computed on access: a split may have a hundred thousand."""

    def __init__(self, split: SplitConfig, names: list[str]) -> None:
        self._split, self._names = split, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        return image_path(self._split, self._names[index])


def _moved(decoded: Decoded, offset: int) -> Decoded:
    """A decoded batch with ``offset`` added to its indices."""
    return replace(
        decoded,
        indices=[index + offset for index in decoded.indices],
        failures={index + offset: reason for index, reason in decoded.failures.items()},
    )


def _batch_images(explainer: SplitExplainer) -> int:
    """Number of images to explain at once: as many as are useful and fit into the free memory."""
    device, image_bytes = explainer.device, explainer.memory()
    available = min(_USEFUL_BATCH_BYTES[device.type], _MEMORY_SHARE * free_memory(device))
    return max(1, min(_MOST_IMAGES, int(available / image_bytes)))


def _failure(question: Question, reason: str) -> dict[str, Any]:
    return {
        "question_id": question.question_id,
        "image_id": question.image_id,
        "image_path": question.image,
        "reason": reason,
    }
