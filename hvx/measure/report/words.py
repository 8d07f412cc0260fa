"""Mean z of words, of a run and of the paper's figures, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from hvx.measure.metrics.agreement import rank_correlation
from hvx.measure.metrics.bootstrap import Estimate, difference, mean
from hvx.measure.metrics.pos_tags import parts_of_speech
from hvx.measure.metrics.words import CONTENT, FAMILIES
from hvx.measure.report.paper import printed_rows
from hvx.store.reader import RunReader

LAST = "last"
_POSITIONS = 8
"""Positions reported separately; later ones are reported together."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of many questions side by side.

    Attributes:
        token, tag: each token and its part of speech.
        z: its z-score.
        position: its position in the question, from 1.
        last: whether it is the question's last token.
        group: its image, or another group that is resampled in the bootstrap.
    """

    token: np.ndarray
    tag: np.ndarray
    z: np.ndarray
    position: np.ndarray
    last: np.ndarray
    group: np.ndarray


@dataclass(frozen=True)
class WordMeans:
    """Mean z by part of speech, by family and by position; content words, and nouns, minus all others.

    ``levelled``: nouns minus all others, after subtracting from each z the mean at its position.
    """

    part_of_speech: dict[str, Estimate]
    families: dict[str, Estimate]
    positions: dict[str, Estimate]
    content: Estimate
    nouns: Estimate
    levelled: Estimate


def run_tokens(reader: RunReader) -> Tokens:
    """Every token that a run explains, grouped by image."""
    lengths, z = reader.column("length"), reader.column("token_z")
    tokens, images = reader.column("tokens"), reader.column("image_id")
    rows = (
        (words := tuple(str(word) for word in row[:length]), parts_of_speech(words), values[:length], image)
        for row, length, values, image in zip(tokens, lengths, z, images, strict=True)
    )
    return _side_by_side(rows)


def run_word_agreement(reader: RunReader, seed: int) -> Estimate | None:
    """``word_agreement`` of a run; None if its model does not attend to words."""
    if not reader.attends_to_words:
        return None
    attention, z = reader.column("textual_attention"), reader.column("token_z")
    return word_agreement(attention, z, reader.column("length"), reader.column("image_id"), seed)


def word_agreement(
    attention: np.ndarray, z: np.ndarray, lengths: np.ndarray, groups: np.ndarray, seed: int
) -> Estimate:
    """The mean over questions of at least two tokens of Spearman's correlation of attention and z.

    Args:
        attention, z: (N, T), read up to each question's length.
        lengths: (N) tokens.
        groups: (N) images, resampled in the bootstrap.
        seed: of the draws.
    """
    questions = np.flatnonzero(lengths > 1)
    values = [rank_correlation(attention[n, : lengths[n]], z[n, : lengths[n]]) for n in questions]
    return mean(values, groups[questions], seed)


def paper_tokens() -> Tokens:
    """Every token with a z-score in the paper, grouped by question."""
    return _side_by_side(
        (row.tokens, row.part_of_speech, np.array(row.z), number) for number, row in enumerate(printed_rows())
    )


def word_means(tokens: Tokens, seed: int) -> WordMeans:
    """The mean z-scores of the report."""

    def of(mark: np.ndarray) -> Estimate:
        return mean(tokens.z[mark], tokens.group[mark], seed)

    def families(belongs: Callable[[str, str], bool]) -> np.ndarray:
        return np.array([belongs(t, g) for t, g in zip(tokens.token, tokens.tag, strict=True)], bool)

    tags = {str(tag): of(tokens.tag == tag) for tag in np.unique(tokens.tag)}
    inner = ~tokens.last
    positions = {str(k): of(inner & (tokens.position == k)) for k in range(1, _POSITIONS + 1)}
    positions[f"{_POSITIONS + 1} …"] = of(inner & (tokens.position > _POSITIONS))
    positions[LAST] = of(tokens.last)
    content = np.isin(tokens.tag, CONTENT)
    return WordMeans(
        dict(sorted(tags.items(), key=lambda row: -row[1].value)),
        {name: of(families(belongs)) for name, belongs in FAMILIES.items()},
        {name: estimate for name, estimate in positions.items() if estimate.known},
        difference(tokens.z, tokens.group, content, seed),
        difference(tokens.z, tokens.group, tokens.tag == "NOUN", seed),
        difference(_levelled(tokens), tokens.group, tokens.tag == "NOUN", seed),
    )


def _levelled(tokens: Tokens) -> np.ndarray:
    """Each z minus the mean at its position; last tokens count as one position."""
    position = np.where(tokens.last, 0, tokens.position)
    _, index = np.unique(position, return_inverse=True)
    means: np.ndarray = np.bincount(index, weights=tokens.z) / np.bincount(index)
    levelled: np.ndarray = tokens.z - means[index]
    return levelled


def _side_by_side(
    rows: Iterable[tuple[tuple[str, ...], tuple[str, ...], np.ndarray, int]],
) -> Tokens:
    columns: list[list[object]] = [[] for _ in range(6)]
    for words, tags, z, group in rows:
        positions = range(1, len(words) + 1)
        is_last = (position == len(words) for position in positions)
        fields: tuple[Iterable[object], ...] = words, tags, z, positions, is_last, [group] * len(words)
        for column, values in zip(columns, fields, strict=True):
            column.extend(values)
    dtypes = (str, str, np.float64, np.int64, bool, np.int64)  # also of columns without values
    return Tokens(*(np.array(column, dtype) for column, dtype in zip(columns, dtypes, strict=True)))
