"""Compares runs: accuracy, changed answers, agreement of maps and words with its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hvx.compare.agreement import (
    Words,
    attention_grid,
    attention_ranks,
    correlations,
    heatmap_grid,
    heatmap_ranks,
    word_correlations,
)
from hvx.compare.answers import Answers, compare_answers
from hvx.compare.controls import other_images, other_questions
from hvx.compare.join import Changed, Joined, join
from hvx.measure.metrics.bootstrap import NOTHING, Estimate, mean
from hvx.store.reader import RunReader

HEATMAP, ATTENTION, WORDS = "heatmap", "attention", "token_z"
KINDS = {HEATMAP: "heat map", ATTENTION: "summed attention", WORDS: "token z"}
"""Kinds of explanations that are correlated, in the tables' order."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of two runs on one kind of explanation: means of rank correlations.

    Attributes:
        kind: of ``KINDS``.
        grid: rows and columns of the grid on which maps are compared; None for words.
        values: (n) of each common question, NaN if there is none.
        same: the mean of ``values``.
        other_question: control, with the other run's map of another question on the same image.
        other_image: control, with the other run's map of another image.
        above: ``same`` minus ``other_question``, over the questions that have both.
        left_out: reason → number of common questions without a correlation.
        none: why there is nothing to compare; None if values exist.
    """

    kind: str
    grid: tuple[int, int] | None
    values: np.ndarray
    same: Estimate = NOTHING
    other_question: Estimate = NOTHING
    other_image: Estimate = NOTHING
    above: Estimate = NOTHING
    left_out: dict[str, int] = field(default_factory=dict)
    none: str | None = None


@dataclass(frozen=True)
class Pair:
    """A later run compared with the first.

    Attributes:
        other: its index among the runs.
        accuracy: its accuracy minus the first's, on the same questions.
        agreement: one for each of ``KINDS`` that was compared.
    """

    other: int
    accuracy: Estimate
    agreement: list[Agreement]


@dataclass(frozen=True)
class Comparison:
    """All reported results of joined runs; ``accuracies`` has one for each run."""

    joined: Joined
    answers: Answers
    accuracies: list[Estimate]
    pairs: list[Pair]
    seed: int


def compare_runs(
    readers: Sequence[RunReader], seed: int = 0, maps: bool = True, allow: Sequence[Changed] = ()
) -> Comparison:
    """Compare each later run with the first one, over the questions that all of them explain.

    Args:
        readers: two or more runs.
        seed: of the bootstrap's draws and of the controls.
        maps: whether heat maps and attention are compared, which takes most of the time.
        allow: as of ``join``.

    Raises:
        HvxError: the runs cannot be joined, or one is damaged.
    """
    joined = join(readers, allow)
    answers = compare_answers(joined)
    known, images = answers.known, joined.images
    right = answers.right.astype(np.float64)
    agreement = _Agreements(joined, seed)
    kinds = list(KINDS) if maps else [WORDS]
    later = range(1, len(readers))
    by_kind = {kind: agreement.of(kind) for kind in kinds}
    return Comparison(
        joined,
        answers,
        [mean(hits[known], images[known], seed) for hits in right],
        [
            Pair(
                other,
                mean((right[other] - right[0])[known], images[known], seed),
                [by_kind[kind][other - 1] for kind in kinds],
            )
            for other in later
        ],
        seed,
    )


class _Agreements:
    """Agreement of each later run with the first, for one kind of explanation at a time."""

    def __init__(self, joined: Joined, seed: int) -> None:
        self._joined, self._seed = joined, seed

    def of(self, kind: str) -> list[Agreement]:
        """One for each later run."""
        if kind == WORDS:
            return self._words()
        later = range(1, len(self._joined.runs))
        reasons = [self._joined.apart(0, other) or self._lacking(kind, other) for other in later]
        if all(reasons):
            return [self._nothing(kind, None, reason or "") for reason in reasons]
        grid = heatmap_grid(self._joined) if kind == HEATMAP else attention_grid(self._joined)
        ranked = heatmap_ranks if kind == HEATMAP else attention_ranks
        first = ranked(self._joined, 0)
        partners = [draw(self._joined, self._seed) for draw in (other_questions, other_images)]
        return [
            self._nothing(kind, None, reason)
            if reason
            else self._maps(kind, grid, first, ranked(self._joined, other), partners)
            for other, reason in zip(later, reasons, strict=True)
        ]

    def _lacking(self, kind: str, other: int) -> str | None:
        pair = [(self._joined.labels[run], self._joined.runs[run]) for run in (0, other)]
        if kind == ATTENTION:
            without = [label for label, run in pair if not run.glimpses]
            return f"{' and '.join(without)} without attention" if without else None
        without = [label for label, run in pair if not run.has_heatmaps]
        return f"{' and '.join(without)} without a Hadamard product" if without else None

    def _nothing(self, kind: str, grid: tuple[int, int] | None, reason: str) -> Agreement:
        return Agreement(kind, grid, np.full(len(self._joined), np.nan), none=reason)

    def _maps(
        self,
        kind: str,
        grid: tuple[int, int],
        first: np.ndarray,
        other: np.ndarray,
        partners: list[np.ndarray],
    ) -> Agreement:
        values = correlations(first, other)
        controls = [
            np.where(partner >= 0, correlations(first, other[partner]), np.nan) for partner in partners
        ]
        constant = (first == first[:, :1]).all(1) | (other == other[:, :1]).all(1)
        reasons = {"a map that is the same everywhere (its gradient is zero)": constant}
        if kind == ATTENTION:
            reasons = {"attention that is the same everywhere": constant}
        return self._summary(kind, grid, values, controls, reasons)

    def _words(self) -> list[Agreement]:
        later = range(1, len(self._joined.runs))
        lacking = [self._lacking(WORDS, other) for other in later]
        first = Words(self._joined, 0) if not all(lacking) else None
        agreements = []
        for other, missing in zip(later, lacking, strict=True):
            if first is None or missing:
                agreements.append(self._nothing(WORDS, None, missing or ""))
                continue
            later_words = Words(self._joined, other)
            differ, few = np.asarray(first.texts != later_words.texts, bool), first.lengths < 2
            values = word_correlations(first, later_words)
            # Controls need the same number of tokens. A question without a value gets a unique kind.
            kind = np.where(np.isnan(values), -1 - np.arange(len(values)), later_words.lengths)
            controls = [
                word_correlations(first, later_words, draw(self._joined, self._seed, kind))
                for draw in (other_questions, other_images)
            ]
            reasons = {
                "tokens that differ between the runs": differ,
                "fewer than two tokens": few & ~differ,
                "z-scores that are all equal": np.isnan(values) & ~few & ~differ,
            }
            agreements.append(self._summary(WORDS, None, values, controls, reasons))
        return agreements

    def _summary(
        self,
        kind: str,
        grid: tuple[int, int] | None,
        values: np.ndarray,
        controls: list[np.ndarray],
        reasons: dict[str, np.ndarray],
    ) -> Agreement:
        left_out = {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()}
        if np.isnan(values).all():
            reason = "; ".join(f"{count:,} with {reason}" for reason, count in left_out.items())
            return Agreement(kind, grid, values, left_out=left_out, none=reason)
        counted = [np.where(np.isnan(values), np.nan, control) for control in controls]
        same, question, image, above = map(self._mean, (values, *counted, values - counted[0]))
        return Agreement(kind, grid, values, same, question, image, above, left_out)

    def _mean(self, values: np.ndarray) -> Estimate:
        known = ~np.isnan(values)
        return mean(values[known], self._joined.images[known], self._seed)
