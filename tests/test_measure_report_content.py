"""What measure.md and measure.json say: every number under its own heading, row and column."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator

import numpy as np
import pytest

from hvx.measure.bootstrap import NOTHING, Estimate
from hvx.measure.measures import Measures
from hvx.measure.tables import claims_table, overview, report, table
from hvx.measure.words_report import WordMeans

NAMES = ["proposed", "attention", "unguided", "centre", "random"]
TITLES = ["Proposed (Eq. 2)", "Summed attention", "Eq. 2 unguided", "Centre", "Random"]
METRICS = ["pointing", "energy", "overlap", "attention", "human", "deletion", "insertion"]
STAGES = ["another image", "classifier", "layer1"]
PLOTS = ["methods", "agreement", "curves", "sanity", "words"]


def estimates() -> Iterator[Estimate]:
    """Estimates that all differ, with intervals that are not symmetric."""
    for k in itertools.count(1):
        yield Estimate(k / 1000, k / 1000 - 0.0513, k / 1000 + 0.0827, 1000 + k)


def words(each: Iterator[Estimate], tags: list[str], places: list[str]) -> WordMeans:
    return WordMeans(
        {tag: next(each) for tag in tags},
        {name: next(each) for name in ("nouns", "verbs")},
        {place: next(each) for place in places},
        next(each), next(each), next(each),
    )  # fmt: skip


def full() -> Measures:
    """Measures in which no two numbers are equal."""
    each = estimates()
    about = {"run": "runs/made", "explanations": 1500, "of": 72500, "images": 1234, "seed": 7,
             "date": "2026-01-02", "device": "cuda:1", "cores": 9,
             "versions": {"hvx": "1.2", "torch": "3.4"}}  # fmt: skip
    found = Measures(about, list(NAMES), ["this: because", "that: since"])
    found.means = {metric: {name: next(each) for name in NAMES} for metric in METRICS}
    del found.means["attention"]["attention"]
    found.versus = {
        metric: {
            "attention": Estimate(0.2, 0.1, 0.3, 9), "unguided": Estimate(-0.2, -0.3, -0.1, 9),
            "centre": Estimate(0.0, -0.1, 0.1, 9), "random": Estimate(-0.2, -0.3, -0.1, 9),
        }
        for metric in METRICS
    }  # fmt: skip
    found.by_kind = {
        kind: {metric: {name: next(each) for name in NAMES} for metric in METRICS[:3]}
        for kind in ("shape", "count")
    }
    found.chance = {kind: next(each) for kind in ("all", "shape", "count")}
    found.agreement = {name: next(each) for name in (*NAMES[1:], "glimpse 1", "glimpse 2")}
    found.above_chance, found.additive = next(each), next(each)
    found.matrix_names = [*NAMES, "glimpse 1", "glimpse 2"]
    found.matrix = np.linspace(-0.9, 1, 49).reshape(7, 7)
    found.ends = next(each), next(each)
    found.curves = {
        name: ((0.9 - k / 50 - np.arange(9) / 20).tolist(), (0.1 + k / 50 + np.arange(9) / 25).tolist())
        for k, name in enumerate(NAMES)
    }
    found.sanity = {
        name: {stage: (next(each), next(each)) for stage in STAGES} for name in ("proposed", "unguided")
    }
    found.words = words(each, ["NOUN", "DET"], ["2", "last", "1"])
    found.paper_words = words(each, ["VERB", "NOUN"], ["1", "9 …", "last"])
    found.word_agreement = next(each)
    return found


def cell(own: Estimate) -> str:
    return f"{own.value:.3f} [{own.low:.3f}, {own.high:.3f}]"


def signed(own: Estimate) -> str:
    return f"{own.value:+.3f} [{own.low:+.3f}, {own.high:+.3f}]"


def sections(text: str) -> dict[str, list[str]]:
    """Heading → its paragraphs; those above all headings under the empty one."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for part in text.rstrip("\n").split("\n\n"):
        if part.startswith("## "):
            heading = part[3:]
            assert heading not in found
            found[heading] = []
        else:
            found[heading].append(part)
    return found


