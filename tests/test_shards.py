"""The plan: each question once, images whole, the same plan for the same split."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvx.data.questions import Question
from hvx.explain.explainer import question_rounds
from hvx.run.shards import Shard, batches_of_images, plan_shards

IMAGES = st.lists(st.integers(0, 12), max_size=60)
"""The image of each question."""
SIZES = st.integers(1, 20)


def asked_on(images: list[int]) -> list[Question]:
    return [Question(100 + n, image, f"{image}.png", f"question {n}?") for n, image in enumerate(images)]


def in_shards(shards: list[Shard]) -> list[Question]:
    return [question for shard in shards for _, questions in shard.images for question in questions]


@settings(deadline=None)
@given(IMAGES, SIZES)
def test_every_question_is_planned_exactly_once(images: list[int], size: int) -> None:
    questions = asked_on(images)
    planned = in_shards(plan_shards(questions, size))
    assert sorted(planned, key=lambda q: q.question_id) == questions


@settings(deadline=None)
@given(IMAGES, SIZES)
def test_an_image_lies_in_one_shard_with_all_of_its_questions_in_order(images: list[int], size: int) -> None:
    questions = asked_on(images)
    planned = [image for shard in plan_shards(questions, size) for image in shard.images]
    assert [image_id for image_id, _ in planned] == list(dict.fromkeys(images))
    for image_id, own in planned:
        assert list(own) == [q for q in questions if q.image_id == image_id]


@settings(deadline=None)
@given(IMAGES, SIZES)
def test_a_shard_is_closed_by_the_image_that_fills_it(images: list[int], size: int) -> None:
    shards = plan_shards(asked_on(images), size)
    for shard in shards:
        assert len(shard) == sum(len(own) for _, own in shard.images) > 0
        assert len(shard) - len(shard.images[-1][1]) < size
    assert all(len(shard) >= size for shard in shards[:-1])


@settings(deadline=None)
@given(IMAGES, SIZES)
def test_shards_are_numbered_from_0_and_named_by_number(images: list[int], size: int) -> None:
    shards = plan_shards(asked_on(images), size)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert [shard.name for shard in shards] == [f"{n:05d}.h5" for n in range(len(shards))]


@settings(deadline=None)
@given(IMAGES, SIZES)
def test_the_same_split_gives_the_same_plan(images: list[int], size: int) -> None:
    assert plan_shards(asked_on(images), size) == plan_shards(iter(asked_on(images)), size)


def test_an_image_with_very_many_questions_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvx.run.shards.MOST_QUESTIONS", 3)
    questions = asked_on([5, 1, 1, 1, 1, 1, 1, 1, 2, 1])
    shards = plan_shards(questions, 4)
    assert [[(image, len(own)) for image, own in shard.images] for shard in shards] == [
        [(5, 1), (1, 3)], [(1, 3), (1, 2)], [(2, 1)]
    ]  # fmt: skip
    assert sorted(q.question_id for q in in_shards(shards)) == [q.question_id for q in questions]
    assert [[image for image, _ in shard.images] for shard in plan_shards(questions, 100)] == [
        [5, 1, 1, 1, 2]
    ]


def test_a_split_without_questions_has_no_shards() -> None:
    assert plan_shards([], 5) == []


def test_an_example_is_cut_as_written() -> None:
    shards = plan_shards(asked_on([7, 7, 3, 7, 5, 3]), 3)
    assert [[(i, [q.question_id for q in own]) for i, own in shard.images] for shard in shards] == [
        [(7, [100, 101, 103])],
        [(3, [102, 105]), (5, [104])],
    ]


@settings(deadline=None)
@given(IMAGES.filter(len), SIZES)
def test_batches_cover_each_place_of_a_shard_once(images: list[int], size: int) -> None:
    (shard,) = plan_shards(asked_on(images), len(images))
    batches = batches_of_images(shard, size)
    assert sorted(place for batch in batches for place in batch) == list(range(len(shard.images)))
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size


@settings(deadline=None)
@given(IMAGES.filter(len), SIZES)
def test_images_with_as_many_questions_lie_side_by_side(images: list[int], size: int) -> None:
    (shard,) = plan_shards(asked_on(images), len(images))
    order = [place for batch in batches_of_images(shard, size) for place in batch]
    counts = [len(shard.images[place][1]) for place in order]
    assert counts == sorted(counts, reverse=True)


@settings(deadline=None)
@given(IMAGES)
def test_rounds_hold_each_question_once_and_no_image_twice(images: list[int]) -> None:
    found = question_rounds(images)
    assert sorted(place for places in found for place in places) == list(range(len(images)))
    for places in found:
        assert places
        assert len({images[place] for place in places}) == len(places)


@settings(deadline=None)
@given(IMAGES)
def test_there_are_as_many_rounds_as_the_most_asked_image_has_questions(images: list[int]) -> None:
    assert len(question_rounds(images)) == max(Counter(images).values(), default=0)


@settings(deadline=None)
@given(IMAGES)
def test_the_images_of_a_round_are_the_first_of_the_round_before(images: list[int]) -> None:
    shown = [[images[place] for place in places] for places in question_rounds(images)]
    assert all(after == before[: len(after)] for before, after in pairwise(shown))


def test_a_round_takes_the_questions_of_one_rank() -> None:
    assert question_rounds([4, 4, 9, 4, 9, 2]) == [[0, 2, 5], [1, 4], [3]]
