"""Builds a gallery: pictures and items in several processes, then the index that search and filters go by."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from hvx import __version__
from hvx.device import cpus
from hvx.gallery.folder import MARK, gallery_folder
from hvx.gallery.pictures import PHOTO_SIDE
from hvx.gallery.scripts import number, write_script
from hvx.gallery.workers import Chunk, Done, Job, Photo, write_chunks
from hvx.progress import bar
from hvx.store.reader import RunReader
from hvx.view.figure import column_names
from hvx.view.heat import FLOOR_BRIGHTNESS, FLOOR_TINT, TINT, colour_scale
from hvx.view.tokens import HIGH, LOW, NEUTRAL, Z_LIMIT, is_right

CHUNK = 50
"""Items in one script; a page of cards loads those that it needs."""
_INDEX_CHUNK = 5000
"""Items in one script of the index, all of which the page loads at first."""
_STOPS = 17
"""Of the colour scale, between which the page interpolates."""


@dataclass(frozen=True)
class Built:
    """What was built: how many items, and a line for each photograph that is not shown."""

    items: int
    missing: list[str]


def build_gallery(run: Path, output: Path, workers: int | None = None, size: int | None = None) -> Built:
    """Write a run as a static web page that opens from a file.

    Args:
        run: a finished run folder.
        output: a new or empty folder, or an earlier gallery; see ``gallery_folder``.
        workers: processes that make pictures; None: as many as there are processors for this process.
        size: pixels of the shorter side of the photographs; None: ``PHOTO_SIDE``.

    Raises:
        HvxError: no run, a damaged one, or the folder cannot be written or holds something else.
    """
    with closing(RunReader(run)) as reader:
        columns = {name: reader.column(name) for name in _INDEXED}
        # One path is two photos where the file was replaced during the run.
        pairs = zip(columns["image_path"], reader.column("image_digest"), strict=True)
        shown = [Photo(str(path), str(digest)) for path, digest in pairs]
        photos = {photo: place for place, photo in enumerate(dict.fromkeys(shown))}
        with gallery_folder(output) as folder:
            job = Job(run, folder, size or PHOTO_SIDE)
            done = _all_done(job, list(_chunks(shown, photos)), workers or cpus())
            scores = [score for one in done for score in one.agreement]
            missing = {photo: reason for one in done for photo, reason in one.missing.items()}
            zero = [bits for one in done for bits in one.zero]
            _write_index(folder, columns, [photos[photo] for photo in shown], scores, zero)
            _write_description(folder, reader, sorted((n, one.kind) for n, one in missing.items()))
            _copy_page(folder)
    return Built(len(scores), [missing[photo].reason for photo in sorted(missing)])


_INDEXED = (
    "question_id",
    "question",
    "image_path",
    "answer",
    "ground_truth",
    "question_type",
    "answer_type",
    "probability",
)
"""What the page searches, filters and sorts by."""


def _chunks(shown: Sequence[Photo], photos: dict[Photo, int]) -> Iterator[Chunk]:
    """The run's items in ranges; a photo is written with the first that shows it."""
    seen: set[Photo] = set()
    for index, start in enumerate(range(0, len(shown), CHUNK)):
        items = range(start, min(start + CHUNK, len(shown)))
        new = dict.fromkeys(shown[n] for n in items if shown[n] not in seen)
        seen.update(new)
        yield Chunk(index, items, {photos[photo]: photo for photo in new})


def _all_done(job: Job, chunks: Sequence[Chunk], workers: int) -> list[Done]:
    """All chunks, written, in their order."""
    with closing(write_chunks(job, chunks, min(workers, len(chunks)))) as written:
        done = list(bar(written, "gallery", "chunk", total=len(chunks)))
    return sorted(done, key=lambda one: one.chunk.index)


def _write_index(
    folder: Path,
    columns: dict[str, np.ndarray],
    photos: list[int],
    scores: list[float | None],
    zero: list[int],
) -> None:
    """What search, filters and sorting go by, a column each."""
    kinds = {name: sorted(set(map(str, columns[name]))) for name in ("question_type", "answer_type")}
    places = {name: {kind: place for place, kind in enumerate(known)} for name, known in kinds.items()}
    total = len(scores)
    starts = range(0, max(1, total), _INDEX_CHUNK)  # a piece, if an empty one, of a run without items
    for place, start in enumerate(starts):
        piece = slice(start, start + _INDEX_CHUNK)
        cut = {name: column[piece] for name, column in columns.items()}
        texts = {name: list(map(str, cut[name])) for name in ("question", "answer", "ground_truth")}
        index = {
            # Numbers beyond 2⁵³ would lose their last digits in a browser.
            "id": [str(one) for one in cut["question_id"]],
            "photo": photos[piece],
            "question": texts["question"],
            "answer": texts["answer"],
            "truth": texts["ground_truth"],
            "right": [is_right(*pair) for pair in zip(texts["answer"], texts["ground_truth"], strict=True)],
            "probability": [number(float(one)) for one in cut["probability"]],
            "agreement": scores[piece],
            "zero": zero[piece],
            **{name: [places[name][str(kind)] for kind in cut[name]] for name in kinds},
        }
        write_script(folder / "data" / f"index-{place:04d}.js", "hvx.addIndex", place, index)
    write_script(folder / "data" / "kinds.js", "hvx.setKinds", kinds, len(starts))


def _write_description(folder: Path, reader: RunReader, missing: list[tuple[int, str]]) -> None:
    """What is true of the whole run, and the constants that the page shares with the figures."""
    stops = colour_scale()[np.linspace(0, 255, _STOPS).round().astype(int)] / 255
    config = reader.about.get("config")
    split = ((config.get("explain") or {}).get("split") if isinstance(config, dict) else None) or ""
    about = {
        "run": "/".join(reader.path.resolve().parts[-2:]),
        "split": str(split),
        "items": len(reader),
        "chunk": CHUNK,
        "columns": column_names(reader.glimpses),
        "missingPhotos": missing,
        "zLimit": Z_LIMIT,
        "zColours": [LOW, NEUTRAL, HIGH],
        "floor": FLOOR_BRIGHTNESS,
        "floorTint": FLOOR_TINT,
        "tint": TINT,
        "scale": [[number(float(value), 3) for value in stop] for stop in stops],
        "version": __version__,
    }
    write_script(folder / MARK, "hvx.describe", about)


def _copy_page(folder: Path) -> None:
    with as_file(files("hvx") / "gallery" / "static") as static:
        for source in sorted(static.iterdir()):
            if source.suffix in (".html", ".css", ".js"):
                shutil.copyfile(source, folder / source.name)