def cells(paragraph: str) -> list[list[str]]:
    """The header and the rows of a Markdown table."""
    lines = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in paragraph.splitlines()]
    assert paragraph.splitlines()[1] == "|---" + "|---:" * (len(lines[0]) - 1) + "|"
    return [lines[0], *lines[2:]]


@pytest.fixture(scope="module")
def told() -> dict[str, list[str]]:
    return sections(report(full(), PLOTS))


def test_the_report_has_its_headings_in_order_and_ends_with_one_line_break(
    told: dict[str, list[str]],
) -> None:
    assert list(told) == [
        "", "In plain words", "The paper's claims", "Methods side by side",
        "Localisation by kind of question", "Agreement", "Deletion and insertion", "Sanity", "Words",
        "Methods", "Left out",
    ]  # fmt: skip
    text = report(full(), PLOTS)
    assert text.endswith("- that: since\n") and not text.endswith("\n\n")
    assert told["Left out"] == ["- this: because\n- that: since"]


def test_the_head_of_the_report_says_what_was_measured_of_what(told: dict[str, list[str]]) -> None:
    assert told[""] == [
        "# What the explanations of runs/made show",
        "1,500 of the run's 72,500 explanations, of 1,234 images, drawn by lot (seed 7); words over all of "
        "the run. Measured on 2026-01-02 on cuda:1, 9 CPU cores, with hvx 1.2, torch 3.4.",
        "In brackets: 95% percentile bootstrap intervals from 2,000 draws of images, since questions on one "
        "image are not independent. n counts explanations (of words, tokens).",
    ]


def test_gradients_that_are_zero_are_counted_each_against_its_own_whole() -> None:
    found = full()
    found.zero_maps, found.zero_words = 1100, 2200
    own = sections(report(found, []))[""]
    assert len(own) == 5
    assert own[3].startswith("Eq. 2 is zero everywhere for 1,100 of the 1,500 explanations: ")
    assert own[4] == (
        "Eq. 3 is zero everywhere for 2,200 of the run's 72,500 explanations: all of their z are 0."
    )
    tree = found.as_json()
    assert (tree["zero_maps"], tree["zero_words"]) == (1100, 2200)
    for maps, words in ((1, 0), (0, 1)):
        found.zero_maps, found.zero_words = maps, words
        (line,) = sections(report(found, []))[""][3:]
        assert line.startswith("Eq. 2 " if maps else "Eq. 3 ")


def test_each_methods_row_has_its_means_in_the_columns_of_their_measures(
    told: dict[str, list[str]],
) -> None:
    found, own = full(), told["Methods side by side"]
    first = {metric: found.means[metric]["proposed"].n for metric in METRICS}
    header, *rows = cells(own[0])
    assert header == [
        "method", *(f"{title} (n = {first[metric]:,})" for metric, title in (
            ("pointing", "Pointing game"), ("energy", "Energy inside"), ("overlap", "IoU"),
            ("attention", "ρ with attention"), ("human", "ρ with people"), ("deletion", "Deletion area ↓"),
            ("insertion", "Insertion area"),
        )),
    ]  # fmt: skip
    assert [row[0] for row in rows] == TITLES
    marks = {"attention": (" ▲", " ▽"), "unguided": (" ▽", " ▲"), "random": (" ▽", " ▲")}
    for name, row in zip(NAMES, rows, strict=True):
        for metric, shown in zip(METRICS, row[1:], strict=True):
            if (metric, name) == ("attention", "attention"):
                assert shown == ""
                continue
            mark = "" if metric == "attention" else marks.get(name, ("", ""))[metric == "deletion"]
            assert shown == cell(found.means[metric][name]) + mark
    assert own[1] == (
        "▲ better, ▽ worse than the proposed method: the interval of the paired difference does not hold 0. "
        f"↓: less is better. By chance a point lies in what is asked about in {cell(found.chance['all'])} of "
        "the questions."
    )
    assert own[2] == "![Every measure of every method, with its interval](methods.png)"
    assert own[3] == "The proposed method's place:"
    assert own[4].splitlines()[0] == (
        "- Pointing game: place 5 of 5 (n = 1,001); better: Summed attention; not told apart: Centre"
    )
    assert own[4].splitlines()[-2] == (
        "- Deletion area: place 1 of 5 (n = 1,026); better: Eq. 2 unguided, Random; not told apart: Centre"
    )
    assert len(own) == 5


