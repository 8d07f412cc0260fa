"""Mean z of words, of a run and of the paper's figures, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from hvx.measure.agreement import rank_correlation
from hvx.measure.bootstrap import Estimate, difference, mean
from hvx.measure.paper import printed_rows
from hvx.measure.speech import parts_of_speech
from hvx.measure.words import CONTENT, FAMILIES
from hvx.store.reader import RunReader

LAST = "last"
_POSITIONS = 8
"""Told one by one; the others are told together."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of many questions side by side.

    Attributes:
        token, tag: each token and its part of speech.
        z: its z-score.
        position: its place in the question, from 1.
        last: whether it is the question's last.
        group: its image, or what else is drawn again in the bootstrap.
    """

    token: np.ndarray
    tag: np.ndarray
    z: np.ndarray
    position: np.ndarray
    last: np.ndarray
    group: np.ndarray


@dataclass(frozen=True)
class WordMeans:
    """Mean z by part of speech, by family and by position; and content words, and nouns, less all others.

    ``levelled``: nouns less all others, after the mean of its place in the question is taken from each z.
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
        (words := tuple(str(word) for word in own[:length]), parts_of_speech(words), values[:length], image)
        for own, length, values, image in zip(tokens, lengths, z, images, strict=True)
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
    """The mean over questions of two tokens or more of Spearman's correlation of attention and z.

    Args:
        attention, z: (N, T), read up to each question's length.
        lengths: (N) tokens.
        groups: (N) images, drawn again in the bootstrap.
        seed: of the draws.
    """
    told = np.flatnonzero(lengths > 1)
    values = [rank_correlation(attention[n, : lengths[n]], z[n, : lengths[n]]) for n in told]
    return mean(values, groups[told], seed)


def paper_tokens() -> Tokens:
    """Every token that the paper prints a z-score of, grouped by question."""
    return _side_by_side(
        (row.tokens, row.part_of_speech, np.array(row.z), number) for number, row in enumerate(printed_rows())
    )


def word_means(tokens: Tokens, seed: int) -> WordMeans:
    """What the report says of words."""

    def of(mark: np.ndarray) -> Estimate:
        return mean(tokens.z[mark], tokens.group[mark], seed)

    def families(is_one: Callable[[str, str], bool]) -> np.ndarray:
        return np.array([is_one(t, g) for t, g in zip(tokens.token, tokens.tag, strict=True)], bool)

    tags = {str(tag): of(tokens.tag == tag) for tag in np.unique(tokens.tag)}
    inner = ~tokens.last
    positions = {str(k): of(inner & (tokens.position == k)) for k in range(1, _POSITIONS + 1)}
    positions[f"{_POSITIONS + 1} …"] = of(inner & (tokens.position > _POSITIONS))
    positions[LAST] = of(tokens.last)
    content = np.isin(tokens.tag, CONTENT)
    return WordMeans(
        dict(sorted(tags.items(), key=lambda row: -row[1].value)),
        {name: of(families(is_one)) for name, is_one in FAMILIES.items()},
        {name: found for name, found in positions.items() if found.known},
        difference(tokens.z, tokens.group, content, seed),
        difference(tokens.z, tokens.group, tokens.tag == "NOUN", seed),
        difference(_levelled(tokens), tokens.group, tokens.tag == "NOUN", seed),
    )


def _levelled(tokens: Tokens) -> np.ndarray:
    """Each z less the mean of its place; the last token's place is one of its own."""
    place = np.where(tokens.last, 0, tokens.position)
    _, number = np.unique(place, return_inverse=True)
    means: np.ndarray = np.bincount(number, weights=tokens.z) / np.bincount(number)
    levelled: np.ndarray = tokens.z - means[number]
    return levelled


def _side_by_side(
    rows: Iterable[tuple[tuple[str, ...], tuple[str, ...], np.ndarray, int]],
) -> Tokens:
    columns: list[list[object]] = [[] for _ in range(6)]
    for words, tags, z, group in rows:
        places = range(1, len(words) + 1)
        ends = (place == len(words) for place in places)
        sides: tuple[Iterable[object], ...] = words, tags, z, places, ends, [group] * len(words)
        for column, values in zip(columns, sides, strict=True):
            column.extend(values)
    dtypes = (str, str, np.float64, np.int64, bool, np.int64)  # also of columns without values
    return Tokens(*(np.array(column, dtype) for column, dtype in zip(columns, dtypes, strict=True)))
