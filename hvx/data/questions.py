"""Questions and their ground truth, from the files in which data sets are published."""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

from hvx.config import SplitConfig
from hvx.data.image_files import named_by_pattern, why_unsafe
from hvx.data.layouts.daquar import DaquarRows, is_daquar_text
from hvx.data.layouts.known import LAYOUTS
from hvx.data.layouts.layout import Layout, Sample
from hvx.data.parquet import ParquetRows
from hvx.data.rows import Row, Rows
from hvx.errors import HvxError, did_you_mean, shown

Id = int | str
Say = Callable[[str], None]
_Source = Rows | ParquetRows | DaquarRows

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What HDF5's UTF-8 strings cannot hold."""
_NO_TEXT = "holds the character NUL or half a surrogate pair, which no run can store"
_SAID = itemgetter("answer")
_LIKE_A_TRUTH = frozenset(
    {"direct_answers", "label", "labels", "gt", "gts", "gt_answer", "gt_answers", "ground_truth",
     "ground_truths", "correct_answer", "correct_answers", "target", "targets", "solution"}
)  # fmt: skip
"""Fields that some layout may have its answers in."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question on one image; the last four fields are empty for a split without annotations."""

    question_id: Id
    image_id: Id
    image: str
    """The image's name below one of the split's folders of images."""
    question: str
    ground_truth: str = ""
    answers: tuple[str, ...] = ()
    """What each of the people asked said."""
    question_type: str = ""
    answer_type: str = ""


class _Texts(dict[str, str]):
    """Texts that occur again and again: each is held once and checked once."""

    def __missing__(self, given: Any) -> str:
        if type(given) not in (str, int, float):
            raise TypeError
        text = str(given)
        if not _storable(text):
            raise ValueError(f"an answer or type {_NO_TEXT}")
        if text is given:
            self[text] = text
        return text


class _Types(dict[str, str]):
    """Types of questions and answers without the spaces around them, each checked once."""

    def __missing__(self, given: Any) -> str:
        if type(given) is not str:
            raise TypeError
        if not _storable(given):
            raise ValueError(f"an answer or type {_NO_TEXT}")
        self[given] = given.strip()
        return self[given]


def _quiet(line: str) -> None:
    del line


def read_questions(split: SplitConfig, say: Say = _quiet) -> list[Question]:
    """The questions of a split in the order of its file, joined with their annotations.

    Annotations come from the split's file of them; without one, from the questions' own rows. The ground
    truth is ``multiple_choice_answer``; else the most frequent of ``answers``, of several the one given
    first; else ``answer``.

    Args:
        split: with its paths resolved.
        say: told of a field that looks like a ground truth and is not used, once.

    Raises:
        HvxError: a file is missing or in no known layout, holds no question, or lacks an annotation.
    """
    with _no_collection():
        rows = _opened(split)
        answers = Rows(split.annotations, "annotations") if split.annotations else None
        layout = _layout(split, rows, answers)
        return _Reading(split, layout, say).questions(rows, answers)


@contextmanager
def _no_collection() -> Iterator[None]:
    """No search for cycles meanwhile: rows have none, and going through all of them takes a third longer."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _opened(split: SplitConfig) -> _Source:
    """The split's file of questions."""
    path, name = split.questions, split.format
    known = [layout.name for layout in LAYOUTS]
    if name is not None and name not in known:
        raise HvxError(
            f"splits: format: no layout {shown(name)}{did_you_mean(name, known)}; known: {', '.join(known)}"
        )
    if name == "parquet" or (name is None and path.suffix.lower() == ".parquet"):
        return ParquetRows(path, split.folders[0])
    if name == "daquar-text" or (name is None and is_daquar_text(path)):
        return DaquarRows(path)
    return Rows(path, "questions", by_line=name == "jsonl" and path.suffix.lower() != ".json")


def _layout(split: SplitConfig, rows: _Source, answers: Rows | None) -> Layout:
    if split.format is not None:
        return next(layout for layout in LAYOUTS if layout.name == split.format)
    sample = Sample(rows.shape, rows.key, _first(rows), _first(answers) if answers else {})
    return next(layout for layout in LAYOUTS if layout.recognized(sample))


def _first(rows: _Source) -> Row:
    row = next((row for _, row in rows), None)
    return row if isinstance(row, dict) else {}


