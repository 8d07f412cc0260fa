"""The report of a run's measures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hvx.measure.bootstrap import DRAWS, LEVEL, NOTHING, Estimate
from hvx.measure.claims import RULE, claims, in_words, mark, ranking, shown, signed
from hvx.measure.controls import BETWEEN
from hvx.measure.faithfulness import BLUR
from hvx.measure.measures import ALL, Measures
from hvx.measure.methods import METHODS, PROPOSED
from hvx.measure.sanity import OTHER_IMAGE
from hvx.measure.scores import LOCAL, METRICS
from hvx.measure.words_report import WordMeans
from hvx.table import table

PLOTS = {
    "methods": "Every measure of every method, with its interval",
    "agreement": "Mean rank correlation of the maps of each pair of methods",
    "curves": "The answer's probability while the most salient pixels are deleted, and inserted",
    "sanity": "How alike the maps are while the network is randomized from the top",
    "words": "Mean z by part of speech, of this run and of the paper's figures",
}
"""Names of the plots, in the order of the report, and what they show."""


def report(found: Measures, plots: Sequence[str]) -> str:
    """The whole report; ``plots`` names those that were drawn, as ``NAME.png`` beside it."""
    parts = [f"# What the explanations of {found.about['run']} show", _about(found)]
    parts += zero_gradients(found)
    parts += ["## In plain words", *in_words(found)]
    parts += ["## The paper's claims", claims_table(found), RULE]
    parts += ["## Methods side by side", overview(found), _legend(found), *_plot("methods", plots)]
    parts += ["The proposed method's place:", _bullets(ranking(found))]
    if found.image_use:
        parts += ["## What the image contributes", image_use_table(found)]
    if found.others:
        parts += ["## Whose question", _others(found)]
    if found.by_kind:
        parts += ["## Localization by kind of question", _kinds(found)]
    parts += ["## Agreement", _agreement(found), *_plot("agreement", plots)]
    if found.ends:
        parts += ["## Deletion and insertion", _faithfulness(found), *_plot("curves", plots)]
    if found.sanity:
        parts += ["## Sanity", _sanity(found), *_plot("sanity", plots)]
    if found.words and found.paper_words:
        parts += ["## Words", _words(found.words, found.paper_words), *_plot("words", plots)]
        parts += [_word_agreement(found.word_agreement)]
    parts += [
        "## Methods",
        _bullets(f"{METHODS[name].title}: {METHODS[name].definition}" for name in found.methods),
    ]
    parts.append(
        "y is the answer's logit, f the features (M channels, lattice cells s), I the network's input."
    )
    if found.left_out:
        parts += ["## Left out", _bullets(found.left_out)]
    return "\n\n".join(parts) + "\n"


def zero_gradients(found: Measures) -> list[str]:
    """A line for each equation that is zero everywhere for some explanations; none if there are none."""
    lines = []
    if found.zero_maps:
        lines.append(
            f"Eq. 2 is zero everywhere for {found.zero_maps:,} of the {found.about['explanations']:,} "
            "explanations: their maps are blank. A blank map points nowhere, has no energy inside, overlaps "
            "nothing and correlates by 0; pixels are taken in random order."
        )
    if found.zero_words:
        lines.append(
            f"Eq. 3 is zero everywhere for {found.zero_words:,} of the run's {found.about['of']:,} "
            "explanations: all of their z are 0."
        )
    return lines


def claims_table(found: Measures, markdown: bool | None = True) -> str:
    """The paper's claims and what came of them; ``markdown`` as of ``hvx.table.table``."""
    rows = [(own.claim, own.verdict, own.evidence) for own in claims(found)]
    return table(("claim", "verdict", "measured"), rows, markdown=markdown)


def overview(found: Measures, markdown: bool | None = True) -> str:
    """Every method by every measure; ``markdown`` as of ``hvx.table.table``."""
    metrics = [metric for metric in METRICS if metric in found.means]
    header = ["method"]
    for metric in metrics:
        n = next(iter(found.means[metric].values())).n
        header.append(
            f"{METRICS[metric].title}{' ↓' if METRICS[metric].more_is_better is False else ''} (n = {n:,})"
        )
    rows = []
    for name in found.methods:
        cells = [METHODS[name].title]
        for metric in metrics:
            own = found.means[metric].get(name)
            cells.append(shown(own) + mark(found, metric, name) if own else "")
        rows.append(cells)
    return table(header, rows, markdown=markdown)


