"""Photographs: from a file to the network's input, and the crop that maps heat maps back."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from hvx.config import ImageConfig
from hvx.data.photos import decode_photo, read_photo
from hvx.errors import BadImage, HvxError


@dataclass(frozen=True)
class Decoded:
    """A batch of images, decoded.

    Attributes:
        indices: indices of the B images that could be read, in the list of files.
        inputs: of these images (B, C, H, W).
        digests: SHA-256 of each of their files.
        failures: for each image that could not be read, by index, the reason.
    """

    indices: list[int]
    inputs: Tensor
    digests: list[str]
    failures: dict[int, str]


_PREFETCH = 2
"""Batches that each decoding process decodes in advance."""
_PATIENCE = 600
"""Seconds in which a batch must be decoded, in case a decoding process hangs."""

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def crop_photo(photo: Image.Image, image: ImageConfig) -> Image.Image:
    """The center square of a photograph at the network's size: shorter side to ``size``, then crop."""
    side = min(photo.size)
    left, top = (photo.width - side) / 2, (photo.height - side) / 2
    box = (left, top, left + side, top + side)
    # Only the square is scaled, not the whole photograph before a crop: the center is not rounded to a
    # pixel, and a very long photograph is not enlarged as a whole.
    return photo.resize((image.size, image.size), _RESAMPLING[image.interpolation], box=box)


def crop_rule(image: ImageConfig) -> dict[str, Any]:
    """How a heat map's pixels map to the original photograph, for attributes of the run's files."""
    return {"square": "center, side = the photograph's shorter side", "scaled_to": [image.size, image.size]}


def to_input(crop: Image.Image, image: ImageConfig) -> Tensor:
    """A crop as the network's normalized input: (C, H, W) float32."""
    return normalized(torch.from_numpy(_planes(crop))[None], image)[0]


def _planes(crop: Image.Image) -> np.ndarray:
    """A crop with its channels first: (C, H, W) uint8."""
    return np.ascontiguousarray(np.asarray(crop).transpose(2, 0, 1))


def normalized(crops: Tensor, image: ImageConfig) -> Tensor:
    """Crops (B, C, H, W) uint8 as the network's inputs, float32, on the same device."""
    # Type and device are explicit, so that a caller's defaults do not change the result.
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=crops.device).view(3, 1, 1)
        for values in (image.mean, image.std)
    )
    if crops.device.type != "cpu":
        return crops.to(torch.float32).div_(255).sub_(mean).div_(std)
    # NumPy's memory, since Linux has to clear fewer, larger pages of it.
    inputs = torch.from_numpy(np.empty(crops.shape, np.float32))
    for image_input, crop in zip(inputs, crops, strict=True):  # one by one, in the processor's cache
        image_input.copy_(crop).div_(255).sub_(mean).div_(std)
    return inputs


def load_input(path: Path, image: ImageConfig, exif_orientation: bool = False) -> Tensor:
    """The network's input for an image file: (C, H, W) float32.

    Raises:
        BadImage: see ``open_photo``.
    """
    return to_input(_crop_and_digest(path, image, exif_orientation)[0], image)


def _crop_and_digest(path: Path, image: ImageConfig, exif_orientation: bool) -> tuple[Image.Image, str]:
    """The center square of an image file, and the SHA-256 of its bytes, which are read once for both."""
    data, digest = read_photo(path)
    return crop_photo(decode_photo(data, path, exif_orientation), image), digest


_Loaded = tuple[int, int, tuple[np.ndarray, str] | str]
"""The number of an image's batch and the image's index, with its crop (C, H, W) uint8 and digest, or with the
reason why it has none."""


class _Crops(Dataset[_Loaded]):
    """Crops by index; a bad image yields the reason instead, so that it never ends a worker."""

    def __init__(self, paths: Sequence[Path], image: ImageConfig, exif_orientation: bool) -> None:
        self.paths, self.image, self.exif_orientation = paths, image, exif_orientation

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, batch_and_index: tuple[int, int]) -> _Loaded:
        batch, index = batch_and_index
        try:
            crop, digest = _crop_and_digest(self.paths[index], self.image, self.exif_orientation)
            return batch, index, (_planes(crop), digest)
        except BadImage as error:
            return batch, index, str(error)


class _Slots:
    """Memory that decoding processes share with this one, for as many batches as may be on their way.

    Without it a batch is copied through a pipe. It exists only where processes are started by fork, since it
    has no name; files in the folder for temporary files or in /dev/shm are too small on some systems.

    Args:
        batches: that may be decoded before one is used, and one.
        shape: of the largest batch, (B, C, H, W).
    """

    def __init__(self, batches: int, shape: tuple[int, ...]) -> None:
        memory = mmap.mmap(-1, max(1, batches * prod(shape)))
        self._batches = np.frombuffer(memory, np.uint8, batches * prod(shape)).reshape(batches, *shape)

    def put(self, batch: int, crops: Sequence[np.ndarray]) -> None:
        """Store the crops of a batch."""
        for target, crop in zip(self._batches[batch % len(self._batches)], crops, strict=False):
            target[:] = crop

    def get(self, batch: int, count: int) -> np.ndarray:
        """The first ``count`` crops of a batch, until as many batches later."""
        stored: np.ndarray = self._batches[batch % len(self._batches), :count]
        return stored


