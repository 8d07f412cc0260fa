"""The report of ``hvx measure``, cell by cell: each number under its heading, its column and its method."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from made_measures import KINDS, METHODS, METRICS, SIDES, STAGES, TITLES, made_measures

from hvx.measure.metrics.bootstrap import NOTHING, Estimate
from hvx.measure.metrics.controls import Control
from hvx.measure.metrics.results import MetricResults
from hvx.measure.report.markdown import PLOTS, overview, report, zero_gradients

FOUND = made_measures()
HEADERS = {
    "pointing": "Pointing game", "energy": "Energy inside", "overlap": "IoU", "attention": "ρ with attention",
    "human": "ρ with people", "deletion": "Deletion area ↓", "insertion": "Insertion area",
}  # fmt: skip


def cell(own: Estimate) -> str:
    return f"{own.value:.3f} [{own.low:.3f}, {own.high:.3f}]"


def signed_cell(own: Estimate) -> str:
    return f"{own.value:+.3f} [{own.low:+.3f}, {own.high:+.3f}]"


Table = list[list[str]]


def sections(text: str) -> dict[str, list[str]]:
    """Heading → the blocks under it, as blank lines part them."""
    found: dict[str, list[str]] = {}
    blocks = text.removesuffix("\n").split("\n\n")
    heading = ""
    for block in blocks:
        if block.startswith("#"):
            heading = block
            assert heading not in found
            found[heading] = []
        else:
            found[heading].append(block)
    return found


def rows(block: str) -> Table:
    """The cells of a Markdown table, its header first, without the rule."""
    lines = block.splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in [lines[0], *lines[2:]])
    return [line[2:-2].split(" | ") for line in [lines[0], *lines[2:]]]


def whole() -> dict[str, list[str]]:
    """The report of all that was measured; each test makes its own, so that it reaches the code it checks."""
    return sections(report(FOUND, list(PLOTS)))


def test_the_headings_and_their_order() -> None:
    assert list(whole()) == [
        "# What the explanations of runs/made show", "## In plain words", "## The paper's claims",
        "## Methods side by side", "## Localization by kind of question", "## Agreement",
        "## Deletion and insertion", "## Sanity", "## Words", "## Methods", "## Left out",
    ]  # fmt: skip


def test_the_head_says_what_was_measured() -> None:
    assert whole()["# What the explanations of runs/made show"] == [
        "1,234 of the run's 56,789 explanations, of 321 images, drawn at random (seed 17); words over all of "
        "the run. Measured on 2017-05-09 on cpu, 6 CPU cores, with hvx 1.2, torch 3.4.",
        "In brackets: 95% percentile bootstrap intervals from 2,000 draws of images, since questions on one "
        "image are not independent. n counts explanations (of words, tokens).",
    ]


def test_the_table_of_methods_has_each_number_in_its_place() -> None:
    block, legend, plot, place, ranks = whole()["## Methods side by side"]
    header, *body = rows(block)
    assert header == [
        "method",
        *(f"{HEADERS[metric]} (n = {1000 + k:,})" for k, metric in enumerate(METRICS)),
    ]
    wanted = []
    for name, title in zip(METHODS, TITLES, strict=True):
        row = [title]
        for metric in METRICS:
            if (metric, name) == ("attention", "attention"):
                row.append("")
                continue
            side = SIDES.get(name, 0) * {"deletion": -1, "attention": 0}.get(metric, 1)
            row.append(cell(FOUND.means[metric][name]) + {1: " ▲", -1: " ▽", 0: ""}[side])
        wanted.append(row)
    assert body == wanted
    assert block.splitlines()[1] == "|---|---:|---:|---:|---:|---:|---:|---:|"
    assert legend == (
        "▲ better, ▽ worse than the proposed method: the interval of the paired difference does not hold 0. "
        f"↓: less is better. By chance a point lies in what is asked about in {cell(FOUND.chance['all'])} of "
        "the questions."
    )
    assert plot == "![Every measure of every method, with its interval](methods.png)"
    assert place == "The proposed method's place:"
    lines = ranks.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *("- Pointing game", "- Energy inside", "- IoU", "- ρ with people", "- Deletion area"),
        "- Insertion area",
    ]
    # The numbers of later methods are higher: the proposed one is last, but first where less is better.
    assert lines[0] == (
        "- Pointing game: place 5 of 5 (n = 1,000); better: Grad-CAM; "
        "not distinguished: Random, Summed attention"
    )
    assert lines[4] == (
        "- Deletion area: place 1 of 5 (n = 1,005); better: Gradient; "
        "not distinguished: Summed attention, Random"
    )


def test_the_command_prints_the_table_of_the_report() -> None:
    assert overview(FOUND) == whole()["## Methods side by side"][0]


def test_localization_by_kind_has_a_table_for_each_measure() -> None:
    blocks = whole()["## Localization by kind of question"]
    assert len(blocks) == 3
    for metric, block in zip(("pointing", "energy", "overlap"), blocks, strict=True):
        header, *body = rows(block)
        assert header == [HEADERS[metric], "count (n = 2,001)", "shape (n = 2,002)"]
        wanted = [
            [title, *(cell(FOUND.by_kind[kind][metric][name]) for kind in KINDS)]
            for name, title in zip(METHODS, TITLES, strict=True)
        ]
        if metric == "pointing":
            wanted.append(["share of the picture", *(cell(FOUND.chance[kind]) for kind in KINDS)])
        assert body == wanted


def test_agreement_is_listed_from_the_highest() -> None:
    block, additive, plot = whole()["## Agreement"]
    header, *body = rows(block)
    assert header == ["map", "rank correlation with the proposed map, on the grid (n = 3,000)"]
    names = ["glimpse 2", "glimpse 1", "random", "gradient", "grad-cam", "attention"]
    titles = ["glimpse 2", "glimpse 1", "Random", "Gradient", "Grad-CAM", "Summed attention"]
    assert body == [[title, cell(FOUND.agreement[name])] for name, title in zip(names, titles, strict=True)]
    assert FOUND.additive is not None
    assert additive == f"Sum of the glimpses less the better single one: {signed_cell(FOUND.additive)}."
    assert plot == "![Mean rank correlation of the maps of each pair of methods](agreement.png)"


def test_a_difference_above_0_has_its_sign() -> None:
    text = report(replace(FOUND, additive=Estimate(0.125, -0.25, 0.5, 9)), [])
    assert "\n\nSum of the glimpses less the better single one: +0.125 [-0.250, +0.500].\n" in text


def test_deletion_and_insertion_say_where_the_curves_end() -> None:
    text, plot = whole()["## Deletion and insertion"]
    assert FOUND.ends is not None
    sharp, blurry = map(cell, FOUND.ends)
    assert text.startswith(
        f"The answer's probability is {sharp} on the photographs and {blurry} on their blurs (a Gaussian of "
        "10% of the side), n = 4,000. "
    )
    assert plot.endswith("](curves.png)")
    assert PLOTS["curves"] in plot


def test_sanity_has_a_table_for_each_similarity() -> None:
    text, correlations, ssims, last, classifier, plot = whole()["## Sanity"]
    assert "(n = 50)" in text
    labels = ["maps of two images, trained", "classifier", "layer1"]
    for part, (title, block) in enumerate((("rank correlation", correlations), ("SSIM", ssims))):
        header, *body = rows(block)
        assert header == [title, *TITLES[:4]]
        assert body == [
            [label, *(cell(FOUND.sanity[name][stage][part]) for name in METHODS[:4])]
            for label, stage in zip(labels, STAGES, strict=True)
        ]
    order = [(TITLES[k], FOUND.sanity[METHODS[k]]["layer1"][0]) for k in (3, 2, 1, 0)]
    kept = "; ".join(f"{title} {cell(own)}" for title, own in order)
    assert last == f"With all of the network random there remains a rank correlation of: {kept}."
    own = cell(FOUND.sanity["proposed"]["classifier"][0])
    assert classifier == (
        f"Eq. 2 does not see the classifier: with that alone random the proposed map has {own}. It explains "
        "the joint, not the answer."
    )
    assert plot.endswith("](sanity.png)")


def test_words_of_the_run_and_of_the_paper_stand_in_their_own_columns() -> None:
    *blocks, note, plot, agreement = whole()["## Words"]
    ours, theirs = FOUND.words, FOUND.paper_words
    assert ours is not None and theirs is not None

    def both(own: Estimate | None) -> list[str]:
        return [signed_cell(own), f"{own.n:,}"] if own else ["", ""]

    tables = {
        "part of speech": (ours.part_of_speech, theirs.part_of_speech, ["NOUN", "WH", "DET", "VERB"]),
        "words": (ours.families, theirs.families, list(ours.families)),
        "place in the question": (ours.positions, theirs.positions, ["1", "2", "3", "last"]),
    }
    for block, (title, (own, paper, names)) in zip(blocks, tables.items(), strict=False):
        header, *body = rows(block)
        assert header == [title, "mean z", "n", "the paper's figures", "n"]
        assert body == [[name, *both(own.get(name)), *both(paper.get(name))] for name in names]
    header, *body = rows(blocks[3])
    assert len(blocks) == 4
    assert header == ["difference of means", "mean z", "n", "the paper's figures", "n"]
    assert body == [
        ["content less function words", *both(ours.content), *both(theirs.content)],
        ["nouns less all others", *both(ours.nouns), *both(theirs.nouns)],
        ["nouns less all others, places levelled", *both(ours.levelled), *both(theirs.levelled)],
    ]
    assert note.startswith("Places levelled: ")
    assert plot.endswith("](words.png)")
    assert FOUND.word_agreement is not None
    assert agreement == (
        "The model's own attention to words and z have a rank correlation of "
        f"{cell(FOUND.word_agreement)}, n = 6,000."
    )


def test_methods_are_defined_and_what_is_left_out_is_listed() -> None:
    definitions, symbols = whole()["## Methods"]
    assert [line.partition(":")[0] for line in definitions.splitlines()] == [f"- {title}" for title in TITLES]
    assert "- Summed attention: Σ_g α_g" in definitions.splitlines()
    assert symbols.startswith("y is the answer's logit, f the features")
    assert whole()["## Left out"] == ["- one thing: a reason\n- another: its reason"]


def test_what_was_not_measured_has_no_section() -> None:
    bare = replace(
        FOUND,
        by_kind={},
        ends=None,
        sanity={},
        words=None,
        left_out=[],
        above_chance=None,
        chance={},
        additive=None,
    )
    found = sections(report(bare, []))
    assert list(found) == [
        "# What the explanations of runs/made show", "## In plain words", "## The paper's claims",
        "## Methods side by side", "## Agreement", "## Methods",
    ]  # fmt: skip
    assert len(found["## Methods side by side"]) == 4  # no plot
    assert "By chance" not in found["## Methods side by side"][1]
    assert len(found["## Agreement"]) == 1
    assert "## Words" not in sections(report(replace(FOUND, paper_words=None), []))


@pytest.mark.parametrize("name", list(PLOTS))
def test_a_plot_stands_in_its_own_section(name: str) -> None:
    own = {
        "methods": "## Methods side by side",
        "agreement": "## Agreement",
        "curves": "## Deletion and insertion",
        "sanity": "## Sanity",
        "words": "## Words",
    }
    found = sections(report(FOUND, [name]))
    holding = [heading for heading, blocks in found.items() if any(b.startswith("![") for b in blocks)]
    assert holding == [own[name]]
    assert f"![{PLOTS[name]}]({name}.png)" in found[own[name]]


def test_sanity_without_the_proposed_method_or_the_classifier_says_nothing_of_them() -> None:
    others = {name: own for name, own in FOUND.sanity.items() if name != "proposed"}
    assert "does not see the classifier" not in report(replace(FOUND, sanity=others), [])
    without = {
        name: {stage: pair for stage, pair in own.items() if stage != "classifier"}
        for name, own in FOUND.sanity.items()
    }
    assert "does not see the classifier" not in report(replace(FOUND, sanity=without), [])


def test_a_model_without_attention_to_words_says_so() -> None:
    text = report(replace(FOUND, word_agreement=None), [])
    assert "The model has no attention to words that z could be compared with." in text


def test_groups_of_words_that_only_one_side_has_leave_the_others_cells_empty() -> None:
    assert FOUND.words is not None
    families = dict(FOUND.words.families) | {"verbs": NOTHING}
    text = report(replace(FOUND, words=replace(FOUND.words, families=families)), [])
    (line,) = [line for line in text.splitlines() if line.startswith("| verbs |")]
    assert line.startswith("| verbs |  |  | +")


def test_positions_are_sorted_with_the_last_one_at_the_end() -> None:
    assert FOUND.words is not None and FOUND.paper_words is not None
    own = dict.fromkeys(("2", "last", "9 …"), FOUND.words.content)
    paper = dict.fromkeys(("1", "8", "last"), FOUND.words.content)
    words, printed = replace(FOUND.words, positions=own), replace(FOUND.paper_words, positions=paper)
    blocks = sections(report(replace(FOUND, words=words, paper_words=printed), []))["## Words"]
    assert [row[0] for row in rows(blocks[2])[1:]] == ["1", "2", "8", "9 …", "last"]


@pytest.mark.parametrize(("maps", "words", "lines"), [(0, 0, 0), (2, 0, 1), (0, 3, 1), (1500, 3, 2)])
def test_gradients_that_are_zero_are_said_only_if_there_are_any(maps: int, words: int, lines: int) -> None:
    found = replace(FOUND, zero_maps=maps, zero_words=words)
    said = zero_gradients(found)
    assert len(said) == lines
    if maps:
        assert said[0].startswith(f"Eq. 2 is zero everywhere for {maps:,} of the 1,234 explanations: ")
    if words:
        assert said[-1].startswith(
            f"Eq. 3 is zero everywhere for {words:,} of the run's 56,789 explanations: "
        )
    head = sections(report(found, []))["# What the explanations of runs/made show"]
    assert head[2:] == said


# The same numbers as JSON


def as_dict(own: Estimate) -> dict[str, float | int]:
    return {"value": own.value, "low": own.low, "high": own.high, "n": own.n}


def rounded(tree: object) -> object:
    return json.loads(json.dumps(tree), parse_float=lambda text: round(float(text), 6))


def test_the_json_has_every_number_under_its_own_name() -> None:
    numbers = [Estimate(k / 7, k / 8, k / 6, k) for k in range(1, 7)]
    controls = {"another question": Control(*numbers[:3], 4)}
    found = replace(
        FOUND, others={"gradient": Control(*numbers[3:], 5)}, controls=controls, image_use=controls
    )
    assert found.above_chance and found.additive and found.ends and found.words and found.paper_words
    assert found.word_agreement and found.matrix is not None

    def means(tree: dict[str, dict[str, Estimate]]) -> dict[str, dict[str, object]]:
        return {one: {name: as_dict(own) for name, own in part.items()} for one, part in tree.items()}

    def control(own: Control) -> dict[str, object]:
        return {k: as_dict(getattr(own, k)) for k in ("own", "other", "less")} | {"without": own.without}

    def words(own: object) -> dict[str, object]:
        names = ("part_of_speech", "families", "positions")
        groups = {name: {k: as_dict(v) for k, v in getattr(own, name).items()} for name in names}
        return groups | {name: as_dict(getattr(own, name)) for name in ("content", "nouns", "levelled")}

    wanted = {
        "about": found.about, "methods": found.methods, "left_out": found.left_out, "zero_maps": 0,
        "zero_words": 0, "means": means(found.means), "versus": means(found.versus),
        "by_kind": {kind: means(own) for kind, own in found.by_kind.items()},
        "chance": {kind: as_dict(own) for kind, own in found.chance.items()},
        "others": {name: control(own) for name, own in found.others.items()},
        "controls": {name: control(own) for name, own in found.controls.items()},
        "image_use": {name: control(own) for name, own in found.image_use.items()},
        "above_chance": as_dict(found.above_chance),
        "agreement": {name: as_dict(own) for name, own in found.agreement.items()},
        "additive": as_dict(found.additive), "matrix": found.matrix.tolist(),
        "matrix_names": found.matrix_names, "ends": [as_dict(own) for own in found.ends],
        "curves": {name: list(pair) for name, pair in found.curves.items()},
        "sanity": {
            name: {stage: [as_dict(own) for own in pair] for stage, pair in stages.items()}
            for name, stages in found.sanity.items()
        },
        "words": words(found.words), "paper_words": words(found.paper_words),
        "word_agreement": as_dict(found.word_agreement),
        "shares": [0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1],
    }  # fmt: skip
    assert found.as_json() == rounded(wanted)
    json.dumps(found.as_json(), allow_nan=False)


def test_what_is_not_known_is_null_in_json_and_numbers_are_plain() -> None:
    found = MetricResults({"a": np.int64(3), "b": np.float32(0.5), "c": (1, True, "x")}, [])
    found.chance["all"] = Estimate(0.1234567, math.nan, -math.inf, 1)
    tree = found.as_json()
    assert tree["about"] == {"a": 3, "b": 0.5, "c": [1, True, "x"]}
    assert type(tree["about"]["a"]) is int and type(tree["about"]["b"]) is float
    assert tree["about"]["c"][1] is True
    assert tree["chance"]["all"] == {"value": 0.123457, "low": None, "high": None, "n": 1}
    nothing = ("above_chance", "additive", "matrix", "ends", "words", "paper_words", "word_agreement")
    assert all(tree[name] is None for name in nothing)
