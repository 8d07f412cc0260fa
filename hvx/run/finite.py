"""Finds explanations with a NaN or an infinity: the network's numbers overflowed on their question."""

from __future__ import annotations

import torch
from torch import Tensor

from hvx.explain.explainer import Answered, Explanations


def not_finite(explained: Answered, finite: dict[str, Tensor]) -> dict[int, str]:
    """For each explanation that contains a NaN or an infinity, by row: the first such part.

    Args:
        explained: the explanations.
        finite: flags (N) of the columns that are checked already.
    """
    lengths = torch.tensor(
        [len(tokens) for tokens in explained.tokens], device=explained.probabilities.device
    )
    has_score = isinstance(explained, Explanations) and explained.scores is not None
    parts: dict[str, Tensor | None] = {
        "the answer's probability": None if has_score else explained.probabilities
    }
    if isinstance(explained, Explanations):
        parts |= _gradient_parts(explained, lengths, finite)
    parts |= {
        "the attention": explained.attention,
        "the attention to words": _zero_padding(explained.textual_attention, lengths),
        "the attention to words and phrases": _zero_padding(explained.earlier_attention, lengths),
    }
    flags = {
        name: part if part.dtype == torch.bool else is_finite(part)
        for name, part in parts.items()
        if part is not None and len(part)
    }
    if not flags:
        return {}
    # One copy for all of them: each copy waits for the GPU.
    odd = ~torch.stack([rows.to(lengths.device) for rows in flags.values()]).cpu()
    first_parts: dict[int, str] = {}
    for part, row in odd.nonzero().tolist():
        first_parts.setdefault(row, list(flags)[part])
    return first_parts


def _gradient_parts(
    explained: Explanations, lengths: Tensor, finite: dict[str, Tensor]
) -> dict[str, Tensor | None]:
    """The parts of Eqs 2 and 3 that must be finite, by name; flags (N) where that is checked already."""
    words = explained.word_heatmaps
    return {
        "the score": explained.scores,
        "the heat map (Eqs 2, 9)": finite.get("heatmap", explained.heatmap),
        "the tokens' saliency (Eqs 3, 10)": _zero_padding(explained.saliency, lengths),
        "the tokens' z-score (Eq. 11)": _zero_padding(explained.z, lengths),
        "a block's heat map": finite.get("block_heatmaps", explained.block_heatmaps),
        "a word's heat map": torch.stack([maps.isfinite().all() for maps in words]) if words else None,
        "the gradient (Eq. 9)": finite.get("gradient", explained.gradient),
    }


def _zero_padding(values: Tensor | None, lengths: Tensor) -> Tensor | None:
    """Values of tokens (N, …, T), with 0 at the padding."""
    if values is None:
        return None
    in_question = torch.arange(values.shape[-1], device=values.device) < lengths[:, None]
    return values.where(in_question if values.ndim == 2 else in_question[:, None], 0)


def is_finite(values: Tensor) -> Tensor:
    """Whether all numbers of each item (N, …) are finite."""
    flat = values.flatten(1) if values.ndim > 1 else values[:, None]
    if not flat.shape[1]:
        return torch.ones(len(flat), dtype=torch.bool, device=values.device)
    # amin() and amax() return NaN if there is one; much faster than isfinite() and all() over all numbers.
    return flat.amin(1).isfinite() & flat.amax(1).isfinite()