def input_batches(
    paths: Sequence[Path],
    image: ImageConfig,
    batches: Sequence[Sequence[int]],
    workers: int,
    exif_orientation: bool = False,
    device: torch.device | None = None,
) -> Iterator[Decoded]:
    """Decode batches of images before their use, in ``workers`` processes.

    Args:
        paths: image files.
        image: how a photograph becomes an input.
        batches: indices into ``paths``, for each batch.
        workers: decoding processes; 0 decodes in this process.
        exif_orientation: see ``open_photo``.
        device: the GPU for the inputs, which are copied to it as bytes; the CPU if None.

    Yields:
        Each batch.

    Raises:
        HvxError: a decoding process cannot be started, was killed (such as for lack of memory), or does not
            answer. The error of a killed process is raised wherever the main thread is, so also in code that
            uses the batches.
    """
    slots = _slots(batches, workers, image)
    loader = DataLoader(
        _Crops(paths, image, exif_orientation),
        batch_sampler=[[(number, index) for index in batch] for number, batch in enumerate(batches)],
        num_workers=workers,
        collate_fn=partial(_collate, slots),
        timeout=_PATIENCE if workers else 0,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_end_with_parent,
    )
    try:
        stream = iter(loader)
    except OSError as error:
        _end_half_made(error)
        raise HvxError(f"an image-decoding process cannot be started ({error.strerror}); {_FEWER}") from None
    if workers:
        _catch_deaths()
    try:
        for number, (indices, arrays, digests, failures) in enumerate(stream):
            crops = torch.from_numpy(slots.get(number, len(indices)) if slots else arrays)
            if device is not None:
                crops = crops.pin_memory().to(device, non_blocking=True)
            yield Decoded(indices, normalized(crops, image), digests, failures)
    except RuntimeError as error:
        if not workers:
            raise
        raise _dead(error) from error


_FEWER = "set explain.workers, or train.workers in a training, to a smaller number; 0 decodes without them"


def _dead(error: RuntimeError) -> HvxError:
    """PyTorch's error about a decoding process as one line."""
    reason = str(error).partition("\n")[0].strip().rstrip(".")
    return HvxError(f"an image-decoding process died or does not answer ({reason}); {_FEWER}")


def _end_with_parent(worker: int) -> None:
    """Make a decoding process end soon after its parent, for whatever reason that ended.

    PyTorch's own check is not enough: a process that still has a batch to send waits forever for a reader.
    """
    del worker
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end_half_made(error: OSError) -> None:
    """End the decoding processes that were started before one failed to start; PyTorch does not."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        loading = frame.f_locals.get("self")
        if isinstance(loading, _MultiProcessingDataLoaderIter):
            loading._shutdown = True  # otherwise it prints a traceback when it is deleted
            for process in loading._workers:
                process.kill()  # SIGTERM may meet a handler that was inherited
                process.join()


class _DeathHandler:
    """Wraps PyTorch's SIGCHLD handler, so that it raises hvx's error.

    PyTorch raises its error wherever the main thread is, most often while a batch is explained, where it
    would be taken for an error of the network.
    """

    def __init__(self, inner: Callable[[int, Any], Any]) -> None:
        self._inner = inner

    def __call__(self, number: int, frame: Any) -> None:
        try:
            self._inner(number, frame)
        except RuntimeError as error:
            raise _dead(error) from error


def _catch_deaths() -> None:
    """Install ``_DeathHandler`` once per process, as PyTorch does with its own handler."""
    if threading.current_thread() is threading.main_thread():
        inner = signal.getsignal(signal.SIGCHLD)
        if callable(inner) and not isinstance(inner, _DeathHandler):
            signal.signal(signal.SIGCHLD, _DeathHandler(inner))


_NONE = np.empty((0, 3, 0, 0), np.uint8)
_Batch = tuple[list[int], np.ndarray, list[str], dict[int, str]]
"""``Decoded``, as a decoding process sends it; without crops if these are in shared memory."""


def _slots(batches: Sequence[Sequence[int]], workers: int, image: ImageConfig) -> _Slots | None:
    """Shared memory for the crops; None where there are no decoding processes, or none by fork."""
    if not workers or multiprocessing.get_start_method() != "fork":
        return None
    # A batch is asked for when one is taken, and that one is still read.
    return _Slots(_PREFETCH * workers + 1, (max(map(len, batches), default=0), 3, image.size, image.size))


def _collate(slots: _Slots | None, items: list[_Loaded]) -> _Batch:
    """A batch, with its crops in shared memory, or as an array that is sent through a pipe.

    Tensors would be sent through a socket in the folder for temporary files. If its path is too long for a
    socket, PyTorch waits forever.
    """
    decoded = [(index, *value) for _, index, value in items if not isinstance(value, str)]
    failures = {index: value for _, index, value in items if isinstance(value, str)}
    crops = [crop for _, crop, _ in decoded]
    if slots:
        slots.put(items[0][0] if items else 0, crops)
    arrays = np.stack(crops) if crops and not slots else _NONE
    return [index for index, _, _ in decoded], arrays, [digest for _, _, digest in decoded], failures
