"""The frozen backbone's features of a split's images, computed once and kept in float16 HDF5."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from hvx.config import ImageConfig, SplitConfig
from hvx.data.images import image_path, input_batches
from hvx.errors import BadImage, HvxError
from hvx.files import whole_file
from hvx.models.backbone import Backbone
from hvx.progress import bar

_BATCH = 32
_IN_MEMORY = 4 << 30
"""Caches up to so many bytes are read whole; larger ones row by row from disk."""


class FeatureCache:
    """Features of a split's images by row; ``rows`` maps an image id to its row."""

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "r")
        stored = self._file["features"]
        self.rows = {int(image_id): row for row, image_id in enumerate(self._file["image_id"][:])}
        self._features = stored[:] if stored.nbytes <= _IN_MEMORY else stored
        self.root_mean_square = float(self._file.attrs["root_mean_square"])
        """Of all features: how large this backbone's are."""

    def __getitem__(self, rows: list[int]) -> Tensor:
        """Features of images by row: (B, M, S, S) float32."""
        if isinstance(self._features, np.ndarray):
            return torch.from_numpy(self._features[rows]).float()
        order = np.argsort(rows)  # h5py wants rows in increasing order
        found = torch.from_numpy(self._features[np.asarray(rows)[order]]).float()
        return found[torch.from_numpy(np.argsort(order))]

    @property
    def channels(self) -> int:
        return int(self._features.shape[1])


def cached_features(
    backbone: Backbone,
    image: ImageConfig,
    split: SplitConfig,
    image_ids: list[int],
    path: Path,
    workers: int = 1,
) -> FeatureCache:
    """The features of a split's images: from ``path`` if it holds just these, else computed into it.

    Args:
        backbone: the frozen network, on the device to compute on.
        image: how a photograph becomes an input.
        split: where the images lie.
        image_ids: the images wanted, each once.
        path: the cache file.
        workers: processes that decode ahead.

    Raises:
        BadImage: an image cannot be read.
        HvxError: the backbone's features do not lie on a lattice.
    """
    key = _key(backbone, image, split, image_ids)
    if _stored_key(path) != key:
        _compute(backbone, image, split, image_ids, path, key, workers)
    return FeatureCache(path)


def _compute(
    backbone: Backbone,
    image: ImageConfig,
    split: SplitConfig,
    image_ids: list[int],
    path: Path,
    key: str,
    workers: int,
) -> None:
    device = next(backbone.parameters()).device
    paths = [image_path(split, image_id) for image_id in image_ids]
    batches = [range(i, min(i + _BATCH, len(paths))) for i in range(0, len(paths), _BATCH)]
    with whole_file(path) as part, h5py.File(part, "w") as file, torch.inference_mode():
        stored, squares = None, 0.0
        for places, inputs, bad in bar(
            input_batches(paths, image, batches, workers), f"features for {path.stem}", "batch", len(batches)
        ):
            if bad:
                raise BadImage(next(iter(bad.values())))
            computed = backbone(inputs.to(device)).cpu()
            if computed.ndim != 4:
                raise HvxError(
                    f"model.backbone.node: yields features of shape {tuple(computed.shape[1:])} an image; "
                    "name a node that has channels on a lattice"
                )
            squares += float(computed.double().square().sum())
            features = computed.half().numpy()
            if stored is None:
                shape = (len(paths), *features.shape[1:])
                stored = file.create_dataset("features", shape, np.float16, chunks=(1, *shape[1:]))
            stored[places[0] : places[-1] + 1] = features
        assert stored is not None
        file["image_id"] = np.array(image_ids, np.int64)
        file.attrs["root_mean_square"] = (squares / stored.size) ** 0.5
        file.attrs["key"] = key


def _key(backbone: Backbone, image: ImageConfig, split: SplitConfig, image_ids: list[int]) -> str:
    """Digest of all that the features depend on, short of the images' own bytes."""
    digest = hashlib.sha256(f"{image!r}{split.images.resolve()}{split.image_name}{image_ids}".encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _stored_key(path: Path) -> str | None:
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("key"))
    except OSError:
        return None
