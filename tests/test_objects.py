"""Label masks as files hold them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvx.config import SplitConfig
from hvx.data.objects import ObjectTable
from hvx.errors import HvxError

LABELS = np.array([[0, 1, 2], [3, 2, 200]], np.uint8)


@pytest.fixture
def table(tmp_path: Path) -> ObjectTable:
    (tmp_path / "masks").mkdir()
    objects = tmp_path / "objects.json"
    objects.write_text(json.dumps({"images": [], "questions": []}))
    questions = tmp_path / "questions.json"
    split = SplitConfig(questions=questions, images=tmp_path, image_name="{image_id}.png", objects=objects)
    return ObjectTable(split)


def test_labels_are_the_pixels_of_the_file(table: ObjectTable, tmp_path: Path) -> None:
    path = tmp_path / "masks" / "1.png"
    Image.fromarray(LABELS).save(path)
    np.testing.assert_array_equal(table.mask(1), LABELS)


def test_labels_of_a_palette_image_are_its_indices(table: ObjectTable, tmp_path: Path) -> None:
    image = Image.fromarray(LABELS).convert("P")
    image.putdata(LABELS.ravel().tolist())
    image.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
    image.save(tmp_path / "masks" / "1.png")
    with Image.open(tmp_path / "masks" / "1.png") as opened:
        assert opened.mode == "P"
    np.testing.assert_array_equal(table.mask(1), LABELS)


def test_labels_may_have_16_bits(table: ObjectTable, tmp_path: Path) -> None:
    labels = np.array([[0, 300, 700], [65_535, 1, 2]], np.uint16)
    Image.fromarray(labels).save(tmp_path / "masks" / "1.png")
    np.testing.assert_array_equal(table.mask(1), labels)


@pytest.mark.parametrize("mode", ["RGB", "LA", "F"])
def test_what_has_several_channels_or_no_integers_is_refused(
    table: ObjectTable, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "masks" / "1.png"
    image = Image.fromarray(LABELS).convert(mode)
    image.save(path, format="TIFF" if mode == "F" else "PNG")
    with pytest.raises(HvxError, match=rf"1\.png: a label mask has one channel .* of mode {mode}$"):
        table.mask(1)


def test_a_file_that_is_no_image_is_refused(table: ObjectTable, tmp_path: Path) -> None:
    (tmp_path / "masks" / "1.png").write_bytes(b"no image")
    with pytest.raises(HvxError, match=r"1\.png: no readable label mask"):
        table.mask(1)
