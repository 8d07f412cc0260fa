"""Statistics of a whole run for its gallery: accuracy by type, mean z by word, agreement of maps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hvx.gallery.scripts import number
from hvx.gallery.workers import Measured
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT
from hvx.view.tokens import is_right

LEAST = 5
"""A word needs this many occurrences for its mean z to be shown."""

WORDS = 15
"""Number of the highest means shown, and of the lowest."""


def summary(columns: dict[str, np.ndarray], measured: Sequence[Measured]) -> dict[str, Any]:
    """The statistics of a run.

    Args:
        columns: ``ground_truth``, ``answer``, ``answer_type`` and ``question_type`` of its items.
        measured: the results of its chunks.

    Returns:
        Plain values. ``answer_type``, ``question_type``: [type, items with a ground truth, right ones], the
        commonest first, "all" of every item first of the former. ``words``: [word, n, mean z] from the
        highest mean to the lowest, those in the middle left out; ``least``: the smallest n. ``agreement``:
        [mean, n] of heat map and attention; ``control``: [mean, mean with the attention of another question
        on the image, n] of the items that have both. ``unknown``: tokens
        out of vocabulary. ``zero``: items with a zero image gradient, and with a zero word gradient.
    """
    right = [is_right(*pair) for pair in zip(columns["answer"], columns["ground_truth"], strict=True)]
    agreement = [(a, b) for chunk in measured for a, b in zip(chunk.agreement, chunk.control, strict=True)]
    zero = [bits for chunk in measured for bits in chunk.zero]
    both = [(a, b) for a, b in agreement if a is not None and b is not None]
    return {
        "all": _shares(["all"] * len(right), right),
        **{name: _shares(columns[name], right) for name in ("answer_type", "question_type")},
        "words": _words(measured),
        "least": LEAST,
        "agreement": _mean([a for a, _ in agreement if a is not None]),
        "control": [_mean([a for a, _ in both])[0], *_mean([b for _, b in both])],
        "unknown": sum(count for chunk in measured for count in chunk.unknown),
        "zero": [sum(bits & bit > 0 for bits in zero) for bit in (ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT)],
    }


def _shares(types: Sequence[str] | np.ndarray, right: list[bool | None]) -> list[list[Any]]:
    known = Counter(
        str(name) for name, is_correct in zip(types, right, strict=True) if is_correct is not None
    )
    correct = Counter(str(name) for name, is_correct in zip(types, right, strict=True) if is_correct)
    return [
        [name, count, correct[name]] for name, count in sorted(known.items(), key=lambda p: (-p[1], p[0]))
    ]


def _words(measured: Sequence[Measured]) -> list[list[Any]]:
    counts: defaultdict[str, int] = defaultdict(int)
    totals: defaultdict[str, float] = defaultdict(float)
    for chunk in measured:
        for word, (count, total) in chunk.words.items():
            counts[word] += count
            totals[word] += total
    means = sorted((-totals[word] / n, word) for word, n in counts.items() if n >= LEAST)
    extremes = means if len(means) <= 2 * WORDS else [*means[:WORDS], *means[-WORDS:]]
    return [[word, counts[word], number(-negative)] for negative, word in extremes]


def _mean(values: Sequence[float]) -> list[Any]:
    return [number(float(np.mean(values))) if len(values) else None, len(values)]
