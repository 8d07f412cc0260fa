"""Questions and their ground truth, as VQA JSON has them, or JSON Lines of the same fields."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

from hvx.config import SplitConfig
from hvx.data.rows import Rows
from hvx.errors import HvxError

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What HDF5's UTF-8 strings cannot hold."""
_NO_TEXT = "holds the character NUL or half a surrogate pair, which no run can store"
_SAID = itemgetter("answer")
_QUESTION = {"question_id": int, "image_id": int, "question": str}
_ANNOTATION = {"question_id": int, "multiple_choice_answer": str}


@dataclass(frozen=True, slots=True)
class Question:
    """One question on one image; the last four fields are empty for a split without annotations."""

    question_id: int
    image_id: int
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


def read_questions(split: SplitConfig) -> list[Question]:
    """The questions of a split in the order of its file, joined with their annotations.

    Annotations come from the split's file of them; without one, from the questions' own rows, where these
    carry a ``multiple_choice_answer``.

    Raises:
        HvxError: a file is missing or neither VQA JSON nor JSON Lines, holds no question, or lacks an
            annotation.
    """
    texts = _Texts()
    with _no_collection():
        if split.annotations is None:
            return _self_annotated(split, texts)
        return _joined(split, Rows(split.annotations, "annotations"), texts)


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


def _self_annotated(split: SplitConfig, texts: _Texts) -> list[Question]:
    """The questions of a split without a file of annotations, annotated where their own rows are."""
    rows = Rows(split.questions, "questions")
    questions: list[Question] = []
    bare: list[int] = []
    for number, row in _question_rows(split, rows):
        given: tuple[Any, ...] = ()
        if row.get("multiple_choice_answer") is None:
            bare.append(number)
        else:
            _check(rows, number, row, _ANNOTATION)
            given = _annotation(row, rows, texts)
        questions.append(Question(row["question_id"], row["image_id"], row["question"], *given))
    if 0 < len(bare) < len(questions):
        raise HvxError(
            f"{rows.place(bare[0], 'multiple_choice_answer')}: missing ({len(bare)} of {len(questions)} "
            "questions lack one; give it to all of them or to none)"
        )
    return questions


def _joined(split: SplitConfig, annotations: Rows, texts: _Texts) -> list[Question]:
    """The questions of a split joined with their annotations by id."""
    asked = {
        row["question_id"]: (row["image_id"], row["question"])
        for _, row in _question_rows(split, Rows(split.questions, "questions"))
    }
    found: dict[int, tuple[Any, ...]] = {}
    for _, row in _checked(annotations, _ANNOTATION):
        if row["question_id"] in asked:
            found[row["question_id"]] = _annotation(row, annotations, texts)
    missing = [question_id for question_id in asked if question_id not in found]
    if missing:
        raise HvxError(
            f"{annotations.path}: no annotation for question {missing[0]} "
            f"({len(missing)} of {len(asked)} questions of {split.questions} lack one)"
        )
    return [Question(question_id, *asked[question_id], *found[question_id]) for question_id in asked]


def _annotation(row: dict[str, Any], rows: Rows, texts: _Texts) -> tuple[Any, ...]:
    """What a row says of its question: the last four fields of a ``Question``."""
    truth = texts[row["multiple_choice_answer"]]
    try:
        answers = tuple(map(texts.__getitem__, map(_SAID, row.get("answers", ())))) or (truth,)
        return truth, answers, _type(row, "question_type", texts), _type(row, "answer_type", texts)
    except (TypeError, KeyError):
        reason = "expected 'answers' as a list of {'answer': …}"
    except ValueError as error:
        reason = str(error)
    raise HvxError(f"{rows.path}: question {row['question_id']}: {reason}")


def _type(row: dict[str, Any], field: str, texts: _Texts) -> str:
    """A question's or answer's type, empty where there is none."""
    found = row.get(field)
    if found is not None and not isinstance(found, str):
        raise ValueError(f"expected '{field}' as text, not {found!r:.40}")
    return texts[found or ""]


def _question_rows(split: SplitConfig, rows: Rows) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a split's questions up to its limit, of which there must be one."""
    number = None
    for number, row in islice(_checked(rows, _QUESTION), split.limit):
        yield number, row
    if number is None:
        raise HvxError(f"{split.questions}: the split holds no questions")


def _checked(rows: Rows, wanted: dict[str, type]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with the fields ``wanted``, and each ``question_id`` once."""
    seen: set[int] = set()
    for number, row in rows:
        _check(rows, number, row, wanted)
        if row["question_id"] in seen:
            raise HvxError(f"{rows.path}: question_id {row['question_id']} occurs twice")
        seen.add(row["question_id"])
        yield number, row


def _check(rows: Rows, number: int, row: Any, wanted: dict[str, type]) -> None:
    """Refuse a row that lacks a field, or has one that no run could store: before the work, not after."""
    if not isinstance(row, dict):
        raise HvxError(f"{rows.place(number)}: expected an object with {', '.join(wanted)}")
    for field, kind in wanted.items():
        value = row.get(field)
        if type(value) is not kind:
            raise HvxError(f"{rows.place(number, field)}: expected {kind.__name__}, not {value!r:.40}")
        if not _storable(value):
            reason = _NO_TEXT if kind is str else "does not fit 64 bits"
            raise HvxError(f"{rows.place(number, field)}: {value!r:.40} {reason}")


def _storable(value: Any) -> bool:
    if isinstance(value, str):
        return (value.isascii() and "\0" not in value) or not _UNSTORABLE.search(value)
    return -(2**63) <= value < 2**63
