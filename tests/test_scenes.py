"""The built-in split: the same bytes from the same seed, and answers that follow from what is drawn."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvx.config import SplitConfig, load
from hvx.data import scenes
from hvx.data.object_masks import ObjectTable
from hvx.data.photos import open_photo
from hvx.data.questions import read_questions
from hvx.data.scenes import (
    COLORS,
    KINDS,
    PARTS_OF_SPEECH,
    PLURALS,
    RELATIONS,
    SHAPES,
    TEMPLATES,
    Scene,
    draw_scene,
    image_name,
    write_scenes,
)
from hvx.data.tokenize import tokenize_nltk
from hvx.errors import HvxError

SIZE = 112
SCENES = 240
TRAIN, VAL = 4, 3
CONFIG = Path(__file__).parents[1] / "configs" / "scenes.yaml"


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    return [draw_scene(np.random.default_rng([5, n]), SIZE) for n in range(SCENES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("scenes"), TRAIN, VAL, seed=7)


def written(parent: Path, train: int, val: int, seed: int) -> Path:
    write_scenes(parent / "scenes", train, val, SIZE, seed)
    return parent / "scenes"


def content(folder: Path) -> dict[str, bytes]:
    """Name → bytes of every file."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def tree(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def split(folder: Path, subset: str) -> SplitConfig:
    return load(CONFIG, [f"root={folder.parent}"]).split(subset)


def chroma(pixels: np.ndarray) -> np.ndarray:
    return np.ptp(pixels.astype(float), axis=-1)


# What is drawn


def test_a_scene_holds_two_to_four_objects_none_like_another(drawn: list[Scene]) -> None:
    counts = Counter(len(scene.objects) for scene in drawn)
    assert set(counts) == {2, 3, 4}
    for scene in drawn:
        assert len({item.name for item in scene.objects}) == len(scene.objects)


def test_there_are_at_least_six_colors_four_shapes_and_five_kinds_of_questions(drawn: list[Scene]) -> None:
    items = [item for scene in drawn for item in scene.objects]
    assert len({item.color for item in items}) == len(COLORS) >= 6
    assert len({item.shape for item in items}) == len(SHAPES) >= 4
    kinds = {question.kind for scene in drawn for question in scene.questions}
    assert kinds == set(KINDS) == {"attribute", "shape", "existence", "count", "relation"}


def test_images_and_masks_have_the_size_asked_for(drawn: list[Scene]) -> None:
    assert all(scene.image.shape == (SIZE, SIZE, 3) for scene in drawn)
    assert all(scene.mask.shape == (SIZE, SIZE) for scene in drawn)
    assert (
        {scene.image.dtype for scene in drawn} == {scene.mask.dtype for scene in drawn} == {np.dtype("uint8")}
    )


def test_the_mask_holds_the_label_of_each_object_and_ground(drawn: list[Scene]) -> None:
    for scene in drawn:
        labels = [item.label for item in scene.objects]
        assert labels == list(range(1, len(labels) + 1))
        assert set(np.unique(scene.mask)) == {0, *labels}


def test_each_object_lies_where_the_mask_says_in_its_color(drawn: list[Scene]) -> None:
    names, paints = list(COLORS), np.array(list(COLORS.values()))
    for scene in drawn:
        for item in scene.objects:
            pixels = scene.image[scene.mask == item.label]
            middle = np.median(pixels, axis=0)
            assert names[np.abs(paints - middle).sum(1).argmin()] == item.color


def test_what_the_mask_leaves_to_the_ground_is_gray(drawn: list[Scene]) -> None:
    for scene in drawn:
        assert np.quantile(chroma(scene.image[scene.mask == 0]), 0.999) < 100


def test_each_object_lies_around_its_center_inside_the_picture(drawn: list[Scene]) -> None:
    for scene in drawn:
        for item in scene.objects:
            rows, columns = np.nonzero(scene.mask == item.label)
            far = np.hypot(columns + 0.5 - item.x, rows + 0.5 - item.y).max()
            assert 0.75 * item.radius < far < 1.1 * item.radius + 1
            assert scene.mask[int(item.y), int(item.x)] == item.label
            assert item.radius < min(item.x, item.y, SIZE - item.x, SIZE - item.y)


def test_no_object_lies_on_another(drawn: list[Scene]) -> None:
    for scene in drawn:
        for one, other in itertools.combinations(scene.objects, 2):
            assert math.dist((one.x, one.y), (other.x, other.y)) > one.radius + other.radius


