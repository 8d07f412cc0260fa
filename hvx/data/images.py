"""Photographs: from a file to what the network sees, and the crop that leads back."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hvx.config import ImageConfig, SplitConfig
from hvx.errors import BadImage, HvxError, ReplacedImage

MAX_PIXELS = 100_000_000
"""Larger photographs are refused rather than decoded."""
MAX_BYTES = 2**30
"""Of an image file; larger ones are refused rather than read."""


@dataclass(frozen=True)
class Decoded:
    """A batch of images, decoded.

    Attributes:
        places: the images that could be read, B of them, by their place in the list of files.
        inputs: theirs (B, C, H, W).
        digests: of each, the SHA-256 of its file's bytes.
        failures: of each image that could not be read, by place, the reason.
    """

    places: list[int]
    inputs: Tensor
    digests: list[str]
    failures: dict[int, str]


_FORMATS = {"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
"""What photographs are stored as. Others that Pillow knows run programs (EPS) or unpack without bounds."""
_NAMED = 5
"""Files that are named where many are missing; the others are counted."""
_MAX_16_BIT = 2**16 - 1
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation → what sets the photograph upright."""
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


def missing_images(split: SplitConfig, image_ids: Sequence[int]) -> list[Path]:
    """Where the images lie that are not there, of those with these ids.

    Raises:
        HvxError: the split's folder of images is not there.
    """
    if not split.images.is_dir():
        raise HvxError(f"{split.images}: no such folder of images")
    # One listing of the folder in place of a call for each image; a name may lead into folders below.
    there = {entry.name for entry in os.scandir(split.images) if entry.is_file()}
    paths = (image_path(split, image_id) for image_id in image_ids)
    return [
        path
        for path in paths
        if (path.parent != split.images or path.name not in there) and not path.is_file()
    ]


