"""Writes shards, and explanations.h5 over all of them: a view, or a solid file."""

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
from hvx.files import atomic_write
from hvx.store.axes import name_axes
from hvx.store.checksum import BLOCK, Span, open_verified, sealed_digest, write_checksum
from hvx.store.datasets import own_dataset
from hvx.store.heatmaps import HALF_MAX, SCALES
from hvx.store.schema import FIELDS, IDS, METHOD, NO_METHOD, TEXT, VERSION, Field
from hvx.store.shards import INDEX
from hvx.store.sink import Sink, new_hdf5

_PLAIN = ("shard", "run_digest")
"""Attributes that identify the file, stored unchanged; others are stored as JSON."""


def write_shard(
    path: Path, items: dict[str, np.ndarray], attributes: dict[str, Any], failures: list[dict[str, Any]]
) -> None:
    """Write one shard atomically.

    Args:
        path: the shard's file.
        items: an array for each field of the schema, with items along its first axis. Heat maps of dtype
            uint8 are stored unchanged, with their scale factors (``hvx.store.heatmaps``); those of float16
            must be finite (``to_half``), others are clamped to its range. Heat maps of tokens are (N)
            objects, an array for each item.
        attributes: ``shard``, its number, ``run_digest``, and facts about the whole run, stored as JSON.
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
    """Write the maps of each item's tokens, padded to the longest; the padding is not stored."""
    longest = max((len(item) for item in items), default=0)
    size = items[0].shape[1:] if items else (0, 0)
    in_8_bits = bool(items) and items[0].dtype == np.uint8
    dataset = _new_ragged(
        file, name, (len(items), longest, *size), np.uint8 if in_8_bits else FIELDS[name].dtype
    )
    for row, item in enumerate(items):
        if len(item):
            stored = in_8_bits or item.dtype == np.float16
            dataset[row, : len(item)] = item if stored else np.clip(item, -HALF_MAX, HALF_MAX)


