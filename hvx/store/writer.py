"""Writes shards, and the one file of them all: a view, or a solid copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.store.axes import name_axes
from hvx.store.heatmaps import HALF_MAX, SCALES
from hvx.store.schema import FIELDS, IDS, METHOD, NO_METHOD, TEXT, VERSION, Field
from hvx.store.seal import BLOCK, Span, opened, seal, sealed_digest
from hvx.store.shards import INDEX, own_dataset
from hvx.store.sink import Sink, new_hdf5

_PLAIN = ("shard", "run_digest")
"""Attributes that tell whose file it is, kept as they are; others are JSON."""


def write_shard(
    path: Path, items: dict[str, np.ndarray], attributes: dict[str, Any], failures: list[dict[str, Any]]
) -> None:
    """Write one shard, whole or not at all.

    Args:
        path: the shard's file.
        items: an array for each field of the schema, item by item along its first axis. Heat maps of dtype
            uint8 are stored so, with their factors (``hvx.store.heatmaps``); of float16 they hold no infinity
            (``to_half``), others are brought into its range. Heat maps of tokens are (N)
            objects, each an array of its own item.
        attributes: ``shard``, its number, ``run_digest``, and what is true of the whole run, kept as JSON.
        failures: the shard's questions that could not be explained, with the reason.

    Raises:
        HvxError: the file cannot be written.
    """
    with _sealed(path) as (file, sink):
        for name, field in FIELDS.items():
            if name not in items and field.optional:
                continue
            if field.ragged:
                _write_ragged(file, name, list(items[name]))
                sink.check()
                continue
            values = np.array(list(map(str, items[name])), object) if name in IDS else items[name]
            dtype = values.dtype if name in SCALES and values.dtype == np.uint8 else field.dtype
            if dtype == np.float16 and values.dtype != np.float16:
                values = np.clip(values, -HALF_MAX, HALF_MAX)
            chunks = _chunks(values.shape[1:]) if field.chunked and values.size > 0 else {}
            file.create_dataset(name, data=values, dtype=dtype, **chunks)
            sink.check()
        name_axes(file, _image_size(attributes))
        _describe(file, attributes)
        file.attrs["failures"] = json.dumps(failures)


def _write_ragged(file: h5py.File, name: str, items: list[np.ndarray]) -> None:
    """Maps of each item's tokens, padded to the longest; the padding is nowhere stored."""
    longest = max((len(item) for item in items), default=0)
    size = items[0].shape[1:] if items else (0, 0)
    in_8_bits = bool(items) and items[0].dtype == np.uint8
    dataset = _new_ragged(
        file, name, (len(items), longest, *size), np.uint8 if in_8_bits else FIELDS[name].dtype
    )
    for place, item in enumerate(items):
        if len(item):
            stored = in_8_bits or item.dtype == np.float16
            dataset[place, : len(item)] = item if stored else np.clip(item, -HALF_MAX, HALF_MAX)


