"""Questions and their ground truth, from the files in which data sets are published."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice, starmap
from typing import Any

from msgspec import Struct

from hvx.config import SplitConfig
from hvx.data.ground_truth import GroundTruths, first_of
from hvx.data.ids import NO_TEXT, Id, Ids, storable
from hvx.data.image_files import named_by_pattern, why_unsafe
from hvx.data.json_records import Row, VQARecords
from hvx.data.labels import label_names
from hvx.data.layouts.daquar import DaquarRows, is_daquar_text
from hvx.data.layouts.known import LABELS, LAYOUTS
from hvx.data.layouts.layout import Layout, Sample
from hvx.data.parquet import ParquetRows
from hvx.errors import HvxError, did_you_mean, shown
from hvx.progress import Log, no_log

_Source = VQARecords | ParquetRows | DaquarRows


class Question(Struct, frozen=True, gc=False):
    """One question on one image; the last four fields are empty for a split without annotations."""

    question_id: Id
    image_id: Id
    image: str
    """The image's name, below one of the split's folders of images."""
    question: str
    ground_truth: str = ""
    answers: tuple[str, ...] = ()
    """The answer of each person."""
    question_type: str = ""
    answer_type: str = ""


def read_questions(split: SplitConfig, log: Log = no_log, *, extract: bool = True) -> list[Question]:
    """The questions of a split in the order of its file, joined with their annotations.

    Annotations come from the split's file of annotations; without one, from the rows of the questions. The
    ground truth is ``multiple_choice_answer``; else the most frequent of ``answers``, the first of equally
    frequent ones; else ``answer``.

    Args:
        split: with its paths resolved.
        log: is told once if a field looks like a ground truth and is not used.
        extract: write images in the file of questions (Parquet) to the folder of images.

    Raises:
        HvxError: a file is missing or in no known layout, has no question, or lacks an annotation.
    """
    with _no_collection():
        rows = _opened(split, extract)
        answers = VQARecords(split.annotations, "annotations") if split.annotations else None
        layout = _layout(split, rows, answers)
        if layout is LABELS and split.labels is None:
            raise HvxError(
                f"{split.questions}: images with labels; the split's 'labels' must say what to choose from"
            )
        return _Reading(split, layout, rows.about, log).questions(rows, answers)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Disable garbage collection of cycles: rows have none, and scanning them takes a third more time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _opened(split: SplitConfig, extract: bool) -> _Source:
    """The split's file of questions."""
    path, name = split.questions, split.format
    known = [layout.name for layout in LAYOUTS]
    if name is not None and name not in known:
        raise HvxError(
            f"splits: format: no layout {shown(name)}{did_you_mean(name, known)}; known: {', '.join(known)}"
        )
    if in_parquet(split):
        return ParquetRows(path, split.folders[0] if extract else None)
    if name == "daquar-text" or (name is None and is_daquar_text(path)):
        return DaquarRows(path)
    return VQARecords(path, "questions")


def in_parquet(split: SplitConfig) -> bool:
    """Whether the split's questions are read as a Parquet file."""
    return split.format == "parquet" or (
        split.format is None and split.questions.suffix.lower() == ".parquet"
    )


def _layout(split: SplitConfig, rows: _Source, answers: VQARecords | None) -> Layout:
    if split.format is not None:
        return next(layout for layout in LAYOUTS if layout.name == split.format)
    if split.labels is not None:
        return LABELS
    sample = Sample(rows.shape, rows.key, _first(rows), _first(answers) if answers else {}, rows.about)
    return next(layout for layout in LAYOUTS if layout.recognized(sample))


def _first(rows: _Source) -> Row:
    row = next((row for _, row in rows), None)
    return row if isinstance(row, dict) else {}


