"""The plan: a split's questions by image, cut into shards of whole images. Same input, same plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hvx.data.questions import Question
from hvx.store.shards import shard_name


@dataclass(frozen=True)
class Shard:
    """Some images with all of their questions; ``number`` is its place in the run."""

    number: int
    images: tuple[tuple[int | str, tuple[Question, ...]], ...]

    @property
    def name(self) -> str:
        return shard_name(self.number)

    def __len__(self) -> int:
        return sum(len(questions) for _, questions in self.images)


MOST_QUESTIONS = 512
"""On one image, in one shard: memory is bounded whatever a split asks."""


def plan_shards(questions: Iterable[Question], size: int) -> list[Shard]:
    """Shards of whole images, in the order in which the split first asks about them.

    A shard is closed once it holds ``size`` questions or more. Only an image with more than
    ``MOST_QUESTIONS`` is split: it takes part in several shards, or several times in one.
    """
    by_image: dict[int | str, list[Question]] = {}
    for question in questions:
        by_image.setdefault(question.image_id, []).append(question)
    shards: list[Shard] = []
    images: list[tuple[int | str, tuple[Question, ...]]] = []
    count = 0
    parts = (
        (image_id, tuple(own[start : start + MOST_QUESTIONS]))
        for image_id, own in by_image.items()
        for start in range(0, len(own), MOST_QUESTIONS)
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
    """Places of the shard's images in batches, images with as many questions side by side."""
    order = sorted(range(len(shard.images)), key=lambda place: -len(shard.images[place][1]))
    return [order[start : start + size] for start in range(0, len(order), size)]
