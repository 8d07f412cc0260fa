"""One range of a gallery's items: their photos, their maps and the script with what their cards show."""

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
    """An item of a run, its maps as they are drawn, and whether no other question is on its image."""

    item: Item
    pictures: list[np.ndarray]
    alone: bool


class ChunkWriter:
    """Writes chunks of a gallery, in one process."""

    def __init__(self, job: Job) -> None:
        self._readers, self._job = [RunReader(run) for run in job.runs], job
        self._maps = [RunMaps(*of_run) for of_run in zip(self._readers, job.sources, strict=True)]

    def write(self, chunk: Chunk) -> Done:
        """Write a chunk's pictures and its script.

        Raises:
            HvxError: a run is damaged.
            OSError: the folder cannot be written.
        """
        folder = self._job.folder
        found = {number: self._save(photo, number) for number, photo in chunk.photos.items()}
        missing = {number: reason for number, reason in found.items() if reason}
        of_runs = [list(reader.items(own)) for reader, own in zip(self._readers, chunk.numbers, strict=True)]
        of_items = [_shown(*of_run) for of_run in zip(self._maps, chunk.numbers, of_runs, strict=True)]
        entries = []
        for place, shown in zip(chunk.items, zip(*of_items, strict=True), strict=True):
            save_maps([picture for one in shown for picture in one.pictures], folder, place)
            save_words([one.item for one in shown], folder, place)
            entries.append(_entry(shown))
        measured = [
            measure(*of_run)
            for of_run in zip(self._readers, of_runs, chunk.numbers, chunk.partners, strict=True)
        ]
        write_script(folder / "data" / f"items-{chunk.index:06d}.js", "hvx.addItems", chunk.index, entries)
        return Done(chunk, tuple(measured), missing)

    def _save(self, photo: Photo, number: int) -> Missing | None:
        """Save a photo under its number; or why it is not shown."""
        try:
            picture = open_photo_of(self._readers[0], photo.path, photo.digest)
        except ReplacedImage as error:
            return Missing("replaced", str(error))
        except BadImage as error:
            return Missing("unreadable", str(error))
        save_photo(picture, self._job.size, self._job.folder, number)
        return None


def _shown(maps: RunMaps, numbers: Sequence[int], items: Sequence[Item]) -> list[_Shown]:
    """Some items of a run, whose maps are drawn together."""
    of_items = maps.of(numbers, items)
    blank = np.zeros((1, 1), np.float32)
    drawn = iter(drawn_maps([blank if map is None else map for own in of_items for map in own]))
    return [
        _Shown(item, list(islice(drawn, len(own))), any(map is None for map in own))
        for item, own in zip(items, of_items, strict=True)
    ]


def _entry(shown: Sequence[_Shown]) -> list[Any]:
    """What a card and an item's page show beyond the index; last what further runs say of the question."""
    first, *others = [_of_run(one) for one in shown]
    item = shown[0].item
    own = [*first[:3], str(item.image_id), item.image_path, *first[3:]]
    return [*own, others] if others else own


def _of_run(shown: _Shown) -> list[Any]:
    """Tokens, z (empty of a run without), likeliest answers, places of unknown tokens, outline of the heat
    map, whether it is alone on its image."""
    item = shown.item
    outline = outline_path(shown.pictures[len(item.attention)]) if item.heatmap.size else ""
    top = [(answer, number(share)) for answer, share in item.top_answers if answer]
    unknown = [place for place, lacking in enumerate(item.unknown) if lacking]
    return [item.tokens, [number(z) for z in item.token_z], top, unknown, outline, int(shown.alone)]
