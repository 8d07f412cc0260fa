"""Words by part of speech: the tagger, the paper's printed numbers, means over a run's tokens."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from made_runs import written
from scipy.stats import spearmanr

from hvx.data.scenes import PARTS_OF_SPEECH, draw_scene
from hvx.data.tokenize import tokenize_nltk
from hvx.measure.metrics.pos_tags import parts_of_speech
from hvx.measure.metrics.words import is_standardized
from hvx.measure.report.paper import printed_rows
from hvx.measure.report.words import (
    Tokens,
    paper_tokens,
    run_tokens,
    run_word_agreement,
    word_agreement,
    word_means,
)
from hvx.store.reader import RunReader

HALF_A_PRINTED_DIGIT = 0.5e-4


def tagged(question: str) -> list[str]:
    return list(parts_of_speech(tuple(tokenize_nltk(question))))


def test_the_tagger_tags_the_papers_questions_as_a_person_does() -> None:
    tokens = [token for row in printed_rows() for token in row.tokens]
    assert len(tokens) == 80
    for row in printed_rows():
        assert parts_of_speech(row.tokens) == row.part_of_speech


def test_the_tagger_tags_the_built_in_split_as_a_person_does() -> None:
    seen = set()
    for number in range(150):
        for asked in draw_scene(np.random.default_rng(number), 64).questions:
            tokens = tokenize_nltk(asked.question)
            assert parts_of_speech(tuple(tokens)) == tuple(PARTS_OF_SPEECH[token] for token in tokens)
            seen |= set(tokens)
    assert len(seen) > 35


@pytest.mark.parametrize(
    ("question", "tags"),
    [
        ("what's that man doing?", "WH AUX DET NOUN VERB PUNCT"),
        ("does the man have a hat?", "AUX DET NOUN VERB DET NOUN PUNCT"),
        ("what is on the left of the table?", "WH AUX ADP DET NOUN ADP DET NOUN PUNCT"),
        ("what is on the left side?", "WH AUX ADP DET ADJ NOUN PUNCT"),
        ("is this a photo?", "AUX PRON DET NOUN PUNCT"),
        ("is this photo old?", "AUX DET NOUN ADJ PUNCT"),
        ("how many chairs are close to the wall?", "WH ADJ NOUN AUX ADV ADP DET NOUN PUNCT"),
        ("is this photo", "AUX DET NOUN"),
        ("the left side", "DET ADJ NOUN"),
        ("the left", "DET NOUN"),
        ("IS HE RUNNING?", "AUX PRON VERB PUNCT"),
        ("are there 2 dogs and a cat?", "AUX PRON NUM NOUN CONJ DET NOUN PUNCT"),
    ],
)
def test_questions_as_people_ask_them(question: str, tags: str) -> None:
    assert tagged(question) == tags.split()


@pytest.mark.parametrize(
    "tokens", [(), ("",), ("?",), ("a/b", "x"), ("\u2603", "ünïcödé"), ("a b", "c"), ("--",)]
)
def test_every_token_gets_a_tag(tokens: tuple[str, ...]) -> None:
    tags = parts_of_speech(tokens)
    assert len(tags) == len(tokens)
    assert all(tags)


def test_the_tagger_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    assert tagged("which aardvark yodels quietly?")[1] == "NOUN"


# The paper's numbers


def test_the_printed_numbers_are_those_of_the_shared_file(shared: Path) -> None:
    tree = json.loads((shared / "paper" / "printed-zscores.json").read_text())
    rows = [
        (r["figure"], tuple(r["tokens"]), tuple(r["part_of_speech"]), tuple(r["z"])) for r in tree["rows"]
    ]
    assert [(r.figure, r.tokens, r.part_of_speech, r.z) for r in printed_rows()] == rows
    means = word_means(paper_tokens(), 0).part_of_speech
    for tag, wanted in tree["mean_z_by_part_of_speech"].items():
        assert round(means[tag].value, 3) == wanted["mean"]
        assert means[tag].n == wanted["count"]


def test_the_printed_rows_are_whole() -> None:
    assert len(printed_rows()) == 12
    for row in printed_rows():
        assert len(row.tokens) == len(row.part_of_speech) == len(row.z)
        assert is_standardized(np.array(row.z), len(row.z) * HALF_A_PRINTED_DIGIT)


# Means


def tokens_of(rows: list[tuple[str, list[float]]]) -> Tokens:
    """Questions, each on an image of its own, with their z-scores."""
    split = [(question.split(), z) for question, z in rows]
    places = [place for words, _ in split for place in range(1, len(words) + 1)]
    return Tokens(
        token=np.array([word for words, _ in split for word in words]),
        tag=np.array([tag for words, _ in split for tag in parts_of_speech(tuple(words))]),
        z=np.array([value for _, z in split for value in z]),
        position=np.array(places),
        last=np.array([place == len(words) for words, _ in split for place in range(1, len(words) + 1)]),
        group=np.array([number for number, (words, _) in enumerate(split) for _ in words]),
    )


def test_means_by_part_of_speech_family_and_place() -> None:
    found = word_means(
        tokens_of([("is the red dog running ?", [-1, -1, 0.5, 1, 1, -0.5]), ("what is it ?", [0, -2, 1, 1])]),
        0,
    )
    values = {tag: (own.value, own.n) for tag, own in found.part_of_speech.items()}
    assert values == {
        "AUX": (-1.5, 2), "DET": (-1, 1), "ADJ": (0.5, 1), "NOUN": (1, 1), "VERB": (1, 1),
        "PUNCT": (0.25, 2), "WH": (0, 1), "PRON": (1, 1),
    }  # fmt: skip
    assert list(values) == sorted(values, key=lambda tag: -values[tag][0])
    families = {name: (own.value, own.n) for name, own in found.families.items() if own.known}
    assert families == {
        "wh-words": (0, 1), "auxiliaries": (-1.5, 2), "nouns": (1, 1), "verbs": (1, 1),
        "adjectives": (0.5, 1), "articles": (-1, 1), "colors": (0.5, 1),
    }  # fmt: skip
    positions = {name: (own.value, own.n) for name, own in found.positions.items()}
    first = {"1": (-0.5, 2), "2": (-1.5, 2), "3": (0.75, 2), "4": (1, 1), "5": (1, 1)}
    assert positions == {**first, "last": (0.25, 2)}
    assert found.content.value == pytest.approx((0.5 + 1 + 1) / 3 - (-1 - 1 - 0.5 + 0 - 2 + 1 + 1) / 7)
    assert found.nouns.value == pytest.approx(1 - (-1 - 1 + 0.5 + 1 - 0.5 + 0 - 2 + 1 + 1) / 9)


def test_the_first_eight_places_are_told_one_by_one_and_later_ones_together() -> None:
    """The last token's place is its own, wherever it stands."""
    words = ["what", "is", "the", "dog", "on", "the", "left", "of", "that", "old", "man"]
    found = word_means(
        tokens_of([(" ".join(words[:count]), list(range(1, count + 1))) for count in (2, 8, 9, 10, 11)]), 0
    ).positions
    assert {name: (own.value, own.n) for name, own in found.items()} == {
        "1": (1, 5), **{str(place): (place, 4) for place in range(2, 8)}, "8": (8, 3), "9 …": (28 / 3, 3),
        "last": (8, 5),
    }  # fmt: skip
    assert list(found) == ["1", "2", "3", "4", "5", "6", "7", "8", "9 …", "last"]