class _Reading:
    """Reads a split in a layout."""

    def __init__(self, split: SplitConfig, layout: Layout, about: Mapping[str, str], log: Log) -> None:
        self._split, self._layout = split, layout
        self._image_fields = frozenset(layout.image)
        self._pattern = split.image_name or layout.names(about)
        self._question_ids, self._image_ids = Ids(), Ids()
        self._names: dict[Id, str] = {}
        self._truths = GroundTruths(layout, log)
        self._labels = label_names(split)
        self._count = 0

    def questions(self, rows: _Source, annotations: VQARecords | None) -> list[Question]:
        """All questions, with their annotations."""
        by_id: dict[Id, tuple[Any, ...]] = {}
        lacking: list[int] = []
        kinds: dict[Id, Any] = {}  # question types from the questions' rows
        self._name_images(rows)
        for number, row in islice(self._rows(rows, self._layout.unfold), self._split.limit):
            question_id, image_id, name, text = self._question_fields(rows, number, row)
            if question_id in by_id:
                raise HvxError(f"{rows.path}: question_id {shown(question_id)} occurs twice")
            if annotations is not None:
                truth, kind = None, first_of(row, self._layout.question_type)
                if type(kind) is str:
                    kinds[question_id] = kind
            elif (truth := self._truths.of(row, rows.path, question_id)) is None:
                lacking.append(number)
            by_id[question_id] = (image_id, name, text, *(truth or ()))
        if not by_id:
            raise HvxError(f"{rows.path}: the split holds no questions")
        if annotations is not None:
            self._join(by_id, kinds, rows, annotations)
        elif 0 < len(lacking) < len(by_id):
            raise HvxError(
                f"{rows.place(lacking[0])}: no answer ({len(lacking)} of {len(by_id)} questions lack one; "
                "give it to all of them or to none)"
            )
        return list(starmap(Question, ((question_id, *fields) for question_id, fields in by_id.items())))

    def _name_images(self, rows: _Source) -> None:
        """Read the names of images from COCO's list of images."""
        for number, image in enumerate(getattr(rows, "images", ())):
            location = f"{rows.path}: images[{number}]"
            if type(image) is not dict:
                raise HvxError(f"{location}: expected an object, not {shown(image)}")
            image_id, name = image.get("id"), image.get("file_name")
            if not isinstance(image_id, (int, str)):
                raise HvxError(f"{location}.id: expected an integer or a text, not {shown(image_id)}")
            self._check_name(name, None, image_id, f"{location}.file_name")
            self._names[image_id] = str(name)

    def _join(
        self, by_id: dict[Id, tuple[Any, ...]], kinds: dict[Id, str], rows: _Source, annotations: VQARecords
    ) -> None:
        """Add the annotation of each question."""
        seen: set[Id] = set()
        for number, row in self._rows(annotations, None):
            question_id = self._question_ids.check(row.get("question_id"), annotations, number, "question_id")
            if question_id in seen:
                raise HvxError(f"{annotations.path}: question_id {shown(question_id)} occurs twice")
            seen.add(question_id)
            if question_id in by_id:
                if question_id in kinds:
                    row.setdefault(self._layout.question_type[0], kinds[question_id])
                truth = self._truths.of(row, annotations.path, question_id)
                if truth is None:
                    raise HvxError(
                        f"{annotations.place(number)}: no answer; expected 'multiple_choice_answer', "
                        f"'{self._layout.answers[0]}' or 'answer'"
                    )
                by_id[question_id] += truth
        if missing := by_id.keys() - seen:
            first = next(question_id for question_id in by_id if question_id in missing)
            raise HvxError(
                f"{annotations.path}: no annotation for question {shown(first)} "
                f"({len(missing)} of {len(by_id)} questions of {rows.path} lack one)"
            )

    def _rows(self, rows: _Source, unfold: Any) -> Iterator[tuple[int, Row]]:
        """The rows, or the rows inside them if the layout unfolds rows; each must be an object."""
        active_only = self._layout.active_only
        for number, row in rows:
            if type(row) is not dict:
                raise HvxError(f"{rows.place(number)}: expected an object, not {shown(row)}")
            if active_only and row.get("active") is False:
                continue
            if unfold is None:
                yield number, row
                continue
            try:
                inner_rows = list(unfold(row))
            except (TypeError, KeyError):
                raise HvxError(f"{rows.place(number)}: not a row of layout {self._layout.name}") from None
            yield from ((number, inner_row) for inner_row in inner_rows)

    def _question_fields(self, rows: _Source, number: int, row: Row) -> tuple[Id, Id, str, str]:
        """The first four fields of a ``Question``, from a row."""
        layout = self._layout
        text = self._split.template if layout.text is None else row.get(layout.text)
        if type(text) is not str:
            raise HvxError(f"{rows.place(number, str(layout.text))}: expected text, not {shown(text)}")
        if not storable(text):
            raise HvxError(f"{rows.place(number, str(layout.text))}: {shown(text)} {NO_TEXT}")
        if layout.text is None:
            self._take_label(rows, number, row)
        given_id = first_of(row, layout.question_id)
        if given_id is None and layout.numbered:
            given_id, self._count = self._count, self._count + 1
        question_id = self._question_ids.check(given_id, rows, number, layout.question_id[0])
        image_id = first_of(row, layout.image_id)
        name = None if self._image_fields.isdisjoint(row) else first_of(row, layout.image)
        if name is None and image_id is None:
            raise HvxError(
                f"{rows.place(number)}: no image; expected '{layout.image_id[0]}', or a name in "
                f"{' or '.join(map(repr, layout.image))}"
            )
        field = layout.image[0] if image_id is None else layout.image_id[0]
        image_id = self._image_ids.check(name if image_id is None else image_id, rows, number, field)
        known = self._names.get(image_id)
        if name is None:
            name = known or named_by_pattern(self._pattern, image_id, row.get("coco_split"))
        elif name != known:
            self._check_name(name, known, image_id, rows.place(number, "image"))
        if known is None:
            self._names[image_id] = name
        return question_id, image_id, name, text

    def _take_label(self, rows: _Source, number: int, row: Row) -> None:
        """Set a row's answer to the text of its label, which may be an index into the list of labels."""
        label = row.get("answer")
        if label is None or self._labels is None:
            return
        if type(label) is int and 0 <= label < len(self._labels):
            row["answer"] = self._labels[label]
        elif label not in self._labels:
            raise HvxError(f"{rows.place(number, 'label')}: {shown(label)} is none of the split's "
                           f"{len(self._labels)} labels")  # fmt: skip

    @staticmethod
    def _check_name(name: Any, known: str | None, image_id: Id, location: str) -> None:
        """Refuse a name that leads out of the folder, or a second name of the same image."""
        if type(name) is not str:
            raise HvxError(f"{location}: expected a file's name below 'images', not {shown(name)}")
        reason = why_unsafe(name)
        if reason:
            raise HvxError(f"{location}: {shown(name)} {reason}")
        if known is not None:
            raise HvxError(f"{location}: image_id {shown(image_id)} is {shown(known)} in a row before, "
                           f"{shown(name)} here; expected one image for an id")  # fmt: skip
