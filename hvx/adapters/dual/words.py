"""The words of a text, from the pieces of a dual encoder's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

_END, _START = "</w>", "▁"
"""The mark of the last piece of a word (CLIP's byte pairs), or of its first (SentencePiece)."""


@dataclass(frozen=True)
class Word:
    """A word: its text, and the positions of its pieces in the row of ids."""

    text: str
    positions: tuple[int, ...]
    unknown: bool


@dataclass(frozen=True)
class Texts:
    """The text tower's input: ids (N, L), and the words of each text.

    The tokens for start, end and padding belong to no word.
    """

    ids: Tensor
    words: list[list[Word]]


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer of byte pairs or SentencePiece, as in CLIP and SigLIP.

    Attributes:
        encode: texts → ids (N, L), padded and truncated to the tower's length.
        piece: id → the piece in the vocabulary, with its marks.
        decode: ids of one word → its text.
        start: id of the token before a text; None if there is none.
        ends: ids of the tokens that end or pad a text.
        unknown: id for pieces that are not in the vocabulary; None if there is none.
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
        last = next((index for index in range(first, len(row)) if row[index] in self.ends), len(row))
        groups: list[list[int]] = []
        starts_word = True
        for index in range(first, last):
            piece = self.piece(row[index])
            if starts_word or piece.startswith(_START):
                groups.append([])
            groups[-1].append(index)
            starts_word = piece.endswith(_END)
        return [self._word(row, group) for group in groups]

    def _word(self, row: list[int], indices: list[int]) -> Word:
        ids = [row[index] for index in indices]
        pieces = "".join(self.piece(piece_id) for piece_id in ids)
        text = self.decode(ids).strip() or pieces.removesuffix(_END).removeprefix(_START) or pieces
        return Word(text, tuple(indices), self.unknown is not None and self.unknown in ids)
