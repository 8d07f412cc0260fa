"""Builds a gallery: pictures and items in several processes, then the index for search and filters."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from hvx.cpu_count import cpus
from hvx.gallery.content import CHUNK, Content, gallery_content
from hvx.gallery.folder import gallery_folder
from hvx.gallery.further import NO_MAPS, FurtherMaps
from hvx.gallery.index import write_description, write_index
from hvx.gallery.pictures import PHOTO_SIDE
from hvx.gallery.workers import Chunk, Done, Job, write_chunks
from hvx.progress import bar

__all__ = ["CHUNK", "Built", "build_gallery"]


@dataclass(frozen=True)
class Built:
    """The result: the number of items, a line for each photograph not shown, notes on joined runs."""

    items: int
    missing: list[str]
    notes: tuple[str, ...] = ()


def build_gallery(
    run: Path,
    output: Path,
    workers: int | None = None,
    size: int | None = None,
    other: Path | None = None,
    further: FurtherMaps = NO_MAPS,
) -> Built:
    """Write a run, or two side by side, as a static web page that opens from a file.

    Args:
        run: a finished run folder.
        output: a new or empty folder, or an earlier gallery; see ``gallery_folder``.
        workers: processes that make pictures; the number of available CPUs if None.
        size: pixels of the shorter side of the photographs; ``PHOTO_SIDE`` if None.
        other: a second run; the gallery shows the questions that both explain.
        further: maps by other methods, in addition to the runs' own.

    Raises:
        HvxError: a run is absent or damaged, the runs cannot be joined, maps cannot be computed, or the
            folder cannot be written or holds something else.
    """
    runs = (run,) if other is None else (run, other)
    with gallery_content(runs, further) as content, gallery_folder(output) as folder:
        job = Job(runs, folder, size or PHOTO_SIDE, content.sources)
        results = _write_all(job, list(content.chunks()), workers or cpus())
        missing = {photo: failure for result in results for photo, failure in result.missing.items()}
        measured = [[result.runs[k] for result in results] for k in range(len(runs))]
        write_index(folder, content, measured)
        write_description(
            folder, content, measured, sorted((n, failure.kind) for n, failure in missing.items())
        )
        _copy_page(folder)
        return _built(content, [missing[photo].reason for photo in sorted(missing)])


def _built(content: Content, missing: list[str]) -> Built:
    return Built(len(content), missing, content.notes)


def _write_all(job: Job, chunks: Sequence[Chunk], workers: int) -> list[Done]:
    """Write all chunks; the results in order."""
    with closing(write_chunks(job, chunks, min(workers, len(chunks)))) as written:
        results = list(bar(written, "gallery", "chunk", total=len(chunks)))
    return sorted(results, key=lambda result: result.chunk.index)


def _copy_page(folder: Path) -> None:
    with as_file(files("hvx") / "gallery" / "static") as static:
        for source in sorted(static.iterdir()):
            if source.suffix in (".html", ".css", ".js"):
                shutil.copyfile(source, folder / source.name)
