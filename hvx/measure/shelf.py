"""What has been computed of a run, kept in its folder, so that measuring goes on where it was stopped.

One folder for each thing measured: ``RUN/measure/KEY``, where KEY is a digest of all that decides what is in
it (the run's identity, the sample, the settings). So results of another run, sample or setting are never
mixed; each file is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hvx.errors import HvxError
from hvx.files import read_json, whole_file, write_json
from hvx.run.lock import only_writer

VERSION = 1
"""Of what the methods and measures compute; another one starts anew."""

_DIGITS = 12


@contextmanager
def opened_shelf(folder: Path, key: dict[str, Any]) -> Iterator[Shelf]:
    """The shelf of a key, which this process alone writes.

    Args:
        folder: ``RUN/measure``.
        key: all that decides what is kept; plain values.

    Raises:
        HvxError: the folder cannot be written, or another process writes it.
    """
    whole = {"version": VERSION, **key}
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    shelf = Shelf(folder / digest[:_DIGITS])
    write_json(shelf.path / "about.json", whole, indent=1)
    with only_writer(folder):
        for part in folder.rglob(".*.part"):  # of a process that was killed
            part.unlink(missing_ok=True)
        yield shelf


class Shelf:
    """The folder of one key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def has_maps(self, name: str) -> bool:
        """Whether a method's maps are there and can be read."""
        try:
            self.maps(name)
        except HvxError:
            return False
        return True

    def maps(self, name: str) -> np.ndarray:
        """A method's maps (n, h, w) float16, left on the disk until they are looked at.

        Raises:
            HvxError: absent or damaged.
        """
        path = self._maps(name)
        try:
            found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise HvxError(f"{path}: no readable maps: {error}") from None
        return found

    @contextmanager
    def new_maps(self, names: list[str], count: int) -> Iterator[dict[str, _Growing]]:
        """Files for the maps of several methods, filled side by side; they stay if all goes well."""
        with ExitStack() as stack:
            yield {name: _Growing(stack.enter_context(whole_file(self._maps(name))), count) for name in names}

    def result(self, name: str) -> Any:
        """What was kept under a name; None if nothing, or nothing that can be read, is there."""
        path = self._result(name)
        if not path.is_file():
            return None
        try:
            return read_json(path, "a result of `hvx measure`")
        except HvxError:
            return None

    def keep(self, name: str, value: Any) -> None:
        """Keep plain values under a name."""
        write_json(self._result(name), value)

    def _maps(self, name: str) -> Path:
        return self.path / "maps" / f"{name}.npy"

    def _result(self, name: str) -> Path:
        return self.path / f"{name}.json"


class _Growing:
    """A file of maps that is filled by and by. Its maps' size is that of the first ones."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        self._file: np.ndarray | None = None

    def put(self, places: list[int], maps: np.ndarray) -> None:
        """Keep maps (N, h, w), each divided by its largest magnitude: half precision then loses no order
        that matters, and every measure is free of a map's unit."""
        if self._file is None:
            shape = (self._count, *maps.shape[1:])
            self._file = np.lib.format.open_memmap(self._path, "w+", np.float16, shape)
        largest = np.abs(maps).max((1, 2), keepdims=True)
        self._file[places] = maps / np.where(largest > 0, largest, 1)
