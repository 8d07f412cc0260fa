"""Whose answers are right: accuracy of each run, and which answers differ between runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvx.compare.join import Joined
from hvx.errors import HvxError, did_you_mean
from hvx.view.tokens import is_right

METRIC = "exact match"
"""The answer is the ground truth, but for case and outer spaces: what figures and galleries mark as right."""


@dataclass(frozen=True)
class Answers:
    """Answers of K runs to the n common questions.

    Attributes:
        given: (K, n) the answers as the runs have them.
        truths: (n) the ground truth; "" where no run knows it, or two know different ones.
        right: (K, n) bool, whether an answer is the ground truth; False where that is unknown.
        known: (n) bool, whether the ground truth is known.
        same: (K, n) bool, whether an answer is the first run's, but for case and outer spaces.
        types: (n) the answer types, "" where unknown.
        disputed: questions of which two runs have different ground truths.
    """

    given: np.ndarray
    truths: np.ndarray
    right: np.ndarray
    known: np.ndarray
    same: np.ndarray
    types: np.ndarray
    disputed: int


def compare_answers(joined: Joined) -> Answers:
    """Read the answers of joined runs."""
    runs = range(len(joined.runs))
    given = np.stack([joined.column(run, "answer") for run in runs])
    truths, disputed = _truths(np.stack([joined.column(run, "ground_truth") for run in runs]))
    right = np.array([[is_right(*pair) is True for pair in zip(own, truths, strict=True)] for own in given])
    same = np.array([[is_same(*pair) for pair in zip(own, given[0], strict=True)] for own in given])
    types = _first_known(np.stack([joined.column(run, "answer_type") for run in runs]))
    return Answers(given, truths, right, truths != "", same, types, disputed)


def is_same(one: str, other: str) -> bool:
    """Whether two answers are the same, as ``is_right`` compares them."""
    return one.strip().casefold() == other.strip().casefold()


def _truths(columns: np.ndarray) -> tuple[np.ndarray, int]:
    """One ground truth for each question of (K, n), and how many questions have several."""
    found = _first_known(columns)
    disputed = np.zeros(len(found), bool)
    for own in columns:
        unlike = [bool(a) and not is_same(a, b) for a, b in zip(own, found, strict=True)]
        disputed |= np.array(unlike, bool)
    found[disputed | np.array([not truth.strip() for truth in found], bool)] = ""
    return found, int(disputed.sum())


def _first_known(columns: np.ndarray) -> np.ndarray:
    """The first text of each column of (K, n) that is not empty."""
    found = columns[0].copy()
    for own in columns[1:]:
        found = np.where(found == "", own, found)
    return found


CHOICES = ("same", "changed", "all-correct", "none-correct")
"""What ``chosen`` takes beside ``only-a-correct``, ``only-b-correct``, …"""


def choices(joined: Joined) -> list[str]:
    """All groups of questions that can be listed."""
    return [*CHOICES[:2], *(f"only-{label.lower()}-correct" for label in joined.labels), *CHOICES[2:]]


def check_choice(joined: Joined, choice: str) -> None:
    """Reject what is no group of ``choices``.

    Raises:
        HvxError: names those that there are.
    """
    known = choices(joined)
    if choice not in known:
        raise HvxError(
            f"--list {choice}: no such group{did_you_mean(choice, known)}; expected {', '.join(known)}"
        )


def members(answers: Answers, choice: str) -> np.ndarray:
    """Which questions (n) bool belong to a group of ``choices``; of unknown truth none is right or wrong.

    Args:
        answers: of the runs.
        choice: ``changed``: not all runs give the same answer; ``only-a-correct``: A alone is right;
            ``all-correct``, ``none-correct``.
    """
    right, known = answers.right, answers.known
    if choice in ("same", "changed"):
        found = answers.same.all(0) == (choice == "same")
    elif choice in ("all-correct", "none-correct"):
        found = known & (right.all(0) if choice == "all-correct" else ~right.any(0))
    else:
        run = ord(choice.removeprefix("only-")[0]) - ord("a")
        found = known & right[run] & (right.sum(0) == 1)
    return found
