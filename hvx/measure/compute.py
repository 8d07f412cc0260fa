"""The work that takes time: maps of each method, and curves of deletion and insertion over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.measure.faithfulness import SHARES, blurred, curves, ranks
from hvx.measure.localization import enlarged
from hvx.measure.mapper import Mapper
from hvx.measure.methods import ATTENTION, METHODS, PROPOSED
from hvx.measure.shelf import Shelf
from hvx.measure.specific import SpecificMaps
from hvx.measure.subject import Batch, Subject, probabilities
from hvx.progress import bar
from hvx.store.reader import Item

Curves = tuple[list[float], list[float]]
"""An explanation's curves of deletion and of insertion."""
Ends = tuple[float, float]
"""The answer's probability on an image and on its blur."""


class Maps:
    """The maps of the sample by method and place: the run's own, or those on the shelf."""

    def __init__(self, shelf: Shelf, names: list[str]) -> None:
        self.names = names
        self._kept = {name: shelf.maps(name) for name in names if METHODS[name].family != "run"}

    def at(self, place: int, item: Item) -> dict[str, np.ndarray]:
        """The map by each method of an explanation, which is ``item``: (H, W), or (S, S) on the lattice."""
        own = {PROPOSED: item.heatmap, ATTENTION: item.attention.sum(0)}
        return {
            name: own[name] if name in own else self._kept[name][place].astype(np.float32)
            for name in self.names
        }


def make_maps(subject: Subject, shelf: Shelf, names: list[str], seed: int) -> None:
    """Compute the maps that are not on the shelf, family by family: what shares a pass is made in one."""
    absent = [
        name for name in names if METHODS[name].family != "run" and not shelf.has_maps(name, len(subject))
    ]
    mapper = Mapper(subject.model, seed)
    specific = SpecificMaps(subject, mapper)
    for family in dict.fromkeys(METHODS[name].family for name in absent):
        own = [name for name in absent if METHODS[name].family == family]
        make = specific.maps if family == "specific" else mapper.maps
        with shelf.new_maps(own, len(subject)) as files:
            for batch in _batches(subject, range(len(subject)), f"maps: {', '.join(own)}"):
                for name, maps in make(own, batch).items():
                    files[name].put(batch.places, maps)


def make_ends(subject: Subject, shelf: Shelf, count: int) -> list[Ends]:
    """Where the curves of the sample's first ``count`` explanations begin and end."""
    kept = shelf.result(f"curves-{count}/ends")
    if not is_table(kept, (count, 2)):
        shelf.keep(f"curves-{count}/ends", kept := _ends(subject, count))
    return [(sharp, blurry) for sharp, blurry in kept]


def make_curves(
    subject: Subject, shelf: Shelf, names: list[str], ends: list[Ends], seed: int
) -> dict[str, list[Curves]]:
    """Curves of deletion and insertion of the sample's first explanations, by method."""
    found: dict[str, list[Curves]] = {}
    for name in names:
        kept = shelf.result(f"curves-{len(ends)}/{name}")
        if not is_table(kept, (len(ends), 2, len(SHARES))):
            kept = _curves(subject, Maps(shelf, [name]), name, ends, seed)
            shelf.keep(f"curves-{len(ends)}/{name}", kept)
        found[name] = [(deletion, insertion) for deletion, insertion in kept]
    return found


def is_table(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value that was read from a file holds finite numbers, nested in lists to this shape."""
    try:
        found = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return found.shape == shape and bool(np.isfinite(found).all())


def _ends(subject: Subject, count: int) -> list[Ends]:
    ends = [(0.0, 0.0)] * count
    for batch in _batches(subject, range(count), "probabilities"):
        blurs = blurred(batch.inputs)
        for row, place in enumerate(batch.places):
            image = batch.images[row]
            both = torch.stack([batch.inputs[image], blurs[image]])
            sharp, blurry = _score(subject, batch, row)(both).tolist()
            ends[place] = sharp, blurry
    return ends


def _curves(subject: Subject, maps: Maps, name: str, ends: list[Ends], seed: int) -> list[Curves]:
    found: list[Curves] = [([], [])] * len(ends)
    for batch in _batches(subject, range(len(ends)), f"deletion and insertion: {name}"):
        blurs = blurred(batch.inputs)
        for row, place in enumerate(batch.places):
            image = batch.images[row]
            places = ranks(enlarged(maps.at(place, subject.item(place))[name], subject.size), seed)
            score = _score(subject, batch, row)
            found[place] = curves(score, batch.inputs[image], blurs[image], ends[place], places)
    return found


def _score(subject: Subject, batch: Batch, row: int) -> Callable[[Tensor], Tensor]:
    """Images → the probability of the answer to a batch's question."""
    asked = batch.rows[row], batch.lengths[row], batch.answers[row]
    return lambda images: probabilities(subject.model, images, *asked)


def _batches(subject: Subject, places: Sequence[int], label: str) -> Iterator[Batch]:
    """The batches of these explanations, with a bar."""
    return bar(subject.batches(places), label, "batch", total=subject.batch_count(places))