def _new_ragged(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    chunks = _chunks((1, *shape[2:])) if 0 not in shape else {}
    return file.create_dataset(name, shape, dtype, fillvalue=FIELDS[name].fill, **chunks)


def write_view(path: Path, shards: list[Path], attributes: dict[str, Any]) -> None:
    """Write the view over all shards: one file, whose virtual datasets lie in theirs.

    Axes that differ between shards (tokens) are as long as the longest, filled beyond.

    Raises:
        HvxError: a shard cannot be read, none holds an item, or the file cannot be written.
    """
    whole = _Whole(path, shards)
    with _sealed(path) as (file, sink):
        for name, field, shape in whole.fields():
            layout = h5py.VirtualLayout(shape, field.dtype)
            for shard, where, own in whole.places(name):
                source = f"{shard.parent.name}/{shard.name}"
                layout[where] = h5py.VirtualSource(source, name, own, field.dtype)
            file.create_virtual_dataset(name, layout, fillvalue=None if field.dtype == TEXT else field.fill)
            sink.check()
        name_axes(file, _image_size(attributes))
        _write_index(file.create_group(INDEX), whole)
        _describe(file, attributes)


def write_solid(path: Path, shards: list[Path], attributes: dict[str, Any]) -> None:
    """Write one file with the items of all shards, which can go without them.

    Memory holds one shard's share of one dataset at a time.

    Raises:
        HvxError: as ``write_view``.
    """
    whole = _Whole(path, shards)
    with _sealed(path) as (file, sink):
        for name, field, shape in whole.fields():
            if field.ragged:
                _copy_ragged(_new_ragged(file, name, shape, field.dtype), name, whole)
                sink.check()
                continue
            chunks = _chunks(shape[1:]) if field.chunked else {}
            fill = {} if field.dtype == TEXT else {"fillvalue": field.fill}
            dataset = file.create_dataset(name, shape, field.dtype, **chunks, **fill)
            for shard, where, _ in whole.places(name):
                with opened(shard) as source:
                    values = own_dataset(source, name)[:]
                dataset[where] = values
                sink.check()
        name_axes(file, _image_size(attributes))
        _describe(file, attributes)


def _copy_ragged(dataset: h5py.Dataset, name: str, whole: _Whole) -> None:
    """The shards' maps of tokens into one dataset, item by item, without the padding."""
    for shard, where, _ in whole.places(name):
        with opened(shard) as source:
            own, lengths = own_dataset(source, name), own_dataset(source, "length")[:].tolist()
            for place, length in enumerate(lengths):
                if length:
                    dataset[where[0].start + place, :length] = own[place, :length]


class _Whole:
    """Where the items of each shard lie among those of all."""

    def __init__(self, path: Path, shards: list[Path]) -> None:
        shapes = [(shard, _shapes(shard)) for shard in shards]
        self._filled = [(shard, own) for shard, own in shapes if own["question_id"][0]]
        if not self._filled:
            raise HvxError(
                f"{path.parent}: not one question of the split could be explained; see failures.jsonl"
            )
        self._total = sum(own["question_id"][0] for _, own in self._filled)
        with opened(self._filled[0][0]) as file:  # the dtype of heat maps is the run's
            self._dtypes = {name: own_dataset(file, name).dtype for name in SCALES if name in file}

    def fields(self) -> Iterator[tuple[str, Field, tuple[int, ...]]]:
        """Each dataset that the shards hold, with its shape over all of them."""
        for name, field in FIELDS.items():
            if name in self._filled[0][1]:
                inner = np.max([own[name][1:] for _, own in self._filled], axis=0, initial=0)
                field = replace(field, dtype=self._dtypes.get(name, field.dtype))
                yield name, field, (self._total, *(map(int, inner) if field.axes else ()))

    def shards(self) -> list[tuple[Path, int]]:
        """Each shard that holds items, and how many."""
        return [(shard, own["question_id"][0]) for shard, own in self._filled]

    def places(self, name: str) -> Iterator[tuple[Path, tuple[slice, ...], tuple[int, ...]]]:
        """Each shard, where its part of a dataset goes, and that part's shape."""
        start = 0
        for shard, shapes in self._filled:
            own = shapes[name]
            yield shard, (slice(start, start + own[0]), *(slice(0, n) for n in own[1:])), own
            start += own[0]


def _write_index(index: h5py.Group, whole: _Whole) -> None:
    """List the shards, so that a reader finds an item's without opening the others."""
    shards = whole.shards()
    index.create_dataset("shard", data=[path.name for path, _ in shards], dtype=TEXT)
    index.create_dataset("items", data=[count for _, count in shards], dtype=np.int64)
    index.create_dataset("digest", data=[sealed_digest(path) for path, _ in shards], dtype=TEXT)
    for name, _, shape in whole.fields():
        index.attrs[name] = shape


def _chunks(item: tuple[int, ...]) -> dict[str, Any]:
    """How a large dataset is laid out whose items have this shape."""
    # Not compressed, by scripts/measure_storage.py: heat maps are near noise in half precision. The fastest
    # filter saves a tenth of the bytes, and for 448×448 takes longer than a GPU does for an explanation.
    return {"fletcher32": True, "chunks": (1, *item)}


@contextmanager
def _sealed(path: Path) -> Iterator[tuple[h5py.File, Sink]]:
    """A new HDF5 file, whole and sealed or absent."""
    with whole_file(path) as part:
        with new_hdf5(part, BLOCK) as (file, sink):
            yield file, sink
            file.flush()
            numbers = [span for name in FIELDS if name in file for span in _chunked(file[name])]
        seal(part, numbers)


def _chunked(dataset: h5py.Dataset) -> list[Span]:
    """Where the chunked numbers of a dataset lie in its file."""
    spans: list[Span] = []
    if dataset.chunks and not dataset.is_virtual:
        dataset.id.chunk_iter(lambda chunk: spans.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
    return spans


def _image_size(attributes: dict[str, Any]) -> int | None:
    """Side in pixels of the image that the network saw, by the crop."""
    scaled_to = attributes.get("crop", {}).get("scaled_to")
    return int(scaled_to[0]) if scaled_to else None


def _describe(file: h5py.File, attributes: dict[str, Any]) -> None:
    file.attrs["schema_version"] = VERSION
    file.attrs["method"] = METHOD if "heatmap" in file else NO_METHOD
    for name, value in attributes.items():
        file.attrs[name] = value if name in _PLAIN else json.dumps(value)


def _shapes(shard: Path) -> dict[str, tuple[int, ...]]:
    with opened(shard) as file:
        return {name: own_dataset(file, name).shape for name in FIELDS if name in file}
