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
from hvx.data.words import padded
from hvx.device import pick_device, standard_mode
from hvx.errors import HvxError
from hvx.measure.compute import make_maps
from hvx.measure.mapper import Mapper
from hvx.measure.methods import ATTENTION, METHODS, PROPOSED, check_installed, in_order
from hvx.measure.shelf import FOLDER, Shelf, kept_shelves, maps_key
from hvx.measure.subject import Batch, Subject, draw
from hvx.models.checkpoint import VQAModel
from hvx.run.lock import Say, no_log
from hvx.store.reader import Item, RunReader
from hvx.view.figure import MapColumn

Map = NDArray[np.floating]
_Kept = dict[str, dict[int, tuple[np.ndarray, int]]]
"""By method and item of the run: a file of maps, and the place among them."""


def method_columns(names: Sequence[str]) -> tuple[MapColumn, ...]:
    """The columns of a figure whose rows have a map by each of these methods, in their order.

    Args:
        names: of ``hvx.measure.methods.METHODS``.
    """
    return tuple(MapColumn(METHODS[name].title, name != ATTENTION, name == PROPOSED) for name in names)


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
        names: of methods, at least one, none twice; the maps have their order.
        photo: as opened; the network's crop of it is taken here.
        tokens: the question's.
        answer: the one to explain, of the model's answers.
        heatmap: the proposed method's map (H, W), which is known already.
        attention: (G, S, S); None of a network without attention.
        seed: of the random map.

    Returns:
        A map (H, W) or, on the grid of the features, (S, S) for each name, divided by its largest magnitude
        where it is made here.

    Raises:
        HvxError: no such method, one that this network has no map for, captum is needed and absent, a map
            that is not finite, or an answer that the model does not have.
    """
    glimpses = 0 if attention is None else len(attention)
    wanted = in_order(names, glimpses, "methods")
    check_installed(wanted, "methods")
    known: dict[str, Map] = {PROPOSED: heatmap}
    if attention is not None:
        known[ATTENTION] = attention.sum(0)
    made = [name for name in wanted if name not in known]
    specific = next((name for name in made if METHODS[name].family == "specific"), None)
    if specific:
        raise HvxError(f"methods: '{specific}' compares the questions of a run; one question has no such map")
    if made:
        found = Mapper(model, seed).maps(made, _photo_batch(model, photo, tokens, answer))
        known |= {name: _scaled(name, found[name][0]) for name in made}
    return tuple(known[name] for name in wanted)


def _photo_batch(model: VQAModel, photo: Image.Image, tokens: Sequence[str], answer: str) -> Batch:
    if answer not in model.answers:
        raise HvxError(f"answer: the model has no {answer!r:.60}")
    config = model.config.image
    device = next(model.head.parameters()).device
    inputs = to_input(crop_photo(photo, config), config)[None].to(device)
    rows, lengths = padded([model.vocabulary.rows(list(tokens))])

    def here(values: np.ndarray | list[int]) -> torch.Tensor:
        return torch.as_tensor(values, device=device)

    answers = here([model.answers.index(answer)])
    return Batch([0], inputs, here([0]), here(rows), here(lengths), answers)


def _scaled(name: str, map: Map) -> Map:
    """A map divided by its largest magnitude: those of tiny gradients keep their precision."""
    if not np.isfinite(map).all():
        raise HvxError(f"{name}: a map of the network has values that are not finite")
    largest = np.abs(map).max()
    return np.asarray(map / largest if largest > 0 else map)


class MethodMaps:
    """Maps of a run's items by some methods, for a figure's columns: ``hvx.view.run_figures.RunMaps``.

    Args:
        names: of methods, in the columns' order.
        kept: of those that are not the run's own, each item's file of maps and its place in it.
    """

    def __init__(self, names: Sequence[str], kept: _Kept) -> None:
        self.columns = method_columns(names)
        self._names, self._kept = list(names), kept

    def of(self, number: int, item: Item) -> tuple[Map, ...]:
        """A map for each column of an item, (H, W) or, on the grid of the features, (S, S)."""
        return tuple(self._one(name, number, item) for name in self._names)

    def files(self) -> dict[str, dict[int, tuple[str, int]]]:
        """Of the methods that are not the run's own: each item's file of maps (n, h, w) and place in it."""
        return {
            name: {
                number: (str(cast("np.memmap", maps).filename), place)
                for number, (maps, place) in own.items()
            }
            for name, own in self._kept.items()
        }

    def _one(self, name: str, number: int, item: Item) -> Map:
        if name == PROPOSED:
            return item.heatmap
        if name == ATTENTION:
            return np.asarray(item.attention.sum(0))
        maps, place = self._kept[name][number]
        return np.asarray(maps[place].astype(np.float32))


@contextmanager
def run_maps(
    reader: RunReader,
    numbers: Sequence[int],
    names: Sequence[str],
    device: str,
    seed: int = 0,
    say: Say = no_log,
) -> Iterator[MethodMaps]:
    """Maps of some items of a run by methods: its own, those that ``hvx measure`` kept, the others computed.

    What is computed goes into a temporary folder, a file for each method, so that memory does not grow with
    the number of items.

    Args:
        reader: the run.
        numbers: its items that are drawn.
        names: of methods, at least one, none twice.
        device: where the network runs, if it is needed: ``auto``, ``cpu``, ``cuda`` or ``cuda:0``, ….
        seed: of the random map.
        say: told what must be computed, ahead of it.

    Raises:
        HvxError: a run without heat maps, no such method, one that this network has no map for, captum is
            needed and absent, or a map must be computed and the run's checkpoint is absent or another one.
        BadImage: the same of an image.
    """
    reader.check_heatmaps()
    wanted = in_order(names, reader.glimpses, f"{reader.path}: --methods")
    made = [name for name in wanted if METHODS[name].family != "run"]
    kept = _kept_maps(reader, numbers, made)
    absent = [name for name in made if any(number not in kept[name] for number in numbers)]
    if not absent:
        yield MethodMaps(wanted, kept)
        return
    check_installed(absent)
    missing = [n for n in dict.fromkeys(numbers) if any(n not in kept[name] for name in absent)]
    say(_cost(reader, absent, len(missing), len(numbers)))
    subject = Subject(reader, [], pick_device(device), numbers=missing, takes_set=False)
    with TemporaryDirectory(prefix="hvx-figure-") as folder:
        shelf = Shelf(Path(folder))
        make_maps(subject, shelf, absent, seed)
        for name in absent:
            maps = shelf.maps(name)
            computed = {number: (maps, place) for place, number in enumerate(missing)}
            kept[name] = computed | kept[name]
        yield MethodMaps(wanted, kept)


def _cost(reader: RunReader, absent: Sequence[str], missing: int, count: int) -> str:
    """What computing maps takes, in a line. Most have the size of the network's input, in 16 bits."""
    room = 2 * reader.about["image"]["size"] ** 2 * missing * len(absent) / 1e6
    return (
        f"{reader.path}: computing {', '.join(absent)} for {missing:,} of {count:,} explanations, which "
        f"`hvx measure` has not kept; takes up to {max(1, room):,.0f} MB in {gettempdir()} until it is done"
    )


def _kept_maps(reader: RunReader, numbers: Sequence[int], names: Sequence[str]) -> _Kept:
    """What ``hvx measure`` kept of these items of exactly this run, by method."""
    found: _Kept = {name: {} for name in names}
    image_ids, ids = reader.column("image_id"), reader.column("question_id")
    for shelf, about in kept_shelves(reader.path / FOLDER) if names else ():
        counts = {name: count for name in names if (count := shelf.map_count(name))}
        for count in set(counts.values()):
            sample = _sample(about.get("seed"), count, image_ids)
            # The key says which questions are there and in which order: the draw is only a guess of it.
            key = maps_key(reader, ids[sample].tolist())
            if any(about.get(part) != value for part, value in key.items()):
                continue
            places = {number: place for place, number in enumerate(sample)}
            for name in (name for name in counts if counts[name] == count):
                maps = shelf.maps(name)
                here = {number: (maps, places[number]) for number in numbers if number in places}
                found[name] = here | found[name]
    return found


def _sample(seed: object, count: int, image_ids: np.ndarray) -> list[int]:
    """The items that ``hvx measure`` drew with a seed, where these are ``count``; none without a seed."""
    return draw(image_ids, count, seed) if isinstance(seed, int) and 0 < count <= len(image_ids) else []