def test_each_kind_of_question_has_its_column_in_the_table_of_each_measure(
    told: dict[str, list[str]],
) -> None:
    found, own = full(), told["Localisation by kind of question"]
    assert len(own) == 3
    for metric, title, paragraph in zip(
        METRICS[:3], ("Pointing game", "Energy inside", "IoU"), own, strict=True
    ):
        header, *rows = cells(paragraph)
        assert header == [
            title, f"shape (n = {found.chance['shape'].n:,})", f"count (n = {found.chance['count'].n:,})",
        ]  # fmt: skip
        wanted = [
            [own_title, *(cell(found.by_kind[kind][metric][name]) for kind in ("shape", "count"))]
            for name, own_title in zip(NAMES, TITLES, strict=True)
        ]
        if metric == "pointing":
            wanted.append(["share of the picture", cell(found.chance["shape"]), cell(found.chance["count"])])
        assert rows == wanted


def test_maps_are_listed_by_their_agreement_from_the_largest(told: dict[str, list[str]]) -> None:
    found, own = full(), told["Agreement"]
    header, *rows = cells(own[0])
    n = found.agreement["attention"].n
    assert header == ["map", f"rank correlation with the proposed map, on the lattice (n = {n:,})"]
    titles = dict(zip(NAMES, TITLES, strict=True))
    order = ["glimpse 2", "glimpse 1", "random", "centre", "unguided", "attention"]
    assert rows == [[titles.get(name, name), cell(found.agreement[name])] for name in order]
    assert found.additive
    assert own[1] == f"Sum of the glimpses less the better single one: {signed(found.additive)}."
    assert own[2] == "![Mean rank correlation of the maps of each pair of methods](agreement.png)"


def test_photographs_come_before_their_blurs(told: dict[str, list[str]]) -> None:
    found = full()
    assert found.ends
    sharp, blurry = found.ends
    assert told["Deletion and insertion"] == [
        f"The answer's probability is {cell(sharp)} on the photographs and {cell(blurry)} on their blurs "
        f"(a Gaussian of 10% of the side), n = {sharp.n:,}. Pixels are taken in the order of a map, the most "
        "salient first: deletion replaces them by the blur's, insertion puts them back onto it. The areas "
        "under the curves, over the share of pixels, are in the table above.",
        "![The answer's probability while the most salient pixels are deleted, and inserted](curves.png)",
    ]


def test_correlation_and_ssim_have_a_table_each_with_stages_as_rows(told: dict[str, list[str]]) -> None:
    found, own = full(), told["Sanity"]
    assert f"(n = {found.sanity['proposed']['another image'][0].n:,})" in own[0]
    for part, title in enumerate(("rank correlation", "SSIM")):
        header, *rows = cells(own[1 + part])
        assert header == [title, "Proposed (Eq. 2)", "Eq. 2 unguided"]
        labels = ["maps of two images, trained", "classifier", "layer1"]
        assert rows == [
            [label, *(cell(found.sanity[name][stage][part]) for name in ("proposed", "unguided"))]
            for label, stage in zip(labels, STAGES, strict=True)
        ]
    last = {name: cell(found.sanity[name]["layer1"][0]) for name in found.sanity}
    assert own[3] == (
        "With all of the network random there remains a rank correlation of: "
        f"Eq. 2 unguided {last['unguided']}; Proposed (Eq. 2) {last['proposed']}."
    )
    assert own[4] == (
        "Eq. 2 does not see the classifier: with that alone random the proposed map has "
        f"{cell(found.sanity['proposed']['classifier'][0])}. It explains the joint, not the answer."
    )
    assert own[5:] == ["![How alike the maps are while the network is randomised from the top](sanity.png)"]