def _new_ragged(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    chunks = _chunks((1, *shape[2:])) if 0 not in shape else {}
    return file.create_dataset(name, shape, dtype, fillvalue=FIELDS[name].fill, **chunks)


def write_view(path: Path, shards: list[Path], attributes: dict[str, Any]) -> None:
    """Write the view over all shards: one file with virtual datasets that refer to the shards.

    Axes that differ between shards (tokens) are padded to the longest.

    Raises:
        HvxError: a shard cannot be read, no shard has an item, or the file cannot be written.
    """
    combined = _AllShards(path, shards)
    with _sealed(path) as (file, sink):
        for name, field, shape in combined.fields():
            layout = h5py.VirtualLayout(shape, field.dtype)
            for shard, destination, part_shape in combined.parts(name):
                source = f"{shard.parent.name}/{shard.name}"
                layout[destination] = h5py.VirtualSource(source, name, part_shape, field.dtype)
            file.create_virtual_dataset(name, layout, fillvalue=None if field.dtype == TEXT else field.fill)
            sink.check()
        name_axes(file, _image_size(attributes))
        _write_index(file.create_group(INDEX), combined)
        _describe(file, attributes)


def write_solid(path: Path, shards: list[Path], attributes: dict[str, Any]) -> None:
    """Write one file with the items of all shards, which does not need the shards afterwards.

    Only one dataset of one shard is in memory at a time.

    Raises:
        HvxError: as ``write_view``.
    """
    combined = _AllShards(path, shards)
    with _sealed(path) as (file, sink):
        for name, field, shape in combined.fields():
            if field.ragged:
                _copy_ragged(_new_ragged(file, name, shape, field.dtype), name, combined)
                sink.check()
                continue
            chunks = _chunks(shape[1:]) if field.chunked else {}
            fill = {} if field.dtype == TEXT else {"fillvalue": field.fill}
            dataset = file.create_dataset(name, shape, field.dtype, **chunks, **fill)
            for shard, destination, _ in combined.parts(name):
                with open_verified(shard) as source:
                    values = own_dataset(source, name)[:]
                dataset[destination] = values
                sink.check()
        name_axes(file, _image_size(attributes))
        _describe(file, attributes)


def _copy_ragged(dataset: h5py.Dataset, name: str, combined: _AllShards) -> None:
    """Copy the shards' maps of tokens into one dataset, item by item, without the padding."""
    for shard, destination, _ in combined.parts(name):
        with open_verified(shard) as source:
            maps, lengths = own_dataset(source, name), own_dataset(source, "length")[:].tolist()
            for row, length in enumerate(lengths):
                if length:
                    dataset[destination[0].start + row, :length] = maps[row, :length]


class _AllShards:
    """All shards that have items: their datasets, and the position of each shard in these."""

    def __init__(self, path: Path, shards: list[Path]) -> None:
        shapes = [(shard, _shapes(shard)) for shard in shards]
        self._non_empty = [(shard, by_name) for shard, by_name in shapes if by_name["question_id"][0]]
        if not self._non_empty:
            raise HvxError(
                f"{path.parent}: not one question of the split could be explained; see failures.jsonl"
            )
        self._total = sum(by_name["question_id"][0] for _, by_name in self._non_empty)
        with open_verified(
            self._non_empty[0][0]
        ) as file:  # heat maps have the same dtype in all shards of a run
            self._dtypes = {name: own_dataset(file, name).dtype for name in SCALES if name in file}

    def fields(self) -> Iterator[tuple[str, Field, tuple[int, ...]]]:
        """Each dataset of the shards, with its shape over all of them."""
        for name, field in FIELDS.items():
            if name in self._non_empty[0][1]:
                inner = np.max([by_name[name][1:] for _, by_name in self._non_empty], axis=0, initial=0)
                field = replace(field, dtype=self._dtypes.get(name, field.dtype))
                yield name, field, (self._total, *(map(int, inner) if field.axes else ()))

    def shards(self) -> list[tuple[Path, int]]:
        """Each shard that has items, and their number."""
        return [(shard, by_name["question_id"][0]) for shard, by_name in self._non_empty]

    def parts(self, name: str) -> Iterator[tuple[Path, tuple[slice, ...], tuple[int, ...]]]:
        """Each shard, the position of its part in a dataset, and that part's shape."""
        start = 0
        for shard, shapes in self._non_empty:
            shape = shapes[name]
            yield shard, (slice(start, start + shape[0]), *(slice(0, n) for n in shape[1:])), shape
            start += shape[0]


def _write_index(index: h5py.Group, combined: _AllShards) -> None:
    """Write the list of shards, so that a reader finds an item's shard without opening the others."""
    shards = combined.shards()
    index.create_dataset("shard", data=[path.name for path, _ in shards], dtype=TEXT)
    index.create_dataset("items", data=[count for _, count in shards], dtype=np.int64)
    index.create_dataset("digest", data=[sealed_digest(path) for path, _ in shards], dtype=TEXT)
    for name, _, shape in combined.fields():
        index.attrs[name] = shape


def _chunks(item: tuple[int, ...]) -> dict[str, Any]:
    """Chunks and checksums of a large dataset with items of this shape."""
    # Not compressed (see scripts/measure_storage.py): heat maps in half precision are close to noise. The
    # fastest filter saves a tenth of the bytes, and takes longer for 448×448 than a GPU for an explanation.
    return {"fletcher32": True, "chunks": (1, *item)}


@contextmanager
def _sealed(path: Path) -> Iterator[tuple[h5py.File, Sink]]:
    """A new HDF5 file, which is sealed and written atomically."""
    with atomic_write(path) as part:
        with new_hdf5(part, BLOCK) as (file, sink):
            yield file, sink
            file.flush()
            numbers = [span for name in FIELDS if name in file for span in _chunked(file[name])]
        write_checksum(part, numbers)


def _chunked(dataset: h5py.Dataset) -> list[Span]:
    """Byte spans of a dataset's chunks in its file."""
    spans: list[Span] = []
    if dataset.chunks and not dataset.is_virtual:
        dataset.id.chunk_iter(lambda chunk: spans.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
    return spans


def _image_size(attributes: dict[str, Any]) -> int | None:
    """Side in pixels of the network's input, from the crop."""
    scaled_to = attributes.get("crop", {}).get("scaled_to")
    return int(scaled_to[0]) if scaled_to else None


def _describe(file: h5py.File, attributes: dict[str, Any]) -> None:
    file.attrs["schema_version"] = VERSION
    file.attrs["method"] = METHOD if "heatmap" in file else NO_METHOD
    for name, value in attributes.items():
        file.attrs[name] = value if name in _PLAIN else json.dumps(value)


def _shapes(shard: Path) -> dict[str, tuple[int, ...]]:
    with open_verified(shard) as file:
        return {name: own_dataset(file, name).shape for name in FIELDS if name in file}
