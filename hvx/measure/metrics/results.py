"""From scores to reported results: means with intervals, and differences from the proposed method."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hvx.measure.methods.registry import ATTENTION, PROPOSED
from hvx.measure.metrics.bootstrap import Estimate, mean
from hvx.measure.metrics.controls import Control, control
from hvx.measure.metrics.faithfulness import SHARES
from hvx.measure.metrics.scores import GLIMPSE, LOCAL, METRICS, Agreement, Regions, Scores
from hvx.measure.pipeline import Curves
from hvx.measure.report.words import WordMeans

ALL = "all"

Means = dict[str, dict[str, Estimate]]
"""Measure → method → its mean."""


@dataclass
class MetricResults:
    """All reported results of a run.

    Attributes:
        about: the run, the sample, settings, versions.
        methods: names, in the tables' order.
        left_out: a line for each thing that could not be measured, with the reason.
        zero_maps: explanations of the sample whose Eq. 2 is zero everywhere, so that their map is blank.
        zero_words: explanations of the run whose Eq. 3 is zero everywhere, so that all of their z are 0.
        means: of each measure and method.
        versus: the paired difference of each method from the proposed one.
        by_kind: kind of question → means of localization; ``all`` is in ``means``.
        chance: kind → the mean share of the picture that the objects asked about cover; ``all`` too.
        others: method → the pointing game of its maps and of other questions' maps on the image.
        above_chance: how much more often than chance the proposed map points at these objects.
        agreement: names → the mean correlation of the proposed map with each method and glimpse.
        additive: the correlation with the glimpses' sum minus that with the better single glimpse; None for
            fewer than two glimpses.
        controls: name of ``metrics.controls`` → agreement with the question's own attention compared with
            that with another.
        image_use: name of ``metrics.image_use`` → the accuracy with and without the question's image.
        matrix, matrix_names: (K, K) mean correlations of methods and glimpses, and which these are.
        ends: the answer's mean probability on the photographs and on their blurs.
        curves: method → (deletion, insertion), the mean at each of ``SHARES``.
        sanity: method → stage → (rank correlation, SSIM).
        words, paper_words: of the run and of the paper.
        word_agreement: mean rank correlation of a model's attention to words with z; None if it has none.
    """

    about: dict[str, Any]
    methods: list[str]
    left_out: list[str] = field(default_factory=list)
    zero_maps: int = 0
    zero_words: int = 0
    means: Means = field(default_factory=dict)
    versus: Means = field(default_factory=dict)
    by_kind: dict[str, Means] = field(default_factory=dict)
    chance: dict[str, Estimate] = field(default_factory=dict)
    others: dict[str, Control] = field(default_factory=dict)
    above_chance: Estimate | None = None
    agreement: dict[str, Estimate] = field(default_factory=dict)
    additive: Estimate | None = None
    controls: dict[str, Control] = field(default_factory=dict)
    image_use: dict[str, Control] = field(default_factory=dict)
    matrix: np.ndarray | None = None
    matrix_names: list[str] = field(default_factory=list)
    ends: tuple[Estimate, Estimate] | None = None
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    sanity: dict[str, dict[str, tuple[Estimate, Estimate]]] = field(default_factory=dict)
    words: WordMeans | None = None
    paper_words: WordMeans | None = None
    word_agreement: Estimate | None = None

    def add_scores(self, scored: dict[str, Scores], images: np.ndarray, seed: int) -> None:
        """Add the scores of the sample; ``images`` (n) are its images."""
        for metric in [metric for metric in METRICS if metric in scored]:
            scores = scored[metric]
            groups = images[scores.positions]
            self.means[metric] = {name: mean(values, groups, seed) for name, values in scores.values.items()}
            proposed = scores.values[PROPOSED]
            self.versus[metric] = {
                name: mean(values - proposed, groups, seed)
                for name, values in scores.values.items()
                if name != PROPOSED
            }

    def add_regions(self, regions: Regions, scored: dict[str, Scores], images: np.ndarray, seed: int) -> None:
        """Add the chance level, and localization by kind of question."""
        groups = images[regions.positions]
        self.chance[ALL] = mean(regions.shares, groups, seed)
        hits = scored["pointing"].values[PROPOSED]
        self.above_chance = mean(hits - regions.shares, groups, seed)
        for name, other_hits in regions.others.items():
            result = control(scored["pointing"].values[name], other_hits, groups, seed)
            if result:
                self.others[name] = result
        for kind in dict.fromkeys(regions.kinds.tolist()):
            of_kind = regions.kinds == kind
            self.chance[kind] = mean(regions.shares[of_kind], groups[of_kind], seed)
            self.by_kind[kind] = {
                metric: {
                    name: mean(values[of_kind], groups[of_kind], seed)
                    for name, values in scored[metric].values.items()
                }
                for metric in LOCAL
            }

    def add_agreement(self, agreement: Agreement, images: np.ndarray, seed: int) -> None:
        """Add the agreement of maps."""
        with_proposed = agreement.correlations[:, agreement.names.index(PROPOSED)]
        self.agreement = {
            name: mean(with_proposed[:, k], images, seed)
            for k, name in enumerate(agreement.names)
            if name != PROPOSED
        }
        self.matrix, self.matrix_names = agreement.correlations.mean(0), agreement.names
        single = [k for k, name in enumerate(agreement.names) if name.startswith(GLIMPSE)]
        if single and ATTENTION in agreement.names:
            best = max(single, key=lambda k: float(with_proposed[:, k].mean()))
            self.additive = mean(
                with_proposed[:, agreement.names.index(ATTENTION)] - with_proposed[:, best], images, seed
            )

    def add_curves(
        self, curves: dict[str, list[Curves]], ends: list[tuple[float, float]], images: np.ndarray, seed: int
    ) -> None:
        """Add the curves of deletion and insertion of the sample's first explanations."""
        sharp, blurry = np.array(ends).T
        groups = images[: len(ends)]
        self.ends = mean(sharp, groups, seed), mean(blurry, groups, seed)
        for name, pairs in curves.items():
            deletion, insertion = np.array(pairs).mean(0)
            self.curves[name] = deletion.tolist(), insertion.tolist()

    def add_sanity(self, similarities: dict[str, dict[str, Any]], images: np.ndarray, seed: int) -> None:
        """Add the similarity of maps before and after randomization."""
        for name, stages in similarities.items():
            self.sanity[name] = {}
            for stage, pairs in stages.items():
                correlation, ssim = np.array(pairs).T
                groups = images[: len(pairs)]
                self.sanity[name][stage] = mean(correlation, groups, seed), mean(ssim, groups, seed)

    def as_json(self) -> dict[str, Any]:
        """All results as plain values; unknown values are null."""
        tree = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        json_tree: dict[str, Any] = plain(tree | {"shares": list(SHARES)})
        return json_tree


def plain(value: Any) -> Any:
    """Dataclasses, arrays and NumPy's numbers as plain values; NaN and infinity as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({item.name: getattr(value, item.name) for item in dataclasses.fields(value)})
    if isinstance(value, dict):
        return {str(key): plain(element) for key, element in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(element) for element in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
