"""The output of a user's module as answers with probabilities, or as a score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hvx.adapters.adapter import Adapter
from hvx.errors import HvxError
from hvx.explain.explainer import TOP


def values_of(adapter: Adapter, output: Any, questions: int) -> Tensor:
    """The values of the output on the CPU: (N, A), or (N) for a score.

    Raises:
        HvxError: the output is not such a tensor, or contains NaN.
    """
    tensor = output if adapter.read is None else adapter.read(output)
    source = "the module returned" if adapter.read is None else "read= returned"
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
        hint = "; read= takes the tensor from it" if adapter.read is None else ""
        raise HvxError(f"{source} {kind}; expected one tensor of floats{hint}")
    shape = tuple(tensor.shape)
    if adapter.output == "score" and tensor.ndim == 2 and shape[1] == 1:
        tensor = tensor[:, 0]
    wanted = (questions,) if adapter.output == "score" else (questions, len(adapter.answers or ()))
    if tuple(tensor.shape) != wanted:
        meaning = "a score for each" if adapter.output == "score" else "answers for each"
        raise HvxError(f"{source} {shape} for {questions} questions; expected {wanted}, {meaning}")
    values = tensor.detach().float().cpu()
    if values.isnan().any():
        rows = values.reshape(questions, -1).isnan().any(1).nonzero().flatten().tolist()
        raise HvxError(f"{source} NaN (row {rows[0]} of {questions})")
    return values


def answers_of(adapter: Adapter, values: Tensor) -> tuple[list[list[str]], Tensor, Tensor | None]:
    """The likeliest answers (N), their probabilities (N, K) and the scores (N); None if there are answers.

    Raises:
        HvxError: the values are not probabilities.
    """
    if adapter.output == "score":
        no_probabilities = torch.full((len(values), 1), torch.nan)
        return [[f"score {value:.3f}"] for value in values.tolist()], no_probabilities, values
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
    probabilities, indices = values.topk(min(TOP, values.shape[1]))
    return [[adapter.answers[index] for index in row] for row in indices.tolist()], probabilities, None
