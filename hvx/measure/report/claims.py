"""The paper's claims, each with a verdict that follows from the numbers by a stated rule."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from hvx.measure.methods.registry import ATTENTION, METHODS, PROPOSED
from hvx.measure.metrics.bootstrap import Estimate
from hvx.measure.metrics.controls import BETWEEN, QUESTION
from hvx.measure.metrics.image_use import MEAN
from hvx.measure.metrics.results import ALL, MetricResults, plain
from hvx.measure.metrics.scores import GLIMPSE, METRICS
from hvx.measure.report.words import WordMeans

HELD, FAILED, OPEN, MIXED = "held", "did not hold", "not decided", "mixed"

_OPENINGS = {
    HELD: "These claims of the paper held:",
    FAILED: "These did not hold:",
    MIXED: "By some measures and not by others:",
    OPEN: "Not decided by this many explanations:",
}

RULE = (
    "A claim *held* where the 95 % interval of the difference it speaks of lies above 0, and *did not hold* "
    "where it lies below; where it holds 0 the claim is *not decided* by this many explanations. *Mixed*: it "
    "held by one measure and did not by another."
)

_SECTION = re.compile(r" \(section \d\)")
_STRENGTHS = ((0.2, "hardly"), (0.4, "weakly"), (0.6, "moderately"), (1.1, "strongly"))
"""Upper bounds of the rank correlation, and how strongly maps agree below each."""
_JUDGED = ("pointing", "energy", "overlap", "deletion", "insertion")
"""Measures by which two forms of Eq. 2 are compared; agreement with the attention is not a merit."""

_WORD_CLAIMS = {
    "nouns": "Nouns are significantly attended",
    "wh-words": "Wh-words are less attended",
    "verbs": "Verbs are less attended",
    "adjectives": "Adjectives are less attended",
    "articles": "Articles are less attended",
}
"""Family → the paper's claim: *less attended* is a mean z below 0."""


@dataclass(frozen=True)
class Claim:
    """A claim, its verdict, and the evidence.

    ``differences``: the verdict follows from these; a positive difference supports the claim.
    """

    claim: str
    verdict: str
    evidence: str
    differences: tuple[Estimate, ...] = ()


def _claimed(claim: str, evidence: str, *differences: Estimate) -> Claim:
    return Claim(claim, verdict(*differences), evidence, differences)


def shown(mean: Estimate) -> str:
    """A mean with its interval, if it has one."""
    return f"{mean.value:.3f}" + (f" [{mean.low:.3f}, {mean.high:.3f}]" if mean.bounded else "")


def signed(mean: Estimate) -> str:
    """A difference, or a z-score, with its interval, if it has one."""
    return f"{mean.value:+.3f}" + (f" [{mean.low:+.3f}, {mean.high:+.3f}]" if mean.bounded else "")


def claims(measures: MetricResults) -> list[Claim]:
    """The paper's claims that were measured, each with its control.

    Claims about words need no control: z is relative to the question's own tokens. Forms of Eq. 2 are
    compared on the same questions.
    """
    candidates = [
        _uses_the_image(measures),
        _similar(measures),
        _similar_by_question(measures),
        _additive(measures),
        _finds(measures),
        _finds_by_question(measures),
        _form(measures, "free-product", "Holding F constant is more effective than not (section 3)"),
        _form(measures, "unguided", "Guided ReLUs make the better visualization (section 3)"),
    ]
    if measures.words and measures.paper_words:
        candidates += _words(measures.words, measures.paper_words)
    return [claim for claim in candidates if claim]


def as_json(measures: MetricResults) -> dict[str, Any]:
    """All measures as plain values, with the claims and their verdicts; unknown values are null."""
    return measures.as_json() | {"claims": plain([asdict(claim) for claim in claims(measures)])}


def in_words(measures: MetricResults) -> list[str]:
    """The verdicts of the claims and the rank of the proposed method, as sentences."""
    judged = claims(measures)
    sentences = []
    for outcome, opening in _OPENINGS.items():
        texts = [_SECTION.sub("", claim.claim) for claim in judged if claim.verdict == outcome]
        texts = [text[0].lower() + text[1:] for text in texts]
        if texts:
            sentences.append(f"{opening} {'; '.join(texts)}.")
    return [*sentences, *_rank_in_words(measures)]


