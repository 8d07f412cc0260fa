"""A run's shards for a reader: which file has which items, with few files open at a time."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import h5py

from hvx.errors import HvxError
from hvx.store.checksum import damaged, open_hdf5, sealed_digest, verify_checksum
from hvx.store.datasets import Datasets, own_dataset
from hvx.store.schema import FIELDS

OPEN_FILES = 16
"""Shards that a reader keeps open; the usual limit of a process is 1,024 files."""
INDEX = "index"
"""Group of the view: datasets ``shard`` (file name), ``items`` (count), ``digest`` (of the seal), in the
order of the items; an attribute for each dataset of the run, its shape over all shards."""
_NAME = re.compile(r"[0-9]{5,}\.h5")


def shard_name(number: int) -> str:
    """The file name of a run's shard."""
    return f"{number:05d}.h5"


@dataclass(frozen=True)
class ShardEntry:
    """A shard in the view's list: its file, its number of items, and the digest in its seal."""

    path: Path
    items: int
    digest: str


def read_index(view: h5py.File, run: Path) -> list[ShardEntry]:
    """The shards that a view lists, in the order of their items.

    Raises:
        HvxError: a name that is not a shard's, so that it could lead out of the run folder, or a shard that
            is out of order or listed twice.
    """
    index = _index_group(view)
    names = [str(name) for name in own_dataset(index, "shard").asstr()[:]]
    digests, counts = own_dataset(index, "digest").asstr()[:], own_dataset(index, "items")[:]
    previous = -1
    for name in names:
        number = int(name[:-3]) if _NAME.fullmatch(name) else -1
        if name != shard_name(number):
            raise HvxError(f"{run / 'explanations.h5'}: lists {name!r:.60}, which is no shard of the run")
        if number <= previous:
            raise HvxError(f"{run / 'explanations.h5'}: lists {name} after {shard_name(previous)}")
        previous = number
    return [
        ShardEntry(run / "shards" / name, int(count), str(digest))
        for name, count, digest in zip(names, counts, digests, strict=True)
    ]


def read_shapes(view: h5py.File) -> dict[str, tuple[int, ...]]:
    """The shape of each dataset over all shards, without reading the shards or the virtual datasets."""
    attributes = _index_group(view).attrs
    return {name: tuple(map(int, attributes[name])) for name in FIELDS if name in attributes}


def _index_group(view: h5py.File) -> h5py.Group:
    link = view.get(INDEX, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise HvxError(f"{view.filename}: {INDEX}: a link to elsewhere; a run holds its own data")
    return view[INDEX]


def view_mismatch(path: Path, run: Path, digest: str) -> str | None:
    """Why an undamaged ``explanations.h5`` does not match the run folder; None if it does.

    A view may list shards that are absent; the caller checks for them.

    Args:
        path: the file, a view or a solid file, checked by ``verify_checksum(path, "core")``.
        run: the run folder.
        digest: ``run_digest`` of the run's identity.

    Raises:
        HvxError: it cannot be read, or lists a file that is not a shard.
    """
    try:
        with open_hdf5(path) as file:
            if file.attrs.get("run_digest") != digest:
                return "it belongs to another run"
            entries = read_index(file, run) if INDEX in file else []
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise damaged(path, error) from None
    for entry in entries:
        if entry.path.is_file() and sealed_digest(entry.path) != entry.digest:
            return f"{entry.path.name} was replaced after it was listed"
    return None


def shard_mismatch(path: Path, number: int, digest: str) -> str | None:
    """Why an undamaged shard is not the run's shard with this number; None if it is.

    Args:
        path: the shard's file, checked by ``verify_checksum(path, "core")``.
        number: its index in the run.
        digest: ``run_digest`` of the run's identity.

    Raises:
        HvxError: it cannot be read.
    """
    try:
        with open_hdf5(path) as file:
            return _mismatch(file, number, digest)
    except (OSError, RuntimeError) as error:
        raise damaged(path, error) from None


def _mismatch(file: h5py.File, number: int, digest: str) -> str | None:
    if file.attrs.get("run_digest") != digest:
        return "it belongs to another run"
    stored = file.attrs.get("shard")
    return None if stored == number else f"it is shard {stored}"


def check_inside(path: Path, run: Path) -> None:
    """Reject a path that a symbolic link leads out of its run folder.

    Raises:
        HvxError: names the file.
    """
    # Not Path.resolve, which fails on circular links.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(run)):
        raise HvxError(f"{path}: leads out of the run folder; copy the file into it")


class ShardFiles:
    """Opens shards on demand and closes the least recently used ones.

    Args:
        run: the run folder.
        entries: its shards, in the order of their items.
        digest: ``run_digest`` of the run's identity.
    """

    def __init__(self, run: Path, entries: list[ShardEntry], digest: str) -> None:
        self._run, self._digest, self.entries = run, digest, entries
        self.starts = [0, *accumulate(entry.items for entry in entries)]
        self._open: OrderedDict[int, Datasets] = OrderedDict()

    def locate(self, number: int) -> tuple[int, int]:
        """The shard of an item, as an index into ``entries``, and the item's index in it."""
        shard = bisect_right(self.starts, number) - 1
        return shard, number - self.starts[shard]

    def datasets(self, shard: int) -> Datasets:
        """The datasets of a shard, which is open for reading.

        Raises:
            HvxError: it is absent or damaged, was replaced since the view was written, or is another run's.
        """
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= OPEN_FILES:
            self._open.popitem(last=False)[1].file.close()
        self._open[shard] = Datasets(self._opened(self.entries[shard]))
        return self._open[shard]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].file.close()

    def _opened(self, entry: ShardEntry) -> h5py.File:
        path = entry.path
        check_inside(path, self._run)
        reason = verify_checksum(path, "core")
        if reason:
            raise damaged(path, reason)
        try:
            file = open_hdf5(path)
        except (OSError, RuntimeError) as error:
            raise damaged(path, error) from None
        try:
            # After opening: a shard is replaced by renaming, so the open file is the one whose seal is read.
            if sealed_digest(path) != entry.digest:
                raise HvxError(
                    f"{path}: replaced since explanations.h5 listed it; read the run again once "
                    "`hvx explain` has finished"
                )
            reason = _mismatch(file, int(path.stem), self._digest)
            if reason:
                raise HvxError(f"{path}: not this run's shard {path.stem}: {reason}; run `hvx explain` again")
            if own_dataset(file, "question_id").shape != (entry.items,):
                raise damaged(path, "another number of items than the view lists")
        except BaseException:
            file.close()
            raise
        return file
