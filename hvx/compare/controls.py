"""Draws the controls of an agreement: another question on the same image, and another image.

Two runs' maps of one question can agree because of the question, because of the photograph, or because all
maps look alike. Only the first is agreement on the question. The correlation with the other run's map of
another question on the same image measures the rest.
"""

from __future__ import annotations

import numpy as np

from hvx.compare.join import Joined

_TRIES = 64
"""Rounds of drawing another image for all questions at once, before the rest are drawn one by one."""


def other_questions(joined: Joined, seed: int, kind: np.ndarray | None = None) -> np.ndarray:
    """For each common question another one on its image, with another text, drawn at random.

    Args:
        joined: the runs.
        seed: of the draw.
        kind: (n) only questions of the same kind are drawn for each other; any if None.

    Returns:
        (n) int64 indices among the common questions, −1 if there is none.
    """
    rng = np.random.default_rng(seed)
    partners = np.full(len(joined), -1)
    _, texts = np.unique(joined.questions.astype(str), return_inverse=True)
    for group in _groups(joined.images, kind):
        for question in group:
            others = group[texts[group] != texts[question]]
            if len(others):
                partners[question] = others[rng.integers(len(others))]
    return partners


def other_images(joined: Joined, seed: int, kind: np.ndarray | None = None) -> np.ndarray:
    """For each common question one on another image, drawn at random.

    Args:
        joined: the runs.
        seed: of the draw.
        kind: (n) as in ``other_questions``; with kinds, the text must also differ.

    Returns:
        As in ``other_questions``.
    """
    rng = np.random.default_rng(seed)
    partners = np.full(len(joined), -1)
    _, texts = np.unique(joined.questions.astype(str), return_inverse=True)
    kinds = np.zeros(len(joined), np.int64) if kind is None else kind

    def fits(questions: np.ndarray | int, others: np.ndarray) -> np.ndarray:
        fitting = joined.images[questions] != joined.images[others]
        return fitting if kind is None else fitting & (texts[questions] != texts[others])

    for group in _groups(kinds, None):
        left = group
        for _ in range(_TRIES):
            drawn = rng.choice(group, len(left))
            fitting = fits(left, drawn)
            partners[left[fitting]] = drawn[fitting]
            left = left[~fitting]
        for question in left:  # with few that fit, or none
            others = group[fits(question, group)]
            if len(others):
                partners[question] = others[rng.integers(len(others))]
    return partners


def _groups(keys: np.ndarray, kind: np.ndarray | None) -> list[np.ndarray]:
    """Indices of equal key, and of equal kind if there are kinds, each group in ascending order."""
    if kind is not None:
        _, kinds = np.unique(kind, return_inverse=True)
        keys = keys * (int(kinds.max()) + 1) + kinds
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
