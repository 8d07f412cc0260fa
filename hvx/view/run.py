"""From a run's items to figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hvx.config import ImageConfig
from hvx.data.images import crop_photo, open_photo
from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.store.reader import RunReader
from hvx.view.figure import FigureRow, draw_figure


def choose_rows(reader: RunReader, count: int, ids: list[int], seed: int) -> list[int]:
    """Numbers of the items to draw: those of ``ids`` in their order, or ``count`` at random.

    Raises:
        HvxError: a question that the run does not hold.
    """
    if not ids:
        rng = np.random.default_rng(seed)
        return [int(number) for number in rng.permutation(len(reader))[:count]]
    numbers = {int(question_id): number for number, question_id in enumerate(reader.column("question_id"))}
    for question_id in ids:
        if question_id not in numbers:
            raise HvxError(f"{reader.path}: holds no explanation of question_id {question_id}")
    return [numbers[question_id] for question_id in ids]


def figure_row(reader: RunReader, number: int, size: int) -> FigureRow:
    """One item as a row of a figure, its photograph cropped as the network saw it, ``size`` pixels wide."""
    item = reader[number]
    crop = ImageConfig.model_validate({**reader.about["image"], "size": size})
    photo = crop_photo(open_photo(Path(reader.about["images"]) / item.image_path), crop)
    return FigureRow(
        photo, item.attention, item.heatmap, item.tokens, item.token_z, item.answer, item.ground_truth
    )


def write_figure(reader: RunReader, numbers: list[int], output: Path, width: int) -> None:
    """Draw items of a run as in the paper's Figures 2-5 and write the picture.

    Raises:
        HvxError: the file cannot be written, or a photograph is no longer where the run found it.
    """
    rows = [figure_row(reader, number, _photo_size(reader, width)) for number in numbers]
    picture = draw_figure(rows, width)
    with whole_file(output) as part:
        picture.save(part, format="PNG")


def _photo_size(reader: RunReader, width: int) -> int:
    """A column's width, but no less than the network's input."""
    columns = 2 + reader.glimpses
    return max(width // columns, reader.heatmap_size[0])
