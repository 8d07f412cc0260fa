"""Accuracy of each run, and answers that differ between runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvx.compare.join import Joined
from hvx.errors import HvxError, did_you_mean
from hvx.view.tokens import is_right

METRIC = "exact match"
"""A right answer equals the ground truth up to case and outer spaces, as in figures and galleries."""


@dataclass(frozen=True)
class Answers:
    """Answers of K runs to the n common questions.

    Attributes:
        texts: (K, n) the answers as the runs have them.
        truths: (n) the ground truth; "" if no run knows it, or two runs differ.
        right: (K, n) bool, whether an answer is the ground truth; False if that is unknown.
        known: (n) bool, whether the ground truth is known.
        same: (K, n) bool, whether an answer equals the first run's, up to case and outer spaces.
        types: (n) the answer types, "" if unknown.
        disputed: number of questions with different ground truths in two runs.
    """

    texts: np.ndarray
    truths: np.ndarray
    right: np.ndarray
    known: np.ndarray
    same: np.ndarray
    types: np.ndarray
    disputed: int


def compare_answers(joined: Joined) -> Answers:
    """Read the answers of joined runs."""
    runs = range(len(joined.runs))
    answers = np.stack([joined.column(run, "answer") for run in runs])
    truths, disputed = _truths(np.stack([joined.column(run, "ground_truth") for run in runs]))
    right = np.array([[is_right(*pair) is True for pair in zip(row, truths, strict=True)] for row in answers])
    same = np.array([[is_same(*pair) for pair in zip(row, answers[0], strict=True)] for row in answers])
    types = _first_known(np.stack([joined.column(run, "answer_type") for run in runs]))
    return Answers(answers, truths, right, truths != "", same, types, disputed)


def is_same(first: str, second: str) -> bool:
    """Whether two answers are the same, as ``is_right`` compares them."""
    return first.strip().casefold() == second.strip().casefold()


def _truths(columns: np.ndarray) -> tuple[np.ndarray, int]:
    """One ground truth for each question of (K, n), and the number of questions with several."""
    truths = _first_known(columns)
    disputed = np.zeros(len(truths), bool)
    for column in columns:
        unlike = [bool(a) and not is_same(a, b) for a, b in zip(column, truths, strict=True)]
        disputed |= np.array(unlike, bool)
    truths[disputed | np.array([not truth.strip() for truth in truths], bool)] = ""
    return truths, int(disputed.sum())


def _first_known(columns: np.ndarray) -> np.ndarray:
    """For each question of (K, n) the first text that is not empty."""
    texts = columns[0].copy()
    for column in columns[1:]:
        texts = np.where(texts == "", column, texts)
    return texts


CHOICES = ("same", "changed", "all-correct", "none-correct")
"""Groups of questions, in addition to ``only-a-correct``, ``only-b-correct``, …"""


def choices(joined: Joined) -> list[str]:
    """All groups of questions that can be listed."""
    return [*CHOICES[:2], *(f"only-{label.lower()}-correct" for label in joined.labels), *CHOICES[2:]]


def check_choice(joined: Joined, choice: str) -> None:
    """Reject a name that is not in ``choices``.

    Raises:
        HvxError: names the valid groups.
    """
    known = choices(joined)
    if choice not in known:
        raise HvxError(
            f"--list {choice}: no such group{did_you_mean(choice, known)}; expected {', '.join(known)}"
        )


def members(answers: Answers, choice: str) -> np.ndarray:
    """The questions (n) bool of a group of ``choices``; without known truth, none is right or wrong.

    Args:
        answers: of the runs.
        choice: ``changed``: not all runs give the same answer; ``only-a-correct``: only A is right;
            ``all-correct``, ``none-correct``.
    """
    right, known = answers.right, answers.known
    if choice in ("same", "changed"):
        belongs = answers.same.all(0) == (choice == "same")
    elif choice in ("all-correct", "none-correct"):
        belongs = known & (right.all(0) if choice == "all-correct" else ~right.any(0))
    else:
        run = ord(choice.removeprefix("only-")[0]) - ord("a")
        belongs = known & right[run] & (right.sum(0) == 1)
    return belongs