# What is asked


def answer(question: str, objects: list[dict[str, Any]]) -> tuple[str, list[int]]:
    """The answer and the labels asked about, from the question's words and the table of objects alone."""
    if found := re.fullmatch(r"what (?:color is|is the color of) the (\w+)\?", question):
        (target,) = [o for o in objects if o["shape"] == found[1]]
        return target["color"], [target["label"]]
    if found := re.fullmatch(r"what (?:shape is|is the shape of) the (\w+) object\?", question):
        (target,) = [o for o in objects if o["color"] == found[1]]
        return target["shape"], [target["label"]]
    if found := re.fullmatch(r"is (?:there )?(an?|any) (\w+) (\w+?)(?: in the picture)?\?", question):
        assert found[1] == "any" or (found[1] == "an") == found[2].startswith(("a", "e", "i", "o", "u"))
        there = [o["label"] for o in objects if (o["color"], o["shape"]) == (found[2], found[3])]
        return ("yes" if there else "no"), there
    count = r"(?:how many|what is the number of) (\w+ objects|\w+)(?: are (?:there|in the picture))?\?"
    if found := re.fullmatch(count, question):
        things = found[1]
        there = [
            o["label"]
            for o in objects
            if things in (f"{o['color']} objects", f"{o['shape']}s", f"{o['shape']}es")
        ]
        return str(len(there)), there
    found = re.fullmatch(r"is the (\w+) (\w+) (left of|right of|above|below) the (\w+) (\w+)\?", question)
    assert found, question
    (one,) = [o for o in objects if (o["color"], o["shape"]) == (found[1], found[2])]
    (other,) = [o for o in objects if (o["color"], o["shape"]) == (found[4], found[5])]
    across, down = one["x"] - other["x"], one["y"] - other["y"]
    apart = {"left of": -across, "right of": across, "above": -down, "below": down}[found[3]]
    assert abs(apart) > min(one["radius"], other["radius"]) - 0.02
    return ("yes" if apart > 0 else "no"), [one["label"], other["label"]]


def test_answers_and_what_is_asked_about_follow_from_the_objects(drawn: list[Scene]) -> None:
    for scene in drawn:
        objects = [vars(item) for item in scene.objects]
        for asked in scene.questions:
            said, labels = answer(asked.question, objects)
            assert asked.answer == said, (asked, objects)
            assert sorted(asked.asks_about) == sorted(labels), (asked, objects)


def test_answers_follow_from_the_table_that_is_written(folder: Path) -> None:
    for subset in ("train", "val"):
        table = ObjectTable(split(folder, subset))
        for question in read_questions(split(folder, subset)):
            said, labels = answer(question.question, table.objects[question.image_id])
            asked = table.asked[question.question_id]
            assert question.ground_truth == said
            assert sorted(asked.labels) == sorted(labels)
            assert asked.kind == question.question_type


def test_a_scene_asks_at_most_one_question_of_each_kind(drawn: list[Scene]) -> None:
    for scene in drawn:
        kinds = [asked.kind for asked in scene.questions]
        assert len(set(kinds)) == len(kinds)
        assert {"existence", "count"} <= set(kinds)
    counts = Counter(asked.kind for scene in drawn for asked in scene.questions)
    assert min(counts.values()) > 0.6 * SCENES


def test_every_kind_is_asked_in_each_of_its_wordings(drawn: list[Scene]) -> None:
    varying = {*COLORS, *SHAPES, *PLURALS.values(), "objects", "a", "an"}
    wordings: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for asked in (asked for scene in drawn for asked in scene.questions):
        wordings[asked.kind].add(" ".join(w for w in tokenize_nltk(asked.question) if w not in varying))
    for kind in KINDS:
        wanted = len(RELATIONS) if kind == "relation" else len(TEMPLATES[kind])
        assert len(wordings[kind]) == wanted, wordings[kind]


@pytest.mark.parametrize("kind", ["existence", "relation"])
def test_yes_and_no_are_about_as_frequent(drawn: list[Scene], kind: str) -> None:
    answers = Counter(asked.answer for scene in drawn for asked in scene.questions if asked.kind == kind)
    assert set(answers) == {"yes", "no"}
    assert 0.4 < answers["yes"] / answers.total() < 0.6


