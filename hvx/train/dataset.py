"""The dataset for head training: batches of questions with image features, and human answers as targets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hvx.data.questions import Question
from hvx.data.tokenize import padded
from hvx.train.features import FeatureCache


def frequent_answers(questions: list[Question], count: int) -> list[str]:
    """The ``count`` most frequent ground truths, most frequent first, ties in alphabetical order."""
    counts = Counter(question.ground_truth for question in questions)
    return sorted(counts, key=lambda answer: (-counts[answer], answer))[:count]


class Targets:
    """The human answers that a classifier has, each as often as it was given.

    Args:
        questions: a split's questions.
        answers: the answers of the classifier's outputs.
    """

    def __init__(self, questions: list[Question], answers: list[str]) -> None:
        index = {answer: number for number, answer in enumerate(answers)}
        targets = [
            [index[answer] for answer in question.answers if answer in index] for question in questions
        ]
        self.counts = np.array([len(indices) for indices in targets], np.int64)
        """(N) people whose answer the classifier has; a question with 0 is of no use for training."""
        self._first = np.cumsum(self.counts) - self.counts
        self._indices = np.array([number for indices in targets for number in indices], np.int64)

    def draw(self, questions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each question the answer of one of these people, drawn at random: (N) indices of answers.

        Args:
            questions: (N) indices of questions, each with an answer that the classifier has.
            rng: random number generator.
        """
        return self._indices[self._first[questions] + rng.integers(0, self.counts[questions])]

    def expected_loss(self, logits: Tensor, questions: list[int]) -> float:
        """Sum over questions of the cross-entropy with the human answers, averaged over people.

        Args:
            logits: (N, A).
            questions: indices of the N questions; one without a known answer adds 0.
        """
        counts = self.counts[questions]
        rows = np.repeat(np.arange(len(questions)), counts)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        answers = self._indices[np.repeat(self._first[questions], counts) + nth]
        losses = -logits.double().log_softmax(1).cpu().numpy()[rows, answers]
        return float((losses / counts[rows]).sum())


@dataclass
class Batch:
    """Questions on some images: features (B, M, S, S), image of each question (N), rows (N, T),
    lengths (N), and the indices of the questions in their split."""

    features: Tensor
    images: Tensor
    rows: Tensor
    lengths: Tensor
    indices: list[int]


class Examples:
    """A split's questions with their images' features times ``scale``, batched by whole images, so
    that what depends only on an image is computed once.

    Args:
        questions: the split's.
        features: of at least these questions' images.
        rows: a question's text → rows of the embedding table.
        device: of the batches.
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
        for index, question in enumerate(questions):
            self.by_image.setdefault(question.image, []).append(index)

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
        """Each image → another one, half a split later."""
        images = list(self.by_image)
        half = len(images) // 2
        return dict(zip(images, images[half:] + images[:half], strict=True))

    def mean_features(self) -> Tensor:
        """The mean over the split's images of their features (1, M, S, S), times ``scale``."""
        images = list(self.by_image)
        total = sum(self.features[[self.features.rows[image]]].double() for image in images)
        assert isinstance(total, Tensor)
        return (total / len(images) * self.scale).float().to(self.device)

    def batch(self, image_names: list[str], shown: dict[str, str] | None = None) -> Batch:
        """The questions on a group of images.

        ``shown``: image → the image whose features its questions get instead.
        """
        questions = [question for image in image_names for question in self.by_image[image]]
        images = [b for b, image in enumerate(image_names) for _ in self.by_image[image]]
        rows, lengths = padded([self.rows[question] for question in questions])
        device = self.device
        feature_rows = [self.features.rows[shown[image] if shown else image] for image in image_names]
        features = self.features[feature_rows].to(device).float()
        return Batch(
            features * self.scale, torch.tensor(images, device=device), torch.from_numpy(rows).to(device),
            torch.from_numpy(lengths).to(device), questions,
        )  # fmt: skip
