"""Photographs: from a file to what the network sees, and the crop that leads back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hvx.config import ImageConfig, SplitConfig
from hvx.errors import BadImage, HvxError

MAX_PIXELS = 100_000_000
"""Larger photographs are refused rather than decoded."""

_MAX_16_BIT = 2**16 - 1
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def image_path(split: SplitConfig, image_id: int) -> Path:
    """Where the image of an id lies.

    Raises:
        HvxError: the name leads out of the images' folder.
    """
    name = split.image_name.format(image_id=image_id)
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise HvxError(f"splits: image_name: '{name}' leads out of the images' folder {split.images}")
    return split.images / name


def open_photo(path: Path) -> Image.Image:
    """The photograph in a file, decoded, as RGB.

    Raises:
        BadImage: no such file, no image, a truncated one, or one of more than ``MAX_PIXELS``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: MAX_PIXELS decides here
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise BadImage(f"{path}: {opened.width}×{opened.height} pixels; at most {MAX_PIXELS:,}")
                return _as_rgb(opened, path)
    except FileNotFoundError:
        raise BadImage(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise BadImage(f"{path}: not an image that Pillow can read") from None
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise BadImage(f"{path}: damaged image: {error}") from None


def _as_rgb(opened: Image.Image, path: Path) -> Image.Image:
    """An image as RGB of 8 bits a channel; of 16-bit greys the high byte, where Pillow would clip."""
    if opened.mode[0] not in "IF":
        return opened.convert("RGB")
    grey = np.asarray(opened)
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > _MAX_16_BIT:
        raise BadImage(f"{path}: greys of 32 bits (mode {opened.mode}); save it with 8 or 16 bits")
    return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")


def crop_photo(photo: Image.Image, image: ImageConfig) -> Image.Image:
    """The centre square of a photograph at the network's size: shorter side to ``size``, then crop."""
    side = min(photo.size)
    left, top = (photo.width - side) / 2, (photo.height - side) / 2
    box = (left, top, left + side, top + side)
    # Scaling the square alone, not the whole and then cropping: the centre is not rounded to a pixel,
    # and a very long photograph is never blown up.
    return photo.resize((image.size, image.size), _RESAMPLING[image.interpolation], box=box)


def crop_rule(image: ImageConfig) -> dict[str, Any]:
    """How a heat map's pixels lie on the original photograph, as the run's files carry it."""
    return {"square": "centre, side = the photograph's shorter side", "scaled_to": [image.size, image.size]}


def to_input(crop: Image.Image, image: ImageConfig) -> Tensor:
    """A crop as the network's normalised input: (C, H, W) float32."""
    pixels = torch.from_numpy(np.array(crop, np.float32)).permute(2, 0, 1) / 255
    mean = torch.tensor(image.mean).view(3, 1, 1)
    return (pixels - mean) / torch.tensor(image.std).view(3, 1, 1)


def load_input(path: Path, image: ImageConfig) -> Tensor:
    """The network's input for an image file: (C, H, W) float32.

    Raises:
        BadImage: see ``open_photo``.
    """
    return to_input(crop_photo(open_photo(path), image), image)


class _Inputs(Dataset[tuple[int, Tensor | str]]):
    """Inputs by place; a bad image yields its reason, so that a worker never dies of one."""

    def __init__(self, paths: Sequence[Path], image: ImageConfig) -> None:
        self.paths, self.image = paths, image

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[int, Tensor | str]:
        try:
            return place, load_input(self.paths[place], self.image)
        except BadImage as error:
            return place, str(error)


def input_batches(
    paths: Sequence[Path], image: ImageConfig, batches: Sequence[Sequence[int]], workers: int
) -> Iterator[tuple[list[int], Tensor, dict[int, str]]]:
    """Decode batches of images ahead of their use, in ``workers`` processes.

    Args:
        paths: image files.
        image: how a photograph becomes an input.
        batches: places in ``paths``, a batch each.
        workers: decoding processes; 0 decodes here.

    Yields:
        Per batch: the places that could be read, their inputs (B, C, H, W), and the reason for
        each place that could not.
    """
    loader = DataLoader(
        _Inputs(paths, image),
        batch_sampler=list(map(list, batches)),
        num_workers=workers,
        collate_fn=_collate,
    )
    yield from loader


def _collate(items: list[tuple[int, Tensor | str]]) -> tuple[list[int], Tensor, dict[int, str]]:
    good = [(place, value) for place, value in items if isinstance(value, Tensor)]
    bad = {place: value for place, value in items if isinstance(value, str)}
    inputs = torch.stack([value for _, value in good]) if good else torch.empty(0)
    return [place for place, _ in good], inputs, bad