def test_every_color_and_shape_is_an_answer_and_counts_differ(drawn: list[Scene]) -> None:
    def answers(kind: str) -> set[str]:
        return {asked.answer for scene in drawn for asked in scene.questions if asked.kind == kind}

    assert answers("attribute") == set(COLORS)
    assert answers("shape") == set(SHAPES)
    assert answers("count") >= {"0", "1", "2"}


def test_every_token_of_every_question_has_a_part_of_speech(drawn: list[Scene]) -> None:
    questions = {asked.question for scene in drawn for asked in scene.questions}
    for template in (template for of_kind in TEMPLATES.values() for template in of_kind):
        for color in COLORS:
            for shape in SHAPES:
                for relation in RELATIONS:
                    for things in (f"{color} objects", PLURALS[shape]):
                        name = f"{color} {shape}"
                        words = {
                            "a": "an",
                            "one": name,
                            "other": name,
                            "relation": relation,
                            "things": things,
                        }
                        questions.add(template.format(color=color, shape=shape, **words))
    tokens = {token for question in questions for token in tokenize_nltk(question)}
    assert tokens <= set(PARTS_OF_SPEECH)
    assert set(PARTS_OF_SPEECH.values()) <= {"WH", "AUX", "DET", "ADP", "ADV", "ADJ", "NOUN", "PRON", "PUNCT"}


# What is written


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert content(written(tmp_path, TRAIN, VAL, seed=7)) == content(folder)


def test_another_seed_writes_other_scenes(folder: Path, tmp_path: Path) -> None:
    one, other = content(folder), content(written(tmp_path, TRAIN, VAL, seed=8))
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] == other[name]] == []


def test_a_scene_does_not_depend_on_how_many_are_drawn(folder: Path, tmp_path: Path) -> None:
    fewer = written(tmp_path, TRAIN - 2, VAL - 1, seed=7)
    more, less = content(folder), content(fewer)
    pictures = [name for name in less if name.endswith(".png")]
    assert len(pictures) == 2 * (TRAIN - 2 + VAL - 1)
    assert all(less[name] == more[name] for name in pictures)
    for name in (name for name in less if name.endswith(".json")):
        for key, rows in tree(fewer, name).items():
            if isinstance(rows, list):
                assert rows
                assert rows == tree(folder, name)[key][: len(rows)]


def test_train_and_val_share_no_scene_and_no_id(folder: Path) -> None:
    pictures = [data for name, data in content(folder).items() if name.startswith("images/")]
    assert len(set(pictures)) == len(pictures) == TRAIN + VAL
    train, val = (read_questions(split(folder, subset)) for subset in ("train", "val"))
    assert not {q.image_id for q in train} & {q.image_id for q in val}
    assert not {q.question_id for q in train} & {q.question_id for q in val}


def test_the_folder_holds_what_the_projects_config_names(folder: Path) -> None:
    for subset, count in (("train", TRAIN), ("val", VAL)):
        named = split(folder, subset)
        assert named.image_name == image_name(subset)
        questions = read_questions(named)
        image_ids = sorted({q.image_id for q in questions})
        assert len(image_ids) == count
        for image_id in image_ids:
            name = named.image_name.format(image_id=image_id)
            assert open_photo(named.images / name).size == (SIZE, SIZE)
            labels = [o["label"] for o in ObjectTable(named).objects[image_id]]
            assert set(np.unique(ObjectTable(named).mask(image_id))) == {0, *labels}
    assert {name.split("/")[0] for name in content(folder) if "/" in name} == {"images", "masks"}


def test_what_is_written_is_what_was_drawn(folder: Path) -> None:
    drawn_alone = draw_scene(np.random.default_rng([7, 1, 2]), SIZE)
    named = split(folder, "val")
    image_id = sorted({q.image_id for q in read_questions(named)})[2]
    name = named.image_name.format(image_id=image_id)
    assert (np.asarray(Image.open(named.images / name)) == drawn_alone.image).all()
    assert (ObjectTable(named).mask(image_id) == drawn_alone.mask).all()
    asked = [q.question for q in read_questions(named) if q.image_id == image_id]
    assert asked == [q.question for q in drawn_alone.questions]