def image_use_table(found: Measures) -> str:
    """The accuracy beside that without the image."""
    own = next(iter(found.image_use.values()))
    rows = [("of the network", shown(own.own), "")]
    rows += [(name, shown(one.other), signed(one.less)) for name, one in found.image_use.items()]
    return _markdown((f"accuracy (n = {own.less.n:,})", "", "the network's less this"), rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(header, rows, markdown=True)


def _about(found: Measures) -> str:
    own = found.about
    made = own["versions"]
    versions = ", ".join(f"{name} {version}" for name, version in made.items())
    target = f" Localization: {_target(own)}." if own.get("target") else ""
    among = " from those whose question has a target" if own.get("with_target") else ""
    return (
        f"{own['explanations']:,} of the run's {own['of']:,} explanations, of {own['images']:,} images, "
        f"drawn at random{among} (seed {own['seed']}); words over all of the run. Measured on {own['date']} "
        f"on {own['device']}, {own['cores']} CPU cores, with {versions}.{target}\n\n"
        f"In brackets: {LEVEL:.0%} percentile bootstrap intervals from {DRAWS:,} draws of images, since "
        "questions on one image are not independent. n counts explanations (of words, tokens)."
    )


def _target(about: dict[str, Any]) -> str:
    """Which target of the table of objects was localized, and how to measure its others."""
    others = [f"`--target {name}`" for name in about["targets"] if name != about["target"]]
    return f"of the target *{about['target']}*" + (f" (others: {', '.join(others)})" if others else "")


def _legend(found: Measures) -> str:
    text = (
        "▲ better, ▽ worse than the proposed method: the interval of the paired difference does not hold 0. "
        "↓: less is better."
    )
    if ALL in found.chance:
        own = found.chance[ALL]
        text += f" By chance a point lies in what is asked about in {shown(own)} of the questions."
    return text


def _others(found: Measures) -> str:
    """The pointing game beside that of other questions' maps: what a map finds whatever is asked."""
    rows = [
        (METHODS[name].title, shown(own.own), shown(own.other), signed(own.less))
        for name, own in found.others.items()
    ]
    own = next(iter(found.others.values()))
    header = (f"pointing game (n = {own.less.n:,})", "own map", "another question's map", "difference")
    text = (
        "The same objects, but the maps of other questions on the image, which ask about other objects. "
        "Where both columns are equal, a method points at what lies in the image, whatever is asked."
    )
    if own.without:
        text += f" {own.without:,} explanations have no such question on their image."
    return f"{_markdown(header, rows)}\n\n{text}"


def _kinds(found: Measures) -> str:
    parts = []
    kinds = list(found.by_kind)
    for metric in LOCAL:
        header = [METRICS[metric].title]
        header += [f"{kind} (n = {found.chance[kind].n:,})" for kind in kinds]
        rows = [
            [METHODS[name].title, *(shown(found.by_kind[kind][metric][name]) for kind in kinds)]
            for name in found.methods
        ]
        if metric == "pointing":
            rows.append(["share of the picture", *(shown(found.chance[kind]) for kind in kinds)])
        parts.append(_markdown(header, rows))
    return "\n\n".join(parts)


def _agreement(found: Measures) -> str:
    rows = [
        (METHODS[name].title if name in METHODS else name, shown(own))
        for name, own in sorted(found.agreement.items(), key=lambda row: -row[1].value)
    ]
    n = next(iter(found.agreement.values()), NOTHING).n
    text = _markdown(("map", f"rank correlation with the proposed map, on the lattice (n = {n:,})"), rows)
    if found.controls:
        text += f"\n\n{_controls(found)}"
    if found.additive:
        text += f"\n\nSum of the glimpses less the better single one: {signed(found.additive)}."
    return text


def _controls(found: Measures) -> str:
    """Agreement of the proposed map with attention, its own and others'."""
    rows = [
        (f"attention of {name}", shown(own.own), shown(own.other), signed(own.less), f"{own.less.n:,}")
        for name, own in found.controls.items()
        if name != BETWEEN
    ]
    return _markdown(("the proposed map with the", "own attention", "the other's", "difference", "n"), rows)


def _faithfulness(found: Measures) -> str:
    assert found.ends
    sharp, blurry = found.ends
    return (
        f"The answer's probability is {shown(sharp)} on the photographs and {shown(blurry)} on their blurs "
        f"(a Gaussian of {BLUR:.0%} of the side), n = {sharp.n:,}. Pixels are taken in the order of a map, "
        "the most salient first: deletion replaces them by the blur's, insertion puts them back onto it. "
        "The areas under the curves, over the share of pixels, are in the table above."
    )


def _sanity(found: Measures) -> str:
    stages = next(iter(found.sanity.values()))
    n = next(iter(stages.values()))[0].n
    parts = [
        "The network's blocks lose what they learned one after the other, from the answer downwards, by "
        f"shuffling each tensor's values (n = {n:,}). A row says how alike the maps before and after are, "
        "once all blocks down to this one are random; the first, how alike the trained network's maps of two "
        "images are."
    ]
    for part, title in enumerate(("rank correlation", "SSIM")):
        header = [title, *(METHODS[name].title for name in found.sanity)]
        rows = []
        for stage in stages:
            label = "maps of two images, trained" if stage == OTHER_IMAGE else stage
            rows.append([label, *(shown(own[stage][part]) for own in found.sanity.values())])
        parts.append(_markdown(header, rows))
    last = list(stages)[-1]
    order = sorted(found.sanity, key=lambda name: -found.sanity[name][last][0].value)
    kept = [f"{METHODS[name].title} {shown(found.sanity[name][last][0])}" for name in order]
    parts.append(f"With all of the network random there remains a rank correlation of: {'; '.join(kept)}.")
    if PROPOSED in found.sanity and "classifier" in stages:
        own = found.sanity[PROPOSED]["classifier"][0]
        parts.append(
            f"Eq. 2 does not see the classifier: with that alone random the proposed map has {shown(own)}. "
            "It explains the joint, not the answer."
        )
    return "\n\n".join(parts)


def _words(own: WordMeans, paper: WordMeans) -> str:
    parts = []
    for title, ours, theirs in (
        ("part of speech", own.part_of_speech, paper.part_of_speech),
        ("words", own.families, paper.families),
        ("place in the question", own.positions, paper.positions),
    ):
        names = [*ours, *(name for name in theirs if name not in ours)]
        if title != "words" and title != "part of speech":
            names.sort(key=lambda name: (not name[0].isdigit(), name))
        rows = [(name, *_both(ours.get(name, NOTHING)), *_both(theirs.get(name, NOTHING))) for name in names]
        parts.append(_markdown((title, "mean z", "n", "the paper's figures", "n"), rows))
    content = [
        ("content less function words", own.content, paper.content),
        ("nouns less all others", own.nouns, paper.nouns),
        ("nouns less all others, places levelled", own.levelled, paper.levelled),
    ]
    rows = [(name, *_both(ours), *_both(theirs)) for name, ours, theirs in content]
    parts.append(_markdown(("difference of means", "mean z", "n", "the paper's figures", "n"), rows))
    parts.append(
        "Places levelled: each z less the mean of its place in the question, so that nouns, which stand "
        "late, are held against other words of the same places."
    )
    return "\n\n".join(parts)


def _word_agreement(own: Estimate | None) -> str:
    if own is None:
        return "The model has no attention to words that z could be compared with."
    return f"The model's own attention to words and z have a rank correlation of {shown(own)}, n = {own.n:,}."


def _both(own: Estimate) -> tuple[str, str]:
    return (signed(own), f"{own.n:,}") if own.known else ("", "")


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _plot(name: str, plots: Sequence[str]) -> list[str]:
    return [f"![{PLOTS[name]}]({name}.png)"] if name in plots else []
