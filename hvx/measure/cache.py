"""A cache of results in the run's folder, so that `hvx measure` resumes where it was stopped.

Each key has a folder ``RUN/measure/KEY``, where KEY is a digest of all that determines its content (the run's
identity, the sample, the settings). So results of different runs, samples or settings are never mixed. Files
are written atomically.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hvx.errors import HvxError
from hvx.files import atomic_write, read_json, write_json
from hvx.measure.methods.registry import PATH_STEPS
from hvx.progress import Log, no_log
from hvx.run.lock import ReadOnly, exclusive_lock
from hvx.store.reader import RunReader

FOLDER = "measure"
"""The folder of a run for measured results."""

VERSION = 1
"""Version of what the methods and measures compute; results of another version are not reused."""

_DIGITS = 12


@contextmanager
def open_cache(
    folder: Path, key: dict[str, Any], other: Path | None = None, log: Log = no_log
) -> Iterator[ResultCache]:
    """The cache of a key, locked for this process.

    Args:
        folder: ``RUN/measure``.
        key: all that determines the results; plain values.
        other: the folder to use if ``folder`` is read-only, as in another user's run.
        log: told if the file system has no locks, a line at a time.

    Raises:
        HvxError: neither folder can be written, or another process writes it.
    """
    about = {"version": VERSION, **key}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    with ExitStack() as stack:
        locked = _lock(folder, other, stack, log)
        for part in locked.rglob(".*.part"):  # left by a killed process
            part.unlink(missing_ok=True)
        cache = ResultCache(locked / digest[:_DIGITS])
        write_json(cache.path / "about.json", about, indent=1)
        yield cache


def _lock(folder: Path, other: Path | None, stack: ExitStack, log: Log) -> Path:
    """Lock the folder, or the other one if it is read-only; returns the locked one."""
    try:
        _make_folder(folder)
        stack.enter_context(exclusive_lock(folder, log))
    except ReadOnly as error:
        if other is None or other.resolve() == folder.resolve():
            raise HvxError(f"{error}; -o FOLDER writes elsewhere") from None
        _make_folder(other)
        stack.enter_context(exclusive_lock(other, log))
        return other
    return folder


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        read_only = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        kind = ReadOnly if read_only else HvxError
        raise kind(f"{folder}: cannot be written: {error.strerror or error}") from None


def maps_key(reader: RunReader, ids: Sequence[int | str]) -> dict[str, Any]:
    """What determines the maps of these questions of a run: a part of the key of each cache with them."""
    return {
        "run": reader.about["identity"],
        "made": [reader.about.get(part) for part in ("versions", "finished")],
        "questions": hashlib.sha256(repr(list(ids)).encode()).hexdigest(),
        "path_steps": PATH_STEPS,
    }


def cached_results(folder: Path) -> Iterator[tuple[ResultCache, dict[str, Any]]]:
    """The caches of a folder that this version can read, read-only, each with its key.

    Args:
        folder: ``RUN/measure``; it may be absent.
    """
    for path in sorted(folder.glob("*/about.json")):
        try:
            about = read_json(path, "the key of what `hvx measure` kept")
        except HvxError:
            continue
        if isinstance(about, dict) and about.get("version") == VERSION:
            yield ResultCache(path.parent), about


class ResultCache:
    """The cache folder of one key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def has_maps(self, name: str, count: int) -> bool:
        """Whether a method's maps of ``count`` explanations exist and can be read."""
        try:
            maps = self.maps(name)
        except HvxError:
            return False
        return maps.ndim == 3 and len(maps) == count and maps.dtype == np.float16

    def map_count(self, name: str) -> int:
        """The number of a method's maps; 0 if there are none that can be read."""
        try:
            count = len(self.maps(name))
        except (HvxError, TypeError):
            return 0
        return count if self.has_maps(name, count) else 0

    def maps(self, name: str) -> np.ndarray:
        """A method's maps (n, h, w) float16, mapped from the disk.

        Raises:
            HvxError: absent or damaged.
        """
        path = self._maps_path(name)
        try:
            maps: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise HvxError(f"{path}: no readable maps: {error}") from None
        return maps

    @contextmanager
    def new_maps(self, names: list[str], count: int) -> Iterator[dict[str, MapWriter]]:
        """Files for the maps of several methods, filled in parallel; they are discarded on an error."""
        with ExitStack() as stack:
            files = {}
            for name in names:
                part = stack.enter_context(atomic_write(self._maps_path(name)))
                files[name] = MapWriter(stack.enter_context(part.open("wb")), name, count)
            yield files

    def result(self, name: str) -> Any:
        """The values saved under a name; None if there are none that can be read."""
        path = self._result_path(name)
        if not path.is_file():
            return None
        try:
            return read_json(path, "a result of `hvx measure`")
        except HvxError:
            return None

    def keep(self, name: str, value: Any) -> None:
        """Save plain values under a name."""
        write_json(self._result_path(name), value)

    def _maps_path(self, name: str) -> Path:
        return self.path / "maps" / f"{name}.npy"

    def _result_path(self, name: str) -> Path:
        return self.path / f"{name}.json"


class MapWriter:
    """Writes a file of maps (n, h, w) as they are computed, in any order.

    The file is not mapped into memory: on a full disk a write raises an error, but a mapped page without room
    ends the process (SIGBUS).

    Args:
        file: an empty file.
        name: of the method, for errors.
        count: n.
    """

    def __init__(self, file: BinaryIO, name: str, count: int) -> None:
        self._file, self._name, self._count = file, name, count
        self._start = 0
        """Offset of the first map, after the header; the header needs the shape of the first maps."""

    def put(self, positions: list[int], maps: np.ndarray) -> None:
        """Write maps (N, h, w), each divided by its largest magnitude.

        So half precision keeps the order of the values, and no measure depends on a map's scale.

        Raises:
            HvxError: a map has a value that is not finite.
            OSError: the disk is full.
        """
        if not np.isfinite(maps).all():
            raise HvxError(f"{self._name}: a map of the network has values that are not finite")
        if not self._start:
            self._write_header((self._count, *maps.shape[1:]))
        largest = np.abs(maps).max((1, 2), keepdims=True)
        scaled = (maps / np.where(largest > 0, largest, 1)).astype("<f2")
        for position, map in zip(positions, scaled, strict=True):
            self._file.seek(self._start + position * map.nbytes)
            self._file.write(map.tobytes())

    def _write_header(self, shape: tuple[int, ...]) -> None:
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
