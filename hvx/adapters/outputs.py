"""What a user's module returned, as answers with probabilities or as a score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hvx.adapters.adapter import Adapter
from hvx.errors import HvxError
from hvx.explain.explainer import TOP


def values_of(adapter: Adapter, output: Any, questions: int) -> Tensor:
    """The output's numbers on the CPU: (N, A), or (N) of a score.

    Raises:
        HvxError: it is no such tensor, or holds NaN.
    """
    found = output if adapter.read is None else adapter.read(output)
    what = "the module returned" if adapter.read is None else "read= returned"
    if not isinstance(found, Tensor) or not found.is_floating_point():
        kind = str(found.dtype) if isinstance(found, Tensor) else type(found).__name__
        hint = "; read= takes the tensor from it" if adapter.read is None else ""
        raise HvxError(f"{what} {kind}; expected one tensor of floats{hint}")
    shape = tuple(found.shape)
    if adapter.output == "score" and found.ndim == 2 and shape[1] == 1:
        found = found[:, 0]
    wanted = (questions,) if adapter.output == "score" else (questions, len(adapter.answers or ()))
    if tuple(found.shape) != wanted:
        meaning = "a score for each" if adapter.output == "score" else "answers for each"
        raise HvxError(f"{what} {shape} for {questions} questions; expected {wanted}, {meaning}")
    values = found.detach().float().cpu()
    if values.isnan().any():
        rows = values.reshape(questions, -1).isnan().any(1).nonzero().flatten().tolist()
        raise HvxError(f"{what} NaN (row {rows[0]} of {questions})")
    return values


def answers_of(adapter: Adapter, values: Tensor) -> tuple[list[list[str]], Tensor, Tensor | None]:
    """The likeliest answers (N), their probabilities (N, K) and scores (N), None where there are answers.

    Raises:
        HvxError: they are no probabilities.
    """
    if adapter.output == "score":
        nothing = torch.full((len(values), 1), torch.nan)
        return [[f"score {value:.3f}"] for value in values.tolist()], nothing, values
    if adapter.output == "logits":
        values = values.softmax(1)
    elif adapter.output == "sigmoid":
        values = values.sigmoid()
    elif values.min() < 0 or values.max() > 1 + 1e-4:
        low, high = values.min(), values.max()
        raise HvxError(
            f"output='probabilities', but the numbers go from {low:.3g} to {high:.3g}; say output='logits'?"
        )
    assert adapter.answers is not None
    best, places = values.topk(min(TOP, values.shape[1]))
    return [[adapter.answers[place] for place in row] for row in places.tolist()], best, None
