"""What a user's code made of questions, checked, and the words' scores by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hvx.adapters.adapter import ModelInputs
from hvx.errors import HvxError


@dataclass(frozen=True)
class Given:
    """Inputs for N questions.

    Attributes:
        inputs: the user's.
        mask: (N, T) on the CPU, where there is a token; None: everywhere.
        width: T; None where a module puts out the embeddings.
        is_ambiguous: the words are (T, N) and T is N, or may be.
        unknown: of each token.
    """

    inputs: ModelInputs
    mask: Tensor | None
    width: int | None
    is_ambiguous: bool
    unknown: list[list[bool]]

    def by_token(self, saliency: Tensor, z: Tensor, questions: list[str]) -> tuple[Tensor, Tensor]:
        """Scores at positions (N, T) as scores of tokens, first to last; saliency 0 and z NaN beyond.

        Raises:
            HvxError: a question has more or fewer tokens than positions.
        """
        if len(saliency) != len(questions):
            raise HvxError(f"words: scores of {len(saliency)} rows for {len(questions)} questions")
        mask = torch.ones_like(saliency, dtype=torch.bool) if self.mask is None else self.mask
        if mask.shape != saliency.shape:
            raise HvxError(f"mask: {tuple(mask.shape)} for words of {tuple(saliency.shape)} positions")
        for question, own, row in zip(questions, self.inputs.tokens, mask, strict=True):
            if len(own) != int(row.sum()):
                raise HvxError(
                    f"question {question!r:.60}: {len(own)} tokens for {int(row.sum())} positions of its "
                    "words (without mask=, those whose id is not 0)"
                )
        order = (~mask).byte().argsort(dim=1, stable=True)
        within = mask.gather(1, order)
        longest = int(mask.sum(1).max())
        scores = saliency.gather(1, order).masked_fill(~within, 0).float(), z.gather(1, order).float()
        return scores[0][:, :longest], scores[1].masked_fill(~within, torch.nan)[:, :longest]


def given_of(made: ModelInputs, questions: int, batch_second: bool) -> Given:
    """Check what the user's code made of questions.

    Raises:
        HvxError: another number of questions, or of tokens, or words of another shape.
    """
    tokens: Any = made.tokens
    if not isinstance(tokens, Sequence) or any(
        isinstance(own, str) or not isinstance(own, Sequence) for own in tokens
    ):
        raise HvxError("tokens: expected a list of the tokens of each question")
    if len(tokens) != questions:
        raise HvxError(f"inputs= returned tokens of {len(tokens)} questions; it was given {questions}")
    odd = next((each for own in tokens for each in own if not isinstance(each, str)), None)
    if odd is not None:
        raise HvxError(f"tokens: expected texts, not {odd!r:.40}")
    unknown = [[False] * len(own) for own in tokens] if made.unknown is None else made.unknown
    if [len(own) for own in unknown] != [len(own) for own in tokens]:
        raise HvxError("unknown: expected one truth value for each token")
    flags = [[bool(each) for each in own] for own in unknown]
    if not isinstance(made.words, Tensor):
        mask = None if made.mask is None else made.mask.detach().bool().cpu()
        longest = max(map(len, tokens), default=0) if mask is None else mask.shape[-1]
        return Given(made, mask, None, batch_second and questions > 1 and longest == questions, flags)
    words = made.words.detach()
    if batch_second and words.ndim > 1:
        words = words.transpose(0, 1)
    if words.ndim not in (2, 3) or len(words) != questions:
        shape = tuple(made.words.shape)
        wanted = "(T, N) or (T, N, E)" if batch_second else "(N, T) or (N, T, E)"
        hint = "" if batch_second else "; of words (T, N) say batch_second=True"
        raise HvxError(f"words: {shape} for {questions} questions; expected {wanted}{hint}")
    mask = made.mask
    if mask is None and not words.is_floating_point():
        mask = words != 0
    kept = None if mask is None else mask.detach().bool().cpu()
    width = words.shape[1]
    return Given(made, kept, width, batch_second and width == questions > 1, flags)
