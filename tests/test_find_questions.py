"""Questions found by their text: what matches, what is taken of several, what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvx.config import PickConfig, checked
from hvx.data.find_questions import SelectedQuestions, find_questions
from hvx.data.questions import Question
from hvx.errors import HvxError

SOURCE = Path("split/questions.json")


def asked(question_id: int, text: str, truth: str | None = None, image_id: int | None = None) -> Question:
    answers = () if truth is None else (truth,)
    return Question(question_id, image_id or 100 + question_id, "a.png", text, truth or "", answers)


def picked(questions: list[Question], *picks: str | dict[str, Any]) -> SelectedQuestions:
    given = [PickConfig.model_validate({"question": p} if isinstance(p, str) else p) for p in picks]
    return find_questions(questions, given, SOURCE)


def chosen(found: SelectedQuestions) -> list[int]:
    return [choice["question_id"] for choice in found.choices]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("what color is the toddler 's hair ?", "What color is the toddler's hair?"),
        ("is the little boy playing t ball ?", "Is the little boy playing t-ball?"),
        ("is the little boy playing t ball ?", "is the little boy playing  T\u2011ball"),
        ("what is the person eating ?", "WHAT IS THE PERSON EATING"),
        ("what color is the toddler 's hair ?", "What color is the toddler\u2019s hair?"),
        ("is it 5 o'clock ?", "Is it 5 o_clock?"),
        ("what is a cafe\u0301 ?", "What is a caf\u00e9?"),
    ],
)
def test_case_spaces_and_punctuation_do_not_matter(wanted: str, text: str) -> None:
    questions = [asked(1, "Is it raining?"), asked(2, text), asked(3, "What is it?")]
    assert picked(questions, wanted).questions == [questions[1]]


@pytest.mark.parametrize("text", ["is it 6 ?", "is it ?", "is it 55 ?", "is he 5 ?"])
def test_letters_and_digits_do_matter(text: str) -> None:
    with pytest.raises(HvxError, match="holds no question"):
        picked([asked(1, "Is it 5?")], text)


TEXTS = st.text(st.sampled_from("aAbB1 ?'-"), max_size=5)


@given(st.lists(st.tuples(TEXTS, st.sampled_from(["yes", "no"])), min_size=1, max_size=30), TEXTS)
def test_candidates_are_those_that_a_look_at_every_question_finds(
    split: list[tuple[str, str]], wanted: str
) -> None:
    questions = [asked(id_, text, truth) for id_, (text, truth) in enumerate(split[::-1])][::-1]
    letters = "".join(c for c in wanted.lower() if c.isalnum())
    same = [
        q for q in questions if letters and "".join(c for c in q.question.lower() if c.isalnum()) == letters
    ]
    expected = sorted(q.question_id for q in same if q.ground_truth == "yes")
    try:
        found = picked(questions, {"question": wanted, "ground_truth": "yes"})
    except HvxError:
        assert not expected
        return
    assert [candidate[0] for candidate in found.choices[0]["candidates"]] == expected
    assert chosen(found) == expected[:1]


def test_a_ground_truth_narrows_what_fits_whatever_its_case_and_spaces() -> None:
    questions = [
        asked(1, "What colors?", "red"),
        asked(2, "what colors", "red and blue"),
        asked(3, "What colors?"),
    ]
    found = picked(questions, {"question": "what colors ?", "ground_truth": " Red  and BLUE"})
    assert found.choices == [{"question_id": 2, "candidates": [[2, 102, "red and blue"]]}]
    assert found.ambiguities() == []


def test_without_annotations_a_ground_truth_narrows_nothing() -> None:
    questions = [asked(8, "What colors?"), asked(4, "What colors?")]
    found = picked(questions, {"question": "what colors", "ground_truth": "red"})
    assert found.choices == [{"question_id": 4, "candidates": [[4, 104, ""], [8, 108, ""]]}]


def test_of_several_the_lowest_question_id_is_taken_and_all_are_listed() -> None:
    questions = [asked(9, "Happy?", "yes", 5), asked(7, "happy ?", "yes", 6), asked(8, "Happy?", "no", 7)]
    found = picked(questions, {"question": "happy", "ground_truth": "yes", "figure": "figure2"})
    assert found.questions == [questions[1]]
    assert found.choices == [{"question_id": 7, "candidates": [[7, 6, "yes"], [9, 5, "yes"]]}]
    assert found.ambiguities() == [
        "figure2: 'happy' fits 2 questions:",
        "  question_id 7, image 6, 'yes'  (taken)",
        "  question_id 9, image 5, 'yes'",
        "To take another, give its question_id: under explain.pick in the config.",
    ]


def test_a_question_id_takes_one_of_several_and_leaves_nothing_to_say() -> None:
    questions = [asked(7, "Happy?", "yes"), asked(9, "happy", "yes")]
    found = picked(questions, {"question": "happy", "ground_truth": "yes", "question_id": 9})
    assert chosen(found) == [9]
    assert [candidate[0] for candidate in found.choices[0]["candidates"]] == [7, 9]
    assert found.ambiguities() == []


def test_an_ambiguity_is_told_without_characters_that_move_the_cursor() -> None:
    found = picked([asked(1, "Happy?", "\x1b[2Jno\n"), asked(2, "Happy?", "yes")], "happy\n?")
    assert all(line.isprintable() for line in found.ambiguities())


def test_questions_stand_in_the_splits_order_each_once_whatever_the_picks_order() -> None:
    questions = [asked(5, "One?"), asked(3, "Two?"), asked(4, "Three?"), asked(1, "Four?")]
    found = picked(
        questions, "four", {"question": "one", "figure": "a"}, "two", {"question": "One", "figure": "b"}
    )
    assert found.questions == [questions[0], questions[1], questions[3]]
    assert chosen(found) == [1, 5, 3, 5]


def test_a_text_that_is_nowhere_is_named_with_the_file_the_count_and_the_closest_text() -> None:
    crowd = [asked(n, f"How many of the {n} people are in picture {n}?") for n in range(10, 400)]
    questions = [*crowd, asked(1, "What is the person eating?"), asked(2, "Is it red?")]
    with pytest.raises(HvxError) as refusal:
        picked(questions, "is it red", "WHAT is the persn eating ?", "where is Waldo")
    message = str(refusal.value)
    assert message.startswith("split/questions.json: holds no question 'WHAT is the persn eating ?'")
    assert "did you mean 'What is the person eating?'" in message
    assert "2 of the 3 questions of explain.pick are not there" in message


@pytest.mark.parametrize("text", ["", "?", " -- "])
def test_a_pick_without_letters_fits_nothing_not_even_its_like(text: str) -> None:
    with pytest.raises(HvxError, match=r"holds no question .*1 of the 1 questions"):
        picked([asked(1, "?"), asked(2, "")], text)


def test_a_text_that_is_there_with_other_ground_truths_is_told_them_the_commonest_first() -> None:
    truths = ["brown", "blond", "blond", *(f"gray {n}" for n in range(6))]
    questions = [asked(n, "What hair?", truth) for n, truth in enumerate(truths)]
    with pytest.raises(HvxError) as refusal:
        picked(questions, {"question": "what hair", "ground_truth": "blonde"})
    assert str(refusal.value) == (
        "split/questions.json: holds the question 'what hair', but not with ground truth 'blonde'; "
        "there it has 'blond', 'brown', 'gray 0', 'gray 1', 'gray 2' and 3 others"
    )


def test_a_question_id_of_another_text_or_ground_truth_is_told_those_that_fit() -> None:
    questions = [asked(1, "Happy?", "yes"), asked(2, "Happy?", "no"), asked(3, "Sad?", "yes")]
    for wrong in (2, 3, 4):
        with pytest.raises(HvxError) as refusal:
            picked(questions, {"question": "happy", "ground_truth": "yes", "question_id": wrong})
        assert f"question_id {wrong} is not a question 'happy' with ground truth 'yes'" in str(refusal.value)
        assert str(refusal.value).endswith("these are: 1")


@pytest.mark.parametrize(
    "name", ["", "../figure2", "a/b", "a\\b", ".figure", "figure\n", "nul\0", "x" * 41, "a.png"]
)
def test_a_figure_that_cannot_name_a_file_is_refused(name: str) -> None:
    with pytest.raises(HvxError, match=r"config: figure: expected at most 40 letters"):
        checked(PickConfig, {"question": "happy", "figure": name}, "config")


def test_printed_scores_that_are_not_one_for_each_token_are_refused() -> None:
    pick = {"question": "happy", "printed_tokens": ["happy", "?"], "printed_z": [0.5]}
    with pytest.raises(HvxError, match=r"there are 1 printed_z and 2 printed_tokens"):
        checked(PickConfig, pick, "config")
