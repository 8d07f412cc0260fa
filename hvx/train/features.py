"""The frozen backbone's features of a split's images, computed once and stored in float16 HDF5.

An unfinished cache has another name (``*.partial.h5``) and stores the number of finished rows, so that a
killed computation resumes where it stopped. The finished cache is renamed.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from hvx.config import ImageConfig, SplitConfig
from hvx.data.image_files import folders_shown, image_path, missing_images, some_names
from hvx.data.images import input_batches
from hvx.errors import BadImage, HvxError
from hvx.explain.fused import FusedGuidedBackbone
from hvx.files import flush_to_disk
from hvx.models.backbone import Backbone
from hvx.progress import Log, bar
from hvx.run.lock import WITHOUT_LOCKS

_BATCH = 32
_IN_MEMORY = 4 << 30
"""Largest cache in bytes that is read into memory; larger ones are read row by row from disk."""
_FLUSH_SECONDS = 10.0
"""Seconds between updates of the number of finished rows, which need a flush to the disk."""
_LARGEST = float(np.finfo(np.float16).max)


class FeatureCache:
    """Features of a split's images by row; ``rows`` maps an image's name to its row."""

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "r", locking=False)  # a finished file never changes
        stored = self._file["features"]
        self.rows = {str(name): row for row, name in enumerate(self._file["image"].asstr()[:])}
        self._features = stored[:] if stored.nbytes <= _IN_MEMORY else stored
        self.root_mean_square = float(self._file.attrs["root_mean_square"])
        """Of all features: the scale of this backbone's features."""

    def __getitem__(self, rows: list[int]) -> Tensor:
        """Features of images by row: (B, M, S, S) float16."""
        if isinstance(self._features, np.ndarray):
            return torch.from_numpy(self._features[rows])
        features = np.empty((len(rows), *self._features.shape[1:]), np.float16)
        for index, row in enumerate(rows):
            self._features.read_direct(features, np.s_[row], np.s_[index])
        return torch.from_numpy(features)

    @property
    def channels(self) -> int:
        return int(self._features.shape[1])


@dataclass(frozen=True)
class CacheJob:
    """The images of a split whose features are needed, each name once, and the cache file."""

    split: SplitConfig
    images: list[str]
    path: Path

    @property
    def partial(self) -> Path:
        """The file's name until it is finished."""
        return self.path.with_suffix(".partial.h5")

    def check_images(self) -> None:
        """Reject a split with missing images, before any work is done.

        Raises:
            HvxError: the number of missing images, and some names.
        """
        missing = missing_images(self.split, self.images)
        if missing:
            raise HvxError(
                f"{folders_shown(self.split)}: {len(missing):,} of the split's {len(self.images):,} "
                f"images are missing: {some_names(missing)}; training needs all of them"
            )


def cached_features(
    backbone: Backbone, image: ImageConfig, jobs: list[CacheJob], log: Log, workers: int = 1
) -> list[FeatureCache]:
    """The features of splits' images: read from a job's file if it has exactly these, else computed into it.

    Args:
        backbone: the frozen network, on the device to compute on.
        image: how a photograph becomes an input.
        jobs: images and cache files.
        log: told the size of each file before it is written, a line at a time.
        workers: processes that decode images in advance; 0: decode in this process.

    Raises:
        BadImage: an image cannot be read; the features computed before it are saved.
        HvxError: the backbone's features have no grid or are too large for float16, the disk has too little
            space, or another process uses the file.
    """
    digest = _digest(backbone, image)
    keys = [_key(digest, job) for job in jobs]
    missing = [(job, key) for job, key in zip(jobs, keys, strict=True) if _stored_key(job.path) != key]
    if missing:
        shape = _shape(backbone, image)
        started = [(job, key, _rows_done(job, key, shape)) for job, key in missing]
        _check_room(started, shape, log)
        for job, key, rows_done in started:
            _compute(backbone, image, job, key, shape, rows_done, workers)
    return [FeatureCache(job.path) for job in jobs]


@torch.inference_mode()
def _shape(backbone: Backbone, image: ImageConfig) -> tuple[int, ...]:
    """(M, S, S) of one image's features."""
    device = next(backbone.parameters()).device
    shape = tuple(backbone(torch.zeros(1, 3, image.size, image.size, device=device)).shape[1:])
    if len(shape) != 3:
        raise HvxError(
            f"model.backbone.node: yields features of shape {shape} an image; "
            "name a node that has channels on a grid"
        )
    return shape


