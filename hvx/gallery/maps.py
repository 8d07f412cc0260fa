"""The maps of a gallery's items: the run's own, the question-specific one, and those of other methods."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np

from hvx.explain.specific import less_others, over_mean
from hvx.gallery.pictures import shrunk
from hvx.gallery.workers import MapSource
from hvx.measure.methods.registry import ATTENTION
from hvx.store.reader import Item, RunReader

Map = np.ndarray

_IMAGES = 64
"""Images whose questions' maps a process caches."""


class RunMaps:
    """Makes the maps of a run's items.

    Args:
        reader: the run.
        source: which further maps there are.
    """

    def __init__(self, reader: RunReader, source: MapSource) -> None:
        self._methods = source.methods
        self._others = _OtherQuestions(reader) if source.specific else None

    def of(self, numbers: Sequence[int], items: Sequence[Item]) -> list[list[Map | None]]:
        """The maps of some items: attention, heat map if any, question-specific map, maps of further methods.

        Returns:
            For each item, a map (H, W) for each of the run's columns, at least as large as drawn, or on a
            grid; None if the item has no map by that method.
        """
        pairs = zip(numbers, items, strict=True)
        heatmaps = {number: shrunk(item.heatmap) for number, item in pairs if item.heatmap.size}
        all_maps: list[list[Map | None]] = []
        for number, item in zip(numbers, items, strict=True):
            maps: list[Map | None] = [*item.attention, *([heatmaps[number]] if number in heatmaps else [])]
            maps += [self._others.of(number, heatmaps)] if self._others else []
            all_maps.append(maps + [self._by(name, number, item) for name in self._methods])
        return all_maps

    def _by(self, name: str, number: int, item: Item) -> Map:
        return item.attention.sum(0) if name == ATTENTION else _computed_map(*self._methods[name][number])


def _computed_map(path: str, index: int) -> Map:
    return np.asarray(_map_file(path)[index].astype(np.float32))


@cache
def _map_file(path: str) -> np.ndarray:
    """A memory-mapped file of maps (n, h, w)."""
    maps: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return maps


class _OtherQuestions:
    """Question-specific maps: ``hvx.explain.specific`` with all other questions of the run on the image.

    Maps are compared at the size at which they are drawn. Averaging over squares does not change their mean.
    """

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._texts = reader.column("question")
        self._images = reader.column("image_id")
        self._numbers: dict[int | str, list[int]] = defaultdict(list)
        for number, image in enumerate(self._images.tolist()):
            self._numbers[image].append(number)
        self._known: dict[int | str, _Image] = {}

    def of(self, number: int, heatmaps: dict[int, Map]) -> Map | None:
        """The map (h, w) of an item; None if its image has no other question. ``heatmaps``: by number."""
        relative = over_mean(heatmaps[number])
        others = self._image(number, heatmaps).others(str(self._texts[number]), relative)
        return None if others is None else less_others(relative, others)

    def _image(self, number: int, heatmaps: dict[int, Map]) -> _Image:
        image = self._images[number]
        if image not in self._known:
            while len(self._known) >= _IMAGES:
                del self._known[next(iter(self._known))]
            self._known[image] = self._read(self._numbers[image], heatmaps)
        return self._known[image]

    def _read(self, numbers: Sequence[int], heatmaps: dict[int, Map]) -> _Image:
        image = _Image(Counter(str(self._texts[number]) for number in numbers))
        for number in numbers if image.has_several else ():
            stored = heatmaps.get(number)
            map = shrunk(self._reader.value("heatmap", number)) if stored is None else stored
            image.add(str(self._texts[number]), over_mean(map))
        return image


class _Image:
    """The sum of the maps of all questions on an image, each over its mean."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts, self._all = counts, counts.total()
        self._sum: Map = np.zeros(1)
        self._repeated: dict[str, Map] = {}
        """The sums for questions that occur more than once."""

    @property
    def has_several(self) -> bool:
        """Whether the image has questions with different texts."""
        return len(self._counts) > 1

    def add(self, text: str, relative: Map) -> None:
        self._sum = self._sum + relative
        if self._counts[text] > 1:
            self._repeated[text] = self._repeated.get(text, 0) + relative

    def others(self, text: str, relative: Map) -> Map | None:
        """The mean map of the questions with another text; None if there are none."""
        count = self._all - self._counts[text]
        if not count:
            return None
        return np.asarray((self._sum - self._repeated.get(text, relative)) / count)
