"""Measures of a made-up run whose numbers all differ, so that no two can be exchanged unnoticed."""

from __future__ import annotations

from itertools import count

import numpy as np

from hvx.measure.metrics.bootstrap import Estimate
from hvx.measure.metrics.results import MetricResults
from hvx.measure.report.words import WordMeans

METHODS = ["proposed", "attention", "grad-cam", "gradient", "random"]
TITLES = ["Proposed (Eq. 2)", "Summed attention", "Grad-CAM", "Gradient", "Random"]
METRICS = ["pointing", "energy", "overlap", "attention", "human", "deletion", "insertion"]
KINDS = ["count", "shape"]
STAGES = ["another image", "classifier", "layer1"]


class Numbers:
    """Estimates that all differ, with an interval that is wider below than above."""

    def __init__(self) -> None:
        self._next = count(1)

    def estimate(self, n: int = 0) -> Estimate:
        number = next(self._next)
        value = number / 1000
        return Estimate(value, value - 0.2, value + 0.1, n or 10_000 + number)

    def above(self, n: int) -> Estimate:
        """A difference for certain: more."""
        number = next(self._next) / 1000
        return Estimate(number, number / 2, 2 * number, n)

    def below(self, n: int) -> Estimate:
        """A difference for certain: less."""
        own = self.above(n)
        return Estimate(-own.value, -own.high, -own.low, n)


SIDES = {"attention": 0, "grad-cam": 1, "gradient": -1, "random": 0}
"""Which methods exceed the proposed one by every measure, fall below it, or neither."""


def made_measures() -> MetricResults:
    """Measures with everything in them."""
    numbers = Numbers()
    found = MetricResults(
        {
            "run": "runs/made", "explanations": 1234, "of": 56789, "images": 321, "seed": 17,
            "date": "2017-05-09", "device": "cpu", "cores": 6, "versions": {"hvx": "1.2", "torch": "3.4"},
            "model": {"glimpses": 2},
        },
        list(METHODS),
    )  # fmt: skip
    for place, metric in enumerate(METRICS):
        n = 1000 + place
        names = [name for name in METHODS if (metric, name) != ("attention", "attention")]
        found.means[metric] = {name: numbers.estimate(n) for name in names}
        by_side = {0: numbers.estimate, 1: numbers.above, -1: numbers.below}
        found.versus[metric] = {name: by_side[SIDES[name]](n) for name in names if name != "proposed"}
    for place, kind in enumerate(["all", *KINDS]):
        found.chance[kind] = numbers.estimate(2000 + place)
        if kind != "all":
            found.by_kind[kind] = {
                metric: {name: numbers.estimate(2000 + place) for name in METHODS}
                for metric in ("pointing", "energy", "overlap")
            }
    found.above_chance = numbers.above(1000)
    found.matrix_names = [*METHODS, "glimpse 1", "glimpse 2"]
    found.agreement = {name: numbers.estimate(3000) for name in found.matrix_names[1:]}
    found.additive = numbers.below(3000)
    found.matrix = np.random.default_rng(0).uniform(-1, 1, (7, 7))
    found.ends = numbers.estimate(4000), numbers.estimate(4000)
    chance = np.random.default_rng(1)
    found.curves = {name: (chance.random(9).tolist(), chance.random(9).tolist()) for name in METHODS}
    found.sanity = {
        name: {stage: (numbers.estimate(50), numbers.estimate(50)) for stage in STAGES}
        for name in METHODS[:4]
    }
    found.words, found.paper_words = _words(numbers, "NOUN WH DET"), _words(numbers, "NOUN DET VERB")
    found.word_agreement = numbers.estimate(6000)
    found.left_out = ["one thing: a reason", "another: its reason"]
    return found


def _words(numbers: Numbers, tags: str) -> WordMeans:
    def group(names: list[str]) -> dict[str, Estimate]:
        return {name: numbers.estimate() for name in names}

    families = ["wh-words", "auxiliaries", "nouns", "verbs", "adjectives", "articles", "colors"]
    return WordMeans(
        group(tags.split()),
        group(families),
        group(["1", "2", "last"] if "WH" in tags else ["1", "2", "3", "last"]),
        numbers.estimate(),
        numbers.estimate(),
        numbers.estimate(),
    )
