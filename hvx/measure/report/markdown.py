"""The report of a run's measures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hvx.measure.methods.registry import METHODS, PROPOSED
from hvx.measure.metrics.bootstrap import DRAWS, LEVEL, NOTHING, Estimate
from hvx.measure.metrics.controls import BETWEEN
from hvx.measure.metrics.faithfulness import BLUR
from hvx.measure.metrics.results import ALL, MetricResults
from hvx.measure.metrics.sanity import OTHER_IMAGE
from hvx.measure.metrics.scores import LOCAL, METRICS
from hvx.measure.report.claims import RULE, claims, in_words, mark, ranking, shown, signed
from hvx.measure.report.words import WordMeans
from hvx.table import table

PLOTS = {
    "methods": "Every measure of every method, with its interval",
    "agreement": "Mean rank correlation of the maps of each pair of methods",
    "curves": "The answer's probability while the most salient pixels are deleted, and inserted",
    "sanity": "How alike the maps are while the network is randomized from the top",
    "words": "Mean z by part of speech, of this run and of the paper's figures",
}
"""Names of the plots, in the order of the report, and their captions."""


def report(measures: MetricResults, plots: Sequence[str]) -> str:
    """The whole report; ``plots`` names the plots that were drawn, as ``NAME.png`` next to it."""
    parts = [f"# What the explanations of {measures.about['run']} show", _about(measures)]
    parts += zero_gradients(measures)
    parts += ["## In plain words", *in_words(measures)]
    parts += ["## The paper's claims", claims_table(measures), RULE]
    parts += ["## Methods side by side", overview(measures), _legend(measures), *_plot("methods", plots)]
    parts += ["The proposed method's place:", _bullets(ranking(measures))]
    if measures.image_use:
        parts += ["## What the image contributes", image_use_table(measures)]
    if measures.others:
        parts += ["## Whose question", _others(measures)]
    if measures.by_kind:
        parts += ["## Localization by kind of question", _kinds(measures)]
    parts += ["## Agreement", _agreement(measures), *_plot("agreement", plots)]
    if measures.ends:
        parts += ["## Deletion and insertion", _faithfulness(measures), *_plot("curves", plots)]
    if measures.sanity:
        parts += ["## Sanity", _sanity(measures), *_plot("sanity", plots)]
    if measures.words and measures.paper_words:
        parts += ["## Words", _words(measures.words, measures.paper_words), *_plot("words", plots)]
        parts += [_word_agreement(measures.word_agreement)]
    parts += [
        "## Methods",
        _bullets(f"{METHODS[name].title}: {METHODS[name].definition}" for name in measures.methods),
    ]
    parts.append("y is the answer's logit, f the features (M channels, grid cells s), I the network's input.")
    if measures.left_out:
        parts += ["## Left out", _bullets(measures.left_out)]
    return "\n\n".join(parts) + "\n"


def zero_gradients(measures: MetricResults) -> list[str]:
    """A line for each equation that is zero everywhere for some explanations."""
    lines = []
    if measures.zero_maps:
        lines.append(
            f"Eq. 2 is zero everywhere for {measures.zero_maps:,} of the {measures.about['explanations']:,} "
            "explanations: their maps are blank. A blank map points nowhere, has no energy inside, overlaps "
            "nothing and correlates by 0; pixels are taken in random order."
        )
    if measures.zero_words:
        lines.append(
            f"Eq. 3 is zero everywhere for {measures.zero_words:,} of the run's {measures.about['of']:,} "
            "explanations: all of their z are 0."
        )
    return lines


def claims_table(measures: MetricResults, markdown: bool | None = True) -> str:
    """The paper's claims and their verdicts; ``markdown`` as of ``hvx.table.table``."""
    rows = [(claim.claim, claim.verdict, claim.evidence) for claim in claims(measures)]
    return table(("claim", "verdict", "measured"), rows, markdown=markdown)


