"""VQA accuracies of an answer, and how their evaluators normalize answers before comparing them.

There are two: ``vqa``, the official accuracy of VQA v1 and v2 (under Python 3), and ``evalai``, that of MMF's
``EvalAIAnswerProcessor``, used for TextVQA. Both take the mean over the sets that leave one person out; they
differ in how they normalize texts.

The current evaluator of visualqa.org is followed even where it is odd, since published numbers come from it:

- If all people gave the same answer, only white space at the ends is removed, from their answers and from the
  predicted one: "Yes." then does not match ten answers "yes".
- Whether a punctuation mark is deleted or replaced by a space is decided once for all of its occurrences: it
  is deleted if any of them is next to a space, or if the answer has a comma between two digits anywhere.
- Colons and apostrophes stay. Periods are deleted unless a digit follows, but only the first 32 of them.
- Number words end at ten, "none" is 0, and an answer that is only an article becomes empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS = 32
"""At most so many periods are deleted: the evaluator passes a flag of that value as the count."""

_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}

_STEMS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
    "n't've": "could had might should would",
    "'d": "he how it someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who y'all you",
    "'ll": "how it somebody someone something they what who why y'all you",
    "'re": "there they what why you",
    "'s": "he how somebody someone that there what when where who why",
    "'ve": "could might must not should they we what where who would you",
    "": "ma'am o'clock 'ow's'at 'twas y'all",
}
"""Ending → stems, for each contraction that the evaluator knows. Contractions that are another word without
the apostrophe (we'll, she'd) are not included, nor are those of "I": the evaluator looks for the capital in
answers that are already lower-case."""

_ENOUGH = 4
"""The least number of answers with which the official formula can reach 1."""
_CACHED = 1 << 16


def _contractions() -> dict[str, str]:
    """Word without an apostrophe → contraction; of several apostrophes, exactly one is missing."""
    contractions = {"somebody'd": "somebodyd"}  # reversed in the evaluator
    for ending, stems in _STEMS.items():
        for word in (stem + ending for stem in stems.split()):
            contractions |= {word[:i] + word[i + 1 :]: word for i, letter in enumerate(word) if letter == "'"}
    return contractions


_CONTRACTIONS = _contractions()


@lru_cache(_CACHED)
def normalized(answer: str) -> str:
    """An answer as the official evaluator normalizes it if people disagree.

    White space, punctuation and periods first, then lower case, number words, articles and contractions.
    """
    return _normalized(_stripped(answer))


@lru_cache(_CACHED)
def evalai_normalized(answer: str) -> str:
    """An answer as MMF's evaluator normalizes it: lower case, commas and question marks deleted, "'s" split
    off as a separate word; then as ``normalized``."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _normalized(_stripped(text.strip()))


def _normalized(text: str) -> str:
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    spaced = text
    for mark in _MARKS:
        if mark in text:
            vanishes = in_number or f"{mark} " in text or f" {mark}" in text
            spaced = spaced.replace(mark, "" if vanishes else " ")
    words = _PERIOD.sub("", spaced, count=_PERIODS).lower().split()
    content = (word for word in (_WORDS.get(word, word) for word in words) if word not in _ARTICLES)
    return " ".join(_CONTRACTIONS.get(word, word) for word in content)


@lru_cache(_CACHED)
def _stripped(answer: str) -> str:
    """An answer without white space at its ends, and with spaces for tabs and line breaks."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(predicted: str, answers: Sequence[str]) -> float:
    """The accuracy of an answer, from 0 to 1.

    With four or more answers this is the official accuracy: the mean, over the sets that leave one person
    out, of min(1, matches / 3). With fewer answers that formula cannot reach 1 even if all people agree (of
    three people, a set has two). Data sets with fewer answers, such as DAQUAR with one, get a simple rule: 1
    if the normalized answer equals that of any person, else 0.

    Args:
        predicted: the answer to score.
        answers: the answer of each person.

    Raises:
        ValueError: there is no answer to compare with.
    """
    if not answers:
        raise ValueError("no answers to compare with")
    if len(answers) < _ENOUGH:
        return float(normalized(predicted) in map(normalized, answers))
    stripped = [_stripped(answer) for answer in answers]
    if len(set(stripped)) > 1:
        matches = [normalized(answer) for answer in answers].count(normalized(predicted))
    else:
        matches = stripped.count(_stripped(predicted))
    return _leave_one_out(matches, len(answers))


def evalai_accuracy(predicted: str, answers: Sequence[str]) -> float:
    """As ``vqa_accuracy``, with ``evalai_normalized`` answers, even if all people gave the same answer."""
    if not answers:
        raise ValueError("no answers to compare with")
    matches = list(map(evalai_normalized, answers)).count(evalai_normalized(predicted))
    if len(answers) < _ENOUGH:
        return float(matches > 0)
    return _leave_one_out(matches, len(answers))


def _leave_one_out(matches: int, people: int) -> float:
    """The mean of min(1, matches / 3) over the sets that leave one of the people out."""
    # A set that leaves out a person with a matching answer has one match less than the others.
    thirds = matches * min(3, matches - 1) + (people - matches) * min(3, matches)
    return thirds / (3 * people)


ACCURACIES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "vqa": vqa_accuracy,
    "evalai": evalai_accuracy,
}
"""By the name in a split's config (``accuracy``) and in the names of metrics (``val_vqa_accuracy``)."""
