"""What maps of an image show whatever is asked: the controls of the claim that heat map and attention agree.

Two questions on one image share its pixels. Where their maps are nearly the same, a heat map agrees with the
attention without having to do with the question. So its agreement with its own question's attention stands
beside that with the attention of another question on the image, and with that of another image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvx.measure.agreement import pooled, unit_ranks
from hvx.measure.bootstrap import Estimate, mean
from hvx.measure.subject import Subject
from hvx.progress import bar

QUESTION, IMAGE, BETWEEN = "another question", "another image", "both attentions"
"""Names of what ``attention_controls`` finds: the heat map's agreement with its own attention against that
with another question's on the same image, and against that with another image's; and, with 1 as its own,
the agreement of both questions' attention."""


@dataclass(frozen=True)
class Control:
    """A number of the question's own maps beside the same number with another's.

    Attributes:
        own: the mean over the explanations that have a control.
        other: the mean with the other maps.
        less: the mean of own less other, paired.
        without: explanations that have no control.
    """

    own: Estimate
    other: Estimate
    less: Estimate
    without: int


@dataclass(frozen=True)
class _Sketch:
    """What is kept of an explanation: its text, and the ranks of its maps on the grid."""

    question: str
    heat: np.ndarray
    attention: np.ndarray


def attention_controls(subject: Subject, seed: int) -> dict[str, Control]:
    """The controls of the sample's maps, by name; those without a single value are absent.

    Another question is each one on the image with another text; the mean over these is taken. Another image
    is the next one of the sample, whose order is random: one of its questions.

    Args:
        subject: a sample of a network with attention.
        seed: of the intervals.
    """
    groups: dict[int | str, list[int]] = {}
    for place, image in enumerate(subject.images.tolist()):
        groups.setdefault(image, []).append(place)
    found, order = _Pairs(len(subject)), list(groups.values())
    first = following = [_sketch(subject, place) for place in order[0]]
    for number in bar(range(len(order)), "measuring controls", "image", total=len(order)):
        own, last = following, number + 1 == len(order)
        following = first if last else [_sketch(subject, place) for place in order[number + 1]]
        _add(found, order[number], own, following if len(order) > 1 else [])
    return found.controls(subject.images, seed)


class _Pairs:
    """Own and other numbers of explanations, by name."""

    def __init__(self, count: int) -> None:
        self._own: dict[str, np.ndarray] = {}
        self._other: dict[str, np.ndarray] = {}
        self._count = count

    def put(self, name: str, place: int, own: float, others: list[float]) -> None:
        """An explanation's own number and those of the others, of which there may be none."""
        for kept, value in ((self._own, own), (self._other, float(np.mean(others)) if others else np.nan)):
            kept.setdefault(name, np.full(self._count, np.nan))[place] = value

    def controls(self, images: np.ndarray, seed: int) -> dict[str, Control]:
        """The means over the explanations that have both."""
        made = {name: control(own, self._other[name], images, seed) for name, own in self._own.items()}
        return {name: own for name, own in made.items() if own}


def control(own: np.ndarray, other: np.ndarray, images: np.ndarray, seed: int) -> Control | None:
    """Two numbers of n explanations side by side; None if no explanation has both.

    Args:
        own: (n) of the question's own maps.
        other: (n) of others'; NaN where there is none.
        images: (n) the image of each.
        seed: of the intervals.
    """
    both = np.isfinite(own) & np.isfinite(other)
    if not both.any():
        return None
    means = [mean(part[both], images[both], seed) for part in (own, other, own - other)]
    return Control(means[0], means[1], means[2], int((np.isfinite(own) & ~both).sum()))


def _sketch(subject: Subject, place: int) -> _Sketch:
    item = subject.item(place)
    summed = item.attention.sum(0)
    heat = unit_ranks(pooled(item.heatmap, summed.shape)[None])[0]
    return _Sketch(item.question, heat, unit_ranks(summed[None])[0])


def _add(found: _Pairs, places: list[int], own: list[_Sketch], elsewhere: list[_Sketch]) -> None:
    """The heat maps of an image's questions with their own attention and with others'."""
    for rank, (place, one) in enumerate(zip(places, own, strict=True)):
        agreed = float(one.heat @ one.attention)
        others = [two.attention for two in own if two.question != one.question]
        found.put(QUESTION, place, agreed, [float(one.heat @ other) for other in others])
        found.put(BETWEEN, place, 1.0, [float(one.attention @ other) for other in others])
        far = [elsewhere[rank % len(elsewhere)].attention] if elsewhere else []
        found.put(IMAGE, place, agreed, [float(one.heat @ other) for other in far])
