"""The paper's claims, each with a verdict that follows from the numbers by a rule that is stated."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from hvx.measure.bootstrap import Estimate
from hvx.measure.controls import BETWEEN, QUESTION
from hvx.measure.image_use import MEAN
from hvx.measure.measures import ALL, Measures, plain
from hvx.measure.methods import ATTENTION, METHODS, PROPOSED
from hvx.measure.scores import GLIMPSE, METRICS
from hvx.measure.words_report import WordMeans

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
"""Up to which rank correlation maps agree how."""
_JUDGED = ("pointing", "energy", "overlap", "deletion", "insertion")
"""By which two forms of Eq. 2 are compared; agreement with the attention is no merit of its own."""

_SAID_OF_WORDS = {
    "nouns": "Nouns are significantly attended",
    "wh-words": "Wh-words are less attended",
    "verbs": "Verbs are less attended",
    "adjectives": "Adjectives are less attended",
    "articles": "Articles are less attended",
}
"""Family → the paper's claim: *less attended* is a mean z below 0."""


@dataclass(frozen=True)
class Claim:
    """What is claimed, whether it held, and the numbers that say so.

    ``differences``: what the verdict follows from; a positive one speaks for the claim.
    """

    claim: str
    verdict: str
    evidence: str
    differences: tuple[Estimate, ...] = ()


def _claimed(claim: str, evidence: str, *differences: Estimate) -> Claim:
    return Claim(claim, verdict(*differences), evidence, differences)


def shown(found: Estimate) -> str:
    """A mean with its interval, where there is one."""
    return f"{found.value:.3f}" + (f" [{found.low:.3f}, {found.high:.3f}]" if found.bounded else "")


def signed(found: Estimate) -> str:
    """A difference, or a z-score, with its interval."""
    return f"{found.value:+.3f}" + (f" [{found.low:+.3f}, {found.high:+.3f}]" if found.bounded else "")


def claims(found: Measures) -> list[Claim]:
    """The paper's claims, as far as they were measured, each with the control that it needs.

    Claims about words need none: z is relative to the question's own tokens. Forms of Eq. 2 are compared on
    the same questions.
    """
    made: list[Claim | None] = [
        _uses_the_image(found),
        _similar(found),
        _similar_by_question(found),
        _additive(found),
    ]
    made += [_finds(found), _finds_by_question(found)]
    made.append(_form(found, "free-product", "Holding F constant is more effective than not (section 3)"))
    made.append(_form(found, "unguided", "Guided ReLUs make the better visualization (section 3)"))
    if found.words and found.paper_words:
        made += _words(found.words, found.paper_words)
    return [claim for claim in made if claim]


def as_json(found: Measures) -> dict[str, Any]:
    """All measures as plain values, with the claims and what came of them; what is not known is null."""
    return found.as_json() | {"claims": plain([asdict(claim) for claim in claims(found)])}


def in_words(found: Measures) -> list[str]:
    """Which claims held and which did not, and how the proposed method ranks, as sentences."""
    made = claims(found)
    sentences = []
    for kind, opening in _OPENINGS.items():
        own = [_SECTION.sub("", claim.claim) for claim in made if claim.verdict == kind]
        own = [claim[0].lower() + claim[1:] for claim in own]
        if own:
            sentences.append(f"{opening} {'; '.join(own)}.")
    return [*sentences, *_rank_in_words(found)]


def _rank_in_words(found: Measures) -> list[str]:
    """How the proposed method ranks among the methods, and which beat it most often."""
    places: dict[int, list[str]] = {}
    beaten: dict[str, list[str]] = {}
    for metric in [metric for metric in _JUDGED if PROPOSED in found.means.get(metric, {})]:
        title = METRICS[metric].title.lower().replace("iou", "IoU")
        places.setdefault(_order(found, metric).index(PROPOSED) + 1, []).append(title)
        for name in found.versus[metric]:
            if _side(found, metric, name) > 0:
                beaten.setdefault(name, []).append(title)
    if not places:
        return []
    parts = [f"{_ordinal(place)} by {' and '.join(own)}" for place, own in sorted(places.items())]
    sentences = [f"Among {len(found.methods)} methods the proposed map is {', '.join(parts)}."]
    most = sorted(beaten, key=lambda name: -len(beaten[name]))
    if most:
        parts = [f"{METHODS[name].title} (by {', '.join(beaten[name])})" for name in most]
        sentences.append(f"Better than it for certain: {'; '.join(parts)}.")
    else:
        sentences.append("No method is better than it for certain.")
    return sentences


