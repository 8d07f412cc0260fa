"""Questions over the features of their images, in batches, and what people answered to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvx.data.questions import Question
from hvx.data.words import padded
from hvx.train.features import FeatureCache


def frequent_answers(questions: list[Question], count: int) -> list[str]:
    """The ``count`` most frequent ground truths, most frequent first, ties in alphabetical order."""
    counts = Counter(question.ground_truth for question in questions)
    return sorted(counts, key=lambda answer: (-counts[answer], answer))[:count]


class Targets:
    """What people answered, as far as a classifier has it, each answer as often as people gave it.

    Args:
        questions: a split's questions.
        answers: what the classifier's outputs mean.
    """

    def __init__(self, questions: list[Question], answers: list[str]) -> None:
        known = {answer: index for index, answer in enumerate(answers)}
        kept = [[known[said] for said in question.answers if said in known] for question in questions]
        self.counts = np.array([len(own) for own in kept], np.int64)
        """(N) people whose answer the classifier has; 0: the question teaches nothing."""
        self._first = np.cumsum(self.counts) - self.counts
        self._said = np.array([answer for own in kept for answer in own], np.int64)

    def draw(self, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each question the answer of one of those people, drawn by lot: (N) indices of answers.

        Args:
            places: (N) questions, each with an answer that the classifier has.
            rng: chance.
        """
        return self._said[self._first[places] + rng.integers(0, self.counts[places])]

    def expected_loss(self, logits: Tensor, places: list[int]) -> float:
        """Sum over questions of the cross-entropy with what people said, the mean over the people.

        Args:
            logits: (N, A).
            places: the N questions; one without a known answer counts nothing.
        """
        counts = self.counts[places]
        rows = np.repeat(np.arange(len(places)), counts)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        said = self._said[np.repeat(self._first[places], counts) + nth]
        negative = -logits.double().log_softmax(1).cpu().numpy()[rows, said]
        return float((negative / counts[rows]).sum())


@dataclass
class Batch:
    """Questions on some images: features (B, M, S, S), image of each question (N), rows (N, T),
    lengths (N), and the places of the questions in their split."""

    features: Tensor
    images: Tensor
    rows: Tensor
    lengths: Tensor
    places: list[int]


class Examples:
    """A split's questions over their images' features times ``scale``, batched by whole images, so
    that what depends on an image alone is computed once for it.

    Args:
        questions: the split's.
        features: of at least their images.
        rows: a question's text → rows of the embedding table.
        device: where the batches go.
        scale: factor on the features.
    """

    def __init__(
        self,
        questions: list[Question],
        features: FeatureCache,
        rows: dict[str, list[int]],
        device: torch.device,
        scale: float = 1.0,
    ) -> None:
        self.questions, self.features, self.device, self.scale = questions, features, device, scale
        self.rows = [rows[question.question] for question in questions]
        self.by_image: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            self.by_image.setdefault(question.image, []).append(place)

    def groups(self, size: int, rng: np.random.Generator | None = None) -> list[list[str]]:
        """Names of images in groups with about ``size`` questions each, shuffled by ``rng`` if given."""
        images = list(self.by_image)
        if rng is not None:
            rng.shuffle(images)
        groups: list[list[str]] = [[]]
        count = 0
        for image in images:
            if count >= size:
                groups.append([])
                count = 0
            groups[-1].append(image)
            count += len(self.by_image[image])
        return groups

    def swapped(self) -> dict[str, str]:
        """Each image → another one, half of the split further on."""
        images = list(self.by_image)
        half = len(images) // 2
        return dict(zip(images, images[half:] + images[:half], strict=True))

    def mean_features(self) -> Tensor:
        """The mean over the split's images of their features (1, M, S, S), times ``scale``."""
        images = list(self.by_image)
        total = sum(self.features[[self.features.rows[image]]].double() for image in images)
        assert isinstance(total, Tensor)
        return (total / len(images) * self.scale).float().to(self.device)

    def batch(self, asked: list[str], shown: dict[str, str] | None = None) -> Batch:
        """The questions on a group of images.

        ``shown`` may give an image's questions another image's features, image → image.
        """
        places = [place for image in asked for place in self.by_image[image]]
        images = [b for b, image in enumerate(asked) for _ in self.by_image[image]]
        rows, lengths = padded([self.rows[place] for place in places])
        to = self.device
        found = [self.features.rows[shown[image] if shown else image] for image in asked]
        features = self.features[found].to(to).float()
        return Batch(
            features * self.scale, torch.tensor(images, device=to), torch.from_numpy(rows).to(to),
            torch.from_numpy(lengths).to(to), places,
        )  # fmt: skip
