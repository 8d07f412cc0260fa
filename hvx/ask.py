"""One photo, one question: the answer, and the figure that says why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hvx.data.images import crop_photo, open_photo, to_input
from hvx.errors import HvxError
from hvx.explain.explainer import Explainer
from hvx.files import whole_file
from hvx.models.checkpoint import load_checkpoint
from hvx.view.figure import FigureRow, draw_figure


@dataclass(frozen=True)
class Reply:
    """The likeliest answers with their probabilities, and each token with its z-score."""

    answers: list[tuple[str, float]]
    tokens: list[tuple[str, float]]


def ask(
    checkpoint: Path, image: Path, question: str, output: Path, width: int, device: torch.device
) -> Reply:
    """Answer a question on a photo and draw the explanation as one row of the paper's figures.

    The photo is turned as its EXIF data says: a person's own photo is meant as it is seen.

    Args:
        checkpoint: a native checkpoint.
        image: the photo.
        question: any text with at least one word.
        output: the PNG to write.
        width: of the figure in pixels.
        device: where the network runs.

    Raises:
        HvxError: a file is missing or wrong, the question holds no word, or the figure cannot be written.
        BadImage: the photo cannot be read.
    """
    photo = open_photo(image, exif_orientation=True)
    model = load_checkpoint(checkpoint, device)
    crop = crop_photo(photo, model.config.image)
    explained = Explainer(model).explain(to_input(crop, model.config.image)[None], [0], [question])
    tokens = explained.tokens[0]
    if not tokens:
        raise HvxError(f"question {question!r:.60}: holds no word; ask something")
    z = explained.z[0, : len(tokens)].tolist()
    shown = crop_photo(photo, model.config.image.model_copy(update={"size": max(crop.width, width // 2)}))
    attention = explained.attention[0].numpy() if explained.attention is not None else _NO_ATTENTION
    row = FigureRow(shown, attention, explained.heatmap[0].numpy(), tokens, z, explained.answers[0][0], "")
    picture = draw_figure([row], width)
    with whole_file(output) as part:
        picture.save(part, format="PNG")
    likeliest = zip(explained.answers[0], explained.probabilities[0].tolist(), strict=True)
    return Reply(list(likeliest), list(zip(tokens, z, strict=True)))


_NO_ATTENTION = torch.zeros(0, 1, 1).numpy()
