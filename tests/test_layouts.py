"""Each layout in which data sets are published: recognized, read, and explained with its own ids."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Tiny, hvx
from PIL import Image

from hvx.config import SplitConfig
from hvx.data.layouts.known import LAYOUTS
from hvx.data.questions import Question, read_questions
from hvx.errors import HvxError
from hvx.store.reader import RunReader

TEN = [{"answer": "red", "answer_id": n} for n in range(10)]


def vqa(**more: Any) -> dict[str, Any]:
    return {"question_id": 20, "image_id": 2, "question": "what color?", **more}


@dataclass
class Made:
    """A tiny file of a layout and what it says."""

    questions: Any
    wanted: list[Question]
    annotations: Any = None
    file: str = "questions.json"
    fields: dict[str, Any] = field(default_factory=dict)


def two(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


COLOR = "what color?"
MADE = {
    "vqa": Made(
        {"questions": [vqa()]},
        [Question(20, 2, "COCO_val2014_000000000002.jpg", COLOR, "blue", ("red",) * 10, "what", "other")],
        {
            "annotations": [
                {
                    "question_id": 20,
                    "multiple_choice_answer": "blue",
                    "answers": TEN,
                    "question_type": "what",
                    "answer_type": "other",
                }
            ]
        },
    ),
    "abstract-scenes": Made(
        {
            "data_type": "abstract_v002",
            "data_subtype": "val2015",
            "questions": [vqa()],
        },
        [Question(20, 2, "abstract_v002_val2015_000000000002.png", COLOR, "red", ("red",) * 10)],
        {
            "data_subtype": "val2015",
            "annotations": [{"question_id": 20, "multiple_choice_answer": "red", "answers": TEN}],
        },
    ),
    "vqa-cp": Made(
        [vqa(coco_split="train2014")],
        [Question(20, 2, "COCO_train2014_000000000002.jpg", COLOR, "red", ("red",) * 10)],
        [{"question_id": 20, "multiple_choice_answer": "red", "answers": TEN, "coco_split": "train2014"}],
    ),
    "ok-vqa": Made(
        {"questions": [vqa()]},
        [Question(20, 2, "COCO_val2014_000000000002.jpg", COLOR, "red", ("blue", "red", "red"))],
        {
            "annotations": [
                {
                    "question_id": 20,
                    "answers": [{"answer": a, "raw_answer": f"{a}s"} for a in ("blue", "red", "red")],
                }
            ]
        },
    ),
    "tdiuc": Made(
        {"questions": [vqa()]},
        [Question(20, 2, "COCO_val2014_000000000002.jpg", COLOR, "red", ("red",), "color")],
        {
            "annotations": [
                {
                    "question_id": 20,
                    "answers": [{"answer": "red"}],
                    "question_type": "color",
                    "ans_source": "made",
                }
            ]
        },
    ),
    "a-okvqa": Made(
        [
            vqa(
                question_id="22jbM6gDxdaMaunuzgrsBB",
                choices=["a", "b"],
                correct_choice_idx=1,
                direct_answers=["bus", "car", "car", "bus"],
            )
        ],
        [
            Question(
                "22jbM6gDxdaMaunuzgrsBB", 2, "000000000002.jpg", COLOR, "bus", ("bus", "car", "car", "bus")
            )
        ],
    ),
    "vizwiz": Made(
        [
            {
                "image": "VizWiz_val_00000007.jpg",
                "question": COLOR,
                "answers": TEN,
                "answer_type": "other",
                "answerable": 1,
            }
        ],
        [
            Question(
                "VizWiz_val_00000007.jpg",
                "VizWiz_val_00000007.jpg",
                "VizWiz_val_00000007.jpg",
                COLOR,
                "red",
                ("red",) * 10,
                "",
                "other",
            )
        ],
    ),
    "gqa": Made(
        {
            "05515938": {
                "imageId": "n161313",
                "question": COLOR,
                "answer": "red",
                "fullAnswer": "It is red.",
                "types": {"structural": "query"},
            },
            "5515938": {"imageId": "2405722", "question": COLOR, "answer": "no"},
        },
        [
            Question("05515938", "n161313", "n161313.jpg", COLOR, "red", ("red",), "query"),
            Question("5515938", "2405722", "2405722.jpg", COLOR, "no", ("no",)),
        ],
    ),
    "textvqa": Made(
        {
            "data": [
                {
                    "question_id": 7,
                    "image_id": "ffe0123456789abc",
                    "question": COLOR,
                    "answers": ["nous", "no", "no"],
                }
            ]
        },
        [Question(7, "ffe0123456789abc", "ffe0123456789abc.jpg", COLOR, "no", ("nous", "no", "no"))],
    ),
    "visual-genome": Made(
        [
            {
                "id": 2,
                "qas": [
                    {"qa_id": 9, "image_id": 2, "question": COLOR, "answer": "Red."},
                    {"qa_id": 8, "image_id": 2, "question": "how many?", "answer": "Two."},
                ],
            }
        ],
        [
            Question(9, 2, "2.jpg", COLOR, "Red.", ("Red.",)),
            Question(8, 2, "2.jpg", "how many?", "Two.", ("Two.",)),
        ],
    ),
    "clevr": Made(
        {
            "info": {},
            "questions": [
                {
                    "question_index": 0,
                    "image_filename": "CLEVR_val_000003.png",
                    "image_index": 3,
                    "question": COLOR,
                    "answer": "red",
                }
            ],
        },
        [Question(0, 3, "CLEVR_val_000003.png", COLOR, "red", ("red",))],
    ),
    "vqa-rad": Made(
        [
            {
                "qid": "0",
                "image_name": "synpic1.jpg",
                "question": "how many?",
                "answer": 2,
                "answer_type": "CLOSED ",
            }
        ],
        [Question("0", "synpic1.jpg", "synpic1.jpg", "how many?", "2", ("2",), "", "CLOSED")],
    ),
    "rsvqa": Made(
        {
            "questions": [
                {"id": 0, "active": False},
                {"id": 1, "img_id": 4, "type": "presence", "question": COLOR, "active": True},
            ]
        },
        [Question(1, 4, "4.tif", COLOR, "yes", ("yes",), "presence")],
        {
            "answers": [
                {"id": 0, "active": False},
                {"id": 3, "question_id": 1, "answer": "yes", "active": True},
            ]
        },
    ),
    "daquar-text": Made(
        "what is on the table in the image3 ?\nbook, lamp\nhow many lamps in image12 ?\n2\n",
        [
            Question(
                "1",
                "image3",
                "image3.png",
                "what is on the table in the image3 ?",
                "book, lamp",
                ("book, lamp",),
            ),
            Question("3", "image12", "image12.png", "how many lamps in image12 ?", "2", ("2",)),
        ],
        file="qa.txt",
    ),
    "coco-captions": Made(
        {
            "info": {"year": 2017},
            "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 3, "file_name": "x/three.png"}],
            "annotations": [
                {"image_id": 3, "id": 70, "caption": "A red star."},
                {"image_id": 3, "id": 72, "caption": "a star"},
                {"image_id": 9, "id": 71, "caption": "two dogs"},
            ],
        },
        [
            Question(70, 3, "x/three.png", "A red star."),
            Question(72, 3, "x/three.png", "a star"),
            Question(71, 9, "000000000009.jpg", "two dogs"),
        ],
    ),
    "captions": Made(
        [
            {"image": "a/b.png", "captions": ["a star", "it is red"]},
            {"image": "c.png", "caption": "two dogs"},
        ],
        [
            Question(0, "a/b.png", "a/b.png", "a star"),
            Question(1, "a/b.png", "a/b.png", "it is red"),
            Question(2, "c.png", "c.png", "two dogs"),
        ],
    ),
    "labels": Made(
        two([{"image": "a.png", "label": "cat"}, {"image": "b.png", "label": "a dog"}]),
        [
            Question(0, "a.png", "a.png", "a photo of a {}", "cat", ("cat",)),
            Question(1, "b.png", "b.png", "a photo of a {}", "a dog", ("a dog",)),
        ],
        file="labels.json",
        fields={"labels": ["cat", "a dog"]},
    ),
    "jsonl": Made(
        two(
            [
                {"id": "q 1", "image": "a/b.png", "question": COLOR, "answers": ["x", "y"]},
                {"id": "q 2", "image_name": "c.png", "question": COLOR, "answers": [3, 3.5]},
            ]
        ),
        [
            Question("q 1", "a/b.png", "a/b.png", COLOR, "x", ("x", "y")),
            Question("q 2", "c.png", "c.png", COLOR, "3", ("3", "3.5")),
        ],
        file="questions.jsonl",
    ),
}


def split_of(folder: Path, made: Made, **more: Any) -> SplitConfig:
    def write(name: str, tree: Any) -> Path:
        (folder / name).write_text(tree if isinstance(tree, str) else json.dumps(tree))
        return folder / name

    files = {"questions": write(made.file, made.questions), "images": folder}
    if made.annotations is not None:
        files["annotations"] = write("annotations.json", made.annotations)
    return SplitConfig.model_validate({**files, **made.fields, **more})


def error_of(folder: Path, made: Made, **more: Any) -> str:
    with pytest.raises(HvxError) as raised:
        read_questions(split_of(folder, made, **more))
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{folder}/")


def rows(*given: Any) -> Made:
    return Made(list(given), [])


@pytest.mark.parametrize("name", MADE)
def test_a_layout_is_recognized_and_says_what_its_files_say(tmp_path: Path, name: str) -> None:
    made, said = MADE[name], list[str]()
    found = read_questions(split_of(tmp_path, made), said.append)
    assert found == made.wanted and said == []
    assert [type(q.question_id) for q in found] == [type(q.question_id) for q in made.wanted]
    assert read_questions(split_of(tmp_path, made, format=name)) == made.wanted


def test_every_layout_has_an_example() -> None:
    assert {layout.name for layout in LAYOUTS} == {*MADE, "parquet"}


def test_a_name_of_no_layout_lists_those_known(tmp_path: Path) -> None:
    said = error_of(tmp_path, rows(vqa()), format="gqe")
    assert said.startswith("splits: format: no layout 'gqe' (did you mean 'gqa'?); known: ")
    assert all(layout.name in said for layout in LAYOUTS)
    assert "\x1b" not in error_of(tmp_path, rows(vqa()), format="\x1b[2J")


# Ids


def test_ids_are_of_one_kind(tmp_path: Path) -> None:
    said = error_of(tmp_path, rows(vqa(question_id=7), vqa(question_id="7")))
    assert said == (
        "questions.json: [1].question_id: '7' is a text, an id before it an integer; expected ids of one kind"
    )
    said = error_of(tmp_path, rows(vqa(), vqa(question_id=21, image_id="2")))
    assert said.startswith("questions.json: [1].image_id: '2' is a text")
    made = Made([vqa()], [], [{"question_id": "20", "answer": "a"}])
    assert error_of(tmp_path, made).startswith("annotations.json: [0].question_id: '20' is a text")


@pytest.mark.parametrize("wrong", ["", True, 1.5, None, [], 2**63, "a\0b"])
def test_an_id_is_an_integer_or_a_text(tmp_path: Path, wrong: Any) -> None:
    for name in ("question_id", "image_id"):
        assert error_of(tmp_path, rows(vqa(**{name: wrong}))).startswith("questions.json: [0]")


def test_texts_that_look_alike_are_different_ids(tmp_path: Path) -> None:
    ids = ["05", "5", "0x5", "5.0", "٥"]
    found = read_questions(split_of(tmp_path, rows(*(vqa(question_id=one) for one in ids))))
    assert [q.question_id for q in found] == ids
    assert "question_id '05' occurs twice" in error_of(tmp_path, rows(*(vqa(question_id="05") for _ in "ab")))


# Images


def test_rows_without_image_or_question_are_named(tmp_path: Path) -> None:
    said = error_of(tmp_path, rows({"question_id": 1, "question": "a?"}))
    assert said.startswith("questions.json: [0]: no image; expected 'image_id', or a name in 'image' or ")
    said = error_of(tmp_path, rows({"question_id": 1, "image_id": 2}))
    assert said == "questions.json: [0].question: expected text, not None"


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.jpg", "a/../../b", ".", "a\x1b[2Jb", "x" * 256, 5, {}])
def test_an_image_outside_its_folder_is_refused(tmp_path: Path, name: Any) -> None:
    said = error_of(tmp_path, rows(vqa(image=name)))
    assert said.startswith("questions.json: [0].image: ") and "\x1b" not in said


def test_a_text_id_cannot_lead_out_of_the_folder_by_the_pattern(tmp_path: Path) -> None:
    made = rows(vqa(image_id="../../etc/passwd"))
    assert "leads out" in error_of(tmp_path, made, image_name="{image_id}.jpg")
    said = error_of(tmp_path, rows(vqa(image_id="n1")))
    assert "does not fit the image_id 'n1'; expected a pattern such as '{image_id}.jpg'" in said


def test_an_id_has_one_image(tmp_path: Path) -> None:
    said = error_of(tmp_path, rows(vqa(image="a.jpg"), vqa(question_id=21, image="b.jpg")))
    assert "image_id 2 is 'a.jpg' in a row before, 'b.jpg' here" in said


@pytest.mark.parametrize(
    ("subset", "named"),
    [
        ("train2014", "train2014"),
        ("test2015", "test2015"),
        (None, "val2014"),
        ("../{0}", "val2014"),
        (5, "val2014"),
    ],
)
def test_the_file_says_of_which_subset_its_images_are(tmp_path: Path, subset: Any, named: str) -> None:
    (found,) = read_questions(split_of(tmp_path, Made({"data_subtype": subset, "questions": [vqa()]}, [])))
    assert found.image == f"COCO_{named}_000000000002.jpg"


def test_a_pattern_of_the_config_is_taken_before_the_layout(tmp_path: Path) -> None:
    (found, _) = read_questions(split_of(tmp_path, MADE["gqa"], image_name="deep/{image_id}.png"))
    assert found.image == "deep/n161313.png"
    (found,) = read_questions(split_of(tmp_path, MADE["vqa-cp"], image_name="{image_id}.png"))
    assert found.image == "2.png"


@pytest.mark.parametrize("subset", ["/../../b", "/etc/passwd\0", "a/../../b"])
def test_a_subset_that_leads_out_of_the_folder_is_refused(tmp_path: Path, subset: str) -> None:
    said = error_of(tmp_path, rows(vqa(coco_split=subset)))
    assert said.startswith("splits: image_name: ") and "\0" not in said


# Answers


@pytest.mark.parametrize(
    ("given", "truth"),
    [
        ({"multiple_choice_answer": "a", "answers": ["b", "b"], "answer": "c"}, "a"),
        ({"answers": ["b", "c", "c"], "answer": "d"}, "c"),
        ({"answers": ["z", "a", "a", "z"]}, "z"),
        ({"answers": ["a", "z", "z", "a"]}, "a"),
        ({"answers": [], "answer": "d"}, "d"),
        ({"answer": 5}, "5"),
        ({"answers": [{"answer": 1}, {"answer": "2"}, {"answer": 2}]}, "2"),
    ],
)
def test_the_ground_truth_is_the_first_of_the_most_frequent(
    tmp_path: Path, given: dict[str, Any], truth: str
) -> None:
    (found,) = read_questions(split_of(tmp_path, rows(vqa(**given))))
    assert found.ground_truth == truth


@pytest.mark.parametrize("name", ["direct_answers", "label", "gt"])
def test_a_field_that_looks_like_a_ground_truth_is_reported_once(tmp_path: Path, name: str) -> None:
    said: list[str] = []
    given = rows(vqa(**{name: ["a"]}), vqa(question_id=21, **{name: ["a"]}))
    found = read_questions(split_of(tmp_path, given), said.append)
    assert [q.ground_truth for q in found] == ["", ""]
    assert len(said) == 1 and f"'{name}' looks like a ground truth and is not used" in said[0]


# Parquet

pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")


def picture(shade: int) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), shade, np.uint8)).save(held, "png")
    return held.getvalue()


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_images_inside_parquet_become_files_named_by_their_digest(tmp_path: Path) -> None:
    first, second = picture(10), picture(200)
    images = [
        {"bytes": first, "path": "../../evil.png"},
        {"bytes": first, "path": None},
        {"bytes": second, "path": "b"},
    ]
    columns = {"question": ["a?", "b?", "c?"], "image": images, "answers": [["x"], ["y"], ["z", "z"]]}
    path = write_parquet(tmp_path / "val.parquet", columns | {"question_id": ["1", "01", "x"]})
    folder = tmp_path / "images"
    split = SplitConfig(questions=path, images=folder)
    found = read_questions(split)
    digest = hashlib.sha256(first).hexdigest()
    assert [q.image for q in found[:2]] == [f"{digest}.png", digest]
    assert [q.question_id for q in found] == ["1", "01", "x"]
    assert [q.ground_truth for q in found] == ["x", "y", "z"]
    assert {p.name for p in folder.iterdir()} == {q.image for q in found}
    assert (folder / found[2].image).read_bytes() == second
    assert {p.name for p in tmp_path.iterdir()} == {"val.parquet", "images"}
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert read_questions(split) == found
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_a_limit_bounds_what_is_written(tmp_path: Path) -> None:
    images = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(3)]
    path = write_parquet(tmp_path / "val.parquet", {"question": ["a?"] * 3, "image": images})
    split = SplitConfig(questions=path, images=tmp_path / "images", limit=1)
    assert [q.question_id for q in read_questions(split)] == [0]
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_a_link_in_place_of_an_image_is_refused(tmp_path: Path) -> None:
    data = picture(1)
    path = write_parquet(tmp_path / "a.parquet", {"question": ["a?"], "image": [{"bytes": data, "path": ""}]})
    (tmp_path / hashlib.sha256(data).hexdigest()).symlink_to(tmp_path / "outside")
    with pytest.raises(HvxError, match="a symbolic link in place of an image"):
        read_questions(SplitConfig(questions=path, images=tmp_path))
    assert not (tmp_path / "outside").exists()


def test_parquet_with_unknown_columns_lists_them(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["a?"], "picture": ["b"]})
    with pytest.raises(HvxError) as raised:
        read_questions(SplitConfig(questions=path, images=tmp_path))
    assert str(raised.value).endswith(
        "expected columns 'question' and 'image' or 'image_id'; it has: text, picture"
    )
    path.write_bytes(b"PAR1 no")
    with pytest.raises(HvxError, match="not a Parquet file"):
        read_questions(SplitConfig(questions=path, images=tmp_path))


# Whole runs


HOSTILE = "hostile ids"
RUNS = {
    **{name: made for name, made in MADE.items() if name != "labels"},  # these need a dual encoder
    "visual-genome": Made(
        [
            {"id": n, "qas": [{"qa_id": 10 * n + k, "question": COLOR, "answer": "2"} for k in (1, 0)]}
            for n in (1, 2)
        ],
        [],
    ),
    HOSTILE: Made(
        two([{"question_id": f"q/{n}\x1b<b>", "image": f"{n}.png", "question": COLOR} for n in (1, 2)]),
        [],
        file="q.jsonl",
    ),
}  # fmt: skip


def own_split(folder: Path, name: str, photo: Path) -> dict[str, Any]:
    """The settings of a split in a layout; its images lie in two folders, the first one in the first."""
    folders = [folder / "first", folder / "second"]
    images = json.dumps(list(map(str, folders)))
    for own in folders:
        own.mkdir()
    if name == "parquet":
        inside = [{"bytes": photo.read_bytes(), "path": "a.png"}]
        path = write_parquet(folder / "a.parquet", {"question": [COLOR], "image": inside, "qid": ["007"]})
        return {"questions": path, "annotations": "null", "images": images}
    split = split_of(folder, RUNS[name])
    with Image.open(photo) as opened:
        for place, image in enumerate(dict.fromkeys(q.image for q in read_questions(split))):
            path = folders[min(place, 1)] / image
            path.parent.mkdir(exist_ok=True)
            opened.convert("RGB").save(path)
    return {"questions": split.questions, "annotations": split.annotations or "null", "images": images}


@pytest.mark.parametrize("name", [*RUNS, "parquet"])
def test_a_whole_run_has_the_original_ids_and_every_question_once(
    tiny: Tiny, tmp_path: Path, name: str
) -> None:
    photo = next((tiny.root / "scenes" / "images").glob("SCENES_val_*"))
    asked = ["007"] if name == "parquet" else [q.question_id for q in RUNS[name].wanted]
    asked = asked or {"visual-genome": [11, 10, 21, 20], HOSTILE: ["q/1\x1b<b>", "q/2\x1b<b>"]}[name]
    run = tmp_path / "run"
    own = own_split(tmp_path, name, photo) | {"objects": "null", "image_name": "null"}
    settings = tiny.settings(run, **{f"splits__val__{key}": value for key, value in own.items()})
    done = hvx("explain", tiny.config, *(part for one in settings for part in ("--set", one)))
    assert done.returncode == 0, done.stderr
    results = json.loads((run / "results.json").read_text())
    assert [row["question_id"] for row in results] == asked
    assert [type(row["question_id"]) for row in results] == [type(one) for one in asked]
    assert all(row["answer"] for row in results)
    with RunReader(run) as reader:
        assert reader.column("question_id").tolist() == asked
        assert reader[len(asked) - 1].question_id == asked[-1]
    done = hvx("figure", run, "-o", tmp_path / "figure.png", "--id", asked[-1])
    assert done.returncode == 0 and "1 explanations" in done.stdout
    done = hvx("figure", run, "-o", tmp_path / "figure.png", "--id", "no\x1b such")
    assert done.returncode == 2 and "\x1b" not in done.stderr and done.stderr.count("\n") == 1
    assert hvx("gallery", run, "-o", tmp_path / "gallery").returncode == 0
    index = (tmp_path / "gallery" / "data" / "index-0000.js").read_text()
    listed = json.loads(index[index.index("{") : index.rindex("}") + 1])
    assert listed["id"] == list(map(str, asked))


# Captions and labels


def test_captions_have_the_ids_that_their_rows_give(tmp_path: Path) -> None:
    found = read_questions(split_of(tmp_path, rows({"id": "k", "image": "a.png", "caption": "a star"})))
    assert found == [Question("k", "a.png", "a.png", "a star")]
    said = error_of(tmp_path, rows({"image": "a.png", "caption": 7}))
    assert said == "questions.json: [0].caption: expected text, not 7"
    said = error_of(tmp_path, rows({"image": "a.png", "captions": "a star"}))
    assert said == "questions.json: [0]: not a row of layout captions"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (
            {"id": 3, "file_name": "../x.png"},
            "images[0].file_name: '../x.png' leads out of the images' folder",
        ),
        ({"id": 3}, "images[0].file_name: expected a file's name below 'images', not None"),
        ({"id": [3], "file_name": "x"}, "images[0].id: expected an integer or a text, not [3]"),
        (7, "images[0]: expected an object, not 7"),
    ],
)
def test_names_of_coco_images_are_checked(tmp_path: Path, image: Any, said: str) -> None:
    made = Made({"images": [image], "annotations": [{"id": 1, "image_id": 3, "caption": "a"}]}, [])
    assert error_of(tmp_path, made) == f"questions.json: {said}"


def test_captions_whose_images_are_not_listed_have_coco_names(tmp_path: Path) -> None:
    made = Made({"images": [], "annotations": [{"id": 1, "image_id": 3, "caption": "a"}]}, [])
    assert read_questions(split_of(tmp_path, made)) == [Question(1, 3, "COCO_val2014_000000000003.jpg", "a")]


def test_annotations_of_questions_are_no_captions(tmp_path: Path) -> None:
    made = Made({"annotations": [{"question_id": 1, "image_id": 3, "answer": "a"}]}, [])
    assert "neither VQA JSON nor JSON Lines" in error_of(tmp_path, made)


def test_labels_to_choose_from_must_be_given(tmp_path: Path) -> None:
    said = error_of(tmp_path, rows({"image": "a.png", "label": "cat"}))
    assert said == "questions.json: images with labels; the split's 'labels' must say what to choose from"


def test_labels_are_taken_by_their_text_or_their_number(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\n\n  a dog \n")
    given = rows({"image": "a.png", "label": 1}, {"image": "b.png", "label": "cat"})
    for labels in (["cat", "a dog"], str(tmp_path / "labels.txt")):
        split = split_of(tmp_path, given, labels=labels, template="one {} here")
        assert [(q.question, q.ground_truth) for q in read_questions(split)] == [
            ("one {} here", "a dog"),
            ("one {} here", "cat"),
        ]
    bare = read_questions(split_of(tmp_path, rows({"image": "a.png"}), labels=["cat", "dog"]))
    assert bare == [Question(0, "a.png", "a.png", "a photo of a {}")]


@pytest.mark.parametrize(
    ("label", "labels", "said"),
    [
        ("bird", ["cat", "dog"], "questions.json: [0].label: 'bird' is none of the split's 2 labels"),
        (2, ["cat", "dog"], "questions.json: [0].label: 2 is none of the split's 2 labels"),
        (-1, ["cat", "dog"], "questions.json: [0].label: -1 is none of the split's 2 labels"),
        ("cat", "absent.txt", "absent.txt: no readable file of labels, one a line"),
        ("cat", "one.txt", "one.txt: 1 labels; expected two or more"),
        ("cat", "twice.txt", "twice.txt: the label 'cat' occurs twice"),
    ],
)
def test_labels_that_fit_nothing_are_refused(tmp_path: Path, label: Any, labels: Any, said: str) -> None:
    (tmp_path / "one.txt").write_text("cat\n")
    (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
    given = labels if isinstance(labels, list) else tmp_path / labels
    assert error_of(tmp_path, rows({"image": "a.png", "label": label}), labels=given).startswith(said)
