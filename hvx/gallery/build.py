"""Builds a gallery: pictures and items in several processes, then the index that search and filters go by."""

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
    """What was built: how many items, a line for each photograph that is not shown, lines on joined runs."""

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
        workers: processes that make pictures; None: as many as there are processors for this process.
        size: pixels of the shorter side of the photographs; None: ``PHOTO_SIDE``.
        other: a second run; the gallery shows the questions that both explain.
        further: maps by other methods, beside the runs' own.

    Raises:
        HvxError: no run, a damaged one, runs that cannot be joined, maps that cannot be had, or the folder
            cannot be written or holds something else.
    """
    runs = (run,) if other is None else (run, other)
    with gallery_content(runs, further) as content, gallery_folder(output) as folder:
        job = Job(runs, folder, size or PHOTO_SIDE, content.sources)
        done = _all_done(job, list(content.chunks()), workers or cpus())
        missing = {photo: reason for one in done for photo, reason in one.missing.items()}
        measured = [[one.runs[place] for one in done] for place in range(len(runs))]
        write_index(folder, content, measured)
        write_description(folder, content, measured, sorted((n, one.kind) for n, one in missing.items()))
        _copy_page(folder)
        return _built(content, [missing[photo].reason for photo in sorted(missing)])


def _built(content: Content, missing: list[str]) -> Built:
    return Built(len(content), missing, content.notes)


def _all_done(job: Job, chunks: Sequence[Chunk], workers: int) -> list[Done]:
    """All chunks, written, in their order."""
    with closing(write_chunks(job, chunks, min(workers, len(chunks)))) as written:
        done = list(bar(written, "gallery", "chunk", total=len(chunks)))
    return sorted(done, key=lambda one: one.chunk.index)


def _copy_page(folder: Path) -> None:
    with as_file(files("hvx") / "gallery" / "static") as static:
        for source in sorted(static.iterdir()):
            if source.suffix in (".html", ".css", ".js"):
                shutil.copyfile(source, folder / source.name)
