"""Builds a gallery: pictures and items in several processes, then the index that search and filters go by."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hvx import __version__
from hvx.choose import agreement
from hvx.errors import BadImage, HvxError
from hvx.files import whole_folder
from hvx.gallery.pictures import save_maps, save_photo
from hvx.gallery.scripts import number, write_script
from hvx.progress import bar
from hvx.store.reader import Item, RunReader
from hvx.view.figure import column_names
from hvx.view.heat import FLOOR_BRIGHTNESS, FLOOR_TINT, TINT, colour_scale
from hvx.view.run import cropped_photo
from hvx.view.tokens import HIGH, LOW, NEUTRAL, Z_LIMIT, is_right

MARK = "hvx-gallery.js"
"""Describes the gallery; and says of a folder that it is one, which may be replaced."""

CHUNK = 50
"""Items in one script; a page of cards loads those that it needs."""
_INDEX_CHUNK = 5000
"""Items in one script of the index, all of which the page loads at first."""
_STOPS = 17
"""Of the colour scale, between which the page interpolates."""


@dataclass(frozen=True)
class Built:
    """What was built: how many items, and a line for each photograph that could not be read."""

    items: int
    missing: list[str]


@dataclass(frozen=True)
class _Chunk:
    """A stretch of a run's items, done by one process: photographs by their number in the gallery."""

    place: int
    numbers: range
    photos: dict[int, str]


@dataclass(frozen=True)
class _Done:
    """``agreement``: of each item, None without attention. ``missing``: number and reason of photographs."""

    chunk: _Chunk
    agreement: list[float | None]
    missing: dict[int, str]


def build_gallery(run: Path, output: Path, workers: int | None = None, size: int | None = None) -> Built:
    """Write a run as a static web page that opens from a file.

    Args:
        run: a finished run folder.
        output: a new folder, or an earlier gallery, which is replaced once the new one is whole.
        workers: processes that make pictures; None: as many as there are processors for this process.
        size: side of the photographs in pixels; None: ``PHOTO_SIDE``.

    Raises:
        HvxError: no run, a damaged one, or the folder cannot be written or holds something else.
    """
    reader = RunReader(run)
    columns = {name: reader.column(name) for name in _INDEXED}
    paths = [str(path) for path in columns["image_path"]]
    photos = {path: place for place, path in enumerate(dict.fromkeys(paths))}
    chunks = list(_chunks(paths, photos))
    workers = min(workers or len(os.sched_getaffinity(0)), len(chunks))
    with whole_folder(output, MARK) as part:
        done = {one.chunk.place: one for one in _all_done(run, part, chunks, workers, size)}
        in_order = [done[chunk.place] for chunk in chunks]
        scores = [score for one in in_order for score in one.agreement]
        missing = {photo: reason for one in in_order for photo, reason in one.missing.items()}
        _write_index(part, columns, photos, scores)
        _write_description(part, reader, sorted(missing))
        _copy_page(part)
    reader.close()
    return Built(len(scores), [missing[photo] for photo in sorted(missing)])


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


def _chunks(paths: Sequence[str], photos: dict[str, int]) -> Iterator[_Chunk]:
    """The run's items in stretches; a photograph goes to the first that shows it."""
    seen: set[str] = set()
    for place, start in enumerate(range(0, len(paths), CHUNK)):
        numbers = range(start, min(start + CHUNK, len(paths)))
        new = dict.fromkeys(paths[n] for n in numbers if paths[n] not in seen)
        seen.update(new)
        yield _Chunk(place, numbers, {photos[path]: path for path in new})


