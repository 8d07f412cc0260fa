"""Draws what an agreement is held against: another question on the same image, and another image.

Two runs' maps of one question can agree because the question decides them, because the photograph does, or
because maps of any photograph look alike. Only the first is agreement on the question: the correlation with
the other run's map of another question on the same image has all of the rest.
"""

from __future__ import annotations

import numpy as np

from hvx.compare.join import Joined

_TRIES = 64
"""Draws of another image for all questions at once, before those left are drawn one by one."""


def other_questions(joined: Joined, seed: int, kind: np.ndarray | None = None) -> np.ndarray:
    """For each common question another one on its image, with another text, drawn at random.

    Args:
        joined: the runs.
        seed: of the draw.
        kind: (n) only questions of the same kind are drawn for each other; None: any.

    Returns:
        (n) int64 places among the common questions, −1 where there is none.
    """
    rng = np.random.default_rng(seed)
    found = np.full(len(joined), -1)
    _, texts = np.unique(joined.questions.astype(str), return_inverse=True)
    for group in _groups(joined.images, kind):
        for own in group:
            others = group[texts[group] != texts[own]]
            if len(others):
                found[own] = others[rng.integers(len(others))]
    return found


def other_images(joined: Joined, seed: int, kind: np.ndarray | None = None) -> np.ndarray:
    """For each common question one on another image, drawn at random.

    Args:
        joined: the runs.
        seed: of the draw.
        kind: (n) as of ``other_questions``; with kinds, the text is another one too.

    Returns:
        As ``other_questions``.
    """
    rng = np.random.default_rng(seed)
    found = np.full(len(joined), -1)
    _, texts = np.unique(joined.questions.astype(str), return_inverse=True)
    everyone = np.zeros(len(joined), np.int64) if kind is None else kind

    def fits(own: np.ndarray | int, others: np.ndarray) -> np.ndarray:
        other = joined.images[own] != joined.images[others]
        return other if kind is None else other & (texts[own] != texts[others])

    for group in _groups(everyone, None):
        left = group
        for _ in range(_TRIES):
            drawn = rng.choice(group, len(left))
            good = fits(left, drawn)
            found[left[good]] = drawn[good]
            left = left[~good]
        for own in left:  # with few that fit, or none
            others = group[fits(own, group)]
            if len(others):
                found[own] = others[rng.integers(len(others))]
    return found


def _groups(keys: np.ndarray, kind: np.ndarray | None) -> list[np.ndarray]:
    """Places of equal key, and of equal kind if there are kinds, each group in ascending order."""
    if kind is not None:
        _, kinds = np.unique(kind, return_inverse=True)
        keys = keys * (int(kinds.max()) + 1) + kinds
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
