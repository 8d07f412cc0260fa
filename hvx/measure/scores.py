"""Each explanation's scores by method: what every mean of the report is taken over."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from PIL import Image

from hvx.data.objects import ObjectTable
from hvx.errors import BadImage, HvxError
from hvx.measure.agreement import pooled, rank_correlations
from hvx.measure.compute import Curves, Maps
from hvx.measure.faithfulness import area
from hvx.measure.human import HumanMaps
from hvx.measure.localization import Peaks, covers, energy_inside, enlarged, overlap, peaks
from hvx.measure.methods import ATTENTION
from hvx.measure.subject import Subject
from hvx.progress import bar

LATTICE = (14, 14)
"""On which maps are compared where there is no attention to set it."""


GLIMPSE = "glimpse"


@dataclass(frozen=True)
class Metric:
    """A measure of a map: its title, and whether more of it is better; None: it is no merit."""

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
        places: (n) of the explanations in the sample.
        values: method → (n) its scores.
    """

    places: np.ndarray
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """How maps agree, on the lattice: correlations (n, K, K) among the K ``names``, methods and glimpses."""

    names: list[str]
    correlations: np.ndarray


@dataclass(frozen=True)
class Regions:
    """Where explanations ought to point, of those whose question asks about something that is there.

    Attributes:
        places: (n) of the explanations in the sample.
        kinds: (n) of the questions.
        shares: (n) of the picture, that the region covers: the chance of a point to lie in it.
        others: method → (n) how often the maximum of another question's map on the same image lies there, in
            the mean over those that ask about other objects that are there; NaN where there is none.
    """

    places: np.ndarray
    kinds: np.ndarray
    shares: np.ndarray
    others: dict[str, np.ndarray] = field(default_factory=dict)


def glimpse_names(glimpses: int) -> list[str]:
    """What single attention maps are called beside the methods; none where there is but one."""
    return [f"{GLIMPSE} {number + 1}" for number in range(glimpses)] if glimpses > 1 else []


def score_maps(
    subject: Subject, maps: Maps, table: ObjectTable | None, human: HumanMaps | None
) -> tuple[dict[str, Scores], Agreement, Regions | None]:
    """Scores of all maps but those that need the network: localization, agreement with attention and people.

    Measures that nothing is known for (no masks, no people) are absent.
    """
    local, seen = _Collected(), _Collected()
    regions: list[tuple[int, str, float]] = []
    pointed: list[_Pointed] = []
    names = [*maps.names, *glimpse_names(subject.glimpses)]
    correlations = np.empty((len(subject), len(names), len(names)))
    for place in bar(range(len(subject)), "measuring maps", "explanation"):
        item = subject.item(place)
        found = maps.at(place, item)
        lattice = item.attention.shape[1:] if subject.glimpses else LATTICE
        glimpses = list(item.attention) if subject.glimpses > 1 else []
        cells = [pooled(map, lattice) for map in chain(found.values(), glimpses)]
        correlations[place] = rank_correlations(np.stack(cells))
        people = [pooled(map, lattice) for map in (human.of(item.question_id) if human else [])]
        if people:
            both = rank_correlations(np.stack([*cells, *people]))[: len(maps.names), -len(people) :]
            seen.add(place, {("human", name): both[k].mean() for k, name in enumerate(maps.names)})
        if table:
            inside = _asked_about(table, item.image_id, item.question_id, subject)
            maxima = {name: peaks(map) for name, map in found.items()}
            pointed.append(_Pointed(item.question_id, item.image_id, maxima))
            if inside is not None:
                local.add(place, _local_scores(found, inside))
                regions.append((place, table.asked[item.question_id].kind, float(inside.mean())))
    scored = {metric: local.scores(metric, maps.names) for metric in LOCAL if local.places}
    if seen.places:
        scored["human"] = seen.scores("human", maps.names)
    if ATTENTION in names:
        summed = names.index(ATTENTION)
        values = {name: correlations[:, k, summed] for k, name in enumerate(maps.names) if name != ATTENTION}
        scored["attention"] = Scores(np.arange(len(subject)), values)
    found_agreement = Agreement(names, correlations)
    if not table or not regions:
        return scored, found_agreement, None
    places, kinds, shares = (np.array(column) for column in zip(*regions, strict=True))
    others = _pointing_of_others(subject, table, local.places, pointed)
    return scored, found_agreement, Regions(places, kinds, shares, others)


