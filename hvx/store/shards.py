"""A run's shards as a reader sees them: which items lie in which file, few files open at a time."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import h5py

from hvx.errors import HvxError
from hvx.store.schema import FIELDS
from hvx.store.seal import damage, damaged, open_hdf5, sealed_digest

OPEN_FILES = 16
"""Shards that a reader holds open; the usual limit of a process is 1,024 files."""
INDEX = "index"
"""Group of the view with the datasets ``shard`` (file name), ``items`` (count), ``digest`` (of the seal)."""
_NAME = re.compile(r"\d{5,}\.h5")


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the view lists it: its file, its items' count, and the digest that sealed it."""

    path: Path
    items: int
    digest: str


def read_index(view: h5py.File, run: Path) -> list[ShardEntry]:
    """The shards that a view lists, in the order of their items.

    Raises:
        HvxError: a name that is none of a shard, so that it could lead out of the run folder.
    """
    index = view[INDEX]
    names = [str(name) for name in index["shard"].asstr()[:]]
    for name in names:
        if not _NAME.fullmatch(name):
            raise HvxError(f"{run / 'explanations.h5'}: lists {name!r:.60}, which is no shard of the run")
    digests = index["digest"].asstr()[:]
    return [
        ShardEntry(run / "shards" / name, int(count), str(digest))
        for name, count, digest in zip(names, index["items"][:], digests, strict=True)
    ]


def shard_mismatch(path: Path, number: int, digest: str) -> str | None:
    """Why a whole shard is not the one that a run expects at this place; None if it is.

    Args:
        path: the shard's file, which ``damage(path, "core")`` found whole.
        number: its place in the run.
        digest: ``run_digest`` of the run's identity.

    Raises:
        HvxError: it cannot be read.
    """
    try:
        with open_hdf5(path) as file:
            found, of_run = file.attrs.get("shard"), file.attrs.get("run_digest")
    except (OSError, RuntimeError) as error:
        raise damaged(path, error) from None
    if of_run != digest:
        return "it belongs to another run"
    return None if found == number else f"it is shard {found}"


def check_contents(file: h5py.File, path: Path, virtual: bool = False) -> None:
    """Reject a file whose datasets lie elsewhere: by a link, in external storage, or virtually.

    Args:
        file: open.
        path: its name for the error.
        virtual: the file is a view, whose datasets are virtual; hvx reads their shape alone.

    Raises:
        HvxError: names the dataset.
    """
    for name in FIELDS:
        link = file.get(name, getlink=True)
        if link is None:
            continue
        if not isinstance(link, h5py.HardLink):
            raise HvxError(f"{path}: {name}: a link to elsewhere; a run holds its own data")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual is not virtual:
            raise HvxError(f"{path}: {name}: its values lie in another file; a run holds its own data")


def check_inside(path: Path, run: Path) -> None:
    """Reject a file that a symbolic link places outside of its run folder.

    Raises:
        HvxError: names the file.
    """
    if not path.resolve().is_relative_to(run.resolve()):
        raise HvxError(f"{path}: leads out of the run folder; copy the file into it")


class ShardFiles:
    """Opens shards as they are needed and closes those unused for longest.

    Args:
        run: the run folder.
        entries: its shards, in the order of their items.
        digest: ``run_digest`` of the run's identity.
    """

    def __init__(self, run: Path, entries: list[ShardEntry], digest: str) -> None:
        self._run, self._digest, self.entries = run, digest, entries
        self.starts = [0, *accumulate(entry.items for entry in entries)]
        self._open: OrderedDict[int, h5py.File] = OrderedDict()

    def locate(self, number: int) -> tuple[int, int]:
        """The shard (its place in ``entries``) that holds an item, and the item's number in it."""
        place = bisect_right(self.starts, number) - 1
        return place, number - self.starts[place]

    def file(self, place: int) -> h5py.File:
        """A shard, open for reading.

        Raises:
            HvxError: it is absent or damaged, was replaced since the view was written, or is another's.
        """
        if place in self._open:
            self._open.move_to_end(place)
            return self._open[place]
        while len(self._open) >= OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        self._open[place] = self._opened(self.entries[place])
        return self._open[place]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def _opened(self, entry: ShardEntry) -> h5py.File:
        path = entry.path
        check_inside(path, self._run)
        reason = damage(path, "core")
        if reason:
            raise damaged(path, reason)
        if sealed_digest(path) != entry.digest:
            raise HvxError(f"{path}: replaced since the run was opened, or was finished; open the run again")
        reason = shard_mismatch(path, int(path.stem), self._digest)
        if reason:
            raise HvxError(f"{path}: not this run's shard {path.stem}: {reason}; run `hvx explain` again")
        try:
            file = open_hdf5(path)
        except (OSError, RuntimeError) as error:
            raise damaged(path, error) from None
        try:
            check_contents(file, path)
            if file["question_id"].shape != (entry.items,):
                raise damaged(path, "another number of items than the view lists")
        except BaseException:
            file.close()
            raise
        return file
