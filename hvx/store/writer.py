"""Writes shards, and the view that makes one file of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.store.schema import FIELDS, METHOD, TEXT, VERSION

HALF_MAX = float(np.finfo(np.float16).max)


def write_shard(
    path: Path, items: dict[str, np.ndarray], attributes: dict[str, Any], failures: list[dict[str, Any]]
) -> None:
    """Write one shard, whole or not at all.

    Args:
        path: the shard's file.
        items: an array for each field of the schema, item by item along its first axis.
        attributes: what is true of the whole run, kept as JSON.
        failures: the shard's questions that could not be explained, with the reason.

    Raises:
        HvxError: the file cannot be written.
    """
    with whole_file(path) as part, h5py.File(part, "w") as file:
        for name, field in FIELDS.items():
            if name not in items and field.optional:
                continue
            values = items[name]
            if field.dtype == np.float16:
                values = np.clip(values, -HALF_MAX, HALF_MAX)
            # By scripts/measure_storage.py: heat maps are near noise in half precision, so that gzip
            # saves little more than lzf does and takes half as long again.
            packing = {"compression": "lzf", "shuffle": True, "chunks": (1, *values.shape[1:])}
            packed = field.packed and values.size > 0
            file.create_dataset(name, data=values, dtype=field.dtype, **(packing if packed else {}))
        _describe(file, attributes)
        file.attrs["failures"] = json.dumps(failures)


def write_view(path: Path, shards: list[Path], attributes: dict[str, Any]) -> None:
    """Write the view over all shards: one file, whose virtual datasets lie in theirs.

    Axes that differ between shards (tokens) are as long as the longest, filled beyond.
    """
    shapes = [_shapes(shard) for shard in shards]
    filled = [(shard, shape) for shard, shape in zip(shards, shapes, strict=True) if shape["question_id"][0]]
    if not filled:
        raise HvxError(f"{path.parent}: not one question of the split could be explained; see failures.jsonl")
    total = sum(shape["question_id"][0] for _, shape in filled)
    with whole_file(path) as part, h5py.File(part, "w") as file:
        for name, field in FIELDS.items():
            if name not in filled[0][1]:
                continue
            inner = (
                tuple(np.max([shape[name][1:] for _, shape in filled], axis=0, initial=0))
                if field.axes
                else ()
            )
            layout = h5py.VirtualLayout((total, *map(int, inner)), field.dtype)
            start = 0
            for shard, shape in filled:
                own = shape[name]
                where = (slice(start, start + own[0]), *(slice(0, n) for n in own[1:]))
                layout[where] = h5py.VirtualSource(
                    f"{shard.parent.name}/{shard.name}", name, own, field.dtype
                )
                start += own[0]
            file.create_virtual_dataset(name, layout, fillvalue=None if field.dtype == TEXT else field.fill)
        _describe(file, attributes)


def _describe(file: h5py.File, attributes: dict[str, Any]) -> None:
    file.attrs["schema_version"] = VERSION
    file.attrs["method"] = METHOD
    for name, value in attributes.items():
        file.attrs[name] = json.dumps(value)


def _shapes(shard: Path) -> dict[str, tuple[int, ...]]:
    try:
        with h5py.File(shard, "r") as file:
            return {name: file[name].shape for name in FIELDS if name in file}
    except (OSError, KeyError) as error:
        raise HvxError(f"{shard}: damaged shard ({error}); delete it and run `hvx explain` again") from None