def _rank_in_words(measures: MetricResults) -> list[str]:
    """How the proposed method ranks among the methods, and the methods that are significantly better."""
    ranks: dict[int, list[str]] = {}
    better: dict[str, list[str]] = {}
    for metric in [metric for metric in _JUDGED if PROPOSED in measures.means.get(metric, {})]:
        title = METRICS[metric].title.lower().replace("iou", "IoU")
        ranks.setdefault(_order(measures, metric).index(PROPOSED) + 1, []).append(title)
        for name in measures.versus[metric]:
            if _side(measures, metric, name) > 0:
                better.setdefault(name, []).append(title)
    if not ranks:
        return []
    parts = [f"{_ordinal(rank)} by {' and '.join(titles)}" for rank, titles in sorted(ranks.items())]
    sentences = [f"Among {len(measures.methods)} methods the proposed map is {', '.join(parts)}."]
    names = sorted(better, key=lambda name: -len(better[name]))
    if names:
        parts = [f"{METHODS[name].title} (by {', '.join(better[name])})" for name in names]
        sentences.append(f"Better than it for certain: {'; '.join(parts)}.")
    else:
        sentences.append("No method is better than it for certain.")
    return sentences


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"


def _order(measures: MetricResults, metric: str) -> list[str]:
    """The methods from the best by a measure to the worst."""
    sign = 1 if METRICS[metric].more_is_better else -1
    means = measures.means[metric]
    return sorted(means, key=lambda name: -sign * means[name].value)


def verdict(*differences: Estimate) -> str:
    """``RULE`` applied to differences; a positive difference supports the claim."""
    above, below = any(d.low > 0 for d in differences), any(d.high < 0 for d in differences)
    if above and below:
        return MIXED
    return HELD if above else FAILED if below else OPEN


def ranking(measures: MetricResults) -> list[str]:
    """A line for each measure: the proposed method's rank, and which methods differ significantly from it."""
    lines = []
    for metric, means in measures.means.items():
        if PROPOSED not in means or METRICS[metric].more_is_better is None:
            continue
        order = _order(measures, metric)
        better = [name for name in order if name != PROPOSED and _side(measures, metric, name) > 0]
        level = [name for name in order if name != PROPOSED and _side(measures, metric, name) == 0]
        n = means[PROPOSED].n
        line = f"{METRICS[metric].title}: place {order.index(PROPOSED) + 1} of {len(order)} (n = {n:,})"
        line += f"; better: {_titles(better)}" if better else "; none is better"
        lines.append(line + (f"; not distinguished: {_titles(level)}" if level else ""))
    return lines


def _side(measures: MetricResults, metric: str, name: str) -> int:
    """1 if a method is significantly better than the proposed one, -1 if significantly worse, else 0."""
    difference = measures.versus[metric][name]
    sign = 1 if METRICS[metric].more_is_better else -1
    return sign if difference.low > 0 else -sign if difference.high < 0 else 0


def _titles(names: list[str]) -> str:
    return ", ".join(METHODS[name].title for name in names)


def mark(measures: MetricResults, metric: str, name: str) -> str:
    """``_side`` as the tables show it."""
    if name not in measures.versus.get(metric, {}) or METRICS[metric].more_is_better is None:
        return ""
    return {1: " ▲", -1: " ▽", 0: ""}[_side(measures, metric, name)]


def _uses_the_image(measures: MetricResults) -> Claim | None:
    """Whether the answers depend on the image at all: the control of all claims about maps."""
    if MEAN not in measures.image_use:
        return None
    control = measures.image_use[MEAN]
    evidence = (
        f"accuracy {shown(control.own)}, with the mean feature map in place of the image's "
        f"{shown(control.other)}; difference {signed(control.less)}, n = {control.less.n:,}"
    )
    return _claimed("The answers depend on the image (control)", evidence, control.less)


def _similar(measures: MetricResults) -> Claim | None:
    if ATTENTION not in measures.agreement:
        return None
    with_sum = measures.agreement[ATTENTION]
    strength = next(word for bound, word in _STRENGTHS if abs(with_sum.value) < bound)
    evidence = f"they agree {strength}: rank correlation with the glimpses' sum {shown(with_sum)}"
    evidence += f", n = {with_sum.n:,}"
    for name, control in measures.controls.items():
        if name != BETWEEN:
            evidence += f"; with the attention of {name} {shown(control.other)}"
    if "center" in measures.agreement:
        evidence += f"; with a blob in the center {measures.agreement['center'].value:.3f}"
    return _claimed("The heat map is similar to the attention maps (section 5)", evidence, with_sum)


