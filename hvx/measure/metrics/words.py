"""Which words does the question's explanation depend on?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

CONTENT = ("NOUN", "VERB", "ADJ", "ADV")
"""Parts of speech of content words; all others are function words (universal tags, and WH)."""

_COLORS = (
    "black white red green blue yellow orange purple pink brown gray grey beige tan gold golden silver "
    "violet turquoise teal cyan magenta maroon navy cream"
)
COLORS = frozenset(_COLORS.split())

FAMILIES: dict[str, Callable[[str, str], bool]] = {
    "wh-words": lambda token, tag: tag == "WH",
    "auxiliaries": lambda token, tag: tag == "AUX",
    "nouns": lambda token, tag: tag == "NOUN",
    "verbs": lambda token, tag: tag == "VERB",
    "adjectives": lambda token, tag: tag == "ADJ",
    "articles": lambda token, tag: token in ("a", "an", "the"),
    "colors": lambda token, tag: token in COLORS,
}
"""Word families of the paper, and auxiliaries and colors: name → whether a token with a tag belongs to it."""


def mean_z(
    rows: Iterable[tuple[list[str], list[float]]], group: Mapping[str, str]
) -> dict[str, tuple[float, int]]:
    """Mean z by group, and the number of tokens.

    Args:
        rows: tokens and z of each question.
        group: token → its group; tokens without a group are omitted.
    """
    by_group: dict[str, list[float]] = {}
    for tokens, z in rows:
        for token, value in zip(tokens, z, strict=True):
            if token in group:
                by_group.setdefault(group[token], []).append(value)
    return {name: (float(np.mean(values)), len(values)) for name, values in sorted(by_group.items())}


def content_and_function(part_of_speech: Mapping[str, str]) -> dict[str, str]:
    """Token → ``content`` or ``function``, by its part of speech."""
    return {token: "content" if tag in CONTENT else "function" for token, tag in part_of_speech.items()}


def is_standardized(z: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Whether a row is valid for Eq. 11: finite, Σz = 0 and Σz² = n − 1, or zeros (equal saliencies)."""
    z = np.asarray(z, np.float64)
    if not np.isfinite(z).all():
        return False
    spread = float(np.sum(z * z))
    return abs(float(z.sum())) <= tolerance and (
        spread == 0 or abs(spread - (len(z) - 1)) <= tolerance * len(z)
    )
