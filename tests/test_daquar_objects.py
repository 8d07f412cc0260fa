"""scripts/daquar_objects.py, on rooms and class masks made up here: tables, question sets, refusals."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from conftest import REPOSITORY, hvx
from PIL import Image

from hvx.config import SplitConfig, load
from hvx.data.images import load_input
from hvx.data.object_masks import ObjectTable
from hvx.data.questions import read_questions
from hvx.data.tokenize import tokenize_nltk
from hvx.models.checkpoint import load_checkpoint

sys.path.insert(0, str(REPOSITORY / "scripts"))
import daquar_objects
import image_share

CLASSES = {
    "classes": {"bed": 1, "books": 2, "chair": 3, "wall": 4, "picture": 5},
    "words": {"bed": 1, "beds": 1, "book": 2, "books": 2, "chair": 3, "chairs": 3, "picture": 5},
}
WIDTH, HEIGHT = 24, 16
ROOMS = 12
"""With masks; another one has none."""
ASKED = [
    ("what is on the bed ?", "chair"),
    ("what is between the Beds and the chair ?", "books, lamp, bed"),
    ("what color is the chair in this picture ?", "white"),
    ("how many chairs are left of the picture ?", "2"),
    ("what is on the bedside ?", "book shelf"),
    ("is the chair there ?", "yes"),
]


def mask_of(room: int) -> np.ndarray:
    """Walls; a bed in every second room, a chair in every third, books outside of the center square."""
    mask = np.full((HEIGHT, WIDTH), 4, np.uint8)
    mask[0] = 0
    if room % 2:
        mask[8:, 4:12] = 1
    if room % 3 == 0:
        mask[2:6, 12:18] = 3
    mask[12:, :3] = 2
    return mask


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    return made_rooms(tmp_path)


def made_rooms(tmp_path: Path) -> Path:
    """A config with a split of questions on rooms, and masks of all rooms but the last."""
    rng = np.random.default_rng(0)
    for folder in ("photos", "labels"):
        (tmp_path / folder).mkdir()
    questions, annotations = [], []
    for room in range(ROOMS + 1):
        pixels = (180 * (room % 2) + rng.integers(0, 60, (HEIGHT, WIDTH, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"room_{room:03d}.jpg")
        if room < ROOMS:
            Image.fromarray(mask_of(room)).save(tmp_path / "labels" / f"room_{room:03d}.png")
        for number, (question, answer) in enumerate(ASKED):
            answer = ("no", "yes")[room % 2] if answer == "yes" else answer  # only the photograph tells
            ids = {"question_id": 100 * room + number, "image_id": room}
            questions.append({**ids, "question": question})
            annotations.append({**ids, "multiple_choice_answer": answer, "answers": [{"answer": answer}]})
    (tmp_path / "q.json").write_text(json.dumps({"questions": questions}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": annotations}))
    (tmp_path / "labels" / "classes.json").write_text(json.dumps(CLASSES))
    split = {"questions": "q.json", "annotations": "a.json", "images": "photos"}
    split["image_name"] = "room_{image_id:03d}.jpg"
    tree = {
        "root": str(tmp_path),
        "checkpoint": "model.safetensors",
        "splits": {"train": split, "val": split},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def written(rooms: Path, *more: str) -> Result:
    arguments = [rooms / "config.yaml", rooms / "labels", "-o", rooms / "made"]
    return CliRunner().invoke(daquar_objects.main, [*map(str, arguments), *more])


def split_of(rooms: Path, **more: Path) -> SplitConfig:
    own = {"objects": rooms / "made" / "val_objects.json"} | more
    return load(rooms / "config.yaml").split("val").model_copy(update=own)


def tables(rooms: Path) -> dict[str, ObjectTable]:
    return {target: ObjectTable(split_of(rooms), target) for target in ("named", "answered")}


def test_a_table_has_the_classes_named_and_answered(rooms: Path) -> None:
    done = written(rooms)
    assert done.exit_code == 0, done.output
    found = tables(rooms)
    assert found["named"].targets == ("named", "answered")
    wanted = [
        ("object", (1,), (3,)),
        ("objects", (1, 3), (1, 2)),
        ("color", (3,), ()),  # "in this picture" is the photograph
        ("number", (3, 5), ()),
        ("object", (), ()),  # no words of classes.json as a whole
        ("yes/no", (3,), ()),
    ]
    for number, (kind, named, answered) in enumerate(wanted):
        asked = [found[target].asked[300 + number] for target in ("named", "answered")]
        assert [(own.kind, own.labels) for own in asked] == [(kind, named), (kind, answered)], number


def test_a_photograph_without_a_mask_has_no_target(rooms: Path) -> None:
    written(rooms)
    for table in tables(rooms).values():
        assert ROOMS not in table.objects
        assert [table.asked[100 * ROOMS + number].labels for number in range(len(ASKED))] == [()] * len(ASKED)


def test_the_table_leads_to_the_masks(rooms: Path) -> None:
    written(rooms)
    table = tables(rooms)["named"]
    for room in range(ROOMS):
        np.testing.assert_array_equal(table.mask(room), mask_of(room))
        labels = [item["label"] for item in table.objects[room]]
        assert labels == sorted(set(np.unique(mask_of(room)).tolist()) - {0})
    assert {"label": 2, "name": "books"} in table.objects[0]


def test_the_counts_are_of_what_lies_in_the_center_square(rooms: Path) -> None:
    """Books never do; a chair does in 4 of the 12 rooms, a bed in 6."""
    output = written(rooms).output
    chair, bed = {0, 3, 6, 9}, {1, 3, 5, 7, 9, 11}
    named = len(bed) + len(bed | chair) + 3 * len(chair)
    answered = len(chair) + len(bed)
    assert output.splitlines()[1] == (
        f"val: 78 questions, 72 on 12 photographs with a mask; {named} with the named in the center square, "
        f"{answered} with the answered in the center square"
    )


def test_questions_with_a_single_answer_keep_their_ids_and_answers(rooms: Path) -> None:
    assert written(rooms, "--ask", "single").exit_code == 0
    folder = rooms / "made"
    own = split_of(
        rooms, questions=folder / "val_questions.json", annotations=folder / "val_annotations.json"
    )
    found = read_questions(own)
    kept = [q for q in read_questions(split_of(rooms)) if q.ground_truth in ("chair", "white", "book shelf")]
    assert len(found) == 3 * (ROOMS + 1)
    assert [(q.question_id, q.image, q.question, q.answers) for q in found] == [
        (q.question_id, q.image, q.question, q.answers) for q in kept
    ]
    assert set(ObjectTable(own).asked) == {q.question_id for q in found}


def test_made_questions_are_balanced_and_right(rooms: Path) -> None:
    assert written(rooms, "--ask", "yes-no").exit_code == 0
    folder = rooms / "made"
    own = split_of(
        rooms, questions=folder / "val_questions.json", annotations=folder / "val_annotations.json"
    )
    found, table = read_questions(own), ObjectTable(own)
    counts = Counter((q.question, q.ground_truth) for q in found)
    bed, chair = "is there a bed in the room ?", "is there a chair in the room ?"
    # Six rooms have a bed; four a chair. Books are in every room, a picture in none: not asked.
    assert counts == {(bed, "yes"): 6, (bed, "no"): 6, (chair, "yes"): 4, (chair, "no"): 4}
    assert len({q.question_id for q in found}) == len(found)
    for q in found:
        label = 1 if q.question == bed else 3
        assert (q.ground_truth == "yes") == bool((mask_of(int(q.image_id)) == label).any())
        assert table.asked[q.question_id].labels == ((label,) if q.ground_truth == "yes" else ())
        assert table.asked[q.question_id].kind == CLASSES_BY_LABEL[label]


CLASSES_BY_LABEL = {label: name for name, label in CLASSES["classes"].items()}


def test_what_is_small_or_outside_of_the_square_is_not_asked_about(rooms: Path) -> None:
    """A chair of one pixel in 256 (less than 1 %), or beside the square: neither yes nor no."""
    for room, place in ((1, (5, 12)), (2, (5, 0))):
        mask = mask_of(room)
        mask[place] = 3
        Image.fromarray(mask).save(rooms / "labels" / f"room_{room:03d}.png")
    for seed in range(5):
        assert written(rooms, "--ask", "yes-no", "--seed", str(seed)).exit_code == 0
        tree = json.loads((rooms / "made" / "val_questions.json").read_text())
        assert not [q for q in tree["questions"] if "chair" in q["question"] and q["image_id"] in (1, 2)]


def test_the_draw_is_the_seeds(rooms: Path) -> None:
    def drawn(seed: int) -> bytes:
        assert written(rooms, "--ask", "yes-no", "--seed", str(seed)).exit_code == 0
        return (rooms / "made" / "val_questions.json").read_bytes()

    assert drawn(0) == drawn(0)
    assert len({drawn(seed) for seed in range(5)}) > 1


def _other_size(rooms: Path) -> None:
    Image.fromarray(mask_of(1)[:, 1:]).save(rooms / "labels" / "room_001.png")


def _unknown_class(rooms: Path) -> None:
    Image.fromarray(np.where(mask_of(1) == 4, 9, mask_of(1)).astype(np.uint8)).save(
        rooms / "labels" / "room_001.png"
    )


def _colors(rooms: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(rooms / "labels" / "room_001.png")


def _no_masks(rooms: Path) -> None:
    for path in (rooms / "labels").glob("*.png"):
        path.unlink()


def _classes(value: Any) -> Any:
    return lambda rooms: (rooms / "labels" / "classes.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_other_size, "room_001.png: 23×16 pixels; its photograph has 24×16"),
        (_unknown_class, "room_001.png: label 9 is no class of"),
        (_colors, "room_001.png: a label mask has one channel of integers; this image is of mode RGB"),
        (_no_masks, "labels: has a mask of none of the 13 images of"),
        (
            _classes(CLASSES | {"words": {"bed": 7}}),
            "classes.json: word 'bed' has the label 7, which is no class",
        ),
        (_classes([]), "classes.json: expected 'classes', name → label, and 'words', word → label"),
        (_classes({"classes": {"bed": "x"}, "words": {}}), "classes.json: expected 'classes', name → label"),
        (lambda rooms: (rooms / "labels" / "classes.json").unlink(), "classes.json: no such file"),
        (lambda rooms: (rooms / "photos" / "room_001.jpg").unlink(), "room_001.jpg: no such image"),
    ],
)
def test_masks_that_do_not_fit_are_refused_in_one_line(rooms: Path, damage: Any, said: str) -> None:
    damage(rooms)
    done = written(rooms)
    assert done.exit_code != 0 and said in done.output and "Traceback" not in done.output
    assert len(done.output.splitlines()) == 1
    assert not list((rooms / "made").glob("*.json"))


# From the photographs to the report


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the rooms, and its run, with the table of both targets; tests leave it as it is."""
    rooms = made_rooms(tmp_path_factory.mktemp("explained"))
    assert written(rooms).exit_code == 0
    tree = yaml.safe_load((rooms / "config.yaml").read_text())
    for split in tree["splits"].values():
        split["objects"] = "made/val_objects.json"
    tree["model"] = {
        "image": {"size": 64},
        "backbone": {"architecture": "squeezenet1_1", "node": "features.9.cat"},
        "encoder": {"embedding": 8, "hidden": 12},
        "joint": 10,
    }
    tree["train"] = {"epochs": 12, "rate": 0.01, "dropout": 0.0, "workers": 0}
    tree["explain"] = {"split": "val", "run": "run", "workers": 0}
    (rooms / "own.yaml").write_text(yaml.safe_dump(tree))
    torch.manual_seed(0)
    for command in ("train", "explain"):
        done = hvx(command, rooms / "own.yaml")
        assert done.returncode == 0, done.stderr
    return rooms


