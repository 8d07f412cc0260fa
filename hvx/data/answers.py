"""The accuracies of an answer, and what their evaluators do to answers before comparing.

Two are in use: ``vqa``, the official one of VQA v1 and v2 (under Python 3), and ``evalai``, that of MMF's
``EvalAIAnswerProcessor``, by which TextVQA is scored. Both take the mean over the sets that leave one person
out; they differ in what they do to the texts.

What the evaluator of visualqa.org does (its current form) is kept even where it is odd, since the numbers
that people publish are its numbers:

- Where all of the people asked said the same, nothing but white space at the ends is touched, neither in
  their answers nor in the predicted one: "Yes." then misses ten times "yes".
- Whether a punctuation mark vanishes or becomes a space is decided for all its places at once: it vanishes
  where any of them has a space beside it, or where the answer has a comma between two digits anywhere.
- Colons and apostrophes stay. Periods go unless a digit follows, but only the first 32 of them.
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
"""At most so many periods go: the evaluator hands a flag of that value over as the count."""

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
"""Ending → what it is joined to, for each contraction that the evaluator knows. Not among them are those
whose bare form is a word of its own (we'll, she'd), nor those of "I": it looks for its capital in answers
already lower-case."""

_ENOUGH = 4
"""Answers from which the official formula can reach 1."""
_CACHED = 1 << 16


def _contractions() -> dict[str, str]:
    """What lacks an apostrophe → what has it; of several apostrophes just one may be missing."""
    found = {"somebody'd": "somebodyd"}  # the wrong way round in the evaluator
    for ending, stems in _STEMS.items():
        for word in (stem + ending for stem in stems.split()):
            found |= {word[:i] + word[i + 1 :]: word for i, letter in enumerate(word) if letter == "'"}
    return found


_CONTRACTIONS = _contractions()


@lru_cache(_CACHED)
def normalized(answer: str) -> str:
    """An answer as the official evaluator compares it where people disagree.

    White space, punctuation and periods first, then lower case, number words, articles and contractions.
    """
    return _normalized(_stripped(answer))


@lru_cache(_CACHED)
def evalai_normalized(answer: str) -> str:
    """An answer as MMF's evaluator compares it: lower case first, commas and question marks go, "'s" becomes
    a word of its own; then as ``normalized``."""
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
    kept = (word for word in (_WORDS.get(word, word) for word in words) if word not in _ARTICLES)
    return " ".join(_CONTRACTIONS.get(word, word) for word in kept)


@lru_cache(_CACHED)
def _stripped(answer: str) -> str:
    """An answer without white space at its ends, and with spaces for tabs and line breaks."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(predicted: str, answers: Sequence[str]) -> float:
    """How right an answer is, between 0 and 1.

    From four answers on this is the official accuracy: the mean, over the sets that leave one person out,
    of min(1, matches / 3). From fewer that formula cannot reach 1 even where all agree (of three people a
    set holds two), so data sets with fewer answers, such as DAQUAR with its one, get the plain rule: 1 where
    the answer is that of any person once both are normalized, else 0.

    Args:
        predicted: the answer to judge.
        answers: what each of the people asked said.

    Raises:
        ValueError: there is no answer to compare with.
    """
    if not answers:
        raise ValueError("no answers to compare with")
    if len(answers) < _ENOUGH:
        return float(normalized(predicted) in map(normalized, answers))
    said = [_stripped(answer) for answer in answers]
    if len(set(said)) > 1:
        matches = [normalized(answer) for answer in answers].count(normalized(predicted))
    else:
        matches = said.count(_stripped(predicted))
    return _leave_one_out(matches, len(answers))


def evalai_accuracy(predicted: str, answers: Sequence[str]) -> float:
    """As ``vqa_accuracy``, with ``evalai_normalized`` answers, also where all of the people said the same."""
    if not answers:
        raise ValueError("no answers to compare with")
    own, given = evalai_normalized(predicted), [evalai_normalized(answer) for answer in answers]
    if len(answers) < _ENOUGH:
        return float(own in given)
    return _leave_one_out(given.count(own), len(answers))


def _leave_one_out(matches: int, people: int) -> float:
    """The mean of min(1, matches / 3) over the sets that leave one of the people out."""
    # The sets that leave out one who said it hold one match less than the others.
    thirds = matches * min(3, matches - 1) + (people - matches) * min(3, matches)
    return thirds / (3 * people)


ACCURACIES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "vqa": vqa_accuracy,
    "evalai": evalai_accuracy,
}
"""By the name that a split's config gives (``accuracy``), and that metrics carry (``val_vqa_accuracy``)."""
