"""Maps by other methods for the columns of a figure: of a run's items, or of one question on one photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hvx.data.images import crop_photo, to_input
from hvx.data.tokenize import padded
from hvx.device import pick_device, standard_mode
from hvx.errors import HvxError
from hvx.measure.cache import FOLDER, ResultCache, cached_results, maps_key
from hvx.measure.methods.computer import SaliencyComputer
from hvx.measure.methods.registry import ATTENTION, METHODS, PROPOSED, in_order
from hvx.measure.pipeline import make_maps
from hvx.measure.sample import Batch, EvaluationSample, draw
from hvx.models.checkpoint import VQAModel
from hvx.progress import Log, no_log
from hvx.store.reader import Item, RunReader
from hvx.view.style import MapColumn

Map = NDArray[np.floating]
_SavedMaps = dict[str, dict[int, tuple[np.ndarray, int]]]
"""By method and item of the run: a file of maps, and the index in it."""


def method_columns(names: Sequence[str]) -> tuple[MapColumn, ...]:
    """The columns of a figure with a map by each of these methods, in the same order.

    Args:
        names: of ``hvx.measure.methods.registry.METHODS``.
    """
    titles = (METHODS[name].title.replace("Eq. ", "Eq.\u00a0") for name in names)  # no line break within
    return tuple(
        MapColumn(title, name != ATTENTION, name == PROPOSED)
        for title, name in zip(titles, names, strict=True)
    )


@standard_mode()
def photo_maps(
    model: VQAModel,
    names: Sequence[str],
    photo: Image.Image,
    tokens: Sequence[str],
    answer: str,
    heatmap: Map,
    attention: Map | None,
    seed: int = 0,
) -> tuple[Map, ...]:
    """Maps of one question on one photo by some methods, for the ``maps`` of a ``FigureRow``.

    Args:
        model: the network that gave the answer; maps are made on its device.
        names: of methods, at least one, without duplicates; the maps have the same order.
        photo: as opened; it is cropped here.
        tokens: the question's.
        answer: the one to explain, of the model's answers.
        heatmap: the proposed method's map (H, W), which is already known.
        attention: (G, S, S); None for a network without attention.
        seed: of the random map.

    Returns:
        A map (H, W) or, on the grid of the features, (S, S) for each name, divided by its largest magnitude
        if it is computed here.

    Raises:
        HvxError: no such method, one that this network has no map for, a map that is not finite, or an
            answer that the model does not have.
    """
    glimpses = 0 if attention is None else len(attention)
    wanted = in_order(names, glimpses, "methods")
    known: dict[str, Map] = {PROPOSED: heatmap}
    if attention is not None:
        known[ATTENTION] = attention.sum(0)
    absent = [name for name in wanted if name not in known]
    specific = next((name for name in absent if METHODS[name].family == "specific"), None)
    if specific:
        raise HvxError(f"methods: '{specific}' compares the questions of a run; one question has no such map")
    if absent:
        maps = SaliencyComputer(model, seed).maps(absent, _photo_batch(model, photo, tokens, answer))
        known |= {name: _scaled(name, maps[name][0]) for name in absent}
    return tuple(known[name] for name in wanted)


def _photo_batch(model: VQAModel, photo: Image.Image, tokens: Sequence[str], answer: str) -> Batch:
    if answer not in model.answers:
        raise HvxError(f"answer: the model has no {answer!r:.60}")
    config = model.config.image
    device = next(model.head.parameters()).device
    inputs = to_input(crop_photo(photo, config), config)[None].to(device)
    rows, lengths = padded([model.vocabulary.rows(list(tokens))])

    def on_device(values: np.ndarray | list[int]) -> torch.Tensor:
        return torch.as_tensor(values, device=device)

    answers = on_device([model.answers.index(answer)])
    return Batch([0], inputs, on_device([0]), on_device(rows), on_device(lengths), answers)


def _scaled(name: str, map: Map) -> Map:
    """A map divided by its largest magnitude, so that maps of tiny gradients keep their precision."""
    if not np.isfinite(map).all():
        raise HvxError(f"{name}: a map of the network has values that are not finite")
    largest = np.abs(map).max()
    return np.asarray(map / largest if largest > 0 else map)


class MethodMaps:
    """Maps of a run's items by some methods, for a figure's columns: ``hvx.view.run_figures.RunMaps``.

    Args:
        names: of methods, in the columns' order.
        saved: for methods that are not the run's own, each item's file of maps and its index in it.
    """

    def __init__(self, names: Sequence[str], saved: _SavedMaps) -> None:
        self.columns = method_columns(names)
        self._names, self._saved = list(names), saved

    def of(self, number: int, item: Item) -> tuple[Map, ...]:
        """A map for each column of an item, (H, W) or, on the grid of the features, (S, S)."""
        return tuple(self._map(name, number, item) for name in self._names)

    def files(self) -> dict[str, dict[int, tuple[str, int]]]:
        """For methods that are not the run's own: each item's file of maps (n, h, w) and index in it."""
        return {
            name: {
                number: (str(cast("np.memmap", maps).filename), index)
                for number, (maps, index) in by_item.items()
            }
            for name, by_item in self._saved.items()
        }

    def _map(self, name: str, number: int, item: Item) -> Map:
        if name == PROPOSED:
            return item.heatmap
        if name == ATTENTION:
            return np.asarray(item.attention.sum(0))
        maps, index = self._saved[name][number]
        return np.asarray(maps[index].astype(np.float32))


@contextmanager
def run_maps(
    reader: RunReader,
    numbers: Sequence[int],
    names: Sequence[str],
    device: str,
    seed: int = 0,
    log: Log = no_log,
) -> Iterator[MethodMaps]:
    """Maps of some items of a run by methods: its own, those that ``hvx measure`` saved; others are computed.

    Computed maps are written to a temporary folder, one file for each method, so that memory does not grow
    with the number of items.

    Args:
        reader: the run.
        numbers: the items to draw.
        names: of methods, at least one, without duplicates.
        device: of the network, if it is needed: ``auto``, ``cpu``, ``cuda`` or ``cuda:0``, ….
        seed: of the random map.
        log: told what must be computed, before it is computed.

    Raises:
        HvxError: a run without heat maps, no such method, one that this network has no map for, or a map must
            be computed and the run's checkpoint is absent or another one.
        BadImage: an image is absent or another one.
    """
    reader.check_heatmaps()
    wanted = in_order(names, reader.glimpses, f"{reader.path}: --methods")
    method_names = [name for name in wanted if METHODS[name].family != "run"]
    saved = _kept_maps(reader, numbers, method_names)
    absent = [name for name in method_names if any(number not in saved[name] for number in numbers)]
    if not absent:
        yield MethodMaps(wanted, saved)
        return
    missing = [n for n in dict.fromkeys(numbers) if any(n not in saved[name] for name in absent)]
    log(_cost(reader, absent, len(missing), len(numbers)))
    sample = EvaluationSample(reader, [], pick_device(device), numbers=missing, takes_set=False)
    with TemporaryDirectory(prefix="hvx-figure-") as folder:
        cache = ResultCache(Path(folder))
        make_maps(sample, cache, absent, seed)
        for name in absent:
            maps = cache.maps(name)
            computed = {number: (maps, index) for index, number in enumerate(missing)}
            saved[name] = computed | saved[name]
        yield MethodMaps(wanted, saved)


def _cost(reader: RunReader, absent: Sequence[str], missing: int, count: int) -> str:
    """A line on the cost of computing maps. Most have the size of the network's input, in 16 bits."""
    size = 2 * reader.about["image"]["size"] ** 2 * missing * len(absent) / 1e6
    return (
        f"{reader.path}: computing {', '.join(absent)} for {missing:,} of {count:,} explanations, which "
        f"`hvx measure` has not kept; takes up to {max(1, size):,.0f} MB in {gettempdir()} until it is done"
    )