class _Ids:
    """Checks that the ids of one kind are all integers, or all texts."""

    def __init__(self) -> None:
        self._kind: type | None = None

    def check(self, value: Any, rows: _Source, number: int, field: str) -> Id:
        """An id of the row of this number, as it is given."""
        kind = type(value)
        if kind is self._kind and _storable(value) and value != "":
            found: Id = value
            return found
        place = rows.place(number, field)
        if kind not in (int, str) or value == "":
            raise HvxError(f"{place}: expected an integer or a text, not {shown(value)}")
        if self._kind not in (kind, None):
            words = {int: "an integer", str: "a text"}
            raise HvxError(
                f"{place}: {shown(value)} is {words[kind]}, an id before it {words[self._kind]}; "
                "expected ids of one kind"
            )
        if not _storable(value):
            reason = _NO_TEXT if kind is str else "does not fit 64 bits; write it as a text"
            raise HvxError(f"{place}: {shown(value)} {reason}")
        self._kind = kind
        return value


class _Reading:
    """A split being read in a layout."""

    def __init__(self, split: SplitConfig, layout: Layout, say: Say) -> None:
        self._split, self._layout, self._say = split, layout, say
        self._image_fields = frozenset(layout.image)
        self._pattern = split.image_name or layout.image_name
        self._question_ids, self._image_ids = _Ids(), _Ids()
        self._names: dict[Id, str] = {}
        self._texts, self._types = _Texts(), _Types()
        self._reported = False

    def questions(self, rows: _Source, annotations: Rows | None) -> list[Question]:
        """All of them, with their annotations."""
        asked: dict[Id, tuple[Any, ...]] = {}
        bare: list[int] = []
        kinds: dict[Id, Any] = {}  # of questions whose own rows say it
        for number, row in islice(self._rows(rows, self._layout.unfold), self._split.limit):
            question_id, image_id, name, text = self._asked(rows, number, row)
            if question_id in asked:
                raise HvxError(f"{rows.path}: question_id {shown(question_id)} occurs twice")
            if annotations is not None:
                said, kind = None, _of(row, self._layout.question_type)
                if type(kind) is str:
                    kinds[question_id] = kind
            elif (said := self._answered(rows, number, row, question_id)) is None:
                bare.append(number)
            asked[question_id] = (image_id, name, text, *(said or ()))
        if not asked:
            raise HvxError(f"{rows.path}: the split holds no questions")
        if annotations is not None:
            self._join(asked, kinds, rows, annotations)
        elif 0 < len(bare) < len(asked):
            raise HvxError(
                f"{rows.place(bare[0])}: no answer ({len(bare)} of {len(asked)} questions lack one; "
                "give it to all of them or to none)"
            )
        return [Question(question_id, *found) for question_id, found in asked.items()]

    def _join(
        self, asked: dict[Id, tuple[Any, ...]], kinds: dict[Id, str], rows: _Source, annotations: Rows
    ) -> None:
        """Add to each question what the file of annotations says of it."""
        seen: set[Id] = set()
        for number, row in self._rows(annotations, None):
            question_id = self._question_ids.check(row.get("question_id"), annotations, number, "question_id")
            if question_id in seen:
                raise HvxError(f"{annotations.path}: question_id {shown(question_id)} occurs twice")
            seen.add(question_id)
            if question_id in asked:
                if question_id in kinds:
                    row.setdefault(self._layout.question_type[0], kinds[question_id])
                said = self._answered(annotations, number, row, question_id)
                if said is None:
                    raise HvxError(
                        f"{annotations.place(number)}: no answer; expected 'multiple_choice_answer', "
                        f"'{self._layout.answers[0]}' or 'answer'"
                    )
                asked[question_id] += said
        missing = [question_id for question_id, found in asked.items() if len(found) == 3]
        if missing:
            raise HvxError(
                f"{annotations.path}: no annotation for question {shown(missing[0])} "
                f"({len(missing)} of {len(asked)} questions of {rows.path} lack one)"
            )

    def _rows(self, rows: _Source, unfold: Any) -> Iterator[tuple[int, Row]]:
        """Rows that are objects, and the rows in them."""
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
                inner = list(unfold(row))
            except (TypeError, KeyError):
                raise HvxError(f"{rows.place(number)}: not a row of layout {self._layout.name}") from None
            yield from ((number, one) for one in inner)

    def _asked(self, rows: _Source, number: int, row: Row) -> tuple[Id, Id, str, str]:
        """What a row asks: the first four fields of a ``Question``."""
        layout = self._layout
        text = row.get("question")
        if type(text) is not str:
            raise HvxError(f"{rows.place(number, 'question')}: expected text, not {shown(text)}")
        if not _storable(text):
            raise HvxError(f"{rows.place(number, 'question')}: {shown(text)} {_NO_TEXT}")
        found = _of(row, layout.question_id)
        question_id = self._question_ids.check(found, rows, number, layout.question_id[0])
        name = None if self._image_fields.isdisjoint(row) else _of(row, layout.image)
        image_id = _of(row, layout.image_id)
        if name is None and image_id is None:
            raise HvxError(
                f"{rows.place(number)}: no image; expected '{layout.image_id[0]}', or a name in "
                f"{' or '.join(map(repr, layout.image))}"
            )
        field = layout.image[0] if image_id is None else layout.image_id[0]
        image_id = self._image_ids.check(name if image_id is None else image_id, rows, number, field)
        known = self._names.get(image_id)
        if name is None:
            name = known or named_by_pattern(self._pattern, image_id)
        elif name != known:
            self._check_name(name, known, image_id, rows.place(number, "image"))
        self._names[image_id] = name
        return question_id, image_id, name, text

    @staticmethod
    def _check_name(name: Any, known: str | None, image_id: Id, place: str) -> None:
        """Refuse a name that leads out of the folder, or a second one of the same image."""
        if type(name) is not str:
            raise HvxError(f"{place}: expected a file's name below 'images', not {shown(name)}")
        reason = why_unsafe(name)
        if reason:
            raise HvxError(f"{place}: {shown(name)} {reason}")
        if known is not None:
            raise HvxError(f"{place}: image_id {shown(image_id)} is {shown(known)} in a row before, "
                           f"{shown(name)} here; expected one image for an id")  # fmt: skip

    def _answered(self, rows: _Source, number: int, row: Row, question_id: Id) -> tuple[Any, ...] | None:
        """What a row says of its question: the last four fields of a ``Question``; None without an answer."""
        if not self._reported and not _LIKE_A_TRUTH.isdisjoint(row):
            self._report(rows, row)
        texts, field = self._texts, self._layout.answers[0]
        try:
            given = row.get(field)
            if given is None and field != "answers":
                field, given = "answers", row.get("answers")
            answers = () if given is None else self._said(given)
            truth = row.get("multiple_choice_answer")
            if truth is None:
                truth = Counter(answers).most_common(1)[0][0] if answers else row.get("answer")
            if truth is None:
                return None
            truth = texts[truth]
            question_type = self._types[_of(row, self._layout.question_type) or ""]
            return truth, answers or (truth,), question_type, self._types[row.get("answer_type") or ""]
        except (TypeError, KeyError):
            reason = (
                f"expected '{field}' as a list of texts or of {{'answer': …}}; "
                "an answer or type as text, an answer as a number also"
            )
        except ValueError as error:
            reason = str(error)
        raise HvxError(f"{rows.path}: question {shown(question_id)}: {reason}")

    def _said(self, given: Any) -> tuple[str, ...]:
        """What people said, of a list of answers or of objects with one."""
        if type(given) is not list:
            raise TypeError
        answers = tuple(map(_SAID, given) if given and type(given[0]) is dict else given)
        try:
            joined = "\0".join(answers)  # one look at all of them: almost always there is nothing to mend
        except TypeError:
            joined = "\0" * (len(answers) + 1)
        if joined.isascii() and joined.count("\0") == max(0, len(answers) - 1):
            return answers
        return tuple(map(self._texts.__getitem__, answers))

    def _report(self, rows: _Source, row: Row) -> None:
        unused = [
            f for f in row if f in _LIKE_A_TRUTH and f not in self._layout.answers and row[f] is not None
        ]
        if unused:
            self._reported = True
            self._say(
                f"{rows.path}: '{unused[0]}' looks like a ground truth and is not used (layout "
                f"{self._layout.name}); hvx reads 'multiple_choice_answer', "
                f"'{self._layout.answers[0]}' and 'answer'"
            )


def _of(row: Row, fields: tuple[str, ...]) -> Any:
    """The value of the first of the fields that a row has."""
    value = row.get(fields[0])
    if value is not None or len(fields) == 1:
        return value
    return next((row[field] for field in fields[1:] if row.get(field) is not None), None)


def _storable(value: Any) -> bool:
    if type(value) is str:
        return (value.isascii() and "\0" not in value) or not _UNSTORABLE.search(value)
    return -(2**63) <= value < 2**63
