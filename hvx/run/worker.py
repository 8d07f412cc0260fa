"""The work on shards: decoded ahead, explained, written behind."""

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
from hvx.run.columns import ShardColumns
from hvx.run.identity import RunIdentity
from hvx.run.plan import Shard, batches_of_images
from hvx.run.source import CheckpointSource, SplitExplainer
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
        paths = _Paths(self._split, names)
        stream = input_batches(paths, self._image, places, workers, turned, self._device if cuda else None)
        for start, own in zip(starts, plan, strict=False):
            yield (_moved(decoded, -start) for decoded in islice(stream, len(own)))

    def _explained(self, shard: Shard, batches: Iterator[Decoded]) -> _Explained:
        starts = list(accumulate((len(own) for _, own in shard.images), initial=0))
        questions = [question for _, own in shard.images for question in own]
        columns = ShardColumns(questions, self._explain.heatmap)
        failures: list[dict[str, Any]] = []
        digests = [""] * len(questions)

        def places(image: int) -> range:
            return range(starts[image], starts[image + 1])

        for batch in batches:
            for image, reason in batch.failures.items():
                if self._explain.on_error == "stop":
                    raise BadImage(f"{reason} (--on-error skip lists its questions and goes on)")
                failures += [_failure(question, reason) for question in shard.images[image][1]]
            for image, digest in zip(batch.places, batch.digests, strict=True):
                digests[starts[image] : starts[image + 1]] = [digest] * len(places(image))
            if batch.places:
                self._add(columns, questions, [places(image) for image in batch.places], batch.inputs)
        for place, reason in sorted(columns.odd.items()):
            if self._explain.on_error == "stop":
                raise HvxError(f"question_id {questions[place].question_id}: {reason}")
            failures.append(_failure(questions[place], reason))
        return _Explained(shard, columns.done(digests), failures)

    def _add(
        self, columns: ShardColumns, questions: Sequence[Question], asked: list[range], inputs: Tensor
    ) -> None:
        """Explain the questions asked on each of some images, by their places, into the shard's columns.

        Where memory does not suffice for all of them, they are done in halves, and so are later batches.
        """
        if len(asked) <= self._batch:
            images = [image for image, own in enumerate(asked) for _ in own]
            places = [place for own in asked for place in own]
            try:
                explained = self._explainer.explain(
                    inputs, images, [questions[place].question for place in places]
                )
            except OutOfMemory:
                if len(asked) == 1:
                    raise
                torch.cuda.empty_cache()  # does nothing where there is no GPU
            else:
                columns.add(places, explained)
                return
        half = -(-len(asked) // 2)
        self._batch = min(self._batch, half)
        self._add(columns, questions, asked[:half], inputs[:half])
        self._add(columns, questions, asked[half:], inputs[half:])

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
