"""Controls of the claim that heat map and attention agree: what maps of an image show for any question.

Two questions on one image share its pixels. If their maps are nearly the same, a heat map agrees with the
attention regardless of the question. So its agreement with its own question's attention is compared with its
agreement with the attention of another question on the image, and of another image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvx.measure.metrics.agreement import pooled, unit_ranks
from hvx.measure.metrics.bootstrap import Estimate, mean
from hvx.measure.sample import EvaluationSample
from hvx.progress import bar

QUESTION, IMAGE, BETWEEN = "another question", "another image", "both attentions"
"""Names of the results of ``attention_controls``: the agreement of the heat map with its own question's
attention, compared with that of another question on the same image, and of another image; and the agreement
of both questions' attention, compared with 1."""


@dataclass(frozen=True)
class Control:
    """A value of the question's own maps, compared with the same value of another's maps.

    Attributes:
        own: the mean over the explanations that have a control.
        other: the mean with the other maps.
        less: the mean of own minus other, paired.
        without: explanations that have no control.
    """

    own: Estimate
    other: Estimate
    less: Estimate
    without: int


@dataclass(frozen=True)
class _Sketch:
    """A summary of an explanation: the question's text, and the ranks of its maps on the grid."""

    question: str
    heat: np.ndarray
    attention: np.ndarray


def attention_controls(sample: EvaluationSample, seed: int) -> dict[str, Control]:
    """The controls of the sample's maps, by name; those without any value are absent.

    Other questions are all on the image with another text; the mean over them is taken. Another image is the
    next one of the sample, whose order is random: one of its questions.

    Args:
        sample: a sample of a network with attention.
        seed: of the intervals.
    """
    by_image: dict[int | str, list[int]] = {}
    for position, image in enumerate(sample.images.tolist()):
        by_image.setdefault(image, []).append(position)
    pairs, groups = _Pairs(len(sample)), list(by_image.values())
    first = following = [_sketch(sample, position) for position in groups[0]]
    for number in bar(range(len(groups)), "measuring controls", "image", total=len(groups)):
        sketches, last = following, number + 1 == len(groups)
        following = first if last else [_sketch(sample, position) for position in groups[number + 1]]
        _add(pairs, groups[number], sketches, following if len(groups) > 1 else [])
    return pairs.controls(sample.images, seed)


class _Pairs:
    """Values of the explanations with their own maps and with others', by name."""

    def __init__(self, count: int) -> None:
        self._own: dict[str, np.ndarray] = {}
        self._other: dict[str, np.ndarray] = {}
        self._count = count

    def put(self, name: str, position: int, own_value: float, other_values: list[float]) -> None:
        """Store an explanation's own value and the mean of the others' values, NaN if there are none."""
        other_value = float(np.mean(other_values)) if other_values else np.nan
        for values, value in ((self._own, own_value), (self._other, other_value)):
            values.setdefault(name, np.full(self._count, np.nan))[position] = value

    def controls(self, images: np.ndarray, seed: int) -> dict[str, Control]:
        """The means over the explanations with both values."""
        controls = {
            name: control(values, self._other[name], images, seed) for name, values in self._own.items()
        }
        return {name: result for name, result in controls.items() if result}


def control(values: np.ndarray, baseline: np.ndarray, images: np.ndarray, seed: int) -> Control | None:
    """Compare two values of n explanations; None if no explanation has both.

    Args:
        values: (n) of the question's own maps.
        baseline: (n) of others' maps; NaN if there is none.
        images: (n) the image of each.
        seed: of the intervals.
    """
    both = np.isfinite(values) & np.isfinite(baseline)
    if not both.any():
        return None
    means = [mean(part[both], images[both], seed) for part in (values, baseline, values - baseline)]
    return Control(means[0], means[1], means[2], int((np.isfinite(values) & ~both).sum()))


def _sketch(sample: EvaluationSample, position: int) -> _Sketch:
    item = sample.item(position)
    summed = item.attention.sum(0)
    heat = unit_ranks(pooled(item.heatmap, summed.shape)[None])[0]
    return _Sketch(item.question, heat, unit_ranks(summed[None])[0])


def _add(pairs: _Pairs, positions: list[int], sketches: list[_Sketch], elsewhere: list[_Sketch]) -> None:
    """The heat maps of an image's questions with their own attention and with others'."""
    for rank, (position, sketch) in enumerate(zip(positions, sketches, strict=True)):
        agreement = float(sketch.heat @ sketch.attention)
        others = [other.attention for other in sketches if other.question != sketch.question]
        pairs.put(QUESTION, position, agreement, [float(sketch.heat @ other) for other in others])
        pairs.put(BETWEEN, position, 1.0, [float(sketch.attention @ other) for other in others])
        far = [elsewhere[rank % len(elsewhere)].attention] if elsewhere else []
        pairs.put(IMAGE, position, agreement, [float(sketch.heat @ other) for other in far])