def test_the_levelled_difference_is_that_of_a_loop_over_places() -> None:
    rows = [
        ("what is the dog ?", [-1.0, 0.5, 1.25, 2.0, -2.75]), ("is red dog that", [0.25, 1.0, -2.0, 0.75]),
        ("dog", [3.0]), ("the dog runs", [0.5, -1.5, 2.5]),
    ]  # fmt: skip
    tokens = tokens_of(rows)
    nouns, others, by_place = list[float](), list[float](), dict[int, list[tuple[bool, float]]]()
    for question, z in rows:
        words = question.split()
        for place, (word, value) in enumerate(zip(words, z, strict=True)):
            own = -1 if place == len(words) - 1 else place
            by_place.setdefault(own, []).append((word == "dog", value))
    for found in by_place.values():
        level = np.mean([value for _, value in found])
        for noun, value in found:
            (nouns if noun else others).append(float(value - level))
    assert set(tokens.tag[tokens.token == "dog"]) == {"NOUN"} and (tokens.tag == "NOUN").sum() == len(nouns)
    assert word_means(tokens, 0).levelled.value == pytest.approx(np.mean(nouns) - np.mean(others))


def test_nouns_are_held_against_words_of_the_same_places() -> None:
    """Where z tells of the place alone, nouns have nothing of their own, however late they stand."""
    rising = [("what is the dog ?", [-1, 0, 1, 2, -2]), ("is that dog red ?", [-1, 0, 1, 2, -2])]
    found = word_means(tokens_of(rising), 0)
    assert found.nouns.value > 1
    assert found.levelled.value == pytest.approx(0)
    of_their_own = [("what is the dog ?", [-1, 0, 1, 4, -2]), ("is that dog red ?", [-1, 0, 3, 2, -2])]
    assert word_means(tokens_of(of_their_own), 0).levelled.value > 1