def _ordinal(place: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{place}{'th' if place % 100 in (11, 12, 13) else endings.get(place % 10, 'th')}"


def _order(found: Measures, metric: str) -> list[str]:
    """The methods from the best by a measure to the worst."""
    sign = 1 if METRICS[metric].more_is_better else -1
    means = found.means[metric]
    return sorted(means, key=lambda name: -sign * means[name].value)


def verdict(*differences: Estimate) -> str:
    """``RULE`` over differences whose positive side speaks for a claim."""
    above, below = any(d.low > 0 for d in differences), any(d.high < 0 for d in differences)
    if above and below:
        return MIXED
    return HELD if above else FAILED if below else OPEN


def ranking(found: Measures) -> list[str]:
    """A line for each measure: the proposed method's place, and which methods differ from it for certain."""
    lines = []
    for metric, means in found.means.items():
        if PROPOSED not in means or METRICS[metric].more_is_better is None:
            continue
        order = _order(found, metric)
        better = [name for name in order if name != PROPOSED and _side(found, metric, name) > 0]
        level = [name for name in order if name != PROPOSED and _side(found, metric, name) == 0]
        n = means[PROPOSED].n
        line = f"{METRICS[metric].title}: place {order.index(PROPOSED) + 1} of {len(order)} (n = {n:,})"
        line += f"; better: {_titles(better)}" if better else "; none is better"
        lines.append(line + (f"; not told apart: {_titles(level)}" if level else ""))
    return lines


def _side(found: Measures, metric: str, name: str) -> int:
    """1 where a method is better than the proposed one for certain, -1 where it is worse, 0 between."""
    own = found.versus[metric][name]
    sign = 1 if METRICS[metric].more_is_better else -1
    return sign if own.low > 0 else -sign if own.high < 0 else 0


def _titles(names: list[str]) -> str:
    return ", ".join(METHODS[name].title for name in names)


def mark(found: Measures, metric: str, name: str) -> str:
    """``_side`` as the tables show it."""
    if name not in found.versus.get(metric, {}) or METRICS[metric].more_is_better is None:
        return ""
    return {1: " ▲", -1: " ▽", 0: ""}[_side(found, metric, name)]


def _uses_the_image(found: Measures) -> Claim | None:
    """Whether there is anything in the image to explain: the control of all claims about maps."""
    if MEAN not in found.image_use:
        return None
    control = found.image_use[MEAN]
    evidence = (
        f"accuracy {shown(control.own)}, with the mean feature map in place of the image's "
        f"{shown(control.other)}; difference {signed(control.less)}, n = {control.less.n:,}"
    )
    return _claimed("The answers depend on the image (control)", evidence, control.less)


def _similar(found: Measures) -> Claim | None:
    if ATTENTION not in found.agreement:
        return None
    own = found.agreement[ATTENTION]
    strength = next(word for bound, word in _STRENGTHS if abs(own.value) < bound)
    evidence = f"they agree {strength}: rank correlation with the glimpses' sum {shown(own)}, n = {own.n:,}"
    for name, control in found.controls.items():
        if name != BETWEEN:
            evidence += f"; with the attention of {name} {shown(control.other)}"
    if "center" in found.agreement:
        evidence += f"; with a blob in the center {found.agreement['center'].value:.3f}"
    return _claimed("The heat map is similar to the attention maps (section 5)", evidence, own)


def _similar_by_question(found: Measures) -> Claim | None:
    """Whether that similarity has to do with the question: the control of ``_similar``."""
    if QUESTION not in found.controls:
        return None
    control = found.controls[QUESTION]
    evidence = (
        f"with its own attention {shown(control.own)}, with that of another question on the same image "
        f"{shown(control.other)}; difference {signed(control.less)}, n = {control.less.n:,}"
    )
    if control.without:
        evidence += f" ({control.without:,} have no other question)"
    if BETWEEN in found.controls:
        evidence += f"; both attention maps agree by {shown(found.controls[BETWEEN].other)}"
    return _claimed(
        "The heat map is more similar to its own question's attention than to another's (control)",
        evidence,
        control.less,
    )


def _finds_by_question(found: Measures) -> Claim | None:
    """Whether pointing has to do with the question: the control of ``_finds``."""
    if PROPOSED not in found.others:
        return None
    control = found.others[PROPOSED]
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


def _additive(found: Measures) -> Claim | None:
    if found.additive is None:
        return None
    single = {name: own for name, own in found.agreement.items() if name.startswith(GLIMPSE)}
    parts = ", ".join(f"{name} {shown(own)}" for name, own in single.items())
    evidence = (
        f"sum {shown(found.agreement[ATTENTION])}, {parts}; sum less the better glimpse "
        f"{signed(found.additive)}, n = {found.additive.n:,}"
    )
    return _claimed(
        "The heat map matches the sum of the attention maps better than either, as if additive (section 5)",
        evidence,
        found.additive,
    )


def _finds(found: Measures) -> Claim | None:
    if found.above_chance is None:
        return None
    own, chance = found.means["pointing"][PROPOSED], found.chance[ALL]
    evidence = f"its maximum lies in what is asked about in {shown(own)}, n = {own.n:,}"
    evidence += f"; chance level {shown(chance)}"
    if ATTENTION in found.means["pointing"]:
        evidence += f"; the attention's in {shown(found.means['pointing'][ATTENTION])}"
    return _claimed("The heat map finds what is asked about (section 5)", evidence, found.above_chance)


def _form(found: Measures, other: str, claim: str) -> Claim | None:
    """Whether the proposed form of Eq. 2 is better than another one, over the measures of merit."""
    gains, parts = [], []
    for metric in [metric for metric in _JUDGED if other in found.versus.get(metric, {})]:
        own = found.versus[metric][other]
        gains.append(_turned(own) if METRICS[metric].more_is_better else own)
        means = found.means[metric]
        parts.append(f"{METRICS[metric].title} {means[PROPOSED].value:.4f} against {means[other].value:.4f}")
    if not gains:
        return None
    judged = ("better", "worse", "not told apart")
    words = [judged[0] if g.low > 0 else judged[1] if g.high < 0 else judged[2] for g in gains]
    evidence = "; ".join(f"{part} ({word})" for part, word in zip(parts, words, strict=True))
    if other in found.agreement:
        evidence += f"; the two maps have a rank correlation of {shown(found.agreement[other])}"
    return _claimed(claim, evidence, *gains)


def _turned(own: Estimate) -> Estimate:
    return Estimate(-own.value, -own.high, -own.low, own.n)


def _words(words: WordMeans, paper: WordMeans) -> list[Claim]:
    """What the paper says of words; its own figures are quoted beside, since not all of it holds in them."""
    found = []
    for name, own in words.families.items():
        if name not in _SAID_OF_WORDS or not own.known:
            continue
        differing = words.nouns if name == "nouns" else _turned(own)
        evidence = f"mean z {signed(own)}, n = {own.n:,}"
        if name == "nouns":
            evidence += f"; less that of all other tokens {signed(words.nouns)}"
        if paper.families[name].known:
            evidence += (
                f"; in the paper's figures {signed(paper.families[name])}, n = {paper.families[name].n}"
            )
        found.append(_claimed(f"{_SAID_OF_WORDS[name]} (section 5)", evidence, differing))
    return found
