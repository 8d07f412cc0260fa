"""What the image contributes to the answers: by `hvx measure`, and at the end of a training."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Tiny

from hvx.data.images import load_input
from hvx.measure.cache import ResultCache
from hvx.measure.evaluate import Options, measure_run
from hvx.measure.metrics.image_use import FREQUENT, FREQUENT_OF_TYPE, MEAN, OTHER, image_use
from hvx.measure.sample import EvaluationSample
from hvx.store.reader import RunReader

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sample(finished_run: Path) -> EvaluationSample:
    return EvaluationSample(RunReader(finished_run), [], CPU)


def answer(sample: EvaluationSample, features: torch.Tensor, place: int) -> str:
    """One question on one feature map (1, M, S, S), alone."""
    item, model = sample.item(place), sample.model
    rows = torch.tensor([model.vocabulary.rows(item.tokens)])
    lengths, zero = torch.tensor([len(item.tokens)]), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        embeddings = model.head.encoder.embed(rows)
        joint = model.head(features, model.head.image_terms(features), zero, embeddings, lengths)
    return model.answers[int(joint.logits.argmax())]


def test_answers_without_the_image_are_those_of_each_question_alone(
    sample: EvaluationSample, tmp_path: Path
) -> None:
    found = image_use(sample, ResultCache(tmp_path), 0)
    model, features = sample.model, {}
    for place in range(len(sample)):
        path = sample._path(place)
        if path not in features:
            with torch.no_grad():
                features[path] = model.backbone(load_input(path, model.config.image).unsqueeze(0))
    mean = torch.stack(list(features.values())).mean(0)
    truth = [sample.item(place).ground_truth for place in range(len(sample))]
    right = [answer(sample, mean, place) == truth[place] for place in range(len(sample))]
    assert found[MEAN].other.value == pytest.approx(np.mean(right))
    own = [answer(sample, features[sample._path(k)], k) == truth[k] for k in range(len(sample))]
    for control in found.values():
        assert control.own.value == pytest.approx(np.mean(own))
        assert control.less.value == pytest.approx(control.own.value - control.other.value)
    kept = ResultCache(tmp_path).result("image-use")
    assert kept[MEAN] == [answer(sample, mean, place) for place in range(len(sample))]
    for place, said in enumerate(kept[OTHER]):
        others = {answer(sample, features[path], place) for path in features if path != sample._path(place)}
        assert said in others


def test_the_most_frequent_answers_are_those_of_the_samples_ground_truth(
    sample: EvaluationSample, tmp_path: Path
) -> None:
    found = image_use(sample, ResultCache(tmp_path), 0)
    items = [sample.item(place) for place in range(len(sample))]
    counts = Counter(item.ground_truth for item in items)
    assert found[FREQUENT].other.value == pytest.approx(max(counts.values()) / len(items))
    by_type: dict[str, Counter[str]] = {}
    for item in items:
        by_type.setdefault(item.question_type, Counter())[item.ground_truth] += 1
    best = sum(max(own.values()) for own in by_type.values())
    assert found[FREQUENT_OF_TYPE].other.value == pytest.approx(best / len(items))
    assert found[FREQUENT_OF_TYPE].other.value > found[FREQUENT].other.value


def test_what_was_kept_is_used_and_what_is_damaged_is_made_again(
    sample: EvaluationSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ResultCache(tmp_path)
    found = image_use(sample, cache, 0)
    monkeypatch.setattr(sample.engine, "forward", lambda *arguments, **options: 1 / 0)
    assert image_use(sample, cache, 0) == found
    cache.keep("image-use", {MEAN: ["yes"], OTHER: ["yes"]})
    with pytest.raises(ZeroDivisionError):
        image_use(sample, cache, 0)


def test_a_measured_run_says_what_the_image_contributes(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)  # it keeps its maps there
    options = Options(("proposed",), sample=12, curves=0, sanity=0)
    found = measure_run(run, options, CPU, [], tmp_path / "out", lambda line: None)
    assert set(found.image_use) == {MEAN, OTHER, FREQUENT, FREQUENT_OF_TYPE}
    text = (tmp_path / "out" / "measure.md").read_text()
    section = text[text.index("## What the image contributes") :].split("\n\n")[1]
    assert [row.split("|")[1].strip() for row in section.splitlines()[2:]] == [
        "of the network",
        *found.image_use,
    ]
    assert "| The answers depend on the image (control) |" in text


def test_a_training_ends_with_the_accuracy_without_the_image(tiny: Tiny) -> None:
    import json

    row = json.loads((tiny.root / "model.metrics.jsonl").read_text().splitlines()[-1])
    names = ("shuffled_images", "mean_features", "most_frequent_answer")
    assert all(0 <= row[f"val_accuracy_{name}"] <= 1 for name in names)
    questions = json.loads((tiny.root / "scenes" / "scenes_train_annotations.json").read_text())[
        "annotations"
    ]
    said = json.loads((tiny.root / "scenes" / "scenes_val_annotations.json").read_text())["annotations"]
    counts = Counter(question["multiple_choice_answer"] for question in questions)
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    share = np.mean([question["multiple_choice_answer"] == best for question in said])
    assert row["val_accuracy_most_frequent_answer"] == pytest.approx(share, abs=1e-4)