def test_without_a_classifier_or_the_proposed_map_nothing_is_said_of_the_classifier() -> None:
    for drop in ("classifier", "proposed"):
        found = full()
        found.sanity.pop(drop, None)
        for own in found.sanity.values():
            own.pop(drop, None)
        assert not any("classifier:" in part for part in sections(report(found, []))["Sanity"])


def test_the_run_stands_left_and_the_papers_figures_right(told: dict[str, list[str]]) -> None:
    found, own = full(), told["Words"]
    ours, theirs = found.words, found.paper_words
    assert ours and theirs and found.word_agreement

    def row(name: str, left: Estimate = NOTHING, right: Estimate = NOTHING) -> list[str]:
        both = [(signed(own), f"{own.n:,}") if own.n else ("", "") for own in (left, right)]
        return [name, *both[0], *both[1]]

    tables = [cells(paragraph) for paragraph in own[:4]]
    heads = ["part of speech", "words", "place in the question", "difference of means"]
    assert [table[0] for table in tables] == [
        [head, "mean z", "n", "the paper's figures", "n"] for head in heads
    ]
    tags, families, places, differences = (table[1:] for table in tables)
    ours_of, theirs_of = ours.part_of_speech, theirs.part_of_speech
    assert tags == [
        row("NOUN", ours_of["NOUN"], theirs_of["NOUN"]), row("DET", ours_of["DET"]),
        row("VERB", right=theirs_of["VERB"]),
    ]  # fmt: skip
    assert families == [row(name, ours.families[name], theirs.families[name]) for name in ("nouns", "verbs")]
    assert places == [
        row("1", ours.positions["1"], theirs.positions["1"]), row("2", ours.positions["2"]),
        row("9 …", right=theirs.positions["9 …"]),
        row("last", ours.positions["last"], theirs.positions["last"]),
    ]  # fmt: skip
    assert differences == [
        row("content less function words", ours.content, theirs.content),
        row("nouns less all others", ours.nouns, theirs.nouns),
        row("nouns less all others, places levelled", ours.levelled, theirs.levelled),
    ]
    assert own[4].startswith("Places levelled: ")
    assert own[5:] == [
        "![Mean z by part of speech, of this run and of the paper's figures](words.png)",
        "The model's own attention to words and z have a rank correlation of "
        f"{cell(found.word_agreement)}, n = {found.word_agreement.n:,}.",
    ]
    found.word_agreement = None
    assert sections(report(found, []))["Words"][-1] == (
        "The model has no attention to words that z could be compared with."
    )


def test_each_method_is_defined(told: dict[str, list[str]]) -> None:
    assert told["Methods"] == [
        "- Proposed (Eq. 2): guided backpropagation of V − F, F constant; Σ_c |Eq. 9|\n"
        "- Summed attention: Σ_g α_g\n"
        "- Eq. 2 unguided: as proposed, by true gradients\n"
        "- Centre: a Gaussian in the middle, σ a quarter of the side\n"
        "- Random: uniform noise for each pixel",
        "y is the answer's logit, f the features (M channels, lattice cells s), I the network's input.",
    ]


def test_only_plots_that_were_drawn_are_shown() -> None:
    assert "](" not in report(full(), [])
    text = report(full(), ["sanity"])
    assert text.count("](") == 1 and "](sanity.png)" in text


