"""The words of a text, as a dual encoder's tokenizer cuts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

_END, _START = "</w>", "▁"
"""What marks the last piece of a word (CLIP's byte pairs), or its first (SentencePiece)."""


@dataclass(frozen=True)
class Word:
    """A word of a text: what it reads, and the positions of its pieces in the row of ids."""

    text: str
    places: tuple[int, ...]
    unknown: bool


@dataclass(frozen=True)
class Texts:
    """Texts as the text tower reads them: ids (N, L), and the words of each.

    The tokens that stand for a text's start, its end and its padding belong to no word.
    """

    ids: Tensor
    words: list[list[Word]]


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer of byte pairs or of SentencePiece, as CLIP and SigLIP have them.

    Attributes:
        encode: texts → ids (N, L), padded and cut to what the tower reads.
        piece: id → the piece as the vocabulary has it, with its marks.
        decode: ids of one word → its text.
        start: id of the token before a text; None if there is none.
        ends: ids of the tokens that close or pad a text.
        unknown: id that stands for what the vocabulary lacks; None if it lacks nothing.
    """

    encode: Callable[[list[str]], Tensor]
    piece: Callable[[int], str]
    decode: Callable[[list[int]], str]
    start: int | None
    ends: frozenset[int]
    unknown: int | None = None

    def __call__(self, texts: Sequence[str]) -> Texts:
        ids = self.encode(list(texts))
        return Texts(ids, [self._words(row) for row in ids.tolist()])

    def _words(self, row: list[int]) -> list[Word]:
        first = 1 if row and row[0] == self.start else 0
        last = next((place for place in range(first, len(row)) if row[place] in self.ends), len(row))
        groups: list[list[int]] = []
        begins = True
        for place in range(first, last):
            piece = self.piece(row[place])
            if begins or piece.startswith(_START):
                groups.append([])
            groups[-1].append(place)
            begins = piece.endswith(_END)
        return [self._word(row, group) for group in groups]

    def _word(self, row: list[int], places: list[int]) -> Word:
        ids = [row[place] for place in places]
        pieces = "".join(self.piece(each) for each in ids)
        text = self.decode(ids).strip() or pieces.removesuffix(_END).removeprefix(_START) or pieces
        return Word(text, tuple(places), self.unknown is not None and self.unknown in ids)
