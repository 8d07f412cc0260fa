"""The content of a gallery: the items of a run, or the common questions of two runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hvx.compare.agreement import heatmap_agreement
from hvx.compare.answers import Answers, compare_answers
from hvx.compare.join import Joined, join
from hvx.gallery.further import NO_MAPS, FurtherMaps, map_source
from hvx.gallery.workers import Chunk, MapSource, Photo
from hvx.store.names import short_names
from hvx.store.reader import RunReader

CHUNK = 50
"""Items in one script; the page loads the scripts that it needs."""

INDEXED = (
    "question_id",
    "question",
    "image_path",
    "image_digest",
    "answer",
    "ground_truth",
    "question_type",
    "answer_type",
    "probability",
)
"""Columns that the page searches, filters and sorts by."""


@dataclass(frozen=True)
class Content:
    """The n items of a gallery of K runs, in the order of the first run.

    Attributes:
        readers: K.
        labels: of the runs, "A" and "B"; "" of a single one.
        names: the shortest ends of the runs' paths that distinguish them.
        numbers: for each run, (n): its item ``numbers[k][i]`` is shown as item i.
        columns: for each run, the columns ``INDEXED`` of these items.
        photos: the photos in their order, each once.
        shown: (n) the number of each item's photo.
        alike: (n) the rank correlation of the two runs' heat maps; empty for a single run.
        notes: lines for the user.
        sources: for each run, the further maps of its items.
    """

    readers: tuple[RunReader, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    numbers: tuple[np.ndarray, ...]
    columns: tuple[dict[str, np.ndarray], ...]
    photos: list[Photo]
    shown: list[int]
    alike: np.ndarray
    notes: tuple[str, ...]
    sources: tuple[MapSource, ...]

    def __len__(self) -> int:
        return len(self.shown)

    def chunks(self) -> Iterator[Chunk]:
        """The items in ranges; a photo is written with the first range that shows it."""
        seen: set[int] = set()
        partners = [self._partners(run) for run in range(len(self.readers))]
        for index, start in enumerate(range(0, len(self), CHUNK)):
            items = range(start, min(start + CHUNK, len(self)))
            new_photos = sorted({self.shown[n] for n in items} - seen)
            seen.update(new_photos)
            chunk = slice(items.start, items.stop)
            yield Chunk(
                index,
                items,
                {photo: self.photos[photo] for photo in new_photos},
                tuple(tuple(numbers[chunk].tolist()) for numbers in self.numbers),
                tuple(tuple(run_partners[chunk]) for run_partners in partners),
            )

    def _partners(self, run: int) -> list[int]:
        """For each item, the number of the next question on its image with another text; −1 if none."""
        items_by_photo: dict[int, list[int]] = {}
        for item, photo in enumerate(self.shown):
            items_by_photo.setdefault(photo, []).append(item)
        texts, numbers = self.columns[run]["question"], self.numbers[run]
        partners = [-1] * len(self)
        for items in items_by_photo.values():
            partner = -1
            # Backwards, and through the cycle twice, so that the first question follows the last.
            for item, after in zip(
                reversed(items * 2), reversed([*items[1:], *items, items[0]]), strict=True
            ):
                partner = int(numbers[after]) if texts[item] != texts[after] else partner
                partners[item] = partner
        return partners


@contextmanager
def gallery_content(runs: Sequence[Path], further: FurtherMaps = NO_MAPS) -> Iterator[Content]:
    """Open one run or two, joined by question_id.

    Raises:
        HvxError: a run is absent or damaged, the runs cannot be joined (see ``hvx.compare.join.join``), or
            maps of further methods cannot be computed (see ``hvx.measure.methods.maps.run_maps``).
    """
    with ExitStack() as stack:
        readers = tuple(stack.enter_context(RunReader(run)) for run in runs)
        numbers: tuple[np.ndarray, ...] = (np.arange(len(readers[0].column("question_id"))),)
        names, labels, notes = tuple(short_names(runs)), ("",) * len(readers), tuple[str, ...]()
        alike, shared = np.zeros(0), dict[str, np.ndarray]()
        if len(readers) > 1:
            joined = join(readers)
            numbers, names, labels = joined.numbers, joined.names, joined.labels
            alike, answers = heatmap_agreement(joined), compare_answers(joined)
            notes = _notes(joined, answers)
            # A question has one ground truth and one type in all runs.
            shared = {"ground_truth": answers.truths, "answer_type": answers.types}
            shared["question_type"] = joined.column(0, "question_type")
        notes += _without_maps(readers, names)
        columns = tuple(
            {name: reader.column(name)[run_numbers] for name in INDEXED} | shared
            for reader, run_numbers in zip(readers, numbers, strict=True)
        )
        # One path counts as two photos if the file was replaced during the run.
        pairs = zip(columns[0]["image_path"], columns[0]["image_digest"], strict=True)
        item_photos = [Photo(str(path), str(digest)) for path, digest in pairs]
        photos = {photo: number for number, photo in enumerate(dict.fromkeys(item_photos))}
        shown = [photos[photo] for photo in item_photos]
        sources = tuple(
            stack.enter_context(map_source(reader, run_numbers, further))
            for reader, run_numbers in zip(readers, numbers, strict=True)
        )
        yield Content(readers, labels, names, numbers, columns, list(photos), shown, alike, notes, sources)


def _without_maps(readers: Sequence[RunReader], names: Sequence[str]) -> tuple[str, ...]:
    """A line for each run of a network without a Hadamard product."""
    return tuple(
        f"{name}: no heat maps, no z-scores: its network has no Hadamard product"
        for reader, name in zip(readers, names, strict=True)
        if not reader.has_heatmaps
    )


def _notes(joined: Joined, answers: Answers) -> tuple[str, ...]:
    """Lines for the user about joined runs."""
    notes = [*joined.notes]
    if joined.regions:
        notes.append(f"{joined.regions}: their heat maps are not correlated")
    if answers.disputed:
        notes.append(
            f"the ground truth of {answers.disputed:,} question(s) differs between the runs and counts as "
            "unknown"
        )
    return tuple(notes)
