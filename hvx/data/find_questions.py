"""Finds questions of a split by their text, such as the rows of a paper's figures."""

from __future__ import annotations

import difflib
import heapq
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvx.config import PickConfig
from hvx.data.questions import Question
from hvx.errors import HvxError

_NO_LETTERS = re.compile(r"[\W_]+")
_COMPARED = 50
"""How many texts with most words in common with a missing one are compared letter by letter."""
_NAMED = 5
"""The most ground truths or question ids that an error names."""

_ByText = dict[str, list[Question]]


@dataclass(frozen=True)
class SelectedQuestions:
    """The selected questions.

    Attributes:
        picks: from the config.
        questions: those selected, each once, in the split's order.
        choices: for each pick, as in run.json: ``question_id``, the selected question, and ``candidates``,
            all that match, as ``[question_id, image_id, ground_truth]``, sorted by question_id.
    """

    picks: Sequence[PickConfig]
    questions: list[Question]
    choices: list[dict[str, Any]]

    def ambiguities(self) -> list[str]:
        """Lines that list the candidates of each pick that several questions match; may be empty."""
        lines: list[str] = []
        for pick, choice in zip(self.picks, self.choices, strict=True):
            candidates = choice["candidates"]
            if pick.question_id is not None or len(candidates) == 1:
                continue
            lines.append(f"{pick.figure}: '{_plain(pick.question)}' fits {len(candidates)} questions:")
            for question_id, image_id, truth in candidates:
                taken = "  (taken)" if question_id == choice["question_id"] else ""
                answer = f", '{_plain(truth)}'" if truth else ""
                lines.append(f"  question_id {question_id}, image {image_id}{answer}{taken}")
        if lines:
            lines.append("To take another, give its question_id: under explain.pick in the config.")
        return lines


def find_questions(questions: list[Question], picks: Sequence[PickConfig], source: Path) -> SelectedQuestions:
    """Find each pick's question by its text; of several that match, the lowest question_id is selected.

    Only letters and digits of texts are compared. If the split has annotations, a pick's ``ground_truth``
    limits the matches; its ``question_id`` selects one.

    Args:
        questions: of the split.
        picks: at least one.
        source: the split's file of questions, for errors.

    Raises:
        HvxError: a pick that is not in the split, or not with its ground truth or id.
    """
    by_text = _by_text(questions)
    absent = [pick for pick in picks if text_key(pick.question) not in by_text]
    if absent:
        text = absent[0].question
        raise HvxError(
            f"{source}: holds no question {text!r:.200}{_closest(text, by_text)}; "
            f"{len(absent)} of the {len(picks)} questions of explain.pick are not there"
        )
    annotated = any(question.answers for question in questions)
    choices = []
    for pick in picks:
        candidates = _candidates(pick, by_text[text_key(pick.question)], annotated, source)
        choices.append(
            {
                "question_id": _selected_id(candidates, pick),
                "candidates": [[q.question_id, q.image_id, q.ground_truth] for q in candidates],
            }
        )
    ids = {choice["question_id"] for choice in choices}
    return SelectedQuestions(
        picks, [question for question in questions if question.question_id in ids], choices
    )


def _selected_id(candidates: list[Question], pick: PickConfig) -> int | str:
    """The id of the question that a pick selects, as in the split's file."""
    named = (q.question_id for q in candidates if str(q.question_id) == str(pick.question_id))
    return next(named, candidates[0].question_id)


def text_key(text: str) -> str:
    """The letters and digits of a text, case-folded; equal for two texts of the same question."""
    return _NO_LETTERS.sub("", unicodedata.normalize("NFKC", text).casefold())


def _by_text(questions: list[Question]) -> _ByText:
    """Questions by the key of their text, without those that have no letters or digits."""
    by_text: _ByText = {}
    for question in questions:
        by_text.setdefault(text_key(question.question), []).append(question)
    by_text.pop("", None)
    return by_text


def _candidates(pick: PickConfig, questions: list[Question], annotated: bool, source: Path) -> list[Question]:
    """The questions with a pick's text and ground truth, sorted by question_id; its id must be among them."""
    candidates = sorted(questions, key=lambda question: question.question_id)
    with_truth = ""
    if annotated and pick.ground_truth is not None:
        truth = _folded(pick.ground_truth)
        candidates = [question for question in candidates if _folded(question.ground_truth) == truth]
        with_truth = f" with ground truth {pick.ground_truth!r:.60}"
        if not candidates:
            truths = Counter(f"{question.ground_truth!r:.60}" for question in questions)
            raise HvxError(
                f"{source}: holds the question {pick.question!r:.200}, but not{with_truth}; "
                f"there it has {_first_few([text for text, _ in truths.most_common()])}"
            )
    ids = [str(question.question_id) for question in candidates]
    if pick.question_id is not None and str(pick.question_id) not in ids:
        raise HvxError(
            f"{source}: question_id {pick.question_id} is not a question {pick.question!r:.200}{with_truth}; "
            f"these are: {_first_few(ids)}"
        )
    return candidates


def _closest(text: str, by_text: _ByText) -> str:
    """`` (did you mean 'x'?)`` with the split's text that is most similar, else an empty string."""
    words = _words(text)

    def shared(key: str) -> float:
        other_words = _words(by_text[key][0].question)
        return len(other_words & words) / max(1, len(other_words | words))

    near = heapq.nlargest(_COMPARED, by_text, key=shared)
    close = difflib.get_close_matches(text_key(text), near, n=1, cutoff=0.6)
    return f" (did you mean {by_text[close[0]][0].question!r:.200}?)" if close else ""


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def _folded(answer: str) -> str:
    """An answer, case-folded, with single spaces."""
    return " ".join(answer.casefold().split())


def _first_few(names: list[str]) -> str:
    remaining = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {remaining} others" if remaining > 0 else "")


def _plain(text: str) -> str:
    """Text from a split on one line, without control characters, for a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
