"""Reads a row's ground truth, the people's answers, and the types of question and answer."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Any

from hvx.data.ids import NO_TEXT, Id, storable
from hvx.data.json_records import Row
from hvx.data.layouts.layout import Layout
from hvx.errors import HvxError, shown
from hvx.progress import Log

_GET_ANSWER = itemgetter("answer")
_TRUTH_LIKE_FIELDS = frozenset(
    {"direct_answers", "label", "labels", "gt", "gts", "gt_answer", "gt_answers", "ground_truth",
     "ground_truths", "correct_answer", "correct_answers", "target", "targets", "solution"}
)  # fmt: skip
"""Fields in which other layouts may have answers."""


class _Texts(dict[str, str]):
    """Repeated texts: each is stored once and checked once."""

    def __missing__(self, value: Any) -> str:
        if type(value) not in (str, int, float):
            raise TypeError
        text = str(value)
        if not storable(text):
            raise ValueError(f"an answer or type {NO_TEXT}")
        if text is value:
            self[text] = text
        return text


class _Types(dict[str, str]):
    """Types of questions and answers, stripped of white space, each checked once."""

    def __missing__(self, value: Any) -> str:
        if type(value) is not str:
            raise TypeError
        if not storable(value):
            raise ValueError(f"an answer or type {NO_TEXT}")
        self[value] = value.strip()
        return self[value]


class GroundTruths:
    """Reads ground truths in a layout.

    Args:
        layout: names the fields.
        log: is told once if a field looks like a ground truth and is not used.
    """

    def __init__(self, layout: Layout, log: Log) -> None:
        self._layout, self._log = layout, log
        self._texts, self._types = _Texts(), _Types()
        self._reported = False

    def of(self, row: Row, path: Path, question_id: Id) -> tuple[Any, ...] | None:
        """The last four fields of a ``Question``, from a row; None without an answer.

        Raises:
            HvxError: an answer or a type is invalid, or cannot be stored.
        """
        if not self._reported and not _TRUTH_LIKE_FIELDS.isdisjoint(row):
            self._report(row, path)
        texts, field = self._texts, self._layout.answers[0]
        try:
            listed = row.get(field)
            if listed is None and field != "answers":
                field, listed = "answers", row.get("answers")
            answers = () if listed is None else self._parse_answers(listed)
            truth = row.get("multiple_choice_answer")
            if truth is None:
                truth = Counter(answers).most_common(1)[0][0] if answers else row.get("answer")
            if truth is None:
                return None
            truth = texts[truth]
            question_type = self._types[first_of(row, self._layout.question_type) or ""]
            return truth, answers or (truth,), question_type, self._types[row.get("answer_type") or ""]
        except (TypeError, KeyError):
            reason = (
                f"expected '{field}' as a list of texts or of {{'answer': …}}; "
                "an answer or type as text, an answer as a number also"
            )
        except ValueError as error:
            reason = str(error)
        raise HvxError(f"{path}: question {shown(question_id)}: {reason}")

    def _parse_answers(self, listed: Any) -> tuple[str, ...]:
        """The people's answers, from a list of answers or of objects with an answer each."""
        if type(listed) is not list:
            raise TypeError
        answers = tuple(map(_GET_ANSWER, listed) if listed and type(listed[0]) is dict else listed)
        try:
            joined = "\0".join(answers)  # one check for all answers: most need no conversion
        except TypeError:
            joined = "\0" * (len(answers) + 1)
        if joined.isascii() and joined.count("\0") == max(0, len(answers) - 1):
            return answers
        return tuple(map(self._texts.__getitem__, answers))

    def _report(self, row: Row, path: Path) -> None:
        unused = [
            f for f in row if f in _TRUTH_LIKE_FIELDS and f not in self._layout.answers and row[f] is not None
        ]
        if unused:
            self._reported = True
            self._log(
                f"{path}: '{unused[0]}' looks like a ground truth and is not used (layout "
                f"{self._layout.name}); hvx reads 'multiple_choice_answer', "
                f"'{self._layout.answers[0]}' and 'answer'"
            )


def first_of(row: Row, fields: tuple[str, ...]) -> Any:
    """The value of the first of the fields that a row has."""
    for field in fields:
        value = row.get(field)
        if value is not None:
            return value
    return None
