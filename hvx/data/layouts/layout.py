"""What a layout of published questions is: where a row has what a question needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hvx.data.rows import Row, Shape

COCO_VAL = "COCO_val2014_{image_id:012d}.jpg"
COCO = "COCO_{data_subtype}_{image_id:012d}.jpg"
"""COCO's names; the file of questions says of which subset, else it is val2014."""
IMAGE_FIELDS = ("image", "image_name", "image_filename", "file_name")


@dataclass(frozen=True)
class Sample:
    """What a layout is recognized by.

    Attributes:
        shape: what holds the rows; see ``hvx.data.rows``.
        key: the name of their list, empty where they are in none.
        row: the first row.
        annotation: the first row of the annotations; empty without such a file.
        about: what the object around the rows says, such as ``data_type``.
    """

    shape: Shape
    key: str
    row: Row
    annotation: Row
    about: Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """How a data set's own files say what a question is. Of several fields, the first that a row has counts.

    Attributes:
        name: as ``splits.*.format`` gives it.
        recognized: whether the files are in this layout; the first layout that says so is taken.
        question_id, image_id: fields of the ids.
        image: fields that name the image, below the split's folder; these go before ``image_name``.
        image_name: pattern of the names of images by id, unless the config gives one; ``{data_subtype}`` in
            it is what the file of questions says, ``{coco_split}`` what the row says.
        answers: fields with a list of all that people answered.
        question_type: fields of the question's type.
        unfold: the rows of questions in one row of the file.
        text: the field of the question, or of what stands in its place, such as a caption; None: the rows
            have none, and the split's template takes its place.
        numbered: rows without an id of a question have their number among all rows.
        active_only: rows whose ``active`` is false are no questions and no answers.
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
        """The pattern of the names of images, for a file of questions that says this of itself."""
        return self.image_name.replace("{data_subtype}", about.get("data_subtype", "val2014"))
