"""Accuracy and loss of a head on a split: exact match, the metric of the split's config, cross-entropy."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hvx.data.answers import ACCURACIES
from hvx.data.questions import Question
from hvx.models.base import Head
from hvx.progress import bar
from hvx.train.dataset import Examples, Targets
from hvx.train.head_trainer import answer_logits

_BATCH = 512
_DIGITS = 4


class Evaluator:
    """Evaluates a head in training on a split, repeatedly.

    Args:
        model: the head.
        examples: the split.
        answers: the answers of the classifier's outputs.
        metric: name of the accuracy, of ``hvx.data.answers.ACCURACIES``.
    """

    def __init__(self, model: Head, examples: Examples, answers: list[str], metric: str = "vqa") -> None:
        self.model, self.examples, self.answers, self.metric = model, examples, answers, metric
        self._targets = Targets(examples.questions, answers)
        self._groups = examples.groups(_BATCH)

    def metrics(self) -> dict[str, float]:
        """``val_accuracy`` (exact match), ``val_vqa_accuracy`` or ``val_evalai_accuracy``, and ``val_loss``:
        the mean over people, then over the questions, of human answers that the classifier has."""
        predicted, loss = self._predict()
        values = {
            "val_accuracy": accuracy(predicted, self.examples.questions),
            f"val_{self.metric}_accuracy": mean_accuracy(predicted, self.examples.questions, self.metric),
        }
        answerable = int((self._targets.counts > 0).sum())
        if answerable:
            values["val_loss"] = loss / answerable
        return {name: round(value, _DIGITS) for name, value in values.items()}

    def without_image(self) -> dict[str, float]:
        """``val_accuracy`` of baselines without the question's image.

        With another image (``_shuffled_images``), with the mean of the split's feature maps
        (``_mean_features``), and of the most frequent answer in training (``_most_frequent_answer``).
        """
        questions = self.examples.questions
        predictions = {
            "shuffled_images": self._predict(self.examples.swapped())[0],
            "mean_features": self._predict(features=self.examples.mean_features())[0],
            "most_frequent_answer": self.answers[:1] * len(questions),
        }
        return {
            f"val_accuracy_{name}": round(accuracy(predicted, questions), _DIGITS)
            for name, predicted in predictions.items()
        }

    @torch.inference_mode()
    def _predict(
        self, shown: dict[str, str] | None = None, features: Tensor | None = None
    ) -> tuple[list[str], float]:
        """The answer to each question, in order, and the sum of the losses.

        ``shown``: as in ``Examples.batch``. ``features`` (1, M, S, S) replace those of every image.
        """
        self.model.eval()
        predicted, loss = [""] * len(self.examples.questions), 0.0
        for group in bar(self._groups, "validating", "batch"):
            batch = self.examples.batch(group, shown)
            if features is not None:
                batch = replace(batch, features=features, images=torch.zeros_like(batch.images))
            logits = answer_logits(self.model, batch)
            loss += self._targets.expected_loss(logits, batch.indices)
            for index, answer in zip(batch.indices, logits.argmax(1).tolist(), strict=True):
                predicted[index] = self.answers[answer]
        return predicted, loss


def accuracy(predicted: list[str], questions: list[Question]) -> float:
    """Share of the questions whose answer equals the ground truth exactly."""
    right = sum(a == question.ground_truth for a, question in zip(predicted, questions, strict=True))
    return right / len(questions)


def mean_accuracy(predicted: list[str], questions: list[Question], metric: str) -> float:
    """Mean of an accuracy of ``hvx.data.answers.ACCURACIES`` over the answers."""
    score = ACCURACIES[metric]
    each = [score(a, question.answers) for a, question in zip(predicted, questions, strict=True)]
    return sum(each) / len(each)
