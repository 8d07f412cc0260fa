"""How well a head answers a split: exact match, the accuracy that its config names, loss."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hvx.data.answers import ACCURACIES
from hvx.data.questions import Question
from hvx.models.joint import Head
from hvx.progress import bar
from hvx.train.examples import Examples, Targets
from hvx.train.head import answer_logits

_BATCH = 512
_DIGITS = 4


class Evaluator:
    """Answers a split's questions with a head in training, over and over.

    Args:
        model: the head.
        examples: the split.
        answers: what the classifier's outputs mean.
        metric: name of the accuracy, of ``hvx.data.answers.ACCURACIES``.
    """

    def __init__(self, model: Head, examples: Examples, answers: list[str], metric: str = "vqa") -> None:
        self.model, self.examples, self.answers, self.metric = model, examples, answers, metric
        self._targets = Targets(examples.questions, answers)
        self._groups = examples.groups(_BATCH)

    def metrics(self) -> dict[str, float]:
        """``val_accuracy`` (to the letter), ``val_vqa_accuracy`` or ``val_evalai_accuracy`` and, where the
        classifier has an answer that people gave, ``val_loss`` (the mean over the people, then over such
        questions)."""
        predicted, loss = self._predict()
        found = {
            "val_accuracy": accuracy(predicted, self.examples.questions),
            f"val_{self.metric}_accuracy": mean_accuracy(predicted, self.examples.questions, self.metric),
        }
        taught = int((self._targets.counts > 0).sum())
        if taught:
            found["val_loss"] = loss / taught
        return {name: round(value, _DIGITS) for name, value in found.items()}

    def without_image(self) -> dict[str, float]:
        """``val_accuracy`` of what does not see the question's image.

        With another image (``_shuffled_images``), with the mean of the split's feature maps
        (``_mean_features``), and of the answer that is the most frequent in training
        (``_most_frequent_answer``).
        """
        questions = self.examples.questions
        found = {
            "shuffled_images": self._predict(self.examples.swapped())[0],
            "mean_features": self._predict(features=self.examples.mean_features())[0],
            "most_frequent_answer": self.answers[:1] * len(questions),
        }
        return {
            f"val_accuracy_{name}": round(accuracy(predicted, questions), _DIGITS)
            for name, predicted in found.items()
        }

    @torch.inference_mode()
    def _predict(
        self, shown: dict[str, str] | None = None, features: Tensor | None = None
    ) -> tuple[list[str], float]:
        """The answer to each question, in their order, and the sum of their losses.

        ``shown``: as of ``Examples.batch``. ``features`` (1, M, S, S) stand in place of every image's.
        """
        self.model.eval()
        predicted, loss = [""] * len(self.examples.questions), 0.0
        for group in bar(self._groups, "validating", "batch"):
            batch = self.examples.batch(group, shown)
            if features is not None:
                batch = replace(batch, features=features, images=torch.zeros_like(batch.images))
            logits = answer_logits(self.model, batch)
            loss += self._targets.expected_loss(logits, batch.places)
            for place, answer in zip(batch.places, logits.argmax(1).tolist(), strict=True):
                predicted[place] = self.answers[answer]
        return predicted, loss


def accuracy(predicted: list[str], questions: list[Question]) -> float:
    """Share of the questions whose answer is the ground truth to the letter."""
    right = sum(a == question.ground_truth for a, question in zip(predicted, questions, strict=True))
    return right / len(questions)


def mean_accuracy(predicted: list[str], questions: list[Question], metric: str) -> float:
    """Mean of an accuracy of ``hvx.data.answers.ACCURACIES`` over the answers."""
    score = ACCURACIES[metric]
    each = [score(a, question.answers) for a, question in zip(predicted, questions, strict=True)]
    return sum(each) / len(each)