def overview(measures: MetricResults, markdown: bool | None = True) -> str:
    """Every method by every measure; ``markdown`` as of ``hvx.table.table``."""
    metrics = [metric for metric in METRICS if metric in measures.means]
    header = ["method"]
    for metric in metrics:
        n = next(iter(measures.means[metric].values())).n
        header.append(
            f"{METRICS[metric].title}{' ↓' if METRICS[metric].more_is_better is False else ''} (n = {n:,})"
        )
    rows = []
    for name in measures.methods:
        cells = [METHODS[name].title]
        for metric in metrics:
            estimate = measures.means[metric].get(name)
            cells.append(shown(estimate) + mark(measures, metric, name) if estimate else "")
        rows.append(cells)
    return table(header, rows, markdown=markdown)


def image_use_table(measures: MetricResults) -> str:
    """The accuracy with and without the image."""
    first = next(iter(measures.image_use.values()))
    rows = [("of the network", shown(first.own), "")]
    rows += [
        (name, shown(control.other), signed(control.less)) for name, control in measures.image_use.items()
    ]
    return _markdown((f"accuracy (n = {first.less.n:,})", "", "the network's less this"), rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(header, rows, markdown=True)


def _about(measures: MetricResults) -> str:
    info = measures.about
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    target = f" Localization: {_target(info)}." if info.get("target") else ""
    subset = " from those whose question has a target" if info.get("with_target") else ""
    return (
        f"{info['explanations']:,} of the run's {info['of']:,} explanations, of {info['images']:,} images, "
        f"drawn at random{subset} (seed {info['seed']}); words over all of the run. "
        f"Measured on {info['date']} on {info['device']}, {info['cores']} CPU cores, "
        f"with {versions}.{target}\n\n"
        f"In brackets: {LEVEL:.0%} percentile bootstrap intervals from {DRAWS:,} draws of images, since "
        "questions on one image are not independent. n counts explanations (of words, tokens)."
    )


def _target(about: dict[str, Any]) -> str:
    """The localized target of the table of objects, and how to measure its other targets."""
    others = [f"`--target {name}`" for name in about["targets"] if name != about["target"]]
    return f"of the target *{about['target']}*" + (f" (others: {', '.join(others)})" if others else "")


def _legend(measures: MetricResults) -> str:
    text = (
        "▲ better, ▽ worse than the proposed method: the interval of the paired difference does not hold 0. "
        "↓: less is better."
    )
    if ALL in measures.chance:
        share = measures.chance[ALL]
        text += f" By chance a point lies in what is asked about in {shown(share)} of the questions."
    return text


def _others(measures: MetricResults) -> str:
    """The pointing game compared with other questions' maps: what a map finds for any question."""
    rows = [
        (METHODS[name].title, shown(control.own), shown(control.other), signed(control.less))
        for name, control in measures.others.items()
    ]
    first = next(iter(measures.others.values()))
    header = (f"pointing game (n = {first.less.n:,})", "own map", "another question's map", "difference")
    text = (
        "The same objects, but the maps of other questions on the image, which ask about other objects. "
        "Where both columns are equal, a method points at what lies in the image, whatever is asked."
    )
    if first.without:
        text += f" {first.without:,} explanations have no such question on their image."
    return f"{_markdown(header, rows)}\n\n{text}"


def _kinds(measures: MetricResults) -> str:
    parts = []
    kinds = list(measures.by_kind)
    for metric in LOCAL:
        header = [METRICS[metric].title]
        header += [f"{kind} (n = {measures.chance[kind].n:,})" for kind in kinds]
        rows = [
            [METHODS[name].title, *(shown(measures.by_kind[kind][metric][name]) for kind in kinds)]
            for name in measures.methods
        ]
        if metric == "pointing":
            rows.append(["share of the picture", *(shown(measures.chance[kind]) for kind in kinds)])
        parts.append(_markdown(header, rows))
    return "\n\n".join(parts)


def _agreement(measures: MetricResults) -> str:
    rows = [
        (METHODS[name].title if name in METHODS else name, shown(estimate))
        for name, estimate in sorted(measures.agreement.items(), key=lambda row: -row[1].value)
    ]
    n = next(iter(measures.agreement.values()), NOTHING).n
    text = _markdown(("map", f"rank correlation with the proposed map, on the grid (n = {n:,})"), rows)
    if measures.controls:
        text += f"\n\n{_controls(measures)}"
    if measures.additive:
        text += f"\n\nSum of the glimpses less the better single one: {signed(measures.additive)}."
    return text


def _controls(measures: MetricResults) -> str:
    """Agreement of the proposed map with its own question's attention and with others'."""
    rows = [
        (f"attention of {name}", shown(pair.own), shown(pair.other), signed(pair.less), f"{pair.less.n:,}")
        for name, pair in measures.controls.items()
        if name != BETWEEN
    ]
    return _markdown(("the proposed map with the", "own attention", "the other's", "difference", "n"), rows)


def _faithfulness(measures: MetricResults) -> str:
    assert measures.ends
    sharp, blurry = measures.ends
    return (
        f"The answer's probability is {shown(sharp)} on the photographs and {shown(blurry)} on their blurs "
        f"(a Gaussian of {BLUR:.0%} of the side), n = {sharp.n:,}. Pixels are taken in the order of a map, "
        "the most salient first: deletion replaces them by the blur's, insertion puts them back onto it. "
        "The areas under the curves, over the share of pixels, are in the table above."
    )


def _sanity(measures: MetricResults) -> str:
    stages = next(iter(measures.sanity.values()))
    n = next(iter(stages.values()))[0].n
    parts = [
        "The network's blocks lose what they learned one after the other, from the answer downwards, by "
        f"shuffling each tensor's values (n = {n:,}). A row says how alike the maps before and after are, "
        "once all blocks down to this one are random; the first, how alike the trained network's maps of two "
        "images are."
    ]
    for part, title in enumerate(("rank correlation", "SSIM")):
        header = [title, *(METHODS[name].title for name in measures.sanity)]
        rows = []
        for stage in stages:
            label = "maps of two images, trained" if stage == OTHER_IMAGE else stage
            rows.append([label, *(shown(by_stage[stage][part]) for by_stage in measures.sanity.values())])
        parts.append(_markdown(header, rows))
    last = list(stages)[-1]
    order = sorted(measures.sanity, key=lambda name: -measures.sanity[name][last][0].value)
    remaining = [f"{METHODS[name].title} {shown(measures.sanity[name][last][0])}" for name in order]
    parts.append(
        f"With all of the network random there remains a rank correlation of: {'; '.join(remaining)}."
    )
    if PROPOSED in measures.sanity and "classifier" in stages:
        after = measures.sanity[PROPOSED]["classifier"][0]
        parts.append(
            f"Eq. 2 does not see the classifier: with that alone random the proposed map has {shown(after)}. "
            "It explains the joint, not the answer."
        )
    return "\n\n".join(parts)


def _words(run: WordMeans, paper: WordMeans) -> str:
    parts = []
    for title, ours, theirs in (
        ("part of speech", run.part_of_speech, paper.part_of_speech),
        ("words", run.families, paper.families),
        ("place in the question", run.positions, paper.positions),
    ):
        names = [*ours, *(name for name in theirs if name not in ours)]
        if title != "words" and title != "part of speech":
            names.sort(key=lambda name: (not name[0].isdigit(), name))
        rows = [
            (name, *_cells(ours.get(name, NOTHING)), *_cells(theirs.get(name, NOTHING))) for name in names
        ]
        parts.append(_markdown((title, "mean z", "n", "the paper's figures", "n"), rows))
    content = [
        ("content less function words", run.content, paper.content),
        ("nouns less all others", run.nouns, paper.nouns),
        ("nouns less all others, places levelled", run.levelled, paper.levelled),
    ]
    rows = [(name, *_cells(ours), *_cells(theirs)) for name, ours, theirs in content]
    parts.append(_markdown(("difference of means", "mean z", "n", "the paper's figures", "n"), rows))
    parts.append(
        "Places levelled: each z less the mean of its place in the question, so that nouns, which stand "
        "late, are held against other words of the same places."
    )
    return "\n\n".join(parts)


def _word_agreement(rho: Estimate | None) -> str:
    if rho is None:
        return "The model has no attention to words that z could be compared with."
    return f"The model's own attention to words and z have a rank correlation of {shown(rho)}, n = {rho.n:,}."


def _cells(estimate: Estimate) -> tuple[str, str]:
    return (signed(estimate), f"{estimate.n:,}") if estimate.known else ("", "")


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _plot(name: str, plots: Sequence[str]) -> list[str]:
    return [f"![{PLOTS[name]}]({name}.png)"] if name in plots else []
