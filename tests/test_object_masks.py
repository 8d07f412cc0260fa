"""Label masks as files hold them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvx.config import SplitConfig
from hvx.data.object_masks import ObjectTable
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


# Several targets, and masks that the table names


TWO = {"named": [1, 2], "answered": [3]}


def write_table(folder: Path, questions: list[dict[str, object]], **more: object) -> SplitConfig:
    images = [{"image_id": 7, "mask": "rooms/a.png", "objects": [{"label": 1, "name": "bed"}]}]
    path = folder / "objects.json"
    path.write_text(json.dumps({"images": images, "questions": questions} | more))
    return SplitConfig(questions=folder / "q.json", images=folder, image_name="{image_id}.jpg", objects=path)


def row(asks_about: object, question_id: int = 1) -> dict[str, object]:
    return {"question_id": question_id, "image_id": 7, "kind": "color", "asks_about": asks_about}


def test_a_table_of_two_targets_is_read_for_one_of_them(tmp_path: Path) -> None:
    split = write_table(tmp_path, [row(TWO), row({"answered": [2], "named": []}, 5)])
    for target, labels in ((None, [(1, 2), ()]), ("named", [(1, 2), ()]), ("answered", [(3,), (2,)])):
        table = ObjectTable(split, target)
        assert (table.target, table.targets) == (target or "named", ("named", "answered"))
        assert [table.asked[k].labels for k in (1, 5)] == labels
        assert table.asked[5].kind == "color"


def test_a_table_without_named_targets_has_none(tmp_path: Path) -> None:
    table = ObjectTable(write_table(tmp_path, [row([4])]))
    assert (table.target, table.targets, table.asked[1].labels) == (None, (), (4,))


@pytest.mark.parametrize(
    ("asks_about", "target", "said"),
    [
        (TWO, "answer", "no target 'answer' (did you mean 'answered'?); it has: named, answered"),
        ([1], "named", "no target 'named'; it has: one target without a name"),
    ],
)
def test_a_target_that_the_table_lacks_is_refused(
    tmp_path: Path, asks_about: object, target: str, said: str
) -> None:
    split = write_table(tmp_path, [row(asks_about)])
    with pytest.raises(HvxError) as raised:
        ObjectTable(split, target)
    assert str(raised.value) == f"{split.objects}: {said}"


@pytest.mark.parametrize(
    "second", [{"named": [1]}, {"named": [1], "answered": [], "third": []}, {"named": [1], "answer": []}, {}]
)
def test_all_questions_have_the_same_targets(tmp_path: Path, second: object) -> None:
    split = write_table(tmp_path, [row(TWO), row(second, 31)])
    with pytest.raises(
        HvxError, match=r"objects\.json: question 31: asks_about has the targets .*; the first"
    ):
        ObjectTable(split)


@pytest.mark.parametrize(
    "given", [[0], [-1], [1.0], ["1"], [True], 3, "12", {"named": 1, "answered": []}, {"named": None}]
)
def test_labels_that_are_none_are_refused_by_question(tmp_path: Path, given: object) -> None:
    split = write_table(tmp_path, [row(given)])
    with pytest.raises(
        HvxError, match=r"objects\.json: .*question 1: expected asks_about as a list of labels"
    ):
        ObjectTable(split)


def test_one_list_among_targets_is_refused(tmp_path: Path) -> None:
    split = write_table(tmp_path, [row(TWO), row([1], 31)])
    with pytest.raises(HvxError, match="question 31"):
        ObjectTable(split)


@pytest.mark.parametrize(("masks", "folder"), [({}, "masks"), ({"masks": "labels/val"}, "labels/val")])
def test_masks_lie_where_the_table_says(tmp_path: Path, masks: dict[str, object], folder: str) -> None:
    table = ObjectTable(write_table(tmp_path, [row([1])], **masks))
    (tmp_path / folder / "rooms").mkdir(parents=True)
    Image.fromarray(LABELS).save(tmp_path / folder / "rooms" / "a.png")
    np.testing.assert_array_equal(table.mask(7), LABELS)
    assert table.mask_path(8) == tmp_path / folder / "8.jpg"  # not named: as its image


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "rooms/../../a.png", "", "a\0.png", 3, None])
@pytest.mark.parametrize("field", ["masks", "mask"])
def test_no_name_of_a_mask_leads_out_of_the_tables_folder(tmp_path: Path, name: object, field: str) -> None:
    images = [{"image_id": 7, "mask": "a.png" if field == "masks" else name, "objects": []}]
    masks = name if field == "masks" else "masks"
    split = write_table(tmp_path, [row([1])], images=images, masks=masks)
    with pytest.raises(HvxError, match=r"objects\.json: masks: .* is no name of a file below"):
        ObjectTable(split)


def test_a_mask_that_the_table_names_and_is_not_there_is_refused(tmp_path: Path) -> None:
    table = ObjectTable(write_table(tmp_path, [row([1])]))
    with pytest.raises(HvxError, match=r"masks/rooms/a\.png: no readable label mask"):
        table.mask(7)
