"""Tokenizers, and the vocabulary that maps tokens to rows of the embedding table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from hvx.config import EncoderConfig
from hvx.errors import HvxError

PADDING = 0
"""Row of the embedding table for padding."""
UNKNOWN = "UNK"

_ABBREVIATIONS = (
    "mr",
    "mrs",
    "ms",
    "dr",
    "st",
    "jr",
    "sr",
    "vs",
    "etc",
    "e.g",
    "i.e",
    "a.m",
    "p.m",
    "u.s",
    "no",
)
"""Words whose period does not end a sentence."""
_MCB_DROPPED = re.compile(r"[?!'\"$:@(),.;]")
_MCB_SPACES = re.compile(r"[-/]")


@lru_cache(maxsize=1)
def _nltk() -> Callable[[str], list[str]]:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer().tokenize


def tokenize_nltk(question: str) -> list[str]:
    """NLTK's words in lower case; the question mark is a token (the paper's figures)."""
    return _nltk()(question.lower())


def tokenize_mcb(question: str) -> list[str]:
    """vqa.pytorch's "mcb" tokens: lower case, punctuation dropped, hyphens and slashes split."""
    return _MCB_SPACES.sub(" ", _MCB_DROPPED.sub("", question.lower())).split()


@lru_cache(maxsize=1)
def _sentences() -> Callable[[str], list[str]]:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    # NLTK's trained parameters need a separate download; for questions, only their abbreviations matter.
    parameters = PunktParameters()
    parameters.abbrev_types = set(_ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters).tokenize


def tokenize_sentences(question: str) -> list[str]:
    """NLTK's words of each sentence in lower case: "a dog. is it big?" → a dog . is it big ?"""
    return [token for sentence in _sentences()(question.lower()) for token in _nltk()(sentence)]


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"nltk": tokenize_nltk, "mcb": tokenize_mcb}


def tokenizer(encoder: EncoderConfig) -> Callable[[str], list[str]]:
    """The function that splits a question into an encoder's tokens."""
    split_sentences = encoder.sentences and encoder.tokenizer == "nltk"
    tokenize = tokenize_sentences if split_sentences else TOKENIZERS[encoder.tokenizer]
    return lambda question: tokenize(question)[: encoder.max_tokens]


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of the embedding table: word i has row i + 1, row 0 is padding."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise HvxError(f"vocabulary: the word '{twice}' occurs twice")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words, start=1)}

    def __len__(self) -> int:
        return len(self.words)

    def rows(self, tokens: Iterable[str]) -> list[int]:
        """Rows of the embedding table; an unknown word has the row of ``UNK``, or of padding without it."""
        unknown = self._rows.get(UNKNOWN, PADDING)
        return [self._rows.get(token, unknown) for token in tokens]

    def unknown(self, tokens: Iterable[str]) -> list[bool]:
        """Whether each token has no row, so that the model cannot distinguish it from other such tokens."""
        return [token not in self._rows for token in tokens]

    @classmethod
    def from_tokens(cls, questions: Iterable[Iterable[str]], min_count: int = 1) -> Vocabulary:
        """Every token that occurs at least ``min_count`` times, and ``UNK``, in sorted order."""
        counts = Counter(token for tokens in questions for token in tokens)
        frequent = {token for token, count in counts.items() if count >= min_count}
        return cls(tuple(sorted(frequent | {UNKNOWN})))


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of several questions as a matrix (N, T) int64, padded on the right, and lengths (N)."""
    lengths = np.array([len(row) for row in rows], np.int64)
    matrix = np.full((len(rows), max(1, lengths.max(initial=0))), PADDING, np.int64)
    for target, row in zip(matrix, rows, strict=True):
        target[: len(row)] = row
    return matrix, lengths
