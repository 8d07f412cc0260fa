"""A layout of published questions: the fields of a row that make a question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hvx.data.json_records import Row, Shape

COCO_VAL = "COCO_val2014_{image_id:012d}.jpg"
COCO = "COCO_{data_subtype}_{image_id:012d}.jpg"
"""COCO's names; the subset is in the file of questions, else it is val2014."""
IMAGE_FIELDS = ("image", "image_name", "image_filename", "file_name")


@dataclass(frozen=True)
class Sample:
    """The properties by which a layout is recognized.

    Attributes:
        shape: the structure of the file; see ``hvx.data.json_records``.
        key: the key of the list of rows; empty if the rows are in none.
        row: the first row.
        annotation: the first row of the annotations; empty without such a file.
        about: values of the object with the rows, such as ``data_type``.
    """

    shape: Shape
    key: str
    row: Row
    annotation: Row
    about: Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """How a data set's files describe a question. Of several fields, the first one in a row is used.

    Attributes:
        name: the value of ``splits.*.format``.
        recognized: whether the files are in this layout; the first layout that returns True is used.
        question_id, image_id: fields of the ids.
        image: fields with the image's name, below the split's folder; used before ``image_name``.
        image_name: pattern of the names of images by id, unless the config gives one; ``{data_subtype}`` is
            replaced by the value in the file of questions, ``{coco_split}`` by the value in the row.
        answers: fields with a list of the people's answers.
        question_type: fields of the question's type.
        unfold: returns the rows of questions in one row of the file.
        text: the field of the question, or of a substitute such as a caption; None if the rows have none, and
            the split's template is used.
        numbered: rows without a question id get their number among all rows.
        active_only: rows whose ``active`` is false are ignored.
    """

    name: str
    recognized: Callable[[Sample], bool]
    question_id: tuple[str, ...] = ("question_id",)
    image_id: tuple[str, ...] = ("image_id",)
    image: tuple[str, ...] = IMAGE_FIELDS
    image_name: str = "{image_id}.jpg"
    answers: tuple[str, ...] = ("answers",)
    question_type: tuple[str, ...] = ("question_type",)
    unfold: Callable[[Row], Iterable[Row]] | None = None
    text: str | None = "question"
    numbered: bool = False
    active_only: bool = False

    def names(self, about: Mapping[str, str]) -> str:
        """The pattern of the names of images, for a file of questions with these values."""
        return self.image_name.replace("{data_subtype}", about.get("data_subtype", "val2014"))
