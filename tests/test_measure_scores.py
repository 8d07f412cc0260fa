"""From maps to scores and means: each number belongs to its explanation, its method and its image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from test_measure_methods import BATCH, ENGINE, IMAGES, MODEL, SIZE, logits_of

from hvx.data.object_masks import ObjectTable, QuestionTarget
from hvx.errors import HvxError
from hvx.measure import pipeline
from hvx.measure.cache import ResultCache
from hvx.measure.methods.computer import SaliencyComputer
from hvx.measure.metrics.agreement import pooled
from hvx.measure.metrics.bootstrap import mean
from hvx.measure.metrics.faithfulness import SHARES, area, blurred
from hvx.measure.metrics.human_attention import HumanMaps
from hvx.measure.metrics.localization import energy_inside, enlarged, overlap
from hvx.measure.metrics.results import MetricResults
from hvx.measure.metrics.scores import Agreement, Regions, Scores, glimpse_names, score_curves, score_maps
from hvx.measure.pipeline import Maps, make_baseline_probabilities, make_curves, make_maps
from hvx.measure.sample import Batch, EvaluationSample

COUNT = len(IMAGES)


def items() -> list[Any]:
    """An item of each question of the batch, with maps that all differ."""
    chance = np.random.default_rng(4)
    return [
        SimpleNamespace(
            question_id=100 + k,
            image_id=IMAGES[k],
            heatmap=chance.random((SIZE, SIZE)).astype(np.float32),
            attention=chance.random((2, 6, 6)).astype(np.float32),
        )
        for k in range(COUNT)
    ]


class MadeSubject:
    """The questions of ``test_measure_methods`` as a sample; two batches, the later questions first."""

    def __init__(self) -> None:
        self.model, self.engine, self.size, self.glimpses = MODEL, ENGINE, (SIZE, SIZE), 2
        self.items = items()
        self.split = SimpleNamespace(objects="objects.json")
        self.reader = SimpleNamespace(path=Path("runs/made"))

    def __len__(self) -> int:
        return COUNT

    def item(self, place: int) -> Any:
        return self.items[place]

    def batch_count(self, places: Sequence[int]) -> int:
        return 2

    def batches(self, places: Sequence[int]) -> Iterator[Batch]:
        for own in ([4, 2], [1, 0, 3]):
            asked = [place for place in own if place in places]
            if asked:
                at = torch.tensor(asked)
                yield Batch(
                    asked,
                    BATCH.inputs,
                    BATCH.images[at],
                    BATCH.rows[at],
                    BATCH.lengths[at],
                    BATCH.answers[at],
                )


@pytest.fixture
def sample() -> EvaluationSample:
    return cast(EvaluationSample, MadeSubject())


def probability(question: int, image: torch.Tensor) -> float:
    forward = logits_of(MODEL, BATCH, question, MODEL.backbone.network)
    with torch.no_grad():
        return float(forward(image.unsqueeze(0)).softmax(1)[0, BATCH.answers[question]])


# What takes time


def test_each_explanation_gets_its_own_map(sample: EvaluationSample, tmp_path: Path) -> None:
    names = ["proposed", "attention", "cam", "gradient", "guided-backpropagation", "center"]
    cache = ResultCache(tmp_path)
    make_maps(sample, cache, names, 0)
    wanted = SaliencyComputer(MODEL, 0).maps(names, BATCH)
    maps = Maps(sample, cache, names)
    for place in range(COUNT):
        item = sample.item(place)
        found = maps.at(place, item)
        assert list(found) == names
        assert (found["proposed"] == item.heatmap).all()
        assert found["attention"] == pytest.approx(item.attention[0] + item.attention[1])
        for name in names[2:]:
            own = wanted[name][place]
            assert found[name] == pytest.approx(own / np.abs(own).max(), abs=1e-3), (place, name)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "maps").iterdir()}
    assert sorted(kept) == ["cam.npy", "center.npy", "gradient.npy", "guided-backpropagation.npy"]
    make_maps(sample, cache, names, 0)
    assert kept == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "maps").iterdir()}


def test_curves_are_of_each_explanations_own_question_image_and_map(
    sample: EvaluationSample, tmp_path: Path
) -> None:
    count, cache = 4, ResultCache(tmp_path)
    ends = make_baseline_probabilities(sample, cache, count)
    blurs = blurred(BATCH.inputs)
    for place in range(count):
        image = IMAGES[place]
        wanted = probability(place, BATCH.inputs[image]), probability(place, blurs[image])
        assert ends[place] == pytest.approx(wanted, rel=1e-9)
    found = make_curves(sample, cache, ["proposed", "attention"], ends, 0)
    assert list(found) == ["proposed", "attention"]
    for place in range(count):
        image, blur = BATCH.inputs[IMAGES[place]], blurs[IMAGES[place]]
        order = np.argsort(-sample.item(place).heatmap, axis=None)
        deletion, insertion = [], []
        for share in SHARES:
            gone = np.zeros(SIZE * SIZE, bool)
            gone[order[: round(share * SIZE * SIZE)]] = True
            mask = torch.from_numpy(gone.reshape(SIZE, SIZE))
            deletion.append(probability(place, torch.where(mask, blur, image)))
            insertion.append(probability(place, torch.where(mask, image, blur)))
        own = found["proposed"][place]
        assert own[0] == pytest.approx(deletion, rel=1e-9) and own[1] == pytest.approx(insertion, rel=1e-9)
        attention = found["attention"][place]
        assert attention[0][0] == own[0][0] and attention[0] != own[0]


def test_curves_and_their_ends_are_kept_by_their_count(
    sample: EvaluationSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ResultCache(tmp_path)
    ends = make_baseline_probabilities(sample, cache, 2)
    first = make_curves(sample, cache, ["proposed"], ends, 0)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")) == [
        "curves-2/ends.json", "curves-2/proposed.json"
    ]  # fmt: skip
    monkeypatch.setattr(pipeline, "probabilities", None)  # nothing is computed again
    assert make_baseline_probabilities(sample, cache, 2) == ends
    assert make_curves(sample, cache, ["proposed"], ends, 0) == first


# Scores


class MadeTable:
    """Of the five questions, one asks about nothing that is there; two images with two objects each."""

    def __init__(self) -> None:
        self.asked = {
            100: QuestionTarget("count", (1,)), 101: QuestionTarget("shape", (2,)),
            102: QuestionTarget("count", (1, 2)), 103: QuestionTarget("shape", (9,)),
            104: QuestionTarget("shape", (1,)),
        }  # fmt: skip

    def mask(self, image_id: int) -> np.ndarray:
        labels = np.zeros((SIZE, SIZE), np.uint8)
        labels[4:20, 6 + image_id : 20] = 1
        labels[30:40, 10 : 30 + image_id] = 2
        return labels


class MadePeople:
    """Maps of none, one or two people."""

    def __init__(self) -> None:
        chance = np.random.default_rng(8)
        self.maps = {100: chance.random((2, SIZE, SIZE)), 103: chance.random((1, SIZE, SIZE))}

    def of(self, question_id: int) -> list[np.ndarray]:
        return list(self.maps.get(question_id, []))


NAMES = ["proposed", "attention", "center"]


def scored(
    sample: EvaluationSample, folder: Path, table: object, human: object
) -> tuple[Maps, dict[str, Scores], Agreement, Regions | None]:
    cache = ResultCache(folder)
    make_maps(sample, cache, NAMES, 0)
    maps = Maps(sample, cache, NAMES)
    return maps, *score_maps(sample, maps, cast(ObjectTable, table), cast(HumanMaps, human))


def test_localization_is_scored_where_the_object_is_there(sample: EvaluationSample, tmp_path: Path) -> None:
    table = MadeTable()
    maps, found, _, regions = scored(sample, tmp_path, table, None)
    assert list(found) == ["pointing", "energy", "overlap", "attention"]
    assert regions is not None
    assert regions.positions.tolist() == [0, 1, 2, 4]
    assert regions.kinds.tolist() == ["count", "shape", "count", "shape"]
    for row, place in enumerate(regions.positions):
        item = sample.item(place)
        inside = np.isin(table.mask(item.image_id), table.asked[item.question_id].labels)
        assert regions.shares[row] == pytest.approx(inside.mean())
        for name, map in maps.at(place, item).items():
            whole = enlarged(map, (SIZE, SIZE))
            y, x = np.unravel_index(map.argmax(), map.shape)
            scale = SIZE // len(map)
            hit = inside[y * scale + scale // 2, x * scale + scale // 2]
            assert found["pointing"].values[name][row] == hit
            assert found["energy"].values[name][row] == pytest.approx(energy_inside(whole, inside))
            assert found["overlap"].values[name][row] == pytest.approx(overlap(whole, inside))
    for metric in ("pointing", "energy", "overlap"):
        assert found[metric].positions.tolist() == [0, 1, 2, 4]
        assert list(found[metric].values) == NAMES


def test_agreement_is_spearmans_on_the_lattice_with_glimpses_last(
    sample: EvaluationSample, tmp_path: Path
) -> None:
    maps, found, agreement, regions = scored(sample, tmp_path, None, None)
    assert regions is None and list(found) == ["attention"]
    assert agreement.names == [*NAMES, "glimpse 1", "glimpse 2"]
    assert agreement.correlations.shape == (COUNT, 5, 5)
    for place in range(COUNT):
        item = sample.item(place)
        cells = [pooled(map, (6, 6)) for map in maps.at(place, item).values()] + list(item.attention)
        for i, one in enumerate(cells):
            for j, other in enumerate(cells):
                wanted = spearmanr(one.ravel(), other.ravel()).statistic
                assert agreement.correlations[place, i, j] == pytest.approx(wanted, abs=1e-9)
        assert found["attention"].values["proposed"][place] == agreement.correlations[place, 0, 1]
        assert found["attention"].values["center"][place] == agreement.correlations[place, 2, 1]
    assert found["attention"].positions.tolist() == list(range(COUNT))
    assert list(found["attention"].values) == ["proposed", "center"]


def test_agreement_with_people_is_the_mean_over_them(sample: EvaluationSample, tmp_path: Path) -> None:
    people = MadePeople()
    maps, found, _, _ = scored(sample, tmp_path, None, people)
    assert list(found) == ["human", "attention"]
    assert found["human"].positions.tolist() == [0, 3]
    for row, place in enumerate((0, 3)):
        for name, map in maps.at(place, sample.item(place)).items():
            each = [
                spearmanr(pooled(map, (6, 6)).ravel(), pooled(own, (6, 6)).ravel()).statistic
                for own in people.of(100 + place)
            ]
            assert found["human"].values[name][row] == pytest.approx(np.mean(each), abs=1e-9)


def test_without_attention_maps_are_compared_on_14_by_14(sample: EvaluationSample, tmp_path: Path) -> None:
    made = cast(MadeSubject, sample)
    made.glimpses = 0
    cache = ResultCache(tmp_path)
    make_maps(sample, cache, ["proposed", "center"], 0)
    maps = Maps(sample, cache, ["proposed", "center"])
    found, agreement, _ = score_maps(sample, maps, None, None)
    assert found == {} and agreement.names == ["proposed", "center"]
    both = [pooled(map, (14, 14)).ravel() for map in maps.at(1, sample.item(1)).values()]
    assert agreement.correlations[1, 0, 1] == pytest.approx(spearmanr(*both).statistic, abs=1e-9)


def test_glimpses_are_named_from_1_where_there_are_several() -> None:
    assert [glimpse_names(count) for count in (0, 1, 2, 3)] == [
        [], [], ["glimpse 1", "glimpse 2"], ["glimpse 1", "glimpse 2", "glimpse 3"]
    ]  # fmt: skip


def test_a_question_that_the_table_lacks_is_named(sample: EvaluationSample, tmp_path: Path) -> None:
    table = MadeTable()
    table.asked = {k: own for k, own in table.asked.items() if k != 102}
    with pytest.raises(HvxError) as raised:
        scored(sample, tmp_path, table, None)
    assert str(raised.value) == (
        "objects.json: no question 102, which runs/made explains; the run is of another split"
    )


def test_a_curves_score_is_its_area_by_metric_and_method() -> None:
    def curve(height: float) -> list[float]:
        return [height + share for share in SHARES]

    curves = {
        "proposed": [(curve(0.1), curve(0.2)), (curve(0.3), curve(0.4))],
        "random": [(curve(0.5), curve(0.6)), (curve(0.7), curve(0.8))],
    }
    found = score_curves(curves)
    assert list(found) == ["deletion", "insertion"]
    for part, metric in enumerate(("deletion", "insertion")):
        assert found[metric].positions.tolist() == [0, 1]
        for name, first in (("proposed", 0.1), ("random", 0.5)):
            wanted = [first + 0.1 * part + 0.5, first + 0.2 + 0.1 * part + 0.5]
            assert found[metric].values[name] == pytest.approx(wanted)
    assert area(curve(0.0)) == pytest.approx(0.5)


# Means

PICTURES = np.array([7, 7, 3, 9, 3])
GROUPS = {"places": np.array([0, 2, 3, 4]), "images": np.array([7, 3, 9, 3])}


def made_scores(metric: str, names: Sequence[str] = ("proposed", "attention", "center")) -> Scores:
    chance = np.random.default_rng(len(metric))
    return Scores(GROUPS["places"], {name: chance.random(4) for name in names})


def test_means_and_differences_are_of_each_methods_own_scores() -> None:
    found = MetricResults({}, ["proposed", "attention", "center"])
    scored = {metric: made_scores(metric) for metric in ("insertion", "pointing", "energy")}
    found.add_scores(scored, PICTURES, 3)
    assert list(found.means) == list(found.versus) == ["pointing", "energy", "insertion"]
    for metric, own in scored.items():
        base = own.values["proposed"]
        assert found.means[metric] == {k: mean(v, GROUPS["images"], 3) for k, v in own.values.items()}
        assert found.versus[metric] == {
            k: mean(v - base, GROUPS["images"], 3) for k, v in own.values.items() if k != "proposed"
        }


def test_regions_give_chance_and_means_by_kind() -> None:
    found = MetricResults({}, ["proposed", "attention"])
    scored = {metric: made_scores(metric) for metric in ("pointing", "energy", "overlap")}
    shares, kinds = np.array([0.1, 0.3, 0.05, 0.2]), np.array(["shape", "count", "shape", "count"])
    found.add_regions(Regions(GROUPS["places"], kinds, shares), scored, PICTURES, 3)
    images = GROUPS["images"]
    assert list(found.chance) == ["all", "shape", "count"]
    assert found.chance["all"] == mean(shares, images, 3)
    assert found.chance["shape"] == mean([0.1, 0.05], [7, 9], 3)
    assert found.chance["count"].value == pytest.approx(0.25)
    assert found.above_chance == mean(scored["pointing"].values["proposed"] - shares, images, 3)
    assert list(found.by_kind) == ["shape", "count"]
    for metric, own in scored.items():
        for name, values in own.values.items():
            assert found.by_kind["shape"][metric][name] == mean(values[[0, 2]], [7, 9], 3)
            assert found.by_kind["count"][metric][name].value == pytest.approx(values[[1, 3]].mean())


def test_agreement_is_that_of_the_proposed_map_and_the_sum_is_held_against_the_better_glimpse() -> None:
    names = ["attention", "proposed", "glimpse 1", "glimpse 2"]
    correlations = np.random.default_rng(2).random((5, 4, 4))
    correlations[:, 1, 3] += 0.5  # the second glimpse is the better one
    found = MetricResults({}, ["proposed", "attention"])
    found.add_agreement(Agreement(names, correlations), PICTURES, 3)
    own = correlations[:, 1]
    assert found.agreement == {
        "attention": mean(own[:, 0], PICTURES, 3),
        "glimpse 1": mean(own[:, 2], PICTURES, 3),
        "glimpse 2": mean(own[:, 3], PICTURES, 3),
    }
    assert found.additive == mean(own[:, 0] - own[:, 3], PICTURES, 3)
    assert found.matrix is not None and found.matrix == pytest.approx(correlations.mean(0))
    assert found.matrix_names == names
    for without in (names[:2], ["other", *names[1:]]):
        bare = MetricResults({}, ["proposed"])
        k = len(without)
        bare.add_agreement(Agreement(without, correlations[:, :k, :k]), PICTURES, 3)
        assert bare.additive is None


def test_curves_are_averaged_by_method_and_their_ends_have_intervals() -> None:
    chance = np.random.default_rng(6)
    pairs = {
        name: [(chance.random(9).tolist(), chance.random(9).tolist()) for _ in range(3)] for name in "ab"
    }
    found = MetricResults({}, [])
    ends = [(0.9, 0.1), (0.5, 0.3), (0.7, 0.4)]
    found.add_curves(cast(Any, pairs), ends, PICTURES, 3)
    assert found.ends == (mean([0.9, 0.5, 0.7], [7, 7, 3], 3), mean([0.1, 0.3, 0.4], [7, 7, 3], 3))
    for name in "ab":
        for part in range(2):
            wanted = [np.mean([pair[part][k] for pair in pairs[name]]) for k in range(9)]
            assert found.curves[name][part] == pytest.approx(wanted)


def test_sanity_keeps_correlation_and_ssim_of_each_stage_apart() -> None:
    chance = np.random.default_rng(7)
    made = {name: {stage: chance.random((3, 2)).tolist() for stage in ("one", "two")} for name in "ab"}
    found = MetricResults({}, [])
    found.add_sanity(made, PICTURES, 3)
    assert list(found.sanity) == ["a", "b"] and list(found.sanity["a"]) == ["one", "two"]
    for name, stages in made.items():
        for stage, pairs in stages.items():
            first, second = zip(*pairs, strict=True)
            assert found.sanity[name][stage] == (mean(first, [7, 7, 3], 3), mean(second, [7, 7, 3], 3))
