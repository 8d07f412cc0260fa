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

from hvx.measure.cache import Shelf
from hvx.measure.metrics.controls import Control, control
from hvx.measure.sample import Batch, Subject
from hvx.progress import bar

MEAN, OTHER = "mean feature map", "another image's features"
FREQUENT, FREQUENT_OF_TYPE = "most frequent answer", "most frequent answer of the question's type"
"""Names of the baselines that the network's accuracy is compared with."""


def image_use(subject: Subject, shelf: Shelf, seed: int) -> dict[str, Control]:
    """The accuracy of the run's answers compared with each baseline, by name; empty without ground truth.

    An answer is right if it equals the ground truth exactly. The mean feature map is that of the sample's
    images; another image is the previous one in the same batch. The most frequent answers are those of the
    sample's own ground truth, which favors them.

    Args:
        subject: the sample.
        shelf: caches the answers of the network without its image.
        seed: of the intervals.
    """
    truth = subject.reader.column("ground_truth")[subject.numbers]
    known = np.flatnonzero(truth != "")
    if not len(known):
        return {}
    answers = _without_the_image(subject, shelf)
    kinds = subject.reader.column("question_type")[subject.numbers]
    answers[FREQUENT] = _most_frequent(truth, known, np.zeros(len(truth), int))
    if len(set(kinds[known].tolist())) > 1:
        answers[FREQUENT_OF_TYPE] = _most_frequent(truth, known, kinds)
    right = (subject.reader.column("answer")[subject.numbers] == truth)[known].astype(np.float64)
    controls = {
        name: control(
            right, _right(np.array(others, object)[known], truth[known]), subject.images[known], seed
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


def _without_the_image(subject: Subject, shelf: Shelf) -> dict[str, list[str]]:
    """The network's answers with the mean feature map and with another image's features, by name."""
    cached = shelf.result("image-use")
    if not _are_answers(cached, len(subject)):
        shelf.keep("image-use", cached := _answers(subject))
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
def _answers(subject: Subject) -> dict[str, list[str]]:
    """One pass over the images. The mean is known at its end; only the words are needed from then on.

    "" if there is no other image.
    """
    answers = {MEAN: [""] * len(subject), OTHER: [""] * len(subject)}
    total, count, previous, question_batches = torch.zeros(()), 0, None, []
    sample = range(len(subject))
    batches = bar(subject.batches(sample), "without the image", "batch", total=subject.batch_count(sample))
    for batch in batches:
        features = subject.model.backbone(batch.inputs)
        other = features.roll(1, 0) if len(features) > 1 else previous
        if other is not None:
            _put(answers[OTHER], batch, _predicted(subject, other, batch.images, batch))
        previous, count = features[-1:], count + len(features)
        total = total.to(features.device) + features.double().sum(0)
        question_batches.append(replace(batch, inputs=batch.inputs[:0]))
    mean_map = (total / count).to(features.dtype).unsqueeze(0)
    for batch in question_batches:
        _put(answers[MEAN], batch, _predicted(subject, mean_map, torch.zeros_like(batch.images), batch))
    return answers


def _predicted(subject: Subject, features: Tensor, images: Tensor, batch: Batch) -> list[str]:
    """The most probable answers to a batch's questions on these features (B, M, S, S)."""
    head = subject.model.head
    embeddings = head.encoder.embed(batch.rows)
    joint = head(features, head.image_terms(features), images, embeddings, batch.lengths)
    return [subject.model.answers[answer] for answer in joint.logits.argmax(1).tolist()]


def _put(answers: list[str], batch: Batch, predicted: list[str]) -> None:
    for position, answer in zip(batch.places, predicted, strict=True):
        answers[position] = answer