def _kept_maps(reader: RunReader, numbers: Sequence[int], names: Sequence[str]) -> _SavedMaps:
    """The maps that ``hvx measure`` saved of these items of exactly this run, by method."""
    saved: _SavedMaps = {name: {} for name in names}
    image_ids, ids = reader.column("image_id"), reader.column("question_id")
    for cache, about in cached_results(reader.path / FOLDER) if names else ():
        counts = {name: count for name in names if (count := cache.map_count(name))}
        for count in set(counts.values()):
            drawn = _sample(about.get("seed"), count, image_ids)
            # The key identifies the questions and their order; the draw is only a guess of them.
            key = maps_key(reader, ids[drawn].tolist())
            if any(about.get(part) != value for part, value in key.items()):
                continue
            indices = {number: index for index, number in enumerate(drawn)}
            for name in (name for name in counts if counts[name] == count):
                maps = cache.maps(name)
                matching = {number: (maps, indices[number]) for number in numbers if number in indices}
                saved[name] = matching | saved[name]
    return saved


def _sample(seed: object, count: int, image_ids: np.ndarray) -> list[int]:
    """The ``count`` items that ``hvx measure`` draws with a seed; empty without a seed."""
    return draw(image_ids, count, seed) if isinstance(seed, int) and 0 < count <= len(image_ids) else []
