"""One range of a run's items: their photos, their maps and the script with what their cards show."""

from __future__ import annotations

from typing import Any

from hvx.choose import agreement
from hvx.errors import BadImage, ReplacedImage
from hvx.gallery.pictures import outline_path, save_maps, save_photo
from hvx.gallery.scripts import number, write_script
from hvx.gallery.workers import Chunk, Done, Job, Missing, Photo
from hvx.store.reader import Item, RunReader
from hvx.view.run_figures import open_photo_of


class ChunkWriter:
    """Writes chunks of a gallery, in one process."""

    def __init__(self, job: Job) -> None:
        self._reader, self._job = RunReader(job.run), job

    def write(self, chunk: Chunk) -> Done:
        """Write a chunk's pictures and its script.

        Raises:
            HvxError: the run is damaged.
            OSError: the folder cannot be written.
        """
        folder = self._job.folder
        found = {number: self._save(photo, number) for number, photo in chunk.photos.items()}
        missing = {number: reason for number, reason in found.items() if reason}
        entries, scores, zero = [], [], []
        for place in chunk.items:
            item = self._reader[place]
            save_maps(item, folder, place)
            entries.append(_entry(item))
            scores.append(number(agreement(item)))
            zero.append(item.zero_gradient)
        write_script(folder / "data" / f"items-{chunk.index:06d}.js", "hvx.addItems", chunk.index, entries)
        return Done(chunk, scores, zero, missing)

    def _save(self, photo: Photo, number: int) -> Missing | None:
        """Save a photo under its number; or why it is not shown."""
        try:
            picture = open_photo_of(self._reader, photo.path, photo.digest)
        except ReplacedImage as error:
            return Missing("replaced", str(error))
        except BadImage as error:
            return Missing("unreadable", str(error))
        save_photo(picture, self._job.size, self._job.folder, number)
        return None


def _entry(item: Item) -> list[Any]:
    """What a card and an item's page show beyond the index."""
    top = [(answer, number(share)) for answer, share in item.top_answers if answer]
    scores = [number(z) for z in item.token_z]
    unknown = [place for place, lacking in enumerate(item.unknown) if lacking]
    return [
        item.tokens,
        scores,
        top,
        str(item.image_id),
        item.image_path,
        unknown,
        outline_path(item.heatmap),
    ]
