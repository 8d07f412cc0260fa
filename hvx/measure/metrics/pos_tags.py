"""The part of speech of each token of a question, without downloads at run time.

Tags are the universal ones (Petrov et al. 2012; AUX and PART as in Universal Dependencies), and WH for
question words. Words of a closed class are looked up in a list. The others are tagged by TextBlob's tagger (a
lexicon and Brill's rules, in its package), which is mostly right but mistags some closed-class words of
questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from hvx.extras import require
from hvx.measure.metrics.words import COLORS

_WORDS = {
    "WH": "what which who whom whose where when why how",
    "AUX": ("is are was were am be been being can could will would shall should may might must"),
    "DET": "the a an any some every each no all both either neither another",
    "PRON": (
        "i you he she it we they me him her us them my your his its our their hers ours theirs there someone "
        "somebody something anyone anybody anything everyone everything nobody nothing"
    ),
    "ADP": (
        "of in on at by for with from to into onto above below under over behind between beside near around "
        "against through across along inside outside beneath underneath among upon"
    ),
    "CONJ": "and or but nor",
    "PART": "not n't",
    "ADV": "close",  # to the wall
}
_CLOSED = {word: tag for tag, words in _WORDS.items() for word in words.split()}
_DEMONSTRATIVES = {"this", "that", "these", "those"}
_SIDES = {"left", "right"}
_HELPERS = {"do", "does", "did", "have", "has", "had"}
"""Auxiliaries unless another one comes before them: ``does the man have``."""
_PENN = {
    "NN": "NOUN", "VB": "VERB", "JJ": "ADJ", "RB": "ADV", "IN": "ADP", "TO": "ADP", "RP": "ADP", "DT": "DET",
    "PR": "PRON", "EX": "PRON", "WP": "WH", "WD": "WH", "WR": "WH", "CC": "CONJ", "CD": "NUM", "MD": "AUX",
    "PO": "PART", "PD": "DET",
}  # fmt: skip
"""The first two letters of a tag of the Penn treebank → our tags."""
_OTHER = "X"
_PARTICIPLE = re.compile(r"(ing|ed|en)$")
_NO_WORD = re.compile(r"[\W_]+")


def check_installed() -> None:
    """Reject the measure if the tagger is not installed, before any work is done.

    Raises:
        HvxError: says what to install.
    """
    require("measure", "the part of speech of a word", "textblob")


@lru_cache(maxsize=1 << 16)
def parts_of_speech(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The tag of each token of a question, in lower case or not.

    Raises:
        HvxError: TextBlob, which comes with the extra ``measure``, is not installed.
    """
    words = [token.lower() for token in tokens]
    guesses = _guessed(words)
    tags: list[str] = []
    for index, word in enumerate(words):
        following = guesses[index + 1] if index + 1 < len(words) else ""
        tags.append(_tag(word, guesses[index], tags, words[:index], following))
    return tuple(tags)


def _tag(word: str, guess: str, tags: Sequence[str], before: Sequence[str], following: str) -> str:
    """One word's tag, from the tagger's guess, the tags before it and the guess after it."""
    if _NO_WORD.fullmatch(word):
        return "PUNCT"
    if word.isdigit():
        return "NUM"  # the tagger's lexicon has 2 as an abbreviation of to
    if word == "'s":
        return "AUX" if tags and tags[-1] in ("WH", "PRON") else "PART"
    if word in _DEMONSTRATIVES:
        return "DET" if following in ("NOUN", "ADJ", "NUM") else "PRON"
    if word in _HELPERS:
        return "VERB" if "AUX" in tags else "AUX"
    if word in _SIDES:
        if not before or tags[-1] != "DET":
            return "ADV"
        return "ADJ" if following == "NOUN" else "NOUN"
    if word in COLORS:
        return "ADJ"
    if guess == "VERB" and _after_a_modifier(tags, before) and not _PARTICIPLE.search(word):
        return "NOUN"  # the cross, how many crosses, the number of crosses
    return _CLOSED.get(word, guess)


def _after_a_modifier(tags: Sequence[str], before: Sequence[str]) -> bool:
    """Whether the next word cannot be the plain form of a verb."""
    return bool(tags) and tags[-1] in ("DET", "ADJ", "ADP") and before[-1] != "to"


def _guessed(words: list[str]) -> list[str]:
    """The tag that TextBlob's tagger gives to each word."""
    check_installed()
    from textblob.en import tag

    tagged = tag(" ".join(words), tokenize=False)
    if len(tagged) != len(words):  # it splits some symbols
        tagged = [(tag(word, tokenize=False) or [("", "")])[0] for word in words]
    return [_PENN.get(penn[:2], _OTHER) for _, penn in tagged]