def check_masks(subject: Subject, table: ObjectTable) -> None:
    """Refuse, ahead of any work, masks that cannot be read or are of another size than their photograph.

    Raises:
        HvxError: names the mask.
    """
    first: dict[int | str, int] = {}
    ids = subject.reader.column("question_id")[subject.numbers].tolist()
    for place, (question, image) in enumerate(zip(ids, subject.images.tolist(), strict=True)):
        asked = table.asked.get(question)
        if asked and asked.labels:
            first.setdefault(image, place)
    for image, place in first.items():
        height, width = table.mask(image).shape
        try:
            wanted = subject.photo_size(place)
        except BadImage:
            continue  # told where it is read, with what helps
        if (width, height) != wanted:
            raise HvxError(
                f"{table.mask_path(image)}: {width}×{height} pixels; its photograph has "
                f"{wanted[0]}×{wanted[1]}, and a label mask has the same"
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
    """Scores by measure and method, an explanation at a time."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self._rows: list[dict[tuple[str, str], float]] = []

    def add(self, place: int, row: dict[tuple[str, str], float]) -> None:
        self.places.append(place)
        self._rows.append(row)

    def scores(self, metric: str, names: list[str]) -> Scores:
        columns = {name: np.array([row[metric, name] for row in self._rows]) for name in names}
        return Scores(np.array(self.places), columns)


def _local_scores(found: dict[str, np.ndarray], inside: np.ndarray) -> dict[tuple[str, str], float]:
    row: dict[tuple[str, str], float] = {}
    for name, map in found.items():
        whole = enlarged(map, inside.shape)
        row["pointing", name] = covers(inside, peaks(map))
        row["energy", name] = energy_inside(whole, inside)
        row["overlap", name] = overlap(whole, inside)
    return row


@dataclass(frozen=True)
class _Pointed:
    """Where the maps of an explanation of the sample have their maxima, by method."""

    question_id: int | str
    image_id: int | str
    peaks: dict[str, Peaks]


def _pointing_of_others(
    subject: Subject, table: ObjectTable, places: list[int], pointed: list[_Pointed]
) -> dict[str, np.ndarray]:
    """``Regions.others`` of the explanations at these places; ``pointed`` is of the whole sample."""
    labels = [frozenset(table.asked[own.question_id].labels) for own in pointed]
    by_image: dict[int | str, list[int]] = {}
    for place, own in enumerate(pointed):
        by_image.setdefault(own.image_id, []).append(place)
    found = {name: np.full(len(places), np.nan) for name in pointed[0].peaks}
    for row, place in enumerate(places):
        own = pointed[place]
        # A question after what is not there points somewhere else for no reason that could be checked.
        others = [p for p in by_image[own.image_id] if labels[p] and labels[p].isdisjoint(labels[place])]
        inside = _asked_about(table, own.image_id, own.question_id, subject) if others else None
        if inside is not None:
            for name, values in found.items():
                values[row] = np.mean([covers(inside, pointed[other].peaks[name]) for other in others])
    return found


def _asked_about(
    table: ObjectTable, image_id: int | str, question_id: int | str, subject: Subject
) -> np.ndarray | None:
    """Where what a question asks about lies (H, W) bool, as the network sees it; None if nowhere."""
    asked = table.asked.get(question_id)
    if asked is None:
        raise HvxError(
            f"{subject.split.objects}: no question {question_id}, which {subject.reader.path} explains; "
            "the run is of another split"
        )
    if not asked.labels:
        return None
    inside = cropped(np.isin(table.mask(image_id), asked.labels), subject.size)
    return inside if inside.any() else None


def cropped(inside: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A region of a photograph (H, W) bool as the network sees it: the center square, scaled to ``size``."""
    if inside.shape == size:
        return inside
    height, width = inside.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    whole = Image.fromarray(inside.astype(np.uint8))
    return np.asarray(whole.resize(size[::-1], Image.Resampling.NEAREST, box=box)).astype(bool)