def _all_done(run: Path, part: Path, chunks: list[_Chunk], workers: int, size: int | None) -> Iterator[_Done]:
    """Each chunk, done, in any order."""
    if workers <= 1:
        maker = _Maker(run, part, size)
        yield from bar((maker.make(chunk) for chunk in chunks), "gallery", "chunk", total=len(chunks))
        return
    # Not forked: HDF5 and PyTorch hold threads and files that a fork would break.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(run, part, size))
    try:
        waiting = [pool.submit(_make, chunk) for chunk in chunks]
        for one in bar(as_completed(waiting), "gallery", "chunk", total=len(waiting)):
            yield one.result()
    except (OSError, RuntimeError) as error:
        raise HvxError(f"{part.parent}: a process that makes pictures died: {error}") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Maker:
    """Makes chunks of a gallery, in one process."""

    def __init__(self, run: Path, part: Path, size: int | None) -> None:
        from hvx.gallery.pictures import PHOTO_SIDE

        self._reader, self._part, self._size = RunReader(run), part, size or PHOTO_SIDE

    def make(self, chunk: _Chunk) -> _Done:
        """Write a chunk's pictures and its script."""
        missing = {}
        for place, path in chunk.photos.items():
            try:
                save_photo(cropped_photo(self._reader, path, self._size), self._part, place)
            except BadImage as error:
                missing[place] = str(error)
        entries, scores = [], []
        for place in chunk.numbers:
            item = self._reader[place]
            strengths = save_maps(item, self._part, place)
            entries.append(_entry(item, strengths))
            scores.append(number(agreement(item)))
        write_script(
            self._part / "data" / f"items-{chunk.place:06d}.js", "hvx.addItems", chunk.place, entries
        )
        return _Done(chunk, scores, missing)


_maker: list[_Maker] = []
"""A process' own, made as it begins."""


def _begin(run: Path, part: Path, size: int | None) -> None:
    torch.set_num_threads(1)
    _maker.append(_Maker(run, part, size))


def _make(chunk: _Chunk) -> _Done:
    return _maker[0].make(chunk)


def _entry(item: Item, strengths: list[float]) -> list[Any]:
    """What a card and an item's page show beyond the index."""
    top = [(answer, number(share)) for answer, share in item.top_answers if answer]
    scores = [number(z) for z in item.token_z]
    return [item.tokens, scores, top, item.image_id, item.image_path, [number(s, 2) for s in strengths]]


def _write_index(
    part: Path, columns: dict[str, np.ndarray], photos: dict[str, int], scores: list[float | None]
) -> None:
    """What search, filters and sorting go by, a column each."""
    kinds = {name: sorted(set(map(str, columns[name]))) for name in ("question_type", "answer_type")}
    places = {name: {kind: place for place, kind in enumerate(known)} for name, known in kinds.items()}
    total = len(scores)
    starts = range(0, total, _INDEX_CHUNK)
    for place, start in enumerate(starts):
        piece = slice(start, start + _INDEX_CHUNK)
        cut = {name: column[piece] for name, column in columns.items()}
        texts = {name: list(map(str, cut[name])) for name in ("question", "answer", "ground_truth")}
        index = {
            # Numbers beyond 2⁵³ would lose their last digits in a browser.
            "id": [str(one) for one in cut["question_id"]],
            "photo": [photos[str(path)] for path in cut["image_path"]],
            "question": texts["question"],
            "answer": texts["answer"],
            "truth": texts["ground_truth"],
            "right": [is_right(*pair) for pair in zip(texts["answer"], texts["ground_truth"], strict=True)],
            "probability": [number(float(one)) for one in cut["probability"]],
            "agreement": scores[piece],
            **{name: [places[name][str(kind)] for kind in cut[name]] for name in kinds},
        }
        write_script(part / "data" / f"index-{place:04d}.js", "hvx.addIndex", place, index)
    write_script(part / "data" / "kinds.js", "hvx.setKinds", kinds, len(starts))


def _write_description(part: Path, reader: RunReader, missing: list[int]) -> None:
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
    write_script(part / MARK, "hvx.describe", about)


def _copy_page(part: Path) -> None:
    with as_file(files("hvx") / "gallery" / "static") as static:
        for source in sorted(static.iterdir()):
            if source.suffix in (".html", ".css", ".js"):
                shutil.copyfile(source, part / source.name)
