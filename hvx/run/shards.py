"""The plan: a split's questions grouped by image and divided into shards. Deterministic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hvx.data.questions import Question
from hvx.store.shards import shard_name


@dataclass(frozen=True)
class Shard:
    """Some images with all of their questions; ``number`` is the shard's index in the run."""

    number: int
    images: tuple[tuple[int | str, tuple[Question, ...]], ...]

    @property
    def name(self) -> str:
        return shard_name(self.number)

    def __len__(self) -> int:
        return sum(len(questions) for _, questions in self.images)


MOST_QUESTIONS = 512
"""On one image, in one shard; bounds the memory for any split."""


def plan_shards(questions: Iterable[Question], size: int) -> list[Shard]:
    """Shards of whole images, in the order in which the images first appear in the split.

    A shard is complete once it has ``size`` questions or more. Only an image with more than
    ``MOST_QUESTIONS`` is split: it is in several shards, or several times in one.
    """
    by_image: dict[int | str, list[Question]] = {}
    for question in questions:
        by_image.setdefault(question.image_id, []).append(question)
    shards: list[Shard] = []
    images: list[tuple[int | str, tuple[Question, ...]]] = []
    count = 0
    parts = (
        (image_id, tuple(group[start : start + MOST_QUESTIONS]))
        for image_id, group in by_image.items()
        for start in range(0, len(group), MOST_QUESTIONS)
    )
    for part in parts:
        images.append(part)
        count += len(part[1])
        if count >= size:
            shards.append(Shard(len(shards), tuple(images)))
            images, count = [], 0
    if images:
        shards.append(Shard(len(shards), tuple(images)))
    return shards


def batches_of_images(shard: Shard, size: int) -> list[list[int]]:
    """Batches of indices of the shard's images, sorted by their number of questions."""
    order = sorted(range(len(shard.images)), key=lambda index: -len(shard.images[index][1]))
    return [order[start : start + size] for start in range(0, len(order), size)]
