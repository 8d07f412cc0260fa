"""Each explanation's scores by method; the report shows their means."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from PIL import Image

from hvx.data.object_masks import ObjectTable
from hvx.errors import BadImage, HvxError
from hvx.measure.methods.registry import ATTENTION
from hvx.measure.metrics.agreement import pooled, rank_correlations
from hvx.measure.metrics.faithfulness import area
from hvx.measure.metrics.human_attention import HumanMaps
from hvx.measure.metrics.localization import Peaks, covers, energy_inside, enlarged, overlap, peaks
from hvx.measure.pipeline import Curves, Maps
from hvx.measure.sample import EvaluationSample
from hvx.progress import bar

LATTICE = (14, 14)
"""The grid on which maps are compared if there is no attention to determine it."""


GLIMPSE = "glimpse"


@dataclass(frozen=True)
class Metric:
    """A measure of a map: its title, and whether more is better; None if it is not a merit."""

    title: str
    more_is_better: bool | None


METRICS = {
    "pointing": Metric("Pointing game", True),
    "energy": Metric("Energy inside", True),
    "overlap": Metric("IoU", True),
    "attention": Metric("ρ with attention", None),
    "human": Metric("ρ with people", True),
    "deletion": Metric("Deletion area", False),
    "insertion": Metric("Insertion area", True),
}
"""In the order of tables."""
LOCAL = ("pointing", "energy", "overlap")


@dataclass(frozen=True)
class Scores:
    """One measure of several explanations.

    Attributes:
        positions: (n) positions of the explanations in the sample.
        values: method → (n) scores.
    """

    positions: np.ndarray
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """Agreement of maps on the grid: correlations (n, K, K) of the K ``names``, methods and glimpses."""

    names: list[str]
    correlations: np.ndarray


@dataclass(frozen=True)
class Regions:
    """Where explanations should point, for those whose question asks about something in the image.

    Attributes:
        positions: (n) positions of the explanations in the sample.
        kinds: (n) kinds of the questions.
        shares: (n) shares of the picture that the regions cover: the chance level of the pointing game.
        others: method → (n) how often the maximum of another question's map on the same image is in the
            region, the mean over questions about other objects in the image; NaN if there is none.
    """

    positions: np.ndarray
    kinds: np.ndarray
    shares: np.ndarray
    others: dict[str, np.ndarray] = field(default_factory=dict)


def glimpse_names(glimpses: int) -> list[str]:
    """Names of the single attention maps, next to those of the methods; empty if there is only one."""
    return [f"{GLIMPSE} {number + 1}" for number in range(glimpses)] if glimpses > 1 else []


def score_maps(
    sample: EvaluationSample, maps: Maps, table: ObjectTable | None, human: HumanMaps | None
) -> tuple[dict[str, Scores], Agreement, Regions | None]:
    """All scores that need no network: localization, agreement with attention and with human maps.

    Measures without data (no masks, no human maps) are absent.
    """
    local_scores, human_scores = _Collected(), _Collected()
    regions: list[tuple[int, str, float]] = []
    pointed: list[_Pointed] = []
    names = [*maps.names, *glimpse_names(sample.glimpses)]
    correlations = np.empty((len(sample), len(names), len(names)))
    for position in bar(range(len(sample)), "measuring maps", "explanation"):
        item = sample.item(position)
        method_maps = maps.at(position, item)
        grid = item.attention.shape[1:] if sample.glimpses else LATTICE
        glimpses = list(item.attention) if sample.glimpses > 1 else []
        pooled_maps = [pooled(map, grid) for map in chain(method_maps.values(), glimpses)]
        correlations[position] = rank_correlations(np.stack(pooled_maps))
        human_maps = [pooled(map, grid) for map in (human.of(item.question_id) if human else [])]
        if human_maps:
            with_human = rank_correlations(np.stack([*pooled_maps, *human_maps]))[
                : len(maps.names), -len(human_maps) :
            ]
            human_scores.add(
                position, {("human", name): with_human[k].mean() for k, name in enumerate(maps.names)}
            )
        if table:
            inside = _asked_about(table, item.image_id, item.question_id, sample)
            maxima = {name: peaks(map) for name, map in method_maps.items()}
            pointed.append(_Pointed(item.question_id, item.image_id, maxima))
            if inside is not None:
                local_scores.add(position, _local_scores(method_maps, inside))
                regions.append((position, table.asked[item.question_id].kind, float(inside.mean())))
    scored = {metric: local_scores.scores(metric, maps.names) for metric in LOCAL if local_scores.positions}
    if human_scores.positions:
        scored["human"] = human_scores.scores("human", maps.names)
    if ATTENTION in names:
        summed = names.index(ATTENTION)
        values = {name: correlations[:, k, summed] for k, name in enumerate(maps.names) if name != ATTENTION}
        scored["attention"] = Scores(np.arange(len(sample)), values)
    agreement = Agreement(names, correlations)
    if not table or not regions:
        return scored, agreement, None
    positions, kinds, shares = (np.array(column) for column in zip(*regions, strict=True))
    others = _pointing_of_others(sample, table, local_scores.positions, pointed)
    return scored, agreement, Regions(positions, kinds, shares, others)


def check_masks(sample: EvaluationSample, table: ObjectTable) -> None:
    """Reject masks that are unreadable or differ in size from their photograph, before any work is done.

    Raises:
        HvxError: names the mask.
    """
    positions: dict[int | str, int] = {}
    ids = sample.reader.column("question_id")[sample.numbers].tolist()
    for position, (question, image) in enumerate(zip(ids, sample.images.tolist(), strict=True)):
        target = table.asked.get(question)
        if target and target.labels:
            positions.setdefault(image, position)
    for image, position in positions.items():
        height, width = table.mask(image).shape
        try:
            expected = sample.photo_size(position)
        except BadImage:
            continue  # reported where the image is read, with a hint
        if (width, height) != expected:
            raise HvxError(
                f"{table.mask_path(image)}: {width}×{height} pixels; its photograph has "
                f"{expected[0]}×{expected[1]}, and a label mask has the same"
            )


def score_curves(curves: dict[str, list[Curves]]) -> dict[str, Scores]:
    """The areas under each explanation's curves of deletion and insertion."""
    count = len(next(iter(curves.values())))
    return {
        metric: Scores(
            np.arange(count),
            {name: np.array([area(pair[part]) for pair in pairs]) for name, pairs in curves.items()},
        )
        for part, metric in enumerate(("deletion", "insertion"))
    }


