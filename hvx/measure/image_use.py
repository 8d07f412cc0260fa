"""What the image contributes to the answers: accuracy beside that without it.

A network that answers as well from the words alone has nothing in the image that a map could show. So its
accuracy stands beside that with features that say nothing of the question's own image, and beside that of the
most frequent answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.measure.controls import Control, control
from hvx.measure.shelf import Shelf
from hvx.measure.subject import Batch, Subject
from hvx.progress import bar

MEAN, OTHER = "mean feature map", "another image's features"
FREQUENT, FREQUENT_OF_TYPE = "most frequent answer", "most frequent answer of the question's type"
"""Names of what the network's own accuracy stands beside."""


def image_use(subject: Subject, shelf: Shelf, seed: int) -> dict[str, Control]:
    """The accuracy of the run's answers beside that of others, by name; empty without ground truth.

    An answer is right if it is the ground truth to the letter. The mean feature map is that of the sample's
    images; another image is the one before in the same batch. The most frequent answers are those of the
    sample's own ground truth, which favors them.

    Args:
        subject: the sample.
        shelf: keeps the answers of the network without its image.
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
    made = {
        name: control(
            right, _right(np.array(others, object)[known], truth[known]), subject.images[known], seed
        )
        for name, others in answers.items()
    }
    return {name: own for name, own in made.items() if own}


def _right(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where an answer is right, 0 where not, NaN where there is none."""
    return np.where(answers == "", np.nan, answers == truth)


def _most_frequent(truth: np.ndarray, known: np.ndarray, kinds: np.ndarray) -> list[str]:
    """For each question the most frequent ground truth of its kind; the first in the alphabet of equals."""
    counts: dict[object, Counter[str]] = {}
    for place in known:
        counts.setdefault(kinds[place], Counter())[str(truth[place])] += 1
    best = {kind: min(own, key=lambda answer: (-own[answer], answer)) for kind, own in counts.items()}
    return [best.get(kind, "") for kind in kinds]


def _without_the_image(subject: Subject, shelf: Shelf) -> dict[str, list[str]]:
    """The network's answers with the mean feature map and with another image's features, by name."""
    kept = shelf.result("image-use")
    if not _are_answers(kept, len(subject)):
        shelf.keep("image-use", kept := _answers(subject))
    return dict(kept)


def _are_answers(value: Any, count: int) -> bool:
    """Whether a value that was read from a file is what ``_answers`` returns."""
    return (
        isinstance(value, dict)
        and list(value) == [MEAN, OTHER]
        and all(isinstance(own, list) and len(own) == count for own in value.values())
        and all(isinstance(answer, str) for own in value.values() for answer in own)
    )


@torch.no_grad()
def _answers(subject: Subject) -> dict[str, list[str]]:
    """One pass over the images. The mean is known at its end, where only the words are needed.

    "" where there is no other image.
    """
    found = {MEAN: [""] * len(subject), OTHER: [""] * len(subject)}
    total, count, before, asked = torch.zeros(()), 0, None, []
    places = range(len(subject))
    batches = bar(subject.batches(places), "without the image", "batch", total=subject.batch_count(places))
    for batch in batches:
        features = subject.model.backbone(batch.inputs)
        other = features.roll(1, 0) if len(features) > 1 else before
        if other is not None:
            _put(found[OTHER], batch, _predicted(subject, other, batch.images, batch))
        before, count = features[-1:], count + len(features)
        total = total.to(features.device) + features.double().sum(0)
        asked.append(replace(batch, inputs=batch.inputs[:0]))
    mean_map = (total / count).to(features.dtype).unsqueeze(0)
    for batch in asked:
        _put(found[MEAN], batch, _predicted(subject, mean_map, torch.zeros_like(batch.images), batch))
    return found


def _predicted(subject: Subject, features: Tensor, images: Tensor, batch: Batch) -> list[str]:
    """The likeliest answers to a batch's questions on these features (B, M, S, S)."""
    head = subject.model.head
    embeddings = head.encoder.embed(batch.rows)
    joint = head(features, head.image_terms(features), images, embeddings, batch.lengths)
    return [subject.model.answers[answer] for answer in joint.logits.argmax(1).tolist()]


def _put(answers: list[str], batch: Batch, found: list[str]) -> None:
    for place, answer in zip(batch.places, found, strict=True):
        answers[place] = answer