def _similar_by_question(measures: MetricResults) -> Claim | None:
    """Whether the similarity depends on the question: the control of ``_similar``."""
    if QUESTION not in measures.controls:
        return None
    control = measures.controls[QUESTION]
    evidence = (
        f"with its own attention {shown(control.own)}, with that of another question on the same image "
        f"{shown(control.other)}; difference {signed(control.less)}, n = {control.less.n:,}"
    )
    if control.without:
        evidence += f" ({control.without:,} have no other question)"
    if BETWEEN in measures.controls:
        evidence += f"; both attention maps agree by {shown(measures.controls[BETWEEN].other)}"
    return _claimed(
        "The heat map is more similar to its own question's attention than to another's (control)",
        evidence,
        control.less,
    )


def _finds_by_question(measures: MetricResults) -> Claim | None:
    """Whether pointing depends on the question: the control of ``_finds``."""
    if PROPOSED not in measures.others:
        return None
    control = measures.others[PROPOSED]
    evidence = (
        f"its maximum lies there in {shown(control.own)}, that of another question's map on the image in "
        f"{shown(control.other)}; difference {signed(control.less)}, n = {control.less.n:,}"
    )
    return _claimed(
        "The heat map finds what its own question asks about more often than another question's map does "
        "(control)",
        evidence,
        control.less,
    )


def _additive(measures: MetricResults) -> Claim | None:
    if measures.additive is None:
        return None
    single = {name: estimate for name, estimate in measures.agreement.items() if name.startswith(GLIMPSE)}
    parts = ", ".join(f"{name} {shown(estimate)}" for name, estimate in single.items())
    evidence = (
        f"sum {shown(measures.agreement[ATTENTION])}, {parts}; sum less the better glimpse "
        f"{signed(measures.additive)}, n = {measures.additive.n:,}"
    )
    return _claimed(
        "The heat map matches the sum of the attention maps better than either, as if additive (section 5)",
        evidence,
        measures.additive,
    )


def _finds(measures: MetricResults) -> Claim | None:
    if measures.above_chance is None:
        return None
    hits, chance = measures.means["pointing"][PROPOSED], measures.chance[ALL]
    evidence = f"its maximum lies in what is asked about in {shown(hits)}, n = {hits.n:,}"
    evidence += f"; chance level {shown(chance)}"
    if ATTENTION in measures.means["pointing"]:
        evidence += f"; the attention's in {shown(measures.means['pointing'][ATTENTION])}"
    return _claimed("The heat map finds what is asked about (section 5)", evidence, measures.above_chance)


def _form(measures: MetricResults, other: str, claim: str) -> Claim | None:
    """Whether the proposed form of Eq. 2 is better than another one, by ``_JUDGED``."""
    gains, parts = [], []
    for metric in [metric for metric in _JUDGED if other in measures.versus.get(metric, {})]:
        difference = measures.versus[metric][other]
        gains.append(_negated(difference) if METRICS[metric].more_is_better else difference)
        means = measures.means[metric]
        parts.append(f"{METRICS[metric].title} {means[PROPOSED].value:.4f} against {means[other].value:.4f}")
    if not gains:
        return None
    judged = ("better", "worse", "not distinguished")
    words = [judged[0] if g.low > 0 else judged[1] if g.high < 0 else judged[2] for g in gains]
    evidence = "; ".join(f"{part} ({word})" for part, word in zip(parts, words, strict=True))
    if other in measures.agreement:
        evidence += f"; the two maps have a rank correlation of {shown(measures.agreement[other])}"
    return _claimed(claim, evidence, *gains)


def _negated(estimate: Estimate) -> Estimate:
    return Estimate(-estimate.value, -estimate.high, -estimate.low, estimate.n)


def _words(words: WordMeans, paper: WordMeans) -> list[Claim]:
    """The paper's claims about words. Its own figures are quoted too; they do not support every claim."""
    word_claims = []
    for name, estimate in words.families.items():
        if name not in _WORD_CLAIMS or not estimate.known:
            continue
        differing = words.nouns if name == "nouns" else _negated(estimate)
        evidence = f"mean z {signed(estimate)}, n = {estimate.n:,}"
        if name == "nouns":
            evidence += f"; less that of all other tokens {signed(words.nouns)}"
        if paper.families[name].known:
            evidence += (
                f"; in the paper's figures {signed(paper.families[name])}, n = {paper.families[name].n}"
            )
        word_claims.append(_claimed(f"{_WORD_CLAIMS[name]} (section 5)", evidence, differing))
    return word_claims
