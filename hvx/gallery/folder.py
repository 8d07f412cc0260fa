"""The folder of a gallery: built in a temporary folder, then moved. The user's own files stay."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hvx.errors import HvxError
from hvx.files import atomic_write
from hvx.gallery.workers import signals_held
from hvx.run.lock import LOCK, exclusive_lock

MARK = "hvx-gallery.js"
"""Describes the gallery. It is moved last: without it, the page reports an incomplete gallery."""

MANIFEST = "hvx-gallery-files.txt"
"""Lists the files that the gallery wrote, one per line; only these are replaced or removed."""

_SCRATCH = "hvx-gallery.part"
"""Suffix of the hidden folders in which galleries are built."""

_GALLERY_FILE = re.compile(
    r"[a-z-]+\.(html|css|js)"
    r"|data/(kinds|index-[0-9]{4,}|items-[0-9]{6,})\.js"
    r"|(photos|maps|words)/[0-9]{4,}/[0-9]{7,}\.jpg"
)
"""The file names of a gallery. A manifest with other names was not written by hvx."""


@contextmanager
def gallery_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to build a gallery in; on a clean exit its files move to ``path``.

    A new ``path`` is created atomically. In an earlier gallery, the files in its manifest are replaced or
    removed; all others stay. A symlink is followed. Leftovers of a killed process are removed first.

    Raises:
        HvxError: ``path`` holds something else, another process is writing there, or it cannot be written.
    """
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        earlier = _earlier_files(target)
        sibling = target.with_name(f".{target.name}.{_SCRATCH}") if target.name else None
        if sibling and earlier is not None and os.path.lexists(sibling):
            with _scratch(sibling):
                """Left by a process that was killed before ``target`` existed: removed."""
        with _scratch(sibling if sibling and earlier is None else target / f".{_SCRATCH}") as built:
            yield built
            files = _files(built)
            _write_manifest(built, files)
            if earlier is None:
                built.replace(target)
            else:
                _check_room(target, files, earlier)
                _merge(built, target, files, earlier)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise HvxError(f"{path}: cannot be written: {error.strerror or error}{where}") from error


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder inside ``folder``, locked against other processes and removed at the end."""
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder):
        try:
            built = folder / "built"
            if os.path.lexists(built):
                shutil.rmtree(built)
            built.mkdir()
            yield built
        finally:
            with signals_held():
                _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        # rmtree needs a file descriptor. If the process has none left, nothing was built yet.
        for empty in (folder / "built", folder):
            (empty / LOCK).unlink(missing_ok=True)
            empty.rmdir()


def _earlier_files(target: Path) -> frozenset[str] | None:
    """The files of the gallery in ``target``; empty for an empty folder, None if there is no folder."""
    if not target.exists():
        return None
    if not target.is_dir():
        raise HvxError(f"{target}: is a file; give the name of a folder")
    manifest = target / MANIFEST
    if not manifest.is_file():
        if any(entry.name != f".{_SCRATCH}" for entry in target.iterdir()):
            raise HvxError(
                f"{target}: not empty, and holds no {MANIFEST} as an earlier gallery would; give a new folder"
            )
        return frozenset()
    names = manifest.read_text(encoding="utf-8", errors="replace").splitlines()
    for line, name in enumerate(names, start=1):
        if not _GALLERY_FILE.fullmatch(name):
            raise HvxError(
                f"{manifest}: line {line}: {name[:80]!r} is no file of a gallery; give a new folder"
            )
    return frozenset(names)


def _files(folder: Path) -> frozenset[str]:
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return frozenset(paths) - {MANIFEST}


def _write_manifest(folder: Path, files: Iterable[str]) -> None:
    with atomic_write(folder / MANIFEST) as part:
        part.write_text("".join(f"{name}\n" for name in sorted(files)), encoding="ascii")


def _check_room(target: Path, files: frozenset[str], earlier: frozenset[str]) -> None:
    """Check before any change that no file of the user has a name that the gallery needs.

    Raises:
        HvxError: there is such a file, or a folder of the earlier gallery is now a symlink to elsewhere.
    """
    for name in sorted(files - earlier):
        if os.path.lexists(target / name):
            raise HvxError(
                f"{target / name}: the gallery needs this name, and no earlier gallery wrote this file; "
                "move it, or give a new folder"
            )
    for folder in sorted({parent for name in files | earlier for parent in Path(name).parents}):
        if folder.parts and (target / folder).is_symlink():
            raise HvxError(
                f"{target / folder}: is a symlink where the gallery has a folder; give a new folder"
            )


def _merge(built: Path, target: Path, files: frozenset[str], earlier: frozenset[str]) -> None:
    """Replace the earlier files by the new ones.

    A process killed meanwhile leaves a manifest with the files of both, so that the next one can replace
    them, and no ``MARK``, so that the page reports an incomplete gallery.
    """
    _write_manifest(target, files | earlier)
    (target / MARK).unlink(missing_ok=True)
    for name in earlier - files:
        (target / name).unlink(missing_ok=True)
    for name in sorted(files, key=lambda name: (name == MARK, name)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (built / name).replace(target / name)
    _write_manifest(target, files)
    for folder in sorted({Path(name).parent for name in earlier - files}, reverse=True):
        for emptied in (folder, folder.parent):
            with suppress(OSError):  # not empty, or absent
                if emptied.parts:
                    (target / emptied).rmdir()
