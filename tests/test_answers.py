"""The official accuracy: cases worked by hand, and a second, slow implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvx.config import SplitConfig
from hvx.data.answers import evalai_accuracy, evalai_normalized, normalized, vqa_accuracy
from hvx.data.questions import read_questions

# Normalization by hand


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("Yes", "yes"),
        ("  yes\n", "yes"),
        ("left\tside\nof  it", "left side of it"),
        ("ÉTÉ", "été"),
        ("", ""),
    ],
)
def test_case_and_white_space_do_not_count(answer: str, wanted: str) -> None:
    assert normalized(answer) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("a dog", "dog"),
        ("The man on an old horse", "man on old horse"),
        ("a", ""),
        ("the the", ""),
        ("theory", "theory"),
        ("vitamin A", "vitamin"),
    ],
)
def test_articles_go(answer: str, wanted: str) -> None:
    assert normalized(answer) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("none", "0"),
        ("Zero", "0"),
        ("two", "2"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("one and a half", "1 and half"),
        ("twenty-one", "twenty 1"),
        ("no one", "no 1"),
        ("someone", "someone"),
    ],
)
def test_number_words_up_to_ten_become_digits(answer: str, wanted: str) -> None:
    assert normalized(answer) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("dont know", "don't know"),
        ("don't know", "don't know"),
        ("DONT", "don't"),
        ("isnt", "isn't"),
        ("cant", "can't"),
        ("wont", "won't"),
        ("aint", "ain't"),
        ("5 oclock", "5 o'clock"),
        ("twas", "'twas"),
        ("yall", "y'all"),
        ("whats", "what's"),
        ("theyre", "they're"),
        ("couldve", "could've"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("ow's'at", "'ow's'at"),
    ],
)
def test_a_missing_apostrophe_is_put_back(answer: str, wanted: str) -> None:
    assert normalized(answer) == wanted


@pytest.mark.parametrize(
    "answer",
    ["its", "were", "well", "hell", "ill", "shes", "lets", "wed", "im", "ive", "couldntve", "girl's"],
)
def test_what_the_evaluator_takes_for_no_contraction_stays(answer: str) -> None:
    assert normalized(answer) == answer


def test_the_one_contraction_that_loses_its_apostrophe() -> None:
    assert normalized("somebody'd") == "somebodyd"
    assert normalized("somebodyd") == "somebodyd"


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("black-white", "black white"),
        ("black - white", "black white"),
        ("t-shirt -", "tshirt"),
        ("red/blue", "red blue"),
        ("red/ blue/green", "red bluegreen"),
        ("yes!", "yes"),
        ("what?", "what"),
        ("(left)", "left"),
        ("a_b", "b"),
        ("red,blue", "red blue"),
        ("red, blue", "red blue"),
        ("red, white,blue", "red whiteblue"),
        ("100,978", "100978"),
        ("1,000-2,000", "10002000"),
        ("1,000 black-white", "1000 blackwhite"),
        ("2:50 pm", "2:50 pm"),
        ("man's", "man's"),
        ("'stop'", "'stop'"),
        ("50%", "50%"),
        ("$5", "$5"),
        ("{[<>]}", ""),
        ("x=y+z", "x y z"),
        ("a\\b`c@d;e", "b c d e"),
    ],
)
def test_punctuation_vanishes_or_becomes_a_space(answer: str, wanted: str) -> None:
    assert normalized(answer) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("yes.", "yes"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("5.", "5"),
        ("u.s.a", "usa"),
        ("v.2", "v.2"),
        ("wait...", "wait"),
        ("x" + 32 * ".", "x"),
        ("x" + 34 * ".", "x.."),
    ],
)
def test_periods_go_unless_a_digit_follows(answer: str, wanted: str) -> None:
    assert normalized(answer) == wanted


# Accuracy by hand


@pytest.mark.parametrize(
    ("matches", "wanted"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (5, 1.0), (9, 1.0), (10, 1.0)]
)
def test_of_ten_people_four_are_enough(matches: int, wanted: float) -> None:
    assert vqa_accuracy("red", ["red"] * matches + ["blue"] * (10 - matches)) == pytest.approx(wanted)


def test_different_wrong_answers_are_as_wrong_as_one() -> None:
    assert vqa_accuracy("red", ["red", "red", *"abcdefgh"]) == pytest.approx(0.6)


def test_the_order_of_people_does_not_matter() -> None:
    people = ["red"] * 3 + ["blue"] * 7
    assert vqa_accuracy("red", people) == vqa_accuracy("red", people[::-1])


def test_where_people_disagree_all_answers_are_normalized() -> None:
    people = ["two", "2", "The two.", "a 2", "three", "3", "4", "5", "6", "7"]
    assert vqa_accuracy("Two!", people) == 1.0
    assert vqa_accuracy("three", people) == pytest.approx(0.6)


def test_where_all_agree_only_white_space_at_the_ends_is_forgiven() -> None:
    people = ["the two"] * 9 + [" the two\n"]
    assert vqa_accuracy("the two ", people) == 1.0
    for other in ("2", "two", "The two", "the two."):
        assert vqa_accuracy(other, people) == 0.0


def test_people_who_differ_in_punctuation_alone_disagree() -> None:
    assert vqa_accuracy("Yes.", ["yes"] * 9 + ["yes."]) == 1.0


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        (["red"], 1.0),
        (["Red."], 1.0),
        (["blue"], 0.0),
        (["blue", "red"], 1.0),
        (["blue", "the red", "green"], 1.0),
        (["blue", "pink", "green"], 0.0),
        (["red"] * 3, 1.0),
        (["red"] * 4, 1.0),
        (["red"] * 3 + ["blue"], 0.75),
        (["red", "blue", "pink", "green"], 0.25),
    ],
)
def test_from_fewer_than_four_answers_one_match_is_enough(answers: list[str], wanted: float) -> None:
    assert vqa_accuracy("red", answers) == pytest.approx(wanted)


def test_no_answers_are_an_error_not_an_accuracy() -> None:
    with pytest.raises(ValueError, match="no answers"):
        vqa_accuracy("red", [])


def test_on_daquar_the_ground_truth_is_always_right_and_another_answer_never(shared: Path) -> None:
    daquar = shared / "data" / "daquar"
    questions = read_questions(
        SplitConfig(
            questions=daquar / "OpenEnded_daquar_val_questions.json",
            annotations=daquar / "daquar_val_annotations.json",
            images=daquar / "images",
        )
    )
    assert {vqa_accuracy(q.ground_truth, q.answers) for q in questions} == {1.0}
    assert {vqa_accuracy("no such thing", q.answers) for q in questions} == {0.0}


# A second, slow implementation

NUMBERS = ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
CONTRACTED = {"don't", "couldn't've", "o'clock", "'twas", "he's", "y'all'll"}
BITS = [
    *("dont", "couldntve", "couldnt've", "couldn'tve", "oclock", "twas", "hes", "y'allll", "somebody'd"),
    *("the", "An", "a", "none", "Ten", "dog", "1", "23", "1,2", "4.5", ".", "..", ",", " ", "  ", "\n", "\t"),
    *";/[]\"{}()=+\\_-><@`?!:'%é",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(BITS), max_size=8).map("".join)


def slowly_stripped(answer: str) -> str:
    return "".join(" " if letter in "\n\t" else letter for letter in answer).strip()


def slowly_normalized(answer: str) -> str:
    text = slowly_stripped(answer)
    padded = f"x{text}x"
    digits = [letter.isdecimal() for letter in padded]
    in_number = any(
        digits[place - 1] and digits[place + 1] for place, letter in enumerate(padded) if letter == ","
    )
    vanishing = {
        letter
        for place, letter in enumerate(padded)
        if in_number or " " in (padded[place - 1], padded[(place + 1) % len(padded)])
    }
    marks = set(';/[]"{}()=+\\_-><@`,?!')
    spaced = [letter if letter not in marks else "" if letter in vanishing else " " for letter in text]
    spaced = list("".join(spaced))
    gone = 0
    for place, letter in enumerate(spaced):
        following = next(iter(spaced[place + 1 :]), "")
        if letter == "." and gone < 32 and not following.isdecimal():
            spaced[place], gone = "", gone + 1
    words = []
    for word in "".join(spaced).lower().split():
        if word in ("a", "an", "the"):
            continue
        if word in NUMBERS:
            words.append(str(max(0, NUMBERS.index(word) - 1)))
            continue
        guesses = {word[:place] + "'" + word[place:] for place in range(len(word) + 1)} & CONTRACTED
        words.append("somebodyd" if word == "somebody'd" else guesses.pop() if guesses else word)
    return " ".join(words)


def slow_accuracy(predicted: str, answers: list[str]) -> float:
    people = [slowly_stripped(answer) for answer in answers]
    predicted = slowly_stripped(predicted)
    if len(set(people)) > 1:
        people = [slowly_normalized(answer) for answer in people]
        predicted = slowly_normalized(predicted)
    return slow_mean(predicted, people)


def slow_mean(predicted: str, people: list[str]) -> float:
    by_person = []
    for left_out in range(len(people)):
        others = [said for person, said in enumerate(people) if person != left_out]
        by_person.append(min(1.0, sum(said == predicted for said in others) / 3))
    return sum(by_person) / len(by_person)


@settings(deadline=None, max_examples=500)
@given(TEXT)
def test_normalization_agrees_with_the_slow_one(answer: str) -> None:
    assert normalized(answer) == slowly_normalized(answer)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_accuracy_agrees_with_the_slow_one(data: st.DataObject) -> None:
    few = data.draw(st.lists(TEXT, min_size=1, max_size=3))
    answers = data.draw(st.lists(st.sampled_from(few), min_size=4, max_size=10))
    predicted = data.draw(st.sampled_from(few) | TEXT)
    assert vqa_accuracy(predicted, answers) == pytest.approx(slow_accuracy(predicted, answers))


# EvalAI's, as TextVQA is scored


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("Yes, it is?", "yes it is"),  # commas and question marks go at once
        ("1,000", "1000"),
        ("red,green", "redgreen"),  # "red green" by the official one
        ("what?now", "whatnow"),
        ("mcdonald's", "mcdonald 's"),
        ("dog's bone", "dog 's bone"),
        ("it's", "it 's"),
        ("The Two Dogs", "2 dogs"),
        ("dont", "don't"),
        ("a-b", "b"),  # the mark becomes a space, then "a" is an article
        ("x - y", "x y"),
        ("3.5", "3.5"),
        ("st.", "st"),
    ],
)
def test_evalai_normalizes_by_its_own_rules(answer: str, wanted: str) -> None:
    assert evalai_normalized(answer) == wanted


def slowly_by_evalai(answer: str) -> str:
    lowered = answer.lower()
    kept = "".join(letter for letter in lowered if letter not in ",?")
    return slowly_normalized(" 's".join(kept.split("'s")).strip())


def slow_evalai_accuracy(predicted: str, answers: list[str]) -> float:
    return slow_mean(slowly_by_evalai(predicted), [slowly_by_evalai(answer) for answer in answers])


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from([*BITS, "'s", "s'", "1,2"]), max_size=8).map("".join))
def test_evalais_normalization_agrees_with_the_slow_one(answer: str) -> None:
    assert evalai_normalized(answer) == slowly_by_evalai(answer)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_evalais_accuracy_agrees_with_the_slow_one(data: st.DataObject) -> None:
    few = data.draw(st.lists(TEXT, min_size=1, max_size=3))
    answers = data.draw(st.lists(st.sampled_from(few), min_size=4, max_size=10))
    predicted = data.draw(st.sampled_from(few) | TEXT)
    assert evalai_accuracy(predicted, answers) == pytest.approx(slow_evalai_accuracy(predicted, answers))


def test_evalai_normalizes_also_where_all_said_the_same() -> None:
    assert (evalai_accuracy("Yes.", ["yes"] * 10), vqa_accuracy("Yes.", ["yes"] * 10)) == (1.0, 0.0)
    assert evalai_accuracy("the red", ["Red"]) == 1.0 and evalai_accuracy("blue", ["red"]) == 0.0
    assert evalai_accuracy("red", ["red", *"bcdefghij"]) == pytest.approx(0.9 / 3)
    with pytest.raises(ValueError, match="no answers"):
        evalai_accuracy("red", [])
