"""Verdicts follow from the numbers by the rule that is stated, and the ranking from paired differences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_measures import made_measures

from hvx.measure.metrics.bootstrap import NOTHING, Estimate
from hvx.measure.metrics.results import MetricResults
from hvx.measure.metrics.scores import Agreement, Regions, Scores
from hvx.measure.report.claims import (
    _ordinal,
    as_json,
    claims,
    in_words,
    mark,
    ranking,
    shown,
    signed,
    verdict,
)
from hvx.measure.report.markdown import claims_table
from hvx.measure.report.words import paper_tokens, word_means

METHODS = ["proposed", "attention", "unguided", "free-product", "center"]
N = 60
IMAGES = np.arange(N)


def around(value: float) -> np.ndarray:
    """Scores whose mean is exactly this, give or take rounding; other ones for another mean."""
    noise = np.random.default_rng(round(1000 * abs(value))).normal(size=N)
    return value + 0.02 * (noise - noise.mean())


def measures(**values: dict[str, float]) -> MetricResults:
    """Measures of made-up scores: measure → method → its mean."""
    found = MetricResults({"run": "run"}, METHODS)
    scored = {
        metric: Scores(IMAGES, {name: around(value) for name, value in own.items()})
        for metric, own in values.items()
    }
    found.add_scores(scored, IMAGES, 0)
    return found


def agreeing(proposed_with: dict[str, float]) -> MetricResults:
    names = ["proposed", *proposed_with]
    correlations = np.zeros((N, len(names), len(names)))
    for k, value in enumerate(proposed_with.values(), start=1):
        correlations[:, 0, k] = around(value)
    found = MetricResults({"run": "run"}, METHODS)
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


def test_a_verdict_names_the_differences_that_it_follows_from() -> None:
    for claim in claims(made_measures()):
        assert claim.differences and verdict(*claim.differences) == claim.verdict
    found = as_json(made_measures())
    assert [one["verdict"] for one in found["claims"]] == [own.verdict for own in claims(made_measures())]
    assert found["claims"][0]["differences"][0].keys() == {"value", "low", "high", "n"}


def one(found: MetricResults, part: str) -> tuple[str, str]:
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
        found = MetricResults({"run": "run"}, METHODS)
        found.add_scores(scored, IMAGES, 0)
        found.add_regions(
            Regions(IMAGES, np.array(["count", "shape"] * 30), np.full(N, share)), scored, IMAGES, 0
        )
        assert one(found, "finds what is asked about")[0] == wanted
        assert found.by_kind["count"]["pointing"]["proposed"].n == N // 2


def test_the_papers_own_figures_support_nouns_and_not_less_attended_verbs() -> None:
    found = MetricResults({"run": "run"}, METHODS)
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
    assert "not distinguished: Eq. 2 unguided" in lines["Deletion area"]
    assert mark(found, "deletion", "attention") == " ▲"
    assert mark(found, "deletion", "unguided") == mark(found, "deletion", "proposed") == ""
    assert mark(found, "deletion", "free-product") == mark(found, "pointing", "attention") == " ▽"
    words = " ".join(in_words(found))
    assert "the proposed map is 1st by pointing game, 2nd by deletion area" in words
    assert "Better than it for certain: Summed attention (by deletion area)." in words


def test_the_method_that_is_better_most_often_is_named_first() -> None:
    better, level = Estimate(0.2, 0.1, 0.3, 9), Estimate(0.0, -0.1, 0.1, 9)
    worse = Estimate(-0.2, -0.3, -0.1, 9)
    versus = {
        "pointing": {"cam": better, "gradient": level, "random": worse},
        "energy": {"cam": level, "gradient": better, "random": worse},
        "overlap": {"cam": worse, "gradient": better, "random": better},
    }
    names = ["proposed", "cam", "gradient", "random"]
    means = {metric: dict.fromkeys(names, better) for metric in versus}
    assert in_words(MetricResults({}, names, means=means, versus=versus))[-1] == (
        "Better than it for certain: Gradient (by energy inside, IoU); CAM (by pointing game); "
        "Random (by IoU)."
    )


def test_a_number_without_an_interval_shows_none() -> None:
    assert shown(Estimate(0.25, math.nan, math.nan, 1)) == "0.250"
    assert shown(Estimate(0.25, 0.2, 0.3, 9)) == "0.250 [0.200, 0.300]"


# Each claim, word by word, of measures whose numbers all differ

MADE = made_measures()


def text(own: Estimate) -> str:
    return f"{own.value:.3f} [{own.low:.3f}, {own.high:.3f}]"


def signs(own: Estimate) -> str:
    return f"{own.value:+.3f} [{own.low:+.3f}, {own.high:+.3f}]"


def test_claims_their_order_and_their_evidence() -> None:
    found = made_measures()
    agreement, means = found.agreement, found.means
    assert found.additive and found.words and found.paper_words
    for metric in ("pointing", "deletion"):
        means[metric]["free-product"] = Estimate(0.9, 0.8, 0.95, 7)
        found.versus[metric]["free-product"] = Estimate(0.2, 0.1, 0.3, 7)
    means["overlap"]["unguided"] = Estimate(0.25, 0.2, 0.3, 7)
    found.versus["overlap"]["unguided"] = Estimate(-0.2, -0.4, -0.1, 7)
    means["energy"]["unguided"] = Estimate(0.35, 0.2, 0.5, 7)
    found.versus["energy"]["unguided"] = Estimate(-0.2, -0.4, 0.1, 7)
    agreement["unguided"] = Estimate(0.81, 0.8, 0.82, 7)
    agreement["center"] = Estimate(0.123, 0.1, 0.2, 7)
    p = {metric: f"{own['proposed'].value:.4f}" for metric, own in means.items()}
    families, paper = found.words.families, found.paper_words.families
    wanted = [
        (
            "The heat map is similar to the attention maps (section 5)", "not decided",
            f"they agree hardly: rank correlation with the glimpses' sum {text(agreement['attention'])}, "
            "n = 3,000; with a blob in the center 0.123",
        ),
        (
            "The heat map matches the sum of the attention maps better than either, "
            "as if additive (section 5)",
            "did not hold",
            f"sum {text(agreement['attention'])}, glimpse 1 {text(agreement['glimpse 1'])}, glimpse 2 "
            f"{text(agreement['glimpse 2'])}; sum less the better glimpse {signs(found.additive)}, n = 3,000",
        ),
        (
            "The heat map finds what is asked about (section 5)", "held",
            f"its maximum lies in what is asked about in {text(means['pointing']['proposed'])}, n = 1,000; "
            f"chance level {text(found.chance['all'])}; "
            f"the attention's in {text(means['pointing']['attention'])}",
        ),
        (
            "Holding F constant is more effective than not (section 3)", "mixed",
            f"Pointing game {p['pointing']} against 0.9000 (worse); "
            f"Deletion area {p['deletion']} against 0.9000 (better)",
        ),
        (
            "Guided ReLUs make the better visualization (section 3)", "held",
            f"Energy inside {p['energy']} against 0.3500 (not distinguished); IoU {p['overlap']} against "
            "0.2500 (better); the two maps have a rank correlation of 0.810 [0.800, 0.820]",
        ),
        *(
            (
                f"{claim} (section 5)", "not decided",
                f"mean z {signs(families[name])}, n = {families[name].n:,}"
                + (f"; less that of all other tokens {signs(found.words.nouns)}" if name == "nouns" else "")
                + f"; in the paper's figures {signs(paper[name])}, n = {paper[name].n}",
            )
            for name, claim in (
                ("wh-words", "Wh-words are less attended"), ("nouns", "Nouns are significantly attended"),
                ("verbs", "Verbs are less attended"), ("adjectives", "Adjectives are less attended"),
                ("articles", "Articles are less attended"),
            )
        ),
    ]  # fmt: skip
    assert [(own.claim, own.verdict, own.evidence) for own in claims(found)] == wanted
    rows = [line[2:-2].split(" | ") for line in claims_table(found).splitlines()]
    assert rows[0] == ["claim", "verdict", "measured"]
    assert rows[2:] == [[claim, verdict, evidence] for claim, verdict, evidence in wanted]
    assert claims_table(found).splitlines()[1] == "|---|---|---|"


@pytest.mark.parametrize(
    ("low", "high", "nouns", "others"),
    [
        (0.1, 0.3, "held", "did not hold"), (-0.3, -0.1, "did not hold", "held"),
        (-0.1, 0.1, "not decided", "not decided"), (0.0, 0.1, "not decided", "not decided"),
        (-0.1, 0.0, "not decided", "not decided"),
    ],
)  # fmt: skip
def test_nouns_are_judged_by_a_difference_and_other_words_by_a_mean_below_0(
    low: float, high: float, nouns: str, others: str
) -> None:
    found = made_measures()
    own = Estimate((low + high) / 2, low, high, 9)
    assert found.words
    found.words = replace(found.words, nouns=own, families=dict.fromkeys(found.words.families, own))
    assert one(found, "Nouns")[0] == nouns
    for part in ("Wh-words", "Verbs", "Adjectives", "Articles"):
        assert one(found, part)[0] == others


def test_families_without_tokens_have_no_claim_and_those_of_the_paper_no_figure() -> None:
    found = made_measures()
    assert found.words and found.paper_words
    found.words = replace(found.words, families={**found.words.families, "verbs": NOTHING})
    found.paper_words = replace(
        found.paper_words, families={**found.paper_words.families, "articles": NOTHING}
    )
    assert not [own for own in claims(found) if "Verbs" in own.claim]
    assert "paper" not in one(found, "Articles")[1]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0.1, 0.2, "held"), (-0.2, -0.1, "did not hold"), (-0.1, 0.2, "not decided"), (0.0, 0.2, "not decided"),
     (-0.2, 0.0, "not decided")],
)  # fmt: skip
def test_each_claim_of_maps_follows_its_own_difference(low: float, high: float, wanted: str) -> None:
    own = Estimate((low + high) / 2, low, high, 9)
    for name, part in (("additive", "additive"), ("above_chance", "finds what is asked about")):
        found = replace(made_measures(), **{name: own})  # type: ignore[arg-type]
        assert one(found, part)[0] == wanted
    similar = made_measures()
    similar.agreement["attention"] = own
    assert one(similar, "similar to the attention")[0] == wanted


@pytest.mark.parametrize(
    ("value", "word"),
    [(0.0, "hardly"), (0.199, "hardly"), (0.2, "weakly"), (0.399, "weakly"), (0.4, "moderately"),
     (0.599, "moderately"), (0.6, "strongly"), (1.0, "strongly"), (-0.3, "weakly"), (-1.0, "strongly")],
)  # fmt: skip
def test_each_strength_of_agreement_ends_where_the_next_begins(value: float, word: str) -> None:
    found = made_measures()
    found.agreement["attention"] = Estimate(value, value, value, 9)
    assert f"they agree {word}:" in one(found, "similar to the attention")[1]


def test_claims_about_what_was_not_measured_are_absent() -> None:
    bare = replace(MADE, agreement={}, additive=None, above_chance=None, words=None)
    assert claims(bare) == []
    assert [own.claim for own in claims(replace(MADE, paper_words=None))] == [
        own.claim for own in claims(MADE)[:3]
    ]
    pointing = {name: own for name, own in MADE.means["pointing"].items() if name != "attention"}
    found = replace(MADE, means={**MADE.means, "pointing": pointing})
    assert "the attention's in" not in one(found, "finds what is asked about")[1]
    assert "blob in the center" not in one(MADE, "similar to the attention")[1]


def test_the_plain_words_list_claims_by_verdict_and_the_rank_by_each_measure() -> None:
    assert in_words(MADE) == [
        "These claims of the paper held: the heat map finds what is asked about.",
        "These did not hold: the heat map matches the sum of the attention maps better than either, as if "
        "additive.",
        "Not decided by this many explanations: the heat map is similar to the attention maps; wh-words are "
        "less attended; nouns are significantly attended; verbs are less attended; adjectives are less "
        "attended; articles are less attended.",
        "Among 5 methods the proposed map is 1st by deletion area, 5th by pointing game and energy inside "
        "and IoU and insertion area.",
        "Better than it for certain: Grad-CAM (by pointing game, energy inside, IoU, insertion area); "
        "Gradient (by deletion area).",
    ]


def test_the_plain_words_of_a_method_that_none_beats() -> None:
    versus = {"pointing": {"random": Estimate(-0.1, -0.2, -0.05, 9)}}
    found = MetricResults(
        {}, ["proposed", "random"], means={"pointing": MADE.means["pointing"]}, versus=versus
    )
    found.means["pointing"] = {
        "proposed": Estimate(0.9, 0.8, 1.0, 9), "random": Estimate(0.8, 0.7, 0.9, 9)
    }  # fmt: skip
    assert in_words(found) == [
        "Among 2 methods the proposed map is 1st by pointing game.",
        "No method is better than it for certain.",
    ]
    assert ranking(found) == ["Pointing game: place 1 of 2 (n = 9); none is better"]
    assert in_words(MetricResults({}, ["proposed"])) == []
    assert ranking(MetricResults({}, ["proposed"])) == []
    held_and_mixed = made_measures()
    held_and_mixed.versus["pointing"]["unguided"] = Estimate(0.2, 0.1, 0.3, 7)
    held_and_mixed.versus["energy"]["unguided"] = Estimate(-0.2, -0.3, -0.1, 7)
    for metric in ("pointing", "energy"):
        held_and_mixed.means[metric]["unguided"] = Estimate(0.2, 0.1, 0.3, 7)
    openings = [line.partition(":")[0] for line in in_words(held_and_mixed)]
    assert openings[:4] == [
        "These claims of the paper held", "These did not hold", "By some measures and not by others",
        "Not decided by this many explanations",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "wanted"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (10, "10th"), (11, "11th"), (12, "12th"), (13, "13th"),
     (14, "14th"), (21, "21st"), (22, "22nd"), (23, "23rd"), (101, "101st"), (111, "111th"), (112, "112th"),
     (113, "113th"), (121, "121st")],
)  # fmt: skip
def test_places_are_counted_as_in_english(place: int, wanted: str) -> None:
    assert _ordinal(place) == wanted


@pytest.mark.parametrize(
    ("metric", "low", "high", "wanted"),
    [
        ("pointing", 0.1, 0.2, " ▲"), ("pointing", -0.2, -0.1, " ▽"), ("pointing", 0.0, 0.1, ""),
        ("pointing", -0.1, 0.0, ""), ("deletion", 0.1, 0.2, " ▽"), ("deletion", -0.2, -0.1, " ▲"),
        ("deletion", 0.0, 0.1, ""), ("attention", 0.1, 0.2, ""), ("attention", -0.2, -0.1, ""),
    ],
)  # fmt: skip
def test_the_mark_says_which_side_is_better(metric: str, low: float, high: float, wanted: str) -> None:
    found = MetricResults({}, ["proposed", "random"], versus={metric: {"random": Estimate(0, low, high, 9)}})
    assert mark(found, metric, "random") == wanted
    assert mark(found, metric, "proposed") == mark(found, "energy", "random") == ""


def test_signs_are_shown_also_of_numbers_above_0_and_of_ends() -> None:
    assert signed(Estimate(0.25, -0.125, 1.5, 9)) == "+0.250 [-0.125, +1.500]"
    assert signed(Estimate(-0.25, math.nan, math.nan, 1)) == "-0.250"
