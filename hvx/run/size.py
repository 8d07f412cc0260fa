"""Estimates how large a run gets, before it is computed, and compares it with the free disk space."""

from __future__ import annotations

import shutil
from pathlib import Path

from hvx.config import ExplainConfig, ModelConfig
from hvx.errors import HvxError
from hvx.progress import Log
from hvx.run.run_directory import absent_shards
from hvx.run.shards import Shard

_TEXTS = 2_500
"""Bytes of a question's texts, scores and numbers, and its share of HDF5's metadata."""
_MUCH = 100_000_000
"""Runs of fewer bytes are neither reported nor refused: the estimate is too rough for them."""
_TOKENS = 8
"""Typical tokens of a question: a network with a product for each word stores a heat map for each."""
_STRIDE = 32
"""Stride of most CNNs, from pixels to the attention's grid."""


def check_map_size(model: ModelConfig, explain: ExplainConfig, source: Path) -> None:
    """Compare the size of stored heat maps with the network's.

    Args:
        model: the checkpoint's.
        explain: with ``heatmap``.
        source: the checkpoint.

    Raises:
        HvxError: the stored size is not a divisor of the network's; names some that are.
    """
    side, full = explain.heatmap.size, model.image.size
    if side is None or (side <= full and full % side == 0):
        return
    divisors = [size for size in range(1, full + 1) if full % size == 0][-6:]
    raise HvxError(
        f"explain.heatmap.size: expected a divisor of {full}, the image size of {source}, such as "
        f"{', '.join(map(str, divisors))}; not {side}"
    )


def explanation_bytes(model: ModelConfig, explain: ExplainConfig) -> int:
    """About how many bytes a run stores for each explanation."""
    attention = 4 * max(1, model.glimpses) * (model.image.size // _STRIDE) ** 2
    if not model.has_product:
        return attention + _TEXTS
    side = explain.heatmap.size or model.image.size
    blocks = {"mrn": model.mrn.blocks, "dan": model.dan.steps + 1}.get(model.network, 1)
    maps = 1 if blocks == 1 else 1 + blocks
    maps += _TOKENS if model.network == "mi" else 0
    heatmaps = maps * side**2 * (1 if explain.heatmap.dtype == "uint8" else 2)
    gradient = 2 * 3 * model.image.size**2 if explain.gradient else 0
    return heatmaps + attention + gradient + _TEXTS


def check_room(run: Path, shards: list[Shard], each: int, pack: bool, log: Log) -> None:
    """Report how large a large run gets, and refuse it if the disk has not enough space.

    Args:
        run: the run folder, which need not exist.
        shards: all of its shards; those already written need no more space.
        each: bytes of an explanation, by ``explanation_bytes``.
        pack: whether a solid file of all shards is written as well.
        log: is told the size.

    Raises:
        HvxError: names the folder, what it needs and what is free.
    """
    total = sum(map(len, shards))
    absent = sum(map(len, absent_shards(run, shards)))
    needed = each * (absent + (total if pack else 0))
    free = free_bytes(run)
    if needed > free and needed >= _MUCH:
        raise HvxError(
            f"{run}: the run needs about {in_words(needed)}, and {in_words(free)} are free; "
            "explain.heatmap {size, dtype} makes it smaller"
        )
    if absent and each * total >= _MUCH:
        log(f"{run}: {total:,} explanations take about {in_words(each * total)}")


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of a path, which need not exist yet."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def in_words(size: float) -> str:
    """A number of bytes with its unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
