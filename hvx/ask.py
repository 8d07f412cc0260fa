"""One photo, one question: the answer, and the figure that says why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hvx.data.images import crop_photo, open_photo, to_input
from hvx.errors import HvxError
from hvx.explain.explainer import Explainer
from hvx.models.checkpoint import load_checkpoint
from hvx.view.figure import Figure, FigureRow, Look
from hvx.view.sheet import SCREEN, Paper, check_suffix, write_sheet

WITH_ANSWERS = Look(top_answers=True)


@dataclass(frozen=True)
class Reply:
    """The likeliest answers with their probabilities, each token with its z-score, and the characters that
    stand as boxes in the figure, since no font has them."""

    answers: list[tuple[str, float]]
    tokens: list[tuple[str, float]]
    undrawn: str


def ask(
    checkpoint: Path,
    image: Path,
    question: str,
    output: Path,
    width: int,
    device: torch.device,
    look: Look = WITH_ANSWERS,
    paper: Paper = SCREEN,
) -> Reply:
    """Answer a question on a photo and draw the explanation as one row of the paper's figures.

    The photo is turned as its EXIF data says: a person's own photo is meant as it is seen.

    Args:
        checkpoint: a native checkpoint.
        image: the photo.
        question: any text with at least one word.
        output: the figure to write, PNG or PDF by its name.
        width: of the figure in pixels.
        device: where the network runs.
        look: how the figure shows the row.
        paper: what pixels are on paper.

    Raises:
        HvxError: a file is missing or wrong, the question holds no word, or the figure cannot be written.
        BadImage: the photo cannot be read.
    """
    check_suffix(output)
    photo = open_photo(image, exif_orientation=True)
    model = load_checkpoint(checkpoint, device)
    crop = crop_photo(photo, model.config.image)
    explained = Explainer(model).explain(to_input(crop, model.config.image)[None], [0], [question])
    tokens = explained.tokens[0]
    if not tokens:
        raise HvxError(f"question {question!r:.60}: holds no word; ask something")
    z = explained.z[0, : len(tokens)].tolist()
    attention = explained.attention[0].numpy() if explained.attention is not None else _NO_ATTENTION
    answers = list(zip(explained.answers[0], explained.probabilities[0].tolist(), strict=True))
    blocks = explained.block_heatmaps[0].numpy() if explained.block_heatmaps is not None else None
    figure = Figure(width, len(attention), look, blocks=1 if blocks is None else len(blocks))
    shown = crop_photo(photo, model.config.image.model_copy(update={"size": max(crop.width, figure.side)}))
    heatmap = explained.heatmap[0].numpy()
    row = FigureRow(shown, attention, heatmap, tokens, z, answers[0][0], "", None, tuple(answers), blocks)
    undrawn = write_sheet(output, figure, [row], paper)
    return Reply(answers, list(zip(tokens, z, strict=True)), undrawn)


_NO_ATTENTION = torch.zeros(0, 1, 1).numpy()