@cache
def measured(explained: Path, target: str) -> dict[str, Any]:
    """What ``hvx measure`` says of all explanations, by target."""
    out = explained / target
    done = hvx(
        "measure", explained / "run", "--methods", "attention,random", "--curves", 0, "--sanity", 0,
        "-o", out, *(("--target", target) if target != "default" else ()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((out / "measure.json").read_text())
    return found


def test_each_target_is_measured_on_its_own_region(explained: Path) -> None:
    found = {target: measured(explained, target) for target in ("default", "named", "answered")}
    assert found["default"]["means"] == found["named"]["means"] != found["answered"]["means"]
    table = tables(explained)
    for target in ("named", "answered"):
        shares = []
        for question, asked in table[target].asked.items():
            square = mask_of(question // 100)[:, 4:20]  # of 24×16 pixels the center 16
            share = float(np.isin(square, asked.labels).mean())
            shares += [share] if share else []
        own = found[target]["chance"]["all"]
        assert own["n"] == len(shares) == found[target]["means"]["pointing"]["proposed"]["n"]
        assert own["value"] == pytest.approx(np.mean(shares), abs=1e-6)
        assert found[target]["about"]["target"] == target
    text = (explained / "answered" / "measure.md").read_text()
    assert "Localization: of the target *answered* (others: `--target named`)." in text


def test_only_questions_with_a_target_are_drawn_on_request(explained: Path) -> None:
    """Five of the six questions on a room name something, two are answered by something."""
    few = ["--methods", "random", "--curves", 0, "--sanity", 0, "--with-target", "--sample", 0]
    for target, count in (("named", 5 * ROOMS), ("answered", 2 * ROOMS)):
        out = explained / f"drawn-{target}"
        done = hvx("measure", explained / "run", *few, "--target", target, "-o", out)
        assert done.returncode == 0, done.stderr
        found = json.loads((out / "measure.json").read_text())
        assert (found["about"]["explanations"], found["about"]["of"]) == (count, len(ASKED) * (ROOMS + 1))
        assert "drawn at random from those whose question has a target" in (out / "measure.md").read_text()
        for metric in ("pointing", "energy", "overlap"):
            own, whole = (tree["means"][metric]["proposed"] for tree in (found, measured(explained, target)))
            assert own["n"] == whole["n"] and own["value"] == pytest.approx(whole["value"], abs=1e-6)


def test_a_run_without_a_question_that_has_a_target_is_refused(explained: Path) -> None:
    table = json.loads((explained / "made" / "val_objects.json").read_text())
    for row in table["questions"]:
        row["asks_about"] = {"named": [], "answered": []}
    (explained / "made" / "none.json").write_text(json.dumps(table))
    done = hvx("measure", explained / "run", "--with-target", "--set", "splits.val.objects=made/none.json")
    assert done.returncode == 2
    assert "explains no question that has a target in" in done.stderr and "none.json" in done.stderr


def test_another_target_is_refused(explained: Path) -> None:
    done = hvx("measure", explained / "run", "--target", "name")
    assert done.returncode == 2
    assert "no target 'name' (did you mean 'named'?); it has: named, answered" in done.stderr
    without = hvx("measure", explained / "run", "--target", "named", "--set", "splits.val.objects=null")
    assert without.returncode == 2 and "the split has no table of objects" in without.stderr


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (None, "no readable label mask"),
        ((16, 24), "16×24 pixels; its photograph has 24×16, and a label mask"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_ahead_of_the_work(
    explained: Path, size: tuple[int, int] | None, said: str
) -> None:
    path = explained / "made" / "masks" / "room_003.png"
    right = path.read_bytes()
    path.unlink()
    if size:
        Image.new("L", size).save(path)
    done = hvx("measure", explained / "run", "--methods", "gradient", "-o", explained / "refused")
    path.write_bytes(right)
    assert done.returncode == 2 and f"{path}: {said}" in done.stderr
    assert not list(explained.rglob("gradient.npy")) and not (explained / "refused" / "measure.md").exists()


def test_a_mask_of_a_photograph_without_targets_is_not_read(explained: Path) -> None:
    """The last room has no mask at all; and what a question without a target is about has no place."""
    assert not (explained / "made" / "masks" / f"room_{ROOMS:03d}.png").exists()
    assert measured(explained, "named")["about"]["explanations"] == len(ASKED) * (ROOMS + 1)


def test_such_a_table_trains_no_backbone(explained: Path) -> None:
    more = ["--set", "train.backbone_epochs=1", "--set", "checkpoint=other.safetensors"]
    done = hvx("train", explained / "own.yaml", *more)
    assert done.returncode == 2
    assert "val_objects.json: its objects have no color and shape; only the built-in split" in done.stderr


def test_what_images_contribute_is_told_apart_from_what_words_do(explained: Path) -> None:
    """Against the slow way: one question at a time, over its image's features and over the mean of all."""
    done = CliRunner().invoke(image_share.main, [str(explained / "own.yaml")])
    assert done.exit_code == 0, done.output
    model = load_checkpoint(explained / "model.last.safetensors")
    paths = [explained / "photos" / f"room_{room:03d}.jpg" for room in range(ROOMS + 1)]
    given, right = [], []
    with torch.no_grad():
        features = model.backbone(torch.stack([load_input(p, model.config.image, False) for p in paths]))
        for question in read_questions(split_of(explained)):
            rows = torch.tensor([model.vocabulary.rows(tokenize_nltk(question.question))])
            for own in (features[[int(question.image_id)]], features.mean(0, keepdim=True)):
                terms, embedded = model.head.image_terms(own), model.head.encoder.embed(rows)
                joint = model.head(own, terms, torch.tensor([0]), embedded, torch.tensor([rows.shape[1]]))
                given.append(model.answers[int(joint.logits.argmax())])
                right.append(given[-1] == question.ground_truth)
    assert given[::2] != given[1::2]
    share, words = np.mean(right[::2]), np.mean(right[1::2])
    lines = done.stdout.splitlines()
    assert lines[0] == "| accuracy (n = 78) | |"
    assert lines[2].startswith(f"| with the images | {share:.3f} [")
    assert lines[3].startswith(f"| with the mean feature map | {words:.3f} [")
    assert lines[4].startswith(f"| difference | {share - words:+.3f} [")
    assert lines[5] == f'| always "{ASKED[0][1]}" | {1 / len(ASKED):.3f} |'