def _check_room(started: list[tuple[CacheJob, str, int]], shape: tuple[int, ...], log: Log) -> None:
    """Report the sizes of the files, and reject them if the disk has too little space."""
    folder = started[0][0].path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise HvxError(f"{folder}: cannot hold features (train.feature_cache): {error.strerror}") from None
    row_bytes = int(np.prod(shape)) * np.dtype(np.float16).itemsize
    sizes = "×".join(map(str, shape))
    for job, _, rows_done in started:
        count = len(job.images)
        note = f", {rows_done:,} images are done" if rows_done else ""
        log(
            f"{job.path}: {count:,} images × {sizes} × 2 bytes = {_size(count * row_bytes)} of features{note}"
        )
    needed = sum(len(job.images) - rows_done for job, _, rows_done in started) * row_bytes
    if needed > free:
        raise HvxError(
            f"{folder}: {_size(needed)} of features do not fit, {_size(free)} are free; "
            "make room, or let train.feature_cache name a folder that has it"
        )
    log(f"{folder}: {_size(needed)} to write, {_size(free)} are free")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _rows_done(job: CacheJob, key: str, shape: tuple[int, ...]) -> int:
    """Rows that an earlier, killed computation of the same features has finished."""
    try:
        with _open_partial(job.partial, "r") as file:
            same = file.attrs.get("key") == key and file["features"].shape == (len(job.images), *shape)
            rows_done = int(file["done"][()]) if same else 0
            return rows_done if 0 <= rows_done <= len(job.images) else 0
    except BlockingIOError:
        raise HvxError(f"{job.partial}: another process is at it; wait for it to end") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return 0


def _create(job: CacheJob, key: str, shape: tuple[int, ...]) -> None:
    """Create a file with all its space allocated. Rows are then written in place, so that the file stays
    readable if the process is killed."""
    count = len(job.images)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with _open_partial(job.partial, "w") as file:
        file.create_dataset("features", (count, *shape), np.float16, dcpl=layout)
        file["squares"] = np.zeros(count)
        file.create_dataset("image", data=job.images, dtype=h5py.string_dtype("utf-8"))
        file["done"] = 0
        file.attrs["key"] = key


def _compute(
    backbone: Backbone,
    image: ImageConfig,
    job: CacheJob,
    key: str,
    shape: tuple[int, ...],
    rows_done: int,
    workers: int,
) -> None:
    try:
        if not rows_done:
            _create(job, key, shape)
        with _open_partial(job.partial, "r+") as file:
            _fill(file, job, backbone, image, rows_done, workers)
            total = float(file["squares"][:].sum())
            file.attrs["root_mean_square"] = (total / file["features"].size) ** 0.5
        flush_to_disk(job.partial)
        job.partial.replace(job.path)
    except OSError as error:
        raise HvxError(f"{job.partial}: cannot be written: {error.strerror or error}") from None


@torch.inference_mode()
def _fill(
    file: h5py.File, job: CacheJob, backbone: Backbone, image: ImageConfig, rows_done: int, workers: int
) -> None:
    """Compute the rows from ``rows_done`` on; the number of finished rows is saved even on an error."""
    device = next(backbone.parameters()).device
    paths = [image_path(job.split, name) for name in job.images]
    batches = [range(i, min(i + _BATCH, len(paths))) for i in range(rows_done, len(paths), _BATCH)]
    inputs = input_batches(paths, image, batches, workers, job.split.exif_orientation)
    forward = _forward_pass(backbone)
    flushed = time.monotonic()
    try:
        for batch in bar(inputs, f"features for {job.path.stem}", "batch", len(batches)):
            if batch.failures:
                raise BadImage(next(iter(batch.failures.values())))
            rows = slice(batch.indices[0], batch.indices[-1] + 1)
            features = forward(batch.inputs.to(device))
            if not bool(features.abs().amax() <= _LARGEST):
                raise HvxError(
                    f"model.backbone: features of up to {float(features.abs().amax()):.3g} do not fit "
                    "float16; other weights, or another node, would"
                )
            file["squares"][rows] = features.flatten(1).double().square().sum(1).cpu().numpy()
            file["features"][rows] = features.half().cpu().numpy()
            rows_done = rows.stop
            if time.monotonic() - flushed >= _FLUSH_SECONDS:
                _count(file, job.partial, rows_done)
                flushed = time.monotonic()
    finally:
        _count(file, job.partial, rows_done)


def _forward_pass(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """Images (B, C, H, W) → features (B, M, S, S), by the fused engine if it supports the network."""
    try:
        return FusedGuidedBackbone(backbone.network).features
    except HvxError:  # no ReLU network: it can be trained on, for a head without a Hadamard product
        return backbone


def _count(file: h5py.File, path: Path, rows_done: int) -> None:
    """Store the number of finished rows after flushing them to the disk."""
    file.flush()
    flush_to_disk(path)
    file["done"][()] = rows_done
    file.flush()


def _open_partial(path: Path, mode: str) -> h5py.File:
    """An unfinished file. HDF5 locks it against other processes if the file system has locks."""
    try:
        return h5py.File(path, mode)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return h5py.File(path, mode, locking=False)


def _digest(backbone: Backbone, image: ImageConfig) -> str:
    """Digest of all that maps a photograph to features: crop, graph and weights."""
    # The graph, not only the weights: a node before and one after a ReLU have the same weights.
    digest = hashlib.sha256(f"{image!r}{backbone.network}".encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _key(digest: str, job: CacheJob) -> str:
    """Digest of all that a job's features depend on, except the images' bytes."""
    split = job.split
    inputs = f"{[folder.resolve() for folder in split.folders]}{split.exif_orientation}{job.images}"
    return hashlib.sha256(f"{digest}{inputs}".encode()).hexdigest()


def _stored_key(path: Path) -> str | None:
    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file.attrs.get("key"))
    except OSError:
        return None
