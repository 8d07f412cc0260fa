"""Questions and their ground truth, as VQA JSON has them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvx.config import SplitConfig
from hvx.errors import HvxError
from hvx.files import read_json

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What HDF5's UTF-8 strings cannot hold."""
_NO_TEXT = "holds the character NUL or half a surrogate pair, which no run can store"


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


def read_questions(split: SplitConfig) -> list[Question]:
    """The questions of a split in the order of its file, joined with their annotations.

    Raises:
        HvxError: a file is missing or not VQA JSON, holds no question, or lacks an annotation.
    """
    rows = _rows(split.questions, "questions", {"question_id": int, "image_id": int, "question": str})
    if not rows:
        raise HvxError(f"{split.questions}: the split holds no questions")
    _unique_ids(split.questions, rows)
    rows = rows[: split.limit]
    if split.annotations is None:
        return [Question(row["question_id"], row["image_id"], row["question"]) for row in rows]
    wanted = {"question_id": int, "multiple_choice_answer": str}
    annotated = _rows(split.annotations, "annotations", wanted)
    _unique_ids(split.annotations, annotated)
    annotations = {row["question_id"]: row for row in annotated}
    missing = [row["question_id"] for row in rows if row["question_id"] not in annotations]
    if missing:
        raise HvxError(
            f"{split.annotations}: no annotation for question {missing[0]} "
            f"({len(missing)} of {len(rows)} questions of {split.questions} lack one)"
        )
    return [_annotated(row, annotations[row["question_id"]], split.annotations) for row in rows]


def _annotated(row: dict[str, Any], annotation: dict[str, Any], path: Path) -> Question:
    truth = annotation["multiple_choice_answer"]
    try:
        answers = tuple(str(person["answer"]) for person in annotation.get("answers", ())) or (truth,)
    except (TypeError, KeyError):
        raise HvxError(
            f"{path}: question {row['question_id']}: expected 'answers' as a list of {{'answer': …}}"
        ) from None
    types = [str(annotation.get(field) or "") for field in ("question_type", "answer_type")]
    if _UNSTORABLE.search("".join((*answers, *types))):
        raise HvxError(f"{path}: question {row['question_id']}: an answer or type {_NO_TEXT}")
    return Question(row["question_id"], row["image_id"], row["question"], truth, answers, *types)


def _rows(path: Path, key: str, wanted: dict[str, type]) -> list[dict[str, Any]]:
    """The list under ``key``, each of its objects checked for the fields ``wanted``."""
    tree = read_json(path, f"the split's {key}")
    rows = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(rows, list):
        raise HvxError(f"{path}: not VQA JSON: expected an object with a list '{key}'")
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise HvxError(f"{path}: {key}[{place}]: expected an object with {', '.join(wanted)}")
        for field, kind in wanted.items():
            if type(row.get(field)) is not kind:
                raise HvxError(
                    f"{path}: {key}[{place}].{field}: expected {kind.__name__}, not {row.get(field)!r:.40}"
                )
            if not _storable(row[field]):
                reason = _NO_TEXT if kind is str else "does not fit 64 bits"
                raise HvxError(f"{path}: {key}[{place}].{field}: {row[field]!r:.40} {reason}")
    return rows


def _storable(value: int | str) -> bool:
    """Whether a run's files can hold the value, so that it is refused before the work, not after."""
    return not _UNSTORABLE.search(value) if isinstance(value, str) else -(2**63) <= value < 2**63


def _unique_ids(path: Path, rows: list[dict[str, Any]]) -> None:
    seen: set[int] = set()
    for row in rows:
        if row["question_id"] in seen:
            raise HvxError(f"{path}: question_id {row['question_id']} occurs twice")
        seen.add(row["question_id"])
