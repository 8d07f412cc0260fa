"""Writes one range of a gallery's items: their photos, their maps and the data of their cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from hvx.errors import BadImage, ReplacedImage
from hvx.gallery.maps import RunMaps
from hvx.gallery.measuring import measure
from hvx.gallery.pictures import drawn_maps, outline_path, save_maps, save_photo, save_words
from hvx.gallery.scripts import number, write_script
from hvx.gallery.workers import Chunk, Done, Job, Missing, Photo
from hvx.store.reader import Item, RunReader
from hvx.view.run_photos import open_photo_of


@dataclass(frozen=True)
class _Shown:
    """An item of a run, its maps as drawn, and whether its image has no other question."""

    item: Item
    pictures: list[np.ndarray]
    alone: bool


class ChunkWriter:
    """Writes chunks of a gallery, in one process."""

    def __init__(self, job: Job) -> None:
        self._readers, self._job = [RunReader(run) for run in job.runs], job
        self._maps = [RunMaps(*run_data) for run_data in zip(self._readers, job.sources, strict=True)]

    def write(self, chunk: Chunk) -> Done:
        """Write a chunk's pictures and its script.

        Raises:
            HvxError: a run is damaged.
            OSError: the folder cannot be written.
        """
        folder = self._job.folder
        outcomes = {number: self._save(photo, number) for number, photo in chunk.photos.items()}
        missing = {number: reason for number, reason in outcomes.items() if reason}
        item_lists = [list(reader.items(n)) for reader, n in zip(self._readers, chunk.numbers, strict=True)]
        shown_lists = [_shown(*run) for run in zip(self._maps, chunk.numbers, item_lists, strict=True)]
        entries = []
        for item, shown_items in zip(chunk.items, zip(*shown_lists, strict=True), strict=True):
            save_maps([picture for shown in shown_items for picture in shown.pictures], folder, item)
            save_words([shown.item for shown in shown_items], folder, item)
            entries.append(_entry(shown_items))
        measured = [
            measure(*run)
            for run in zip(self._readers, item_lists, chunk.numbers, chunk.partners, strict=True)
        ]
        write_script(folder / "data" / f"items-{chunk.index:06d}.js", "hvx.addItems", chunk.index, entries)
        return Done(chunk, tuple(measured), missing)

    def _save(self, photo: Photo, number: int) -> Missing | None:
        """Save a photo under its number; return the reason if it cannot be shown."""
        try:
            picture = open_photo_of(self._readers[0], photo.path, photo.digest)
        except ReplacedImage as error:
            return Missing("replaced", str(error))
        except BadImage as error:
            return Missing("unreadable", str(error))
        save_photo(picture, self._job.size, self._job.folder, number)
        return None


def _shown(maps: RunMaps, numbers: Sequence[int], items: Sequence[Item]) -> list[_Shown]:
    """Items of a run with their maps, which are drawn together."""
    all_maps = maps.of(numbers, items)
    blank = np.zeros((1, 1), np.float32)
    drawn = iter(drawn_maps([blank if map is None else map for item_maps in all_maps for map in item_maps]))
    return [
        _Shown(item, list(islice(drawn, len(item_maps))), any(map is None for map in item_maps))
        for item, item_maps in zip(items, all_maps, strict=True)
    ]


def _entry(shown: Sequence[_Shown]) -> list[Any]:
    """The data of a card and an item's page beyond the index; last, those of further runs."""
    first, *other_runs = [_of_run(run_item) for run_item in shown]
    item = shown[0].item
    entry = [*first[:3], str(item.image_id), item.image_path, *first[3:]]
    return [*entry, other_runs] if other_runs else entry


def _of_run(shown: _Shown) -> list[Any]:
    """Tokens, z (may be empty), likeliest answers, indices of unknown tokens, outline of the heat map,
    whether the image has no other question."""
    item = shown.item
    outline = outline_path(shown.pictures[len(item.attention)]) if item.heatmap.size else ""
    top_answers = [(answer, number(probability)) for answer, probability in item.top_answers if answer]
    unknown = [index for index, is_unknown in enumerate(item.unknown) if is_unknown]
    return [item.tokens, [number(z) for z in item.token_z], top_answers, unknown, outline, int(shown.alone)]
