"""What the image contributes to the answers: accuracy with and without it.

If a network answers as well from the words alone, a map has nothing in the image to show. So its accuracy is
compared with the accuracy on features that carry no information about the question's own image, and with the
accuracy of the most frequent answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.measure.cache import ResultCache
from hvx.measure.metrics.controls import Control, control
from hvx.measure.sample import Batch, EvaluationSample
from hvx.progress import bar

MEAN, OTHER = "mean feature map", "another image's features"
FREQUENT, FREQUENT_OF_TYPE = "most frequent answer", "most frequent answer of the question's type"
"""Names of the baselines that the network's accuracy is compared with."""


def image_use(sample: EvaluationSample, cache: ResultCache, seed: int) -> dict[str, Control]:
    """The accuracy of the run's answers compared with each baseline, by name; empty without ground truth.

    An answer is right if it equals the ground truth exactly. The mean feature map is that of the sample's
    images; another image is the previous one in the same batch. The most frequent answers are those of the
    sample's own ground truth, which favors them.

    Args:
        sample: the sample.
        cache: caches the answers of the network without its image.
        seed: of the intervals.
    """
    truth = sample.reader.column("ground_truth")[sample.numbers]
    known = np.flatnonzero(truth != "")
    if not len(known):
        return {}
    answers = _without_the_image(sample, cache)
    kinds = sample.reader.column("question_type")[sample.numbers]
    answers[FREQUENT] = _most_frequent(truth, known, np.zeros(len(truth), int))
    if len(set(kinds[known].tolist())) > 1:
        answers[FREQUENT_OF_TYPE] = _most_frequent(truth, known, kinds)
    right = (sample.reader.column("answer")[sample.numbers] == truth)[known].astype(np.float64)
    controls = {
        name: control(
            right, _right(np.array(others, object)[known], truth[known]), sample.images[known], seed
        )
        for name, others in answers.items()
    }
    return {name: result for name, result in controls.items() if result}


def _right(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 for a right answer, 0 for a wrong one, NaN if there is none."""
    return np.where(answers == "", np.nan, answers == truth)


def _most_frequent(truth: np.ndarray, known: np.ndarray, kinds: np.ndarray) -> list[str]:
    """For each question the most frequent ground truth of its kind; ties in alphabetical order."""
    counts: dict[object, Counter[str]] = {}
    for position in known:
        counts.setdefault(kinds[position], Counter())[str(truth[position])] += 1
    best = {kind: min(count, key=lambda answer: (-count[answer], answer)) for kind, count in counts.items()}
    return [best.get(kind, "") for kind in kinds]


def _without_the_image(sample: EvaluationSample, cache: ResultCache) -> dict[str, list[str]]:
    """The network's answers with the mean feature map and with another image's features, by name."""
    cached = cache.result("image-use")
    if not _are_answers(cached, len(sample)):
        cache.keep("image-use", cached := _answers(sample))
    return dict(cached)


def _are_answers(value: Any, count: int) -> bool:
    """Whether a value read from a file has the form that ``_answers`` returns."""
    return (
        isinstance(value, dict)
        and list(value) == [MEAN, OTHER]
        and all(isinstance(answers, list) and len(answers) == count for answers in value.values())
        and all(isinstance(answer, str) for answers in value.values() for answer in answers)
    )


@torch.no_grad()
def _answers(sample: EvaluationSample) -> dict[str, list[str]]:
    """One pass over the images. The mean is known at its end; only the words are needed from then on.

    "" if there is no other image.
    """
    answers = {MEAN: [""] * len(sample), OTHER: [""] * len(sample)}
    total, count, previous, question_batches = torch.zeros(()), 0, None, []
    positions = range(len(sample))
    batches = bar(
        sample.batches(positions), "without the image", "batch", total=sample.batch_count(positions)
    )
    for batch in batches:
        features = sample.engine.features(batch.inputs)
        other = features.roll(1, 0) if len(features) > 1 else previous
        if other is not None:
            _put(answers[OTHER], batch, _predicted(sample, other, batch.images, batch))
        previous, count = features[-1:], count + len(features)
        total = total.to(features.device) + features.double().sum(0)
        question_batches.append(replace(batch, inputs=batch.inputs[:0]))
    mean_map = (total / count).to(features.dtype).unsqueeze(0)
    for batch in question_batches:
        _put(answers[MEAN], batch, _predicted(sample, mean_map, torch.zeros_like(batch.images), batch))
    return answers


def _predicted(sample: EvaluationSample, features: Tensor, images: Tensor, batch: Batch) -> list[str]:
    """The most probable answers to a batch's questions on these features (B, M, S, S)."""
    head = sample.model.head
    embeddings = head.encoder.embed(batch.rows)
    joint = head(features, head.image_terms(features), images, embeddings, batch.lengths)
    return [sample.model.answers[answer] for answer in joint.logits.argmax(1).tolist()]


def _put(answers: list[str], batch: Batch, predicted: list[str]) -> None:
    for position, answer in zip(batch.positions, predicted, strict=True):
        answers[position] = answer
