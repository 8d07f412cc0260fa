"""One photo, one question: the answer, and the figure that explains it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hvx.api import WITH_ANSWERS, Explainer
from hvx.models.checkpoint import load_checkpoint
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT
from hvx.view.export import SCREEN, PageSetup, check_suffix, export_figure
from hvx.view.style import FigureStyle

_ZERO = (
    (ZERO_IMAGE_GRADIENT, "the gradient of the image (Eq. 2) is zero everywhere: there is no heat map"),
    (ZERO_WORD_GRADIENT, "the gradient of the words (Eq. 3) is zero everywhere: there are no z-scores"),
)


@dataclass(frozen=True)
class Reply:
    """The likeliest answers with their probabilities; each token with its z-score (None for a network without
    a Hadamard product); the characters that no font has; the out-of-vocabulary tokens, each once; a line for
    each gradient that is zero everywhere, or for the missing Hadamard product."""

    answers: list[tuple[str, float]]
    tokens: list[tuple[str, float | None]]
    missing_glyphs: str
    unknown: list[str]
    zero: list[str]

    def as_json(self) -> dict[str, Any]:
        """The answers and the tokens as plain values."""
        unknown = set(self.unknown)
        return {
            "answers": [{"answer": answer, "probability": p} for answer, p in self.answers],
            "tokens": [{"token": token, "z": z, "unknown": token in unknown} for token, z in self.tokens],
            "warnings": self.zero,
        }


def ask(
    checkpoint: Path,
    image: Path,
    question: str,
    output: Path,
    width: int,
    device: torch.device,
    style: FigureStyle = WITH_ANSWERS,
    setup: PageSetup = SCREEN,
) -> Reply:
    """Answer a question about a photo and draw the explanation as one row of the paper's figures.

    The photo's EXIF orientation is applied.

    Args:
        checkpoint: a native checkpoint.
        image: the photo.
        question: any text with at least one word.
        output: the figure to write, PNG, PDF or SVG by its name.
        width: of the figure in pixels.
        device: where the network runs.
        style: how the figure shows the row.
        setup: what pixels are on paper.

    Raises:
        HvxError: a file is missing or wrong, the question holds no word, or the figure cannot be written.
        BadImage: the photo cannot be read.
    """
    check_suffix(output)
    result = Explainer(load_checkpoint(checkpoint, device)).explain(image, question)
    layout = result.layout(width, style, setup.dpi)
    missing = export_figure(output, layout, [result.row(layout.side)], setup.page_rows)
    token_flags = zip(result.tokens, result.unknown, strict=True)
    unknown = list(dict.fromkeys(token for token, is_unknown in token_flags if is_unknown))
    zero = [line for bit, line in _ZERO if result.zero_gradient & bit]
    scores: list[float | None] = [None] * len(result.tokens) if result.z is None else result.z.tolist()
    if result.z is None:
        zero = ["the network has no Hadamard product: there are no heat map and no z-scores"]
    return Reply(result.answers, list(zip(result.tokens, scores, strict=True)), missing, unknown, zero)
