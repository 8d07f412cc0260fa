"""What a row says of its question: the ground truth, what people answered, and types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

from hvx.data.ids import NO_TEXT, Id, storable
from hvx.data.layouts.layout import Layout
from hvx.data.rows import Row
from hvx.errors import HvxError, shown

Say = Callable[[str], None]

_SAID = itemgetter("answer")
_LIKE_A_TRUTH = frozenset(
    {"direct_answers", "label", "labels", "gt", "gts", "gt_answer", "gt_answers", "ground_truth",
     "ground_truths", "correct_answer", "correct_answers", "target", "targets", "solution"}
)  # fmt: skip
"""Fields that some layout may have its answers in."""


class _Texts(dict[str, str]):
    """Texts that occur again and again: each is held once and checked once."""

    def __missing__(self, given: Any) -> str:
        if type(given) not in (str, int, float):
            raise TypeError
        text = str(given)
        if not storable(text):
            raise ValueError(f"an answer or type {NO_TEXT}")
        if text is given:
            self[text] = text
        return text


class _Types(dict[str, str]):
    """Types of questions and answers without the spaces around them, each checked once."""

    def __missing__(self, given: Any) -> str:
        if type(given) is not str:
            raise TypeError
        if not storable(given):
            raise ValueError(f"an answer or type {NO_TEXT}")
        self[given] = given.strip()
        return self[given]


class GroundTruths:
    """Reads them in a layout.

    Args:
        layout: names the fields.
        say: told, once, of a field that looks like a ground truth and is not used.
    """

    def __init__(self, layout: Layout, say: Say) -> None:
        self._layout, self._say = layout, say
        self._texts, self._types = _Texts(), _Types()
        self._reported = False

    def of(self, row: Row, path: Path, question_id: Id) -> tuple[Any, ...] | None:
        """What a row says of its question: the last four fields of a ``Question``; None without an answer.

        Raises:
            HvxError: an answer or a type is none, or cannot be stored.
        """
        if not self._reported and not _LIKE_A_TRUTH.isdisjoint(row):
            self._report(row, path)
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

    def _report(self, row: Row, path: Path) -> None:
        unused = [
            f for f in row if f in _LIKE_A_TRUTH and f not in self._layout.answers and row[f] is not None
        ]
        if unused:
            self._reported = True
            self._say(
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
