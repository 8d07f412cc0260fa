"""The layouts that hvx knows. To add one, add it to ``LAYOUTS``, before those that also match its files."""

from __future__ import annotations

from collections.abc import Iterator

from hvx.data.json_records import Row
from hvx.data.layouts.layout import COCO, Layout, Sample


def _visual_genome_rows(row: Row) -> Iterator[Row]:
    """The questions on one image, each with the image's id."""
    for question in row["qas"]:
        yield {"image_id": row.get("image_id", row.get("id")), **question}


def _gqa_rows(row: Row) -> Iterator[Row]:
    """GQA has several types for a question; the structural one is the coarsest."""
    types = row.get("types")
    if isinstance(types, dict):
        row["question_type"] = types.get("structural")
    yield row


def _caption_rows(row: Row) -> Iterator[Row]:
    """The captions of one image, a row each."""
    captions = row.get("captions")
    if "caption" in row or captions is None:
        yield row
        return
    if type(captions) is not list:
        raise TypeError
    for caption in captions:
        yield {name: value for name, value in row.items() if name not in _ANY_ID} | {"caption": caption}


def _label_rows(row: Row) -> Iterator[Row]:
    """An image with its label or without one."""
    yield {name: value for name, value in row.items() if name != "label"} | {"answer": row.get("label")}


def _has_captions(sample: Sample) -> bool:
    return "question" not in sample.row and bool({"caption", "captions"} & sample.row.keys())


def _has_label_alone(sample: Sample) -> bool:
    return "label" in sample.row and not {"question", "caption", "captions"} & sample.row.keys()


def _has_raw_answer(sample: Sample) -> bool:
    answers = sample.annotation.get("answers")
    return isinstance(answers, list) and bool(answers) and isinstance(answers[0], dict) and (
        "raw_answer" in answers[0]
    )  # fmt: skip


def _is_a_okvqa(sample: Sample) -> bool:
    return "choices" in sample.row and bool({"direct_answers", "difficult_direct_answer"} & sample.row.keys())


def _is_vizwiz(sample: Sample) -> bool:
    image = sample.row.get("image")
    return "question_id" not in sample.row and isinstance(image, str) and (
        "answerable" in sample.row or image.startswith("VizWiz")
    )  # fmt: skip


_RADIOLOGY = {"qid", "image_name"}
_ANY_ID = ("question_id", "qid", "id")

LABELS = Layout(
    "labels", _has_label_alone,
    question_id=_ANY_ID, unfold=_label_rows, text=None, numbered=True,
)  # fmt: skip
"""Also the layout of any split with labels to choose from."""

LAYOUTS = (
    Layout("daquar-text", lambda sample: sample.shape == "text"),
    Layout(
        "coco-captions", lambda sample: sample.key == "annotations", question_id=("id",), text="caption",
        image_name=COCO,
    ),
    Layout(
        "captions", _has_captions, question_id=_ANY_ID, unfold=_caption_rows, text="caption", numbered=True
    ),
    LABELS,
    Layout("parquet", lambda sample: sample.shape == "parquet", question_id=_ANY_ID),
    Layout(
        "vqa-cp", lambda sample: "coco_split" in sample.row,
        image_name="COCO_{coco_split}_{image_id:012d}.jpg",
    ),
    Layout(
        "a-okvqa", _is_a_okvqa, image_name="{image_id:012d}.jpg", answers=("direct_answers", "answers")
    ),
    Layout("gqa", lambda sample: "imageId" in sample.row, image_id=("imageId",), unfold=_gqa_rows),
    Layout(
        "visual-genome", lambda sample: isinstance(sample.row.get("qas"), list), question_id=("qa_id",),
        unfold=_visual_genome_rows,
    ),
    Layout(
        "clevr", lambda sample: {"question_index", "image_filename"} <= sample.row.keys(),
        question_id=("question_index",), image_id=("image_index",),
    ),
    Layout(
        "rsvqa", lambda sample: sample.key == "questions" and {"id", "active"} <= sample.row.keys(),
        question_id=("id",), image_id=("img_id",), image_name="{image_id}.tif", question_type=("type",),
        active_only=True,
    ),
    Layout("vqa-rad", lambda sample: sample.row.keys() >= _RADIOLOGY, question_id=("qid",)),
    Layout("vizwiz", _is_vizwiz, question_id=("image",)),
    Layout("textvqa", lambda sample: sample.key == "data"),
    Layout("ok-vqa", _has_raw_answer, image_name=COCO),
    Layout("tdiuc", lambda sample: "ans_source" in sample.annotation, image_name=COCO),
    Layout(
        "abstract-scenes", lambda sample: sample.about.get("data_type", "").startswith("abstract"),
        image_name="abstract_v002_{data_subtype}_{image_id:012d}.png",
    ),
    Layout("vqa", lambda sample: sample.key == "questions", image_name=COCO),
    Layout("jsonl", lambda sample: True, question_id=_ANY_ID, image_name=COCO),
)  # fmt: skip