def test_what_was_not_measured_has_no_heading() -> None:
    found = Measures(full().about, ["proposed"])
    found.means = {"deletion": {"proposed": Estimate(0.5, math.nan, math.nan, 1)}}
    found.versus = {"deletion": {}}
    told = sections(report(found, []))
    assert list(told) == [
        "", "In plain words", "The paper's claims", "Methods side by side", "Agreement", "Methods",
    ]  # fmt: skip
    assert cells(told["Methods side by side"][0]) == [
        ["method", "Deletion area ↓ (n = 1)"], ["Proposed (Eq. 2)", "0.500"],
    ]  # fmt: skip
    assert "By chance" not in told["Methods side by side"][1]
    header, *rows = cells(told["Agreement"][0])
    assert header[1].endswith("(n = 0)") and rows == []
    assert len(told["Agreement"]) == 1
    for words, paper in ((full().words, None), (None, full().words)):
        found.words, found.paper_words = words, paper
        assert "Words" not in sections(report(found, []))


def test_claims_are_a_table_whose_cells_stand_to_the_left() -> None:
    lines = claims_table(full()).splitlines()
    assert lines[:2] == ["| claim | verdict | measured |", "|---|---|---|"]
    assert lines[2].startswith("| The heat map is similar to the attention maps (section 5) | **held** | ")
    assert all(len(line.split(" | ")) == 3 for line in lines[2:])


def test_numbers_stand_to_the_right_of_the_first_column() -> None:
    assert table(("a", "b", "c"), [("1", "2", "3")]) == "| a | b | c |\n|---|---:|---:|\n| 1 | 2 | 3 |"
    assert table(("a", "b"), [], numbers=False) == "| a | b |\n|---|---|"


def test_a_method_without_a_measure_has_an_empty_cell() -> None:
    found = full()
    for metric in METRICS[1:]:
        del found.means[metric]
    del found.means["pointing"]["centre"]
    assert cells(overview(found))[4] == ["Centre", ""]


def test_the_json_has_every_field_and_every_number_at_its_place() -> None:
    found = full()
    tree = json.loads(json.dumps(found.as_json()))
    assert set(tree) == {
        "about", "methods", "left_out", "means", "versus", "by_kind", "chance", "above_chance", "agreement",
        "additive", "matrix", "matrix_names", "ends", "curves", "sanity", "words", "paper_words",
        "word_agreement", "shares", "zero_maps", "zero_words",
    }  # fmt: skip

    def plain(own: Estimate) -> dict[str, float | None]:
        values = {"value": own.value, "low": own.low, "high": own.high}
        return {key: round(value, 6) for key, value in values.items()} | {"n": own.n}

    assert tree["about"] == found.about and tree["methods"] == NAMES and tree["left_out"] == found.left_out
    for metric in METRICS:
        assert tree["means"][metric] == {name: plain(own) for name, own in found.means[metric].items()}
        assert tree["versus"][metric] == {name: plain(own) for name, own in found.versus[metric].items()}
    assert tree["by_kind"]["count"]["overlap"]["random"] == plain(found.by_kind["count"]["overlap"]["random"])
    assert found.ends and found.words and found.paper_words and found.matrix is not None
    assert tree["ends"] == [plain(found.ends[0]), plain(found.ends[1])]
    assert tree["matrix"] == pytest.approx(found.matrix.round(6))
    assert tree["curves"]["unguided"][1] == pytest.approx(found.curves["unguided"][1])
    assert tree["sanity"]["unguided"]["layer1"] == [plain(x) for x in found.sanity["unguided"]["layer1"]]
    assert tree["words"]["content"] == plain(found.words.content)
    assert tree["paper_words"]["levelled"] == plain(found.paper_words.levelled)
    assert tree["shares"] == [0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]


def test_numbers_of_the_json_have_six_places_and_null_where_unknown() -> None:
    found = Measures({"of": np.int64(3), "share": np.float32(0.25), "yes": True}, ["proposed"])
    found.additive = Estimate(1 / 3, math.nan, math.inf, 1)
    tree = found.as_json()
    assert tree["additive"] == {"value": 0.333333, "low": None, "high": None, "n": 1}
    assert tree["about"] == {"of": 3, "share": 0.25, "yes": True}
    assert type(tree["about"]["of"]) is int and tree["about"]["yes"] is True
    assert tree["matrix"] is None and tree["ends"] is None
    json.dumps(tree, allow_nan=False)