def some_names(paths: Sequence[Path]) -> str:
    """The names of the first few files, for a line that counts them all."""
    return ", ".join(path.name for path in paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")


def open_photo(path: Path, exif_orientation: bool = False, digest: str | None = None) -> Image.Image:
    """The photograph in a file, decoded, as RGB.

    Args:
        path: the file.
        digest: SHA-256 that the file's bytes must have, as ``image_digest`` of a run has it.
        exif_orientation: turn the photograph as its EXIF data says. Without, its pixels come as they are
            stored; TIFF alone is always upright, since Pillow turns it as it decodes.

    Raises:
        BadImage: no such file, no image, a truncated one, or one of more than ``MAX_PIXELS``.
        ReplacedImage: another image than the one with that digest.
    """
    data, found = _read(path)
    if digest is not None and found != digest:
        raise ReplacedImage(f"{path}: another image than the one explained (its bytes changed since)")
    return _decoded(data, path, exif_orientation)


def _read(path: Path) -> tuple[bytes, str]:
    """An image file's bytes and their SHA-256."""
    try:
        if not path.is_file():
            raise BadImage(f"{path}: no such image")
        if path.stat().st_size > MAX_BYTES:
            raise BadImage(f"{path}: {path.stat().st_size:,} bytes; at most {MAX_BYTES:,}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise BadImage(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return data, hashlib.sha256(data).hexdigest()


def _decoded(data: bytes, path: Path, exif_orientation: bool) -> Image.Image:
    """The photograph in a file's bytes, as RGB; ``path`` names it in errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: MAX_PIXELS decides here
            with Image.open(io.BytesIO(data)) as opened:
                if opened.format not in _FORMATS:
                    raise BadImage(f"{path}: an image of format {opened.format}; save it as JPEG or PNG")
                if opened.width * opened.height > MAX_PIXELS:
                    raise BadImage(f"{path}: {opened.width}×{opened.height} pixels; at most {MAX_PIXELS:,}")
                photo = _as_rgb(opened, path)
                turn = _turn(opened) if exif_orientation else None
                return photo if turn is None else photo.transpose(turn)
    except UnidentifiedImageError:
        raise BadImage(f"{path}: not an image that Pillow can read") from None
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{path}: damaged image: {reason}") from None


def _as_rgb(opened: Image.Image, path: Path) -> Image.Image:
    """An image as RGB of 8 bits a channel.

    Of 16-bit greys this takes the high byte, where Pillow would clip. What is transparent is shown on white,
    as on a page; Pillow would drop the transparency and bring up whatever colour lies beneath it.
    """
    if opened.mode[0] in "IF":
        return _deep_grey_as_rgb(opened, path)
    if not opened.has_transparency_data:
        return opened.convert("RGB")
    layer = opened.convert("RGBA")
    photo = Image.new("RGB", layer.size, "white")
    photo.paste(layer, mask=layer)
    return photo


def _deep_grey_as_rgb(opened: Image.Image, path: Path) -> Image.Image:
    grey = np.asarray(opened)
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > _MAX_16_BIT:
        raise BadImage(f"{path}: greys of 32 bits (mode {opened.mode}); save it with 8 or 16 bits")
    transparent = opened.info.get("transparency")
    if transparent is not None:
        grey = np.where(grey == transparent, _MAX_16_BIT, grey)
    return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")


def _turn(opened: Image.Image) -> Image.Transpose | None:
    """What sets a decoded photograph upright; nothing where its EXIF data cannot be read or is absurd."""
    try:
        return _TURNS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the pixels are whole whatever is wrong with what is said of them
        return None


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


def load_input(path: Path, image: ImageConfig, exif_orientation: bool = False) -> Tensor:
    """The network's input for an image file: (C, H, W) float32.

    Raises:
        BadImage: see ``open_photo``.
    """
    return load_input_and_digest(path, image, exif_orientation)[0]


def load_input_and_digest(
    path: Path, image: ImageConfig, exif_orientation: bool = False
) -> tuple[Tensor, str]:
    """As ``load_input``, and the SHA-256 of the file's bytes, which are read once for both."""
    data, digest = _read(path)
    return to_input(crop_photo(_decoded(data, path, exif_orientation), image), image), digest


_Loaded = tuple[int, tuple[Tensor, str] | str]
"""An image's place with its input and digest, or with the reason why there are none."""


class _Inputs(Dataset[_Loaded]):
    """Inputs by place; a bad image yields its reason, so that a worker never dies of one."""

    def __init__(self, paths: Sequence[Path], image: ImageConfig, exif_orientation: bool) -> None:
        self.paths, self.image, self.exif_orientation = paths, image, exif_orientation

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> _Loaded:
        try:
            return place, load_input_and_digest(self.paths[place], self.image, self.exif_orientation)
        except BadImage as error:
            return place, str(error)


def input_batches(
    paths: Sequence[Path],
    image: ImageConfig,
    batches: Sequence[Sequence[int]],
    workers: int,
    exif_orientation: bool = False,
    pinned: bool = False,
) -> Iterator[Decoded]:
    """Decode batches of images ahead of their use, in ``workers`` processes.

    Args:
        paths: image files.
        image: how a photograph becomes an input.
        batches: places in ``paths``, a batch each.
        workers: decoding processes; 0 decodes here.
        exif_orientation: see ``open_photo``.
        pinned: into memory that a GPU can copy from by itself.

    Yields:
        Each batch.

    Raises:
        HvxError: a decoding process was killed, as one is that takes more memory than there is.
    """
    loader = DataLoader(
        _Inputs(paths, image, exif_orientation),
        batch_sampler=list(map(list, batches)),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pinned,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if not workers:
            raise
        reason = str(error).partition("\n")[0]
        raise HvxError(
            f"explain.workers: an image-decoding process died ({reason}); 0 decodes in the main one"
        ) from error


def _collate(items: list[_Loaded]) -> Decoded:
    good = [(place, *value) for place, value in items if not isinstance(value, str)]
    failures = {place: value for place, value in items if isinstance(value, str)}
    inputs = torch.stack([pixels for _, pixels, _ in good]) if good else torch.empty(0)
    return Decoded([place for place, _, _ in good], inputs, [digest for _, _, digest in good], failures)
