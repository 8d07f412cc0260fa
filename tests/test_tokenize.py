"""Tokens, the vocabulary's rows, and questions side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvx.config import EncoderConfig
from hvx.data.tokenize import (
    PADDING,
    TOKENIZERS,
    Vocabulary,
    padded,
    tokenize_mcb,
    tokenize_nltk,
    tokenize_sentences,
    tokenizer,
)
from hvx.errors import HvxError

PRINTED = Path(__file__).parents[2] / "shared" / "paper" / "printed-zscores.json"
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("question", "tokens"),
    [
        ("what color is the toddler's hair?", ["what", "color", "is", "the", "toddler", "'s", "hair", "?"]),
        ("What is the Person EATING?", ["what", "is", "the", "person", "eating", "?"]),
        ("Isn't it red, or blue?", ["is", "n't", "it", "red", ",", "or", "blue", "?"]),
        ("is this a t-ball game", ["is", "this", "a", "t-ball", "game"]),
        ("", []),
        ("  \t\n", []),
        ("?", ["?"]),
    ],
)
def test_nltk_tokens_are_lower_case_words_and_keep_the_question_mark(
    question: str, tokens: list[str]
) -> None:
    assert tokenize_nltk(question) == tokens


@pytest.mark.skipif(not PRINTED.is_file(), reason=f"the paper's printed rows are not at {PRINTED}")
def test_nltk_tokens_are_those_that_the_paper_prints() -> None:
    rows = json.loads(PRINTED.read_text())["rows"]
    assert len(rows) == 12
    for row in rows:
        assert tokenize_nltk(row["question"]) == row["tokens"]
        as_asked = row["question"].replace(" ?", "?").replace(" 's", "'s").capitalize()
        assert tokenize_nltk(as_asked) == row["tokens"]


@pytest.mark.parametrize(
    ("question", "tokens"),
    [
        ("What color is the toddler's hair?", ["what", "color", "is", "the", "toddlers", "hair"]),
        ("Is it half-full or half/empty?", ["is", "it", "half", "full", "or", "half", "empty"]),
        ('(a) "b": $5, c; d. e! @f', ["a", "b", "5", "c", "d", "e", "f"]),
        ("3.5 U.S.A. 5:30", ["35", "usa", "530"]),
        ("100% #1 a&b _x*", ["100%", "#1", "a&b", "_x*"]),
        ("what\tis \n it", ["what", "is", "it"]),
        ("?", []),
        ("- / -", []),
        ("", []),
    ],
)
def test_mcb_tokens_drop_punctuation_and_split_at_hyphens_and_slashes(
    question: str, tokens: list[str]
) -> None:
    assert tokenize_mcb(question) == tokens


@settings(deadline=None)
@given(st.text(st.sampled_from("aB3 ?!'\"$:@(),.;-/%")))
def test_mcb_tokens_follow_their_definition(question: str) -> None:
    text = question.lower()
    for dropped in "?!'\"$:@(),.;":
        text = text.replace(dropped, "")
    for split in "-/":
        text = text.replace(split, " ")
    assert tokenize_mcb(question) == text.split()


@pytest.mark.parametrize(
    ("question", "tokens"),
    [
        ("there is a dog. is it big?", ["there", "is", "a", "dog", ".", "is", "it", "big", "?"]),
        ("What is this? A Cat. Or not", ["what", "is", "this", "?", "a", "cat", ".", "or", "not"]),
        ("is it 3.5 m?", ["is", "it", "3.5", "m", "?"]),
        ("is mr. smith in the u.s. now?", ["is", "mr.", "smith", "in", "the", "u.s.", "now", "?"]),
        ("what color is the toddler's hair?", ["what", "color", "is", "the", "toddler", "'s", "hair", "?"]),
        ("", []),
    ],
)
def test_sentences_are_split_before_words_where_the_encoder_says_so(question: str, tokens: list[str]) -> None:
    split = tokenizer(EncoderConfig(sentences=True))
    assert split(question) == tokens
    assert tokenizer(EncoderConfig(tokenizer="mcb", sentences=True))(question) == tokenize_mcb(question)


def test_without_sentences_a_period_within_stays_with_its_word() -> None:
    question = "there is a dog. is it big?"
    assert tokenizer(EncoderConfig())(question) == ["there", "is", "a", "dog.", "is", "it", "big", "?"]


def test_a_question_is_cut_at_the_encoders_number_of_tokens() -> None:
    question = " ".join(f"w{number}" for number in range(40)) + "?"
    assert tokenizer(EncoderConfig(max_tokens=26))(question) == [f"w{number}" for number in range(26)]
    for name in ("nltk", "mcb"):
        cut = tokenizer(EncoderConfig(tokenizer=name, max_tokens=2))  # type: ignore[arg-type]
        assert cut("what is it ?") == ["what", "is"] and cut("what") == ["what"]
    assert len(tokenizer(EncoderConfig())(question)) == 41


@settings(deadline=None)
@given(st.text())
def test_tokens_are_never_empty_whatever_is_asked(question: str) -> None:
    for tokenize in (*TOKENIZERS.values(), tokenize_sentences):
        assert all(token and token == token.strip() for token in tokenize(question))


def test_word_i_has_row_i_plus_1() -> None:
    vocabulary = Vocabulary(("what", "UNK", "is"))
    assert vocabulary.rows(["is", "what", "is"]) == [3, 1, 3]
    assert vocabulary.rows([]) == []
    assert len(vocabulary) == 3


def test_an_unknown_word_has_the_row_of_unk_or_of_padding_without_one() -> None:
    assert Vocabulary(("what", "UNK", "is")).rows(["is", "zebra", "UNK"]) == [3, 2, 2]
    assert Vocabulary(("what", "is")).rows(["is", "zebra", "UNK"]) == [2, PADDING, PADDING]


def test_a_word_that_occurs_twice_is_refused_by_name() -> None:
    with pytest.raises(HvxError, match=r"^vocabulary: the word 'is' occurs twice$"):
        Vocabulary(("what", "is", "it", "is"))


def test_a_vocabulary_of_questions_is_sorted_and_holds_unk() -> None:
    vocabulary = Vocabulary.from_tokens([["what", "is", "it"], ["is", "it"], ["it"]])
    assert vocabulary.words == ("UNK", "is", "it", "what")


@pytest.mark.parametrize(
    ("min_count", "words"),
    [(1, ("UNK", "is", "it", "what")), (2, ("UNK", "is", "it")), (3, ("UNK", "it")), (4, ("UNK",))],
)
def test_words_that_occur_too_rarely_are_left_to_unk(min_count: int, words: tuple[str, ...]) -> None:
    tokens = [["what", "is", "it"], ["is", "it"], ["it"]]
    assert Vocabulary.from_tokens(tokens, min_count).words == words


def test_a_word_that_is_itself_unk_is_held_once() -> None:
    assert Vocabulary.from_tokens([["UNK", "a"]]).words == ("UNK", "a")


@settings(deadline=None)
@given(st.lists(st.lists(WORDS, max_size=6), max_size=8))
def test_every_word_of_its_questions_has_a_row_of_its_own(questions: list[list[str]]) -> None:
    vocabulary = Vocabulary.from_tokens(questions)
    rows = vocabulary.rows(vocabulary.words)
    assert rows == list(range(1, len(vocabulary) + 1))
    for tokens in questions:
        assert [vocabulary.words[row - 1] for row in vocabulary.rows(tokens)] == tokens


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 99), max_size=6), max_size=8))
def test_questions_side_by_side_are_padded_on_the_right(rows: list[list[int]]) -> None:
    matrix, lengths = padded(rows)
    assert matrix.dtype == lengths.dtype == np.int64
    assert matrix.shape == (len(rows), max([1, *map(len, rows)]))
    assert lengths.tolist() == [len(row) for row in rows]
    for found, row in zip(matrix.tolist(), rows, strict=True):
        assert found == row + [PADDING] * (len(found) - len(row))


@settings(deadline=None)
@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6))
def test_a_word_is_unknown_where_it_has_no_row_of_its_own(known: list[str], asked: list[str]) -> None:
    vocabulary = Vocabulary.from_tokens([known])
    of_unknown = vocabulary.words.index("UNK") + 1
    expected = [
        row == of_unknown and token != "UNK" for row, token in zip(vocabulary.rows(asked), asked, strict=True)
    ]
    assert vocabulary.unknown(asked) == expected
    assert Vocabulary(("a",)).unknown(["a", "b"]) == [False, True]  # without UNK's row
