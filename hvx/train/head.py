"""The head learns to answer over cached features of a frozen backbone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hvx.config import TrainConfig
from hvx.data.questions import Question
from hvx.data.words import TOKENIZERS, Vocabulary, padded
from hvx.models.mlb import MLB
from hvx.train.features import FeatureCache
from hvx.train.schedule import warm_cosine

_EVALUATION_BATCH = 512
_NOT_AN_ANSWER = -100
"""Target of a question none of whose answers the classifier has; the loss leaves it out."""


def frequent_answers(questions: list[Question], count: int) -> list[str]:
    """The ``count`` most frequent ground truths, most frequent first, ties in alphabetical order."""
    counts = Counter(question.ground_truth for question in questions)
    return sorted(counts, key=lambda answer: (-counts[answer], answer))[:count]


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
    that what depends on an image alone is computed once for it."""

    def __init__(
        self,
        questions: list[Question],
        features: FeatureCache,
        vocabulary: Vocabulary,
        tokenizer: str,
        device: torch.device,
        scale: float = 1.0,
    ) -> None:
        tokenize = TOKENIZERS[tokenizer]
        self.questions, self.features, self.device, self.scale = questions, features, device, scale
        self.rows = [vocabulary.rows(tokenize(question.question)) for question in questions]
        self.by_image: dict[int, list[int]] = {}
        for place, question in enumerate(questions):
            self.by_image.setdefault(question.image_id, []).append(place)

    def groups(self, size: int, rng: np.random.Generator | None = None) -> list[list[int]]:
        """Image ids in groups with about ``size`` questions each, shuffled by ``rng`` if given."""
        image_ids = list(self.by_image)
        if rng is not None:
            rng.shuffle(image_ids)
        groups: list[list[int]] = [[]]
        count = 0
        for image_id in image_ids:
            if count >= size:
                groups.append([])
                count = 0
            groups[-1].append(image_id)
            count += len(self.by_image[image_id])
        return groups

    def batches(
        self, size: int, rng: np.random.Generator | None = None, shown: dict[int, int] | None = None
    ) -> Iterator[Batch]:
        """Batches of whole images with about ``size`` questions each, shuffled by ``rng`` if given.

        ``shown`` may give an image's questions another image's features, image id → image id.
        """
        for group in self.groups(size, rng):
            yield self._batch(group, [shown[i] for i in group] if shown else group)

    def swapped(self) -> dict[int, int]:
        """Each image id → another one, half of the split further on."""
        image_ids = list(self.by_image)
        half = len(image_ids) // 2
        return dict(zip(image_ids, image_ids[half:] + image_ids[:half], strict=True))

    def _batch(self, asked: list[int], shown: list[int]) -> Batch:
        places = [place for image_id in asked for place in self.by_image[image_id]]
        images = [b for b, image_id in enumerate(asked) for _ in self.by_image[image_id]]
        rows, lengths = padded([self.rows[place] for place in places])
        features = self.features[[self.features.rows[image_id] for image_id in shown]]
        to = self.device
        return Batch(
            features.to(to) * self.scale, torch.tensor(images, device=to), torch.from_numpy(rows).to(to),
            torch.from_numpy(lengths).to(to), places,
        )  # fmt: skip


def answer_logits(model: MLB, batch: Batch) -> Tensor:
    """Logits (N, A) of a batch."""
    embeddings = model.encoder.embed(batch.rows)
    joint = model(batch.features, model.image_terms(batch.features), batch.images, embeddings, batch.lengths)
    logits: Tensor = joint.logits
    return logits


class HeadTrainer:
    """Trains an MLB with AdamW under a warm cosine; a target is drawn from what the people asked said.

    Args:
        model: the head, on the device to train on.
        examples: the train split.
        answers: what the classifier's outputs mean.
        train: the options.
        seed: of the order, the targets and the dropout.
    """

    def __init__(
        self, model: MLB, examples: Examples, answers: list[str], train: TrainConfig, seed: int
    ) -> None:
        self.model, self.examples, self.train = model, examples, train
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        known = {answer: index for index, answer in enumerate(answers)}
        self.targets = [
            [known[answer] for answer in question.answers if answer in known]
            for question in examples.questions
        ]
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=train.rate, weight_decay=train.weight_decay)
        self.schedule = warm_cosine(self.optimiser, train.epochs * len(examples.groups(train.batch)))

    def epoch(self) -> float:
        """One pass over the examples; returns the mean loss."""
        self.model.train()
        total, count = 0.0, 0
        for batch in self.examples.batches(self.train.batch, self.rng):
            logits = answer_logits(self.model, batch)
            chosen = [
                int(self.rng.choice(self.targets[p])) if self.targets[p] else _NOT_AN_ANSWER
                for p in batch.places
            ]
            loss = functional.cross_entropy(logits, torch.tensor(chosen, device=logits.device))
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.gradient_clip)
            self.optimiser.step()
            self.schedule.step()
            total, count = total + loss.item() * len(chosen), count + len(chosen)
        return total / count


@torch.inference_mode()
def predictions(
    model: MLB, examples: Examples, answers: list[str], shown: dict[int, int] | None = None
) -> list[str]:
    """The answer to each question of the examples, in their order; ``shown`` as in ``Examples.batches``."""
    model.eval()
    predicted = [""] * len(examples.questions)
    for batch in examples.batches(_EVALUATION_BATCH, shown=shown):
        best = answer_logits(model, batch).argmax(1).tolist()
        for place, answer in zip(batch.places, best, strict=True):
            predicted[place] = answers[answer]
    return predicted


def accuracy(predicted: list[str], questions: list[Question]) -> float:
    """Share of the questions whose answer is the ground truth to the letter."""
    right = sum(a == question.ground_truth for a, question in zip(predicted, questions, strict=True))
    return right / len(questions)
