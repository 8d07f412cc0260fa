"""Question-specific maps and controls by other questions, against loops written out here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_measures import made_measures
from scipy.stats import spearmanr
from test_measure_methods import BATCH, MODEL, SIZE

from hvx.data.object_masks import ObjectTable, QuestionTarget
from hvx.errors import HvxError
from hvx.explain.specific import question_specific
from hvx.measure.methods.computer import SaliencyComputer
from hvx.measure.methods.registry import SPECIFIC, SPECIFIC_ATTENTION
from hvx.measure.metrics.agreement import pooled
from hvx.measure.metrics.bootstrap import Estimate
from hvx.measure.metrics.controls import BETWEEN, IMAGE, QUESTION, Control, attention_controls, control
from hvx.measure.metrics.scores import score_maps
from hvx.measure.metrics.specific import REFERENCES, SpecificMaps
from hvx.measure.pipeline import Maps
from hvx.measure.report.claims import claims
from hvx.measure.report.markdown import report
from hvx.measure.sample import EvaluationSample

NAMES = [SPECIFIC, SPECIFIC_ATTENTION]


def slowly(own: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """The definition, pixel by pixel."""
    found = np.zeros(own.shape)
    for row, column in np.ndindex(*own.shape):
        rest = [other[row, column] / other.mean() if other.any() else 0.0 for other in others]
        found[row, column] = own[row, column] / own.mean() - sum(rest) / len(rest)
    return found


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_map_is_that_of_the_definition_and_sums_to_zero(count: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    own, *others = chance.random((count + 1, 5, 4)).astype(np.float32)
    found = question_specific(own, np.stack(others))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slowly(own, others), atol=1e-5)
    assert abs(found.sum()) < 1e-3
    scaled = question_specific(own * 7, np.stack(others) * 3)  # whatever the unit of a map is
    np.testing.assert_allclose(scaled, found, atol=1e-5)


def test_maps_without_gradient_say_nothing() -> None:
    some, none = np.ones((2, 3)), np.zeros((2, 3))
    some[0, 1] = 4
    assert not question_specific(none, some[None]).any()
    np.testing.assert_allclose(question_specific(some, none[None]), some / some.mean(), rtol=1e-6)
    assert not question_specific(some, some[None]).any()
    with pytest.raises(ValueError, match="another question"):
        question_specific(some, np.empty((0, 2, 3)))


class Run:
    """A run of six questions: three of different texts and one repeated on image 0, one each on 1 and 2."""

    def __init__(self, questions: list[str], images: list[int]) -> None:
        chance = np.random.default_rng(2)
        self.path = Path("runs/made")
        self.items = [
            SimpleNamespace(
                question=question,
                question_id=100 + number,
                image_id=image,
                tokens=question.split(),
                heatmap=chance.random((SIZE // 2, SIZE // 2)).astype(np.float32),
                attention=chance.random((2, 12, 12)).astype(np.float32),
            )
            for number, (question, image) in enumerate(zip(questions, images, strict=True))
        ]

    def __getitem__(self, number: int) -> Any:
        return self.items[number]

    def column(self, name: str) -> np.ndarray:
        return np.array([getattr(item, name) for item in self.items])


def made(questions: list[str], images: list[int], numbers: list[int]) -> Any:
    run = Run(questions, images)
    return SimpleNamespace(
        reader=run, model=MODEL, numbers=numbers, image_ids=np.array(images), glimpses=2, size=(SIZE, SIZE),
        images=np.array(images)[numbers], item=lambda place: run[numbers[place]], split=None,
    )  # fmt: skip


class Sample:
    """What ``attention_controls`` and ``score_maps`` read of a sample."""

    def __init__(self, sample: Any) -> None:
        self.__dict__ |= vars(sample)

    def __len__(self) -> int:
        return len(self.numbers)


QUESTIONS, ON = ["a b", "c", "a b", "d e f", "c", "g"], [0, 0, 0, 0, 1, 2]


def test_others_are_all_of_the_run_on_the_image_with_another_text() -> None:
    sample = made(QUESTIONS, ON, [3, 0])  # the sample has two of the four questions on image 0
    batch = BATCH.__class__(
        [0, 1], BATCH.inputs[:1], torch.tensor([0, 0]), BATCH.rows[:2], BATCH.lengths[:2], BATCH.answers[:2]
    )
    found = SpecificMaps(cast(EvaluationSample, sample), SaliencyComputer(MODEL, 0)).maps(NAMES, batch)
    items = sample.reader.items
    for row, (own, others) in enumerate([(3, [0, 1, 2]), (0, [1, 3])]):
        wanted = slowly(items[own].heatmap, [items[k].heatmap for k in others])
        np.testing.assert_allclose(found[SPECIFIC][row], wanted, atol=1e-4)
        summed = [items[k].attention.sum(0) for k in (own, *others)]
        np.testing.assert_allclose(found[SPECIFIC_ATTENTION][row], slowly(summed[0], summed[1:]), atol=1e-4)


def test_a_single_question_is_compared_with_the_most_frequent_ones_on_its_image() -> None:
    sample = made(QUESTIONS, ON, [5])
    batch = BATCH.__class__(
        [0], BATCH.inputs[1:], torch.tensor([0]), BATCH.rows[:1], BATCH.lengths[:1], BATCH.answers[:1]
    )
    found = SpecificMaps(cast(EvaluationSample, sample), SaliencyComputer(MODEL, 0)).maps(NAMES, batch)
    item = sample.reader.items[5]
    heat, attention = [], []
    for text in ("a b", "c", "d e f"):  # twice, twice, and first of those that occur once
        rows = torch.tensor([MODEL.vocabulary.rows(text.split())])
        alone = BATCH.__class__(
            [0], BATCH.inputs[1:], torch.tensor([0]), rows, torch.tensor([rows.shape[1]]), torch.tensor([0])
        )
        maps = SaliencyComputer(MODEL, 0).maps(["proposed", "attention"], alone)
        whole = maps["proposed"][0]
        heat.append(np.array([[whole[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean() for c in range(SIZE // 2)]
                              for r in range(SIZE // 2)]))  # fmt: skip
        attention.append(maps["attention"][0])
    assert REFERENCES == 3
    np.testing.assert_allclose(found[SPECIFIC][0], slowly(item.heatmap, heat), atol=1e-3)
    np.testing.assert_allclose(
        found[SPECIFIC_ATTENTION][0], slowly(item.attention.sum(0), attention), atol=1e-3
    )


def test_a_run_of_one_question_has_no_specific_maps() -> None:
    sample = made(["a b", "a b"], [0, 0], [0])
    batch = BATCH.__class__(
        [0], BATCH.inputs[:1], torch.tensor([0]), BATCH.rows[:1], BATCH.lengths[:1], BATCH.answers[:1]
    )
    with pytest.raises(HvxError, match=r"runs/made: all of its questions are the same"):
        SpecificMaps(cast(EvaluationSample, sample), SaliencyComputer(MODEL, 0)).maps([SPECIFIC], batch)


def test_controls_of_attention_are_correlations_with_others() -> None:
    sample = Sample(made(QUESTIONS, ON, [4, 0, 1, 2, 3]))
    found = attention_controls(cast(EvaluationSample, sample), 0)
    items = [sample.reader.items[number] for number in sample.numbers]
    heat = [pooled(item.heatmap, (12, 12)).ravel() for item in items]
    seen = [item.attention.sum(0).ravel() for item in items]

    def correlation(one: np.ndarray, other: np.ndarray) -> float:
        return float(spearmanr(one, other).statistic)

    others = {1: [2, 4], 2: [1, 3, 4], 3: [2, 4], 4: [1, 2, 3]}  # places; 1 and 3 have the same text
    own = [correlation(heat[k], seen[k]) for k in others]
    wanted = [np.mean([correlation(heat[k], seen[j]) for j in js]) for k, js in others.items()]
    assert found[QUESTION].own.value == pytest.approx(np.mean(own))
    assert found[QUESTION].other.value == pytest.approx(np.mean(wanted))
    assert found[QUESTION].less.value == pytest.approx(np.mean(own) - np.mean(wanted))
    assert (found[QUESTION].less.n, found[QUESTION].without) == (4, 1)
    between = [np.mean([correlation(seen[k], seen[j]) for j in js]) for k, js in others.items()]
    assert found[BETWEEN].other.value == pytest.approx(np.mean(between))
    far = [correlation(heat[0], seen[1])] + [correlation(heat[k], seen[0]) for k in others]
    assert found[IMAGE].other.value == pytest.approx(np.mean(far))
    assert (found[IMAGE].less.n, found[IMAGE].without) == (5, 0)


def test_a_control_without_any_other_is_none() -> None:
    own, images = np.array([0.5, 0.25]), np.array([0, 1])
    assert control(own, np.full(2, np.nan), images, 0) is None
    found = control(own, np.array([0.125, np.nan]), images, 0)
    assert found and (found.own.value, found.other.value, found.less.value) == (0.5, 0.125, 0.375)
    assert (found.less.n, found.without) == (1, 1)


class Table:
    """Objects: question k asks about label k + 1, two of them about label 1; label k is quadrant k."""

    asked: ClassVar = {100 + k: QuestionTarget("x", (label,)) for k, label in enumerate((1, 2, 1, 3, 1))}
    asked[105] = QuestionTarget("x", ())  # after what is not there

    def mask(self, image_id: int) -> np.ndarray:
        mask = np.zeros((SIZE, SIZE), np.uint8)
        half = SIZE // 2
        mask[:half, :half], mask[:half, half:], mask[half:, :half] = 1, 2, 3
        return mask


def test_maps_of_other_questions_point_into_a_questions_region_as_often_as_counted() -> None:
    sample = Sample(made(QUESTIONS, [0, 0, 0, 0, 1, 0], [0, 1, 2, 3, 4, 5]))
    sample.split = SimpleNamespace(objects="objects.json")
    points = [(1, 1), (1, SIZE - 2), (1, SIZE - 2), (1, 1), (1, 1), (1, 1)]  # 0, 1 and 4 at their own
    maps: list[dict[str, np.ndarray]] = []
    for row, column in points:
        one, constant = np.zeros((SIZE, SIZE), np.float32), np.ones((SIZE, SIZE), np.float32)
        one[row, column] = 1
        maps.append({"proposed": one, "gradient": constant})
    kept = SimpleNamespace(names=["proposed", "gradient"], at=lambda place, item: maps[place])
    _, _, regions = score_maps(
        cast(EvaluationSample, sample), cast(Maps, kept), cast(ObjectTable, Table()), None
    )
    assert regions is not None
    # Of question 0 (label 1) the others are 1 and 3; of 1 (label 2) all of 0, 2, 3; of 3 (label 3) 0, 1, 2.
    np.testing.assert_allclose(regions.others["proposed"], [0.5, 1 / 3, 0.5, 0, np.nan])
    np.testing.assert_allclose(regions.others["gradient"], [0, 0, 0, 0, np.nan])


def test_claims_of_a_question_stand_beside_their_controls() -> None:
    found = made_measures()
    own, same = Estimate(0.6, 0.5, 0.7, 40), Estimate(0.59, 0.5, 0.68, 40)
    found.controls = {
        QUESTION: Control(own, same, Estimate(0.01, -0.02, 0.04, 40), 7),
        IMAGE: Control(own, Estimate(0.2, 0.1, 0.3, 41), Estimate(0.4, 0.3, 0.5, 41), 0),
        BETWEEN: Control(own, Estimate(0.975, 0.97, 0.98, 40), same, 7),
    }
    found.others = {
        "proposed": Control(own, Estimate(0.1, 0.05, 0.15, 30), Estimate(0.5, 0.4, 0.6, 30), 2),
        "gradient": Control(same, own, Estimate(-0.01, -0.1, 0.1, 30), 2),
    }
    by_name = {made.claim: made for made in claims(found)}
    similar = by_name["The heat map is similar to the attention maps (section 5)"]
    assert "with the attention of another question 0.590 [0.500, 0.680]" in similar.evidence
    assert "with the attention of another image 0.200 [0.100, 0.300]" in similar.evidence
    whose = by_name[
        "The heat map is more similar to its own question's attention than to another's (control)"
    ]
    assert whose.verdict == "not decided"
    assert whose.evidence == (
        "with its own attention 0.600 [0.500, 0.700], with that of another question on the same image 0.590 "
        "[0.500, 0.680]; difference +0.010 [-0.020, +0.040], n = 40 (7 have no other question); both "
        "attention maps agree by 0.975 [0.970, 0.980]"
    )
    claim = "The heat map finds what its own question asks about more often than another question's map does"
    points = by_name[f"{claim} (control)"]
    assert points.verdict == "held"
    assert points.evidence == (
        "its maximum lies there in 0.600 [0.500, 0.700], that of another question's map on the image in "
        "0.100 [0.050, 0.150]; difference +0.500 [+0.400, +0.600], n = 30"
    )
    text = report(found, [])
    assert (
        "| pointing game (n = 30) | own map | another question's map | difference |\n|---|---:|---:|---:|\n"
        "| Proposed (Eq. 2) | 0.600 [0.500, 0.700] | 0.100 [0.050, 0.150] | +0.500 [+0.400, +0.600] |\n"
        "| Gradient | 0.590 [0.500, 0.680] | 0.600 [0.500, 0.700] | -0.010 [-0.100, +0.100] |\n"
    ) in text
    assert "2 explanations have no such question on their image." in text
    assert (
        "| attention of another image | 0.600 [0.500, 0.700] | 0.200 [0.100, 0.300] | "
        "+0.400 [+0.300, +0.500] | 41 |\n"
    ) in text
