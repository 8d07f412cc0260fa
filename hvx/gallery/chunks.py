"""One range of a gallery's items: their photos, their maps and the script with what their cards show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hvx.compare.agreement import cell_means
from hvx.errors import BadImage, ReplacedImage
from hvx.gallery.pictures import outline_path, save_maps, save_photo, save_words
from hvx.gallery.scripts import number, write_script
from hvx.gallery.workers import Chunk, Done, Job, Measured, Missing, Photo
from hvx.measure.agreement import rank_correlations
from hvx.store.reader import Item, RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT
from hvx.view.run_figures import open_photo_of


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
        entries = []
        measured = [_Measuring(*of_run) for of_run in zip(self._readers, chunk.partners, strict=True)]
        of_runs = [reader.items(own) for reader, own in zip(self._readers, chunk.numbers, strict=True)]
        rows = zip(*of_runs, strict=True)
        for place, items in zip(chunk.items, rows, strict=True):
            save_maps(items, folder, place)
            save_words(items, folder, place)
            entries.append(_entry(items))
            for one, item in zip(measured, items, strict=True):
                one.add(item)
        write_script(folder / "data" / f"items-{chunk.index:06d}.js", "hvx.addItems", chunk.index, entries)
        return Done(chunk, tuple(one.found for one in measured), missing)

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


class _Measuring:
    """Measures a run's items, one after another."""

    def __init__(self, reader: RunReader, partners: Sequence[int]) -> None:
        self._reader, self._partners = reader, partners
        self.found = Measured([], [], [], [], {})

    def add(self, item: Item) -> None:
        found = self.found
        own, control = self._agreement(item, self._partners[len(found.zero)])
        found.agreement.append(own)
        found.control.append(control)
        found.zero.append(item.zero_gradient)
        found.unknown.append(sum(item.unknown))
        if item.zero_gradient & ZERO_WORD_GRADIENT:
            return
        for token, z in zip(item.tokens, item.token_z, strict=True):
            if math.isfinite(z):
                count, total = found.words.get(token, (0, 0.0))
                found.words[token] = count + 1, total + z

    def _agreement(self, item: Item, partner: int) -> tuple[float | None, float | None]:
        """As ``hvx.choose.agreement``, and the same with the attention of another question on the image."""
        if not len(item.attention) or item.zero_gradient & ZERO_IMAGE_GRADIENT:
            return None, None
        summed = [item.attention.sum(0)]
        if partner >= 0:
            summed.append(self._reader.value("attention", partner).sum(0))
        rows, columns = summed[0].shape
        pooled = cell_means(item.heatmap[None], (rows, columns))[0]
        found = rank_correlations(np.stack([pooled, *summed]))[0, 1:]
        return number(found[0]), number(found[1]) if partner >= 0 else None


def _entry(items: Sequence[Item]) -> list[Any]:
    """What a card and an item's page show beyond the index; last what further runs say of the question."""
    first, *others = [_of_run(item) for item in items]
    own = [*first[:3], str(items[0].image_id), items[0].image_path, *first[3:]]
    return [*own, others] if others else own


def _of_run(item: Item) -> list[Any]:
    """Tokens, z, likeliest answers, places of unknown tokens, outline of the heat map."""
    top = [(answer, number(share)) for answer, share in item.top_answers if answer]
    unknown = [place for place, lacking in enumerate(item.unknown) if lacking]
    return [item.tokens, [number(z) for z in item.token_z], top, unknown, outline_path(item.heatmap)]
