"""One range of a run's items: their photos, their maps and the script with what their cards show."""

from __future__ import annotations

from typing import Any

from hvx.choose import agreement
from hvx.errors import BadImage
from hvx.gallery.pictures import save_maps, save_photo
from hvx.gallery.scripts import number, write_script
from hvx.gallery.workers import Chunk, Done, Job
from hvx.store.reader import Item, RunReader
from hvx.view.run import cropped_photo


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
        folder, missing = self._job.folder, {}
        for place, photo in chunk.photos.items():
            try:
                save_photo(
                    cropped_photo(self._reader, photo.path, photo.digest, self._job.size), folder, place
                )
            except BadImage as error:
                missing[place] = str(error)
        entries, scores = [], []
        for place in chunk.items:
            item = self._reader[place]
            strengths = save_maps(item, folder, place)
            entries.append(_entry(item, strengths))
            scores.append(number(agreement(item)))
        write_script(folder / "data" / f"items-{chunk.index:06d}.js", "hvx.addItems", chunk.index, entries)
        return Done(chunk, scores, missing)


def _entry(item: Item, strengths: list[float]) -> list[Any]:
    """What a card and an item's page show beyond the index."""
    top = [(answer, number(share)) for answer, share in item.top_answers if answer]
    scores = [number(z) for z in item.token_z]
    return [item.tokens, scores, top, item.image_id, item.image_path, [number(s, 2) for s in strengths]]
