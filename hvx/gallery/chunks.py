"""One range of a gallery's items: their photos, their maps and the script with what their cards show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Any

import numpy as np

from hvx.errors import BadImage, ReplacedImage
from hvx.gallery.measuring import measure
from hvx.gallery.pictures import drawn_maps, outline_path, save_maps, save_photo
from hvx.gallery.scripts import number, write_script
from hvx.gallery.workers import Chunk, Done, Job, Missing, Photo
from hvx.store.reader import Item, RunReader
from hvx.view.run_photos import open_photo_of


class ChunkWriter:
    """Writes chunks of a gallery, in one process."""

    def __init__(self, job: Job) -> None:
        self._readers, self._job = [RunReader(run) for run in job.runs], job

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
        rows = list(zip(*of_runs, strict=True))
        of_items = [[map for item in items for map in _maps(item)] for items in rows]
        drawn = iter(drawn_maps([map for maps in of_items for map in maps]))
        entries = []
        for place, items, maps in zip(chunk.items, rows, of_items, strict=True):
            pictures = list(islice(drawn, len(maps)))
            save_maps(pictures, folder, place)
            ends = accumulate(len(_maps(item)) for item in items)
            entries.append(_entry(items, [outline_path(pictures[end - 1]) for end in ends]))
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


def _maps(item: Item) -> list[np.ndarray]:
    """An item's maps from left to right."""
    return [*item.attention, item.heatmap]


def _entry(items: Sequence[Item], outlines: Sequence[str]) -> list[Any]:
    """What a card and an item's page show beyond the index; last what further runs say of the question."""
    first, *others = [_of_run(*pair) for pair in zip(items, outlines, strict=True)]
    own = [*first[:3], str(items[0].image_id), items[0].image_path, *first[3:]]
    return [*own, others] if others else own


def _of_run(item: Item, outline: str) -> list[Any]:
    """Tokens, z, likeliest answers, places of unknown tokens, outline of the heat map."""
    top = [(answer, number(share)) for answer, share in item.top_answers if answer]
    unknown = [place for place, lacking in enumerate(item.unknown) if lacking]
    return [item.tokens, [number(z) for z in item.token_z], top, unknown, outline]