class _Collected:
    """Scores by measure and method, collected one explanation at a time."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self._rows: list[dict[tuple[str, str], float]] = []

    def add(self, position: int, row: dict[tuple[str, str], float]) -> None:
        self.positions.append(position)
        self._rows.append(row)

    def scores(self, metric: str, names: list[str]) -> Scores:
        columns = {name: np.array([row[metric, name] for row in self._rows]) for name in names}
        return Scores(np.array(self.positions), columns)


def _local_scores(maps: dict[str, np.ndarray], inside: np.ndarray) -> dict[tuple[str, str], float]:
    row: dict[tuple[str, str], float] = {}
    for name, map in maps.items():
        resized = enlarged(map, inside.shape)
        row["pointing", name] = covers(inside, peaks(map))
        row["energy", name] = energy_inside(resized, inside)
        row["overlap", name] = overlap(resized, inside)
    return row


@dataclass(frozen=True)
class _Pointed:
    """The positions of the maxima of an explanation's maps, by method."""

    question_id: int | str
    image_id: int | str
    peaks: dict[str, Peaks]


def _pointing_of_others(
    sample: EvaluationSample, table: ObjectTable, positions: list[int], pointed: list[_Pointed]
) -> dict[str, np.ndarray]:
    """``Regions.others`` of the explanations at these positions; ``pointed`` covers the whole sample."""
    labels = [frozenset(table.asked[explanation.question_id].labels) for explanation in pointed]
    by_image: dict[int | str, list[int]] = {}
    for position, explanation in enumerate(pointed):
        by_image.setdefault(explanation.image_id, []).append(position)
    shares = {name: np.full(len(positions), np.nan) for name in pointed[0].peaks}
    for row, position in enumerate(positions):
        image_id, question_id = pointed[position].image_id, pointed[position].question_id
        # The map of a question about an absent object has no region it should point at.
        others = [p for p in by_image[image_id] if labels[p] and labels[p].isdisjoint(labels[position])]
        inside = _asked_about(table, image_id, question_id, sample) if others else None
        if inside is not None:
            for name, values in shares.items():
                values[row] = np.mean([covers(inside, pointed[other].peaks[name]) for other in others])
    return shares


def _asked_about(
    table: ObjectTable, image_id: int | str, question_id: int | str, sample: EvaluationSample
) -> np.ndarray | None:
    """The region that a question asks about (H, W) bool, as the network sees it; None if it is empty."""
    target = table.asked.get(question_id)
    if target is None:
        raise HvxError(
            f"{sample.split.objects}: no question {question_id}, which {sample.reader.path} explains; "
            "the run is of another split"
        )
    if not target.labels:
        return None
    inside = cropped(np.isin(table.mask(image_id), target.labels), sample.size)
    return inside if inside.any() else None


def cropped(inside: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A region of a photograph (H, W) bool as the network sees it: the center square, scaled to ``size``."""
    if inside.shape == size:
        return inside
    height, width = inside.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    mask = Image.fromarray(inside.astype(np.uint8))
    return np.asarray(mask.resize(size[::-1], Image.Resampling.NEAREST, box=box)).astype(bool)
