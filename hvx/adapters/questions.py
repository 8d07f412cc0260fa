"""Checks of the model inputs that a user's code returns, and the words' scores by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hvx.adapters.adapter import ModelInputs
from hvx.errors import HvxError


@dataclass(frozen=True)
class ModelQuestion:
    """Inputs for N questions.

    Attributes:
        inputs: the user's.
        mask: (N, T) on the CPU, true where there is a token; everywhere if None.
        width: T; None if a module returns the embeddings.
        is_ambiguous: the words are (T, N), and T is or may be N.
        unknown: whether the module does not know each token.
    """

    inputs: ModelInputs
    mask: Tensor | None
    width: int | None
    is_ambiguous: bool
    unknown: list[list[bool]]

    def by_token(self, saliency: Tensor, z: Tensor, questions: list[str]) -> tuple[Tensor, Tensor]:
        """Scores of positions (N, T) as scores of tokens, left-aligned; saliency 0 and z NaN after the last.

        Raises:
            HvxError: a question has more or fewer tokens than positions.
        """
        if len(saliency) != len(questions):
            raise HvxError(f"words: scores of {len(saliency)} rows for {len(questions)} questions")
        mask = torch.ones_like(saliency, dtype=torch.bool) if self.mask is None else self.mask
        if mask.shape != saliency.shape:
            raise HvxError(f"mask: {tuple(mask.shape)} for words of {tuple(saliency.shape)} positions")
        for question, tokens, row in zip(questions, self.inputs.tokens, mask, strict=True):
            if len(tokens) != int(row.sum()):
                raise HvxError(
                    f"question {question!r:.60}: {len(tokens)} tokens for {int(row.sum())} positions of its "
                    "words (without mask=, those whose id is not 0)"
                )
        order = (~mask).byte().argsort(dim=1, stable=True)
        within = mask.gather(1, order)
        longest = int(mask.sum(1).max())
        scores = saliency.gather(1, order).masked_fill(~within, 0).float(), z.gather(1, order).float()
        return scores[0][:, :longest], scores[1].masked_fill(~within, torch.nan)[:, :longest]


def given_of(inputs: ModelInputs, questions: int, batch_second: bool) -> ModelQuestion:
    """Check the model inputs that the user's code returned.

    Raises:
        HvxError: wrong number of questions or tokens, or wrong shape of words.
    """
    tokens: Any = inputs.tokens
    if not isinstance(tokens, Sequence) or any(
        isinstance(row, str) or not isinstance(row, Sequence) for row in tokens
    ):
        raise HvxError("tokens: expected a list of the tokens of each question")
    if len(tokens) != questions:
        raise HvxError(f"inputs= returned tokens of {len(tokens)} questions; it was given {questions}")
    odd = next((token for row in tokens for token in row if not isinstance(token, str)), None)
    if odd is not None:
        raise HvxError(f"tokens: expected texts, not {odd!r:.40}")
    unknown = [[False] * len(row) for row in tokens] if inputs.unknown is None else inputs.unknown
    if [len(row) for row in unknown] != [len(row) for row in tokens]:
        raise HvxError("unknown: expected one truth value for each token")
    flags = [[bool(flag) for flag in row] for row in unknown]
    if not isinstance(inputs.words, Tensor):
        mask = None if inputs.mask is None else inputs.mask.detach().bool().cpu()
        longest = max(map(len, tokens), default=0) if mask is None else mask.shape[-1]
        return ModelQuestion(
            inputs, mask, None, batch_second and questions > 1 and longest == questions, flags
        )
    words = inputs.words.detach()
    if batch_second and words.ndim > 1:
        words = words.transpose(0, 1)
    if words.ndim not in (2, 3) or len(words) != questions:
        shape = tuple(inputs.words.shape)
        wanted = "(T, N) or (T, N, E)" if batch_second else "(N, T) or (N, T, E)"
        hint = "" if batch_second else "; of words (T, N) say batch_second=True"
        raise HvxError(f"words: {shape} for {questions} questions; expected {wanted}{hint}")
    mask = inputs.mask
    if mask is None and not words.is_floating_point():
        mask = words != 0
    cpu_mask = None if mask is None else mask.detach().bool().cpu()
    width = words.shape[1]
    return ModelQuestion(inputs, cpu_mask, width, batch_second and width == questions > 1, flags)
