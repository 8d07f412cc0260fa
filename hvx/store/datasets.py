"""Datasets of an open HDF5 file of a run: each is checked once, and read whole or some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import h5py
import numpy as np

from hvx.errors import HvxError
from hvx.store.heatmaps import SCALES, from_8_bits


def own_dataset(file: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset whose values are in the file itself. Links to other files, virtual datasets and external
    storage are refused: they could expose any other file of the machine.

    Args:
        file: an HDF5 file, or a group of one.
        name: of the dataset.

    Raises:
        HvxError: its values are in another file, or it is not a dataset.
        KeyError: there is none.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink | None):
        raise HvxError(f"{file.file.filename}: {name}: a link to elsewhere; a run holds its own data")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise HvxError(f"{file.file.filename}: {name}: not a dataset; a run holds its own data")
    if dataset.external or dataset.is_virtual:
        raise HvxError(
            f"{file.file.filename}: {name}: its values lie in another file; a run holds its own data"
        )
    return dataset


class Datasets:
    """The datasets of an open file by name, each checked by ``own_dataset`` when it is first read.

    Args:
        file: open for reading; it does not change.
    """

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self._checked: dict[str, h5py.Dataset] = {}

    def __getitem__(self, name: str) -> h5py.Dataset:
        if name not in self._checked:
            self._checked[name] = own_dataset(self.file, name)
        return self._checked[name]

    def values(self, name: str, rows: int | slice = slice(None)) -> np.ndarray:
        """Values of some rows; strings as ``str``, 8-bit maps as float32."""
        dataset = self[name]
        values = (dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset)[rows]
        if self.in_8_bits(name):
            return from_8_bits(values, self[SCALES[name]][rows])
        return np.asarray(values)

    def dtype(self, name: str) -> np.dtype:
        """The dtype of a dataset without strings, as ``values`` returns it."""
        return np.dtype(np.float32) if self.in_8_bits(name) else self[name].dtype

    def in_8_bits(self, name: str) -> bool:
        """Whether a dataset has 8-bit maps, which have scale factors."""
        return name in SCALES and self[name].dtype == np.uint8


class Block:
    """Some rows of a file; each dataset is read once, on first access."""

    def __init__(self, datasets: Datasets, rows: slice) -> None:
        self._datasets, self._rows = datasets, rows
        self._cache: dict[str, np.ndarray] = {}

    def values(self, name: str) -> np.ndarray:
        """Values as stored."""
        return self._cached(name, lambda: self._datasets[name][self._rows])

    def decoded(self, name: str) -> np.ndarray:
        """Values with strings as ``str``, and 8-bit maps as float32."""
        return self._cached(name, lambda: self._datasets.values(name, self._rows))

    def word_maps(self, number: int, length: int) -> np.ndarray:
        """Heat maps of the tokens of one row (length, H, W), as float32; the padding is not read."""
        name = "word_heatmaps"
        values = self._datasets[name][self._rows.start + number, :length]
        if self._datasets.in_8_bits(name):
            return from_8_bits(values, self.values(SCALES[name])[number, :length])
        return np.asarray(values, np.float32)

    def _cached(self, name: str, read: Callable[[], np.ndarray]) -> np.ndarray:
        if name not in self._cache:
            self._cache[name] = read()
        return self._cache[name]
