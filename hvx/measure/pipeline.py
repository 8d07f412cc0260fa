"""The slow part: maps of each method, and curves of deletion and insertion over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.measure.cache import ResultCache
from hvx.measure.methods.computer import SaliencyComputer
from hvx.measure.methods.registry import METHODS, PROPOSED
from hvx.measure.metrics.faithfulness import SHARES, blurred, curves, ranks
from hvx.measure.metrics.localization import enlarged
from hvx.measure.metrics.specific import SpecificMaps
from hvx.measure.sample import Batch, EvaluationSample, probabilities
from hvx.progress import bar
from hvx.store.reader import Item

Curves = tuple[list[float], list[float]]
"""An explanation's curves of deletion and of insertion."""
BaselineProbabilities = tuple[float, float]
"""The answer's probability on an image and on its blur."""


class Maps:
    """The maps of the sample by method and position: the run's own, or those in the cache."""

    def __init__(self, sample: EvaluationSample, cache: ResultCache, names: list[str]) -> None:
        self.names, self._sample = names, sample
        self._cached = {name: cache.maps(name) for name in names if METHODS[name].family != "run"}

    def at(self, position: int, item: Item | None = None) -> dict[str, np.ndarray]:
        """The map by each method of an explanation: (H, W), or (S, S) on the grid.

        ``item``: the explanation, if it has been read already.
        """
        maps = {}
        for name in self.names:
            if name in self._cached:
                maps[name] = self._cached[name][position].astype(np.float32)
                continue
            item = item or self._sample.item(position)
            maps[name] = item.heatmap if name == PROPOSED else item.attention.sum(0)
        return maps


def make_maps(sample: EvaluationSample, cache: ResultCache, names: list[str], seed: int) -> None:
    """Compute the maps that are not in the cache, by family: methods of one family share a pass."""
    absent = [
        name for name in names if METHODS[name].family != "run" and not cache.has_maps(name, len(sample))
    ]
    computer = SaliencyComputer(sample.model, seed, sample.engine)
    specific = SpecificMaps(sample, computer)
    for family in dict.fromkeys(METHODS[name].family for name in absent):
        family_names = [name for name in absent if METHODS[name].family == family]
        make = specific.maps if family == "specific" else computer.maps
        with cache.new_maps(family_names, len(sample)) as files:
            for batch in _batches(sample, range(len(sample)), f"maps: {', '.join(family_names)}"):
                for name, maps in make(family_names, batch).items():
                    files[name].put(batch.positions, maps)


def make_baseline_probabilities(
    sample: EvaluationSample, cache: ResultCache, count: int
) -> list[BaselineProbabilities]:
    """The endpoints of the curves of the sample's first ``count`` explanations."""
    cached = cache.result(f"curves-{count}/ends")
    if not is_table(cached, (count, 2)):
        cache.keep(f"curves-{count}/ends", cached := _ends(sample, count))
    return [(sharp, blurry) for sharp, blurry in cached]


def make_curves(
    sample: EvaluationSample,
    cache: ResultCache,
    names: list[str],
    ends: list[BaselineProbabilities],
    seed: int,
) -> dict[str, list[Curves]]:
    """Curves of deletion and insertion of the sample's first explanations, by method."""
    by_method: dict[str, list[Curves]] = {}
    for name in names:
        cached = cache.result(f"curves-{len(ends)}/{name}")
        if not is_table(cached, (len(ends), 2, len(SHARES))):
            cached = _curves(sample, Maps(sample, cache, [name]), name, ends, seed)
            cache.keep(f"curves-{len(ends)}/{name}", cached)
        by_method[name] = [(deletion, insertion) for deletion, insertion in cached]
    return by_method


def is_table(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value read from a file is nested lists of finite numbers with this shape."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())


def _ends(sample: EvaluationSample, count: int) -> list[BaselineProbabilities]:
    ends = [(0.0, 0.0)] * count
    for batch in _batches(sample, range(count), "probabilities"):
        blurs = blurred(batch.inputs)
        for row, position in enumerate(batch.positions):
            image = batch.images[row]
            both = torch.stack([batch.inputs[image], blurs[image]])
            sharp, blurry = _score(sample, batch, row)(both).tolist()
            ends[position] = sharp, blurry
    return ends


def _curves(
    sample: EvaluationSample, maps: Maps, name: str, ends: list[BaselineProbabilities], seed: int
) -> list[Curves]:
    by_position: list[Curves] = [([], [])] * len(ends)
    for batch in _batches(sample, range(len(ends)), f"deletion and insertion: {name}"):
        blurs = blurred(batch.inputs)
        for row, position in enumerate(batch.positions):
            image = batch.images[row]
            pixel_ranks = ranks(enlarged(maps.at(position)[name], sample.size), seed)
            score = _score(sample, batch, row)
            by_position[position] = curves(
                score, batch.inputs[image], blurs[image], ends[position], pixel_ranks
            )
    return by_position


def _score(sample: EvaluationSample, batch: Batch, row: int) -> Callable[[Tensor], Tensor]:
    """Images → the probability of the answer to a batch's question."""
    question = batch.rows[row], batch.lengths[row], batch.answers[row]
    return lambda images: probabilities(sample.model, sample.engine.features(images), *question)


def _batches(sample: EvaluationSample, positions: Sequence[int], label: str) -> Iterator[Batch]:
    """The batches of these explanations, with a progress bar."""
    return bar(sample.batches(positions), label, "batch", total=sample.batch_count(positions))
