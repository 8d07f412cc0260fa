"""Verdicts follow from the numbers by the rule that is stated, and the ranking from paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvx.measure.bootstrap import Estimate
from hvx.measure.claims import claims, in_words, mark, ranking, shown, verdict
from hvx.measure.measures import Measures
from hvx.measure.scores import Agreement, Regions, Scores
from hvx.measure.words_report import paper_tokens, word_means

METHODS = ["proposed", "attention", "unguided", "free-product", "centre"]
N = 60
IMAGES = np.arange(N)


def around(value: float) -> np.ndarray:
    """Scores whose mean is exactly this, give or take rounding; other ones for another mean."""
    noise = np.random.default_rng(round(1000 * abs(value))).normal(size=N)
    return value + 0.02 * (noise - noise.mean())


def measures(**values: dict[str, float]) -> Measures:
    """Measures of made-up scores: measure → method → its mean."""
    found = Measures({"run": "run"}, METHODS)
    scored = {
        metric: Scores(IMAGES, {name: around(value) for name, value in own.items()})
        for metric, own in values.items()
    }
    found.add_scores(scored, IMAGES, 0)
    return found


def agreeing(proposed_with: dict[str, float]) -> Measures:
    names = ["proposed", *proposed_with]
    correlations = np.zeros((N, len(names), len(names)))
    for k, value in enumerate(proposed_with.values(), start=1):
        correlations[:, 0, k] = around(value)
    found = Measures({"run": "run"}, METHODS)
    found.add_agreement(Agreement(names, correlations), IMAGES, 0)
    return found


@pytest.mark.parametrize(
    ("intervals", "wanted"),
    [
        ([(0.1, 0.3)], "held"), ([(-0.3, -0.1)], "did not hold"), ([(-0.1, 0.1)], "not decided"),
        ([(0.1, 0.2), (-0.1, 0.1)], "held"), ([(0.1, 0.2), (-0.2, -0.1)], "mixed"),
        ([(math.nan, math.nan)], "not decided"), ([], "not decided"),
    ],
)  # fmt: skip
def test_the_rule(intervals: list[tuple[float, float]], wanted: str) -> None:
    assert verdict(*(Estimate((low + high) / 2, low, high, 9) for low, high in intervals)) == wanted


def one(found: Measures, part: str) -> tuple[str, str]:
    (claim,) = [claim for claim in claims(found) if part in claim.claim]
    return claim.verdict, claim.evidence


def test_the_sum_of_the_glimpses_must_match_better_than_the_better_one() -> None:
    both = {"glimpse 1": 0.3, "glimpse 2": 0.4}
    assert one(agreeing({"attention": 0.6, **both}), "additive")[0] == "held"
    assert one(agreeing({"attention": 0.35, **both}), "additive")[0] == "did not hold"
    assert not [claim for claim in claims(agreeing({"attention": 0.6})) if "additive" in claim.claim]


@pytest.mark.parametrize(
    ("value", "word", "wanted"),
    [(0.1, "hardly", "held"), (0.3, "weakly", "held"), (0.5, "moderately", "held"), (0.8, "strongly", "held"),
     (-0.5, "moderately", "did not hold")],
)  # fmt: skip
def test_how_maps_agree_is_said_by_the_size_of_the_correlation(value: float, word: str, wanted: str) -> None:
    found, evidence = one(agreeing({"attention": value}), "similar to the attention")
    assert found == wanted
    assert f"agree {word}" in evidence


def test_a_form_of_eq_2_is_judged_by_every_measure_of_merit() -> None:
    better = measures(
        pointing={"proposed": 0.9, "free-product": 0.5}, deletion={"proposed": 0.3, "free-product": 0.6}
    )
    assert one(better, "F constant")[0] == "held"
    worse = measures(
        pointing={"proposed": 0.5, "free-product": 0.9}, deletion={"proposed": 0.6, "free-product": 0.3}
    )
    assert one(worse, "F constant")[0] == "did not hold"
    mixed = measures(
        pointing={"proposed": 0.9, "free-product": 0.5}, deletion={"proposed": 0.6, "free-product": 0.3}
    )
    found, evidence = one(mixed, "F constant")
    assert found == "mixed"
    assert "(better)" in evidence and "(worse)" in evidence


def test_a_point_must_be_found_more_often_than_chance_finds_it() -> None:
    for hit, share, wanted in ((1.0, 0.1, "held"), (0.0, 0.1, "did not hold")):
        values = {"proposed": np.full(N, hit)}
        scored = {metric: Scores(IMAGES, values) for metric in ("pointing", "energy", "overlap")}
        found = Measures({"run": "run"}, METHODS)
        found.add_scores(scored, IMAGES, 0)
        found.add_regions(
            Regions(IMAGES, np.array(["count", "shape"] * 30), np.full(N, share)), scored, IMAGES, 0
        )
        assert one(found, "finds what is asked about")[0] == wanted
        assert found.by_kind["count"]["pointing"]["proposed"].n == N // 2


def test_the_papers_own_figures_support_nouns_and_not_less_attended_verbs() -> None:
    found = Measures({"run": "run"}, METHODS)
    found.words = found.paper_words = word_means(paper_tokens(), 0)
    assert one(found, "Nouns")[0] == "held"
    assert one(found, "Wh-words")[0] == "held"
    assert one(found, "Verbs")[0] == "did not hold"
    assert "+1.152" in one(found, "Verbs")[1]


def test_ranking_tells_better_worse_and_level_by_paired_differences() -> None:
    found = measures(
        deletion={"proposed": 0.5, "attention": 0.3, "unguided": 0.501, "free-product": 0.8},
        pointing={"proposed": 0.9, "attention": 0.4, "unguided": 0.2, "free-product": 0.1},
    )
    lines = {line.partition(":")[0]: line for line in ranking(found)}
    assert "place 1 of 4 (n = 60); none is better" in lines["Pointing game"]
    assert "place 2 of 4" in lines["Deletion area"]
    assert "better: Summed attention" in lines["Deletion area"]
    assert "not told apart: Eq. 2 unguided" in lines["Deletion area"]
    assert mark(found, "deletion", "attention") == " ▲"
    assert mark(found, "deletion", "unguided") == mark(found, "deletion", "proposed") == ""
    assert mark(found, "deletion", "free-product") == mark(found, "pointing", "attention") == " ▽"
    words = " ".join(in_words(found))
    assert "the proposed map is 1st by pointing game, 2nd by deletion area" in words
    assert "Better than it for certain: Summed attention (by deletion area)." in words


def test_a_number_without_an_interval_shows_none() -> None:
    assert shown(Estimate(0.25, math.nan, math.nan, 1)) == "0.250"
    assert shown(Estimate(0.25, 0.2, 0.3, 9)) == "0.250 [0.200, 0.300]"