@pytest.mark.parametrize("subset", ["train", "val"])
def test_questions_and_annotations_have_the_layout_of_vqa_v1(folder: Path, subset: str) -> None:
    questions = tree(folder, f"OpenEnded_scenes_{subset}_questions.json")
    annotations = tree(folder, f"scenes_{subset}_annotations.json")
    head = {"info", "data_type", "data_subtype", "license"}
    assert questions.keys() == head | {"task_type", "questions"}
    assert annotations.keys() == head | {"annotations"}
    assert (questions["task_type"], questions["data_subtype"]) == ("Open-Ended", subset)
    assert len(questions["questions"]) == len(annotations["annotations"])
    for question, annotation in zip(questions["questions"], annotations["annotations"], strict=True):
        assert question.keys() == {"question_id", "image_id", "question"}
        assert annotation.keys() == {
            "question_id", "image_id", "question_type", "answer_type", "multiple_choice_answer", "answers"
        }  # fmt: skip
        assert question["question_id"] == annotation["question_id"]
        assert question["image_id"] == annotation["image_id"]
        assert [person["answer_id"] for person in annotation["answers"]] == list(range(1, 11))
        for person in annotation["answers"]:
            assert person.keys() == {"answer_id", "answer", "answer_confidence"}
            assert person["answer"] == annotation["multiple_choice_answer"]
            assert person["answer_confidence"] == "yes"


def test_an_answer_has_the_type_that_vqa_gives_it(folder: Path) -> None:
    wanted = {
        "existence": "yes/no",
        "relation": "yes/no",
        "count": "number",
        "attribute": "other",
        "shape": "other",
    }
    for question in read_questions(split(folder, "train")):
        assert question.answer_type == wanted[question.question_type]


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "kept").write_text("mine")
    with pytest.raises(HvxError, match="already exists and is not empty"):
        write_scenes(tmp_path / "scenes", 1, 1, SIZE, 0)
    assert content(tmp_path) == {"scenes/kept": b"mine"}


def test_what_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path, value: Any) -> None:
        assert len(list(path.parent.glob("images/*.png"))) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "scenes", 2, 1, SIZE, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_size_too_small_to_draw_in_is_refused_and_the_smallest_drawn(tmp_path: Path) -> None:
    with pytest.raises(HvxError, match=r"^size 31: scenes are drawn at 32 pixels or more$"):
        write_scenes(tmp_path / "small", 1, 1, 31, 0)
    assert list(tmp_path.iterdir()) == []
    write_scenes(tmp_path / "small", 20, 1, 32, 0)
    table = tree(tmp_path / "small", "scenes_train_objects.json")
    assert {len(row["objects"]) for row in table["images"]} == {2, 3, 4}


# The table of objects, read


def table_error(folder: Path, value: Any) -> str:
    path = folder / "objects.json"
    path.write_text(json.dumps(value))
    with pytest.raises(HvxError) as raised:
        ObjectTable(SplitConfig(questions=Path("q.json"), images=folder, objects=path))
    assert str(raised.value).startswith(f"{path}: ")
    return str(raised.value)


@pytest.mark.parametrize(
    "value",
    [
        {}, [], 3, None, {"images": []}, {"images": [], "questions": None},
        {"images": [{}], "questions": []}, {"images": [3], "questions": []},
        {"images": [], "questions": [{"question_id": 1, "kind": "count", "asks_about": None}]},
        {"images": [{"image_id": [], "objects": []}], "questions": []},
    ],
)  # fmt: skip
def test_json_that_is_no_table_of_objects_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    assert "not a table of objects as `hvx scenes` writes it" in table_error(tmp_path, value)


def test_a_split_without_a_table_of_objects_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(HvxError, match=r"^q\.json: the split has no table of objects"):
        ObjectTable(SplitConfig(questions=Path("q.json"), images=tmp_path))
    missing = SplitConfig(questions=Path("q.json"), images=tmp_path, objects=tmp_path / "absent.json")
    with pytest.raises(HvxError, match=r"absent\.json: no such file"):
        ObjectTable(missing)


def test_a_mask_that_is_missing_or_damaged_is_refused_by_name(tmp_path: Path) -> None:
    folder = written(tmp_path, 1, 1, seed=0)
    named = split(folder, "val")
    (image_id,) = {q.image_id for q in read_questions(named)}
    path = folder / "masks" / named.image_name.format(image_id=image_id)
    right = path.read_bytes()
    wrong_length = right[:11] + bytes([12]) + right[12:]
    for damaged in (right[:-40], wrong_length, right.replace(b"IDAT", b"IDxT"), b"", None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(HvxError, match=f"^{path}: no readable label mask"):
            ObjectTable(named).mask(image_id)