def test_a_mean_of_one_questions_tokens_has_no_interval() -> None:
    found = word_means(tokens_of([("is it ?", [-1, 1, 0]), ("is he ?", [0, 0, 0])]), 0)
    assert found.part_of_speech["AUX"].bounded
    alone = word_means(tokens_of([("is it ?", [-1, 1, 0]), ("what ?", [0, 0])]), 0)
    assert not alone.part_of_speech["PRON"].bounded


def test_attention_to_words_is_held_against_z_over_each_questions_own_tokens() -> None:
    attention = np.array([[0.1, 0.2, 0.7, np.nan], [0.5, 0.3, 0.1, 0.1], [1.0, np.nan, np.nan, np.nan]])
    z = np.array([[-1.0, 0.0, 1.0, np.nan], [-1.2, 0.1, 0.5, 0.6], [0.0, np.nan, np.nan, np.nan]])
    found = word_agreement(attention, z, np.array([3, 4, 1]), np.array([1, 2, 3]), 0)
    second = spearmanr(attention[1], z[1]).statistic
    assert found.n == 2  # of one token there is no order
    assert found.value == pytest.approx((1 + second) / 2)
    one_each = word_agreement(attention, z, np.array([1, 0, 1]), np.array([1, 2, 3]), 0)
    assert not one_each.known and not one_each.bounded


def test_every_token_of_a_run_is_read_with_its_place_its_z_and_its_image() -> None:
    columns = {
        "length": np.array([3, 0, 1, 2]),
        "token_z": np.array([[0.5, 1.5, -2.0], [9.0, 9.0, 9.0], [4.0, 9.0, 9.0], [-1.0, 1.0, 9.0]]),
        "tokens": np.array(
            [["is", "it", "?"], ["no", "", ""], ["what", "", ""], ["a", "Dog", "not"]], object
        ),
        "image_id": np.array([70, 70, 30, 70]),
    }  # fmt: skip
    found = run_tokens(cast(RunReader, SimpleNamespace(column=columns.__getitem__)))
    assert found.token.tolist() == ["is", "it", "?", "what", "a", "Dog"]
    assert found.tag.tolist() == ["AUX", "PRON", "PUNCT", "WH", "DET", "NOUN"]
    assert found.z.tolist() == [0.5, 1.5, -2.0, 4.0, -1.0, 1.0]
    assert found.position.tolist() == [1, 2, 3, 1, 1, 2]
    assert found.last.tolist() == [False, False, True, True, False, True]
    assert found.group.tolist() == [70, 70, 70, 30, 70, 70]


def test_the_papers_tokens_are_grouped_by_question_and_end_with_its_last() -> None:
    found, rows = paper_tokens(), printed_rows()
    lengths = [len(row.tokens) for row in rows]
    assert found.token.tolist() == [token for row in rows for token in row.tokens]
    assert found.tag.tolist() == [tag for row in rows for tag in row.part_of_speech]
    assert found.z.tolist() == [z for row in rows for z in row.z]
    assert found.group.tolist() == [number for number, count in enumerate(lengths) for _ in range(count)]
    assert found.position.tolist() == [place for count in lengths for place in range(1, count + 1)]
    assert np.flatnonzero(found.last).tolist() == (np.cumsum(lengths) - 1).tolist()


def test_a_run_without_attention_to_words_has_none(finished_run: Path) -> None:
    with closing(RunReader(finished_run)) as reader:
        assert run_word_agreement(reader, 0) is None


def test_the_attention_of_a_run_is_read_from_it(tmp_path: Path) -> None:
    with closing(RunReader(written(tmp_path / "run", solid=False))) as reader:
        found = run_word_agreement(reader, 0)
        assert found is not None and found.n == len(reader)
