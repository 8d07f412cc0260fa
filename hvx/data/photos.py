"""Photographs as RGB: from files, bytes, PIL images, arrays and tensors, all converted in the same way."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from hvx.errors import BadImage, HvxError, ReplacedImage

if TYPE_CHECKING:  # PyTorch takes seconds to import, and processes that read files do without
    from torch import Tensor

_NAME = "the image"
"""The name of a photograph without a file, in errors."""
MAX_PIXELS = 100_000_000
"""Larger photographs are refused rather than decoded."""
MAX_BYTES = 2**30
"""The most bytes of an image file; larger ones are refused rather than read."""
_FORMATS = {"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}
"""Accepted formats. Others that Pillow knows run programs (EPS) or unpack without bounds."""
_MAX_8_BIT, _MAX_16_BIT = 2**8 - 1, 2**16 - 1
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks of PNG with texts, or with a color profile, which is not applied."""
_ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of PNG texts that may hold the orientation of a photograph."""
Photo: TypeAlias = "Image.Image | np.ndarray | Tensor | bytes | BinaryIO | str | os.PathLike[str]"
"""The forms in which a caller may give a photograph."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the transposition that makes the photograph upright."""


def open_photo(path: Path, exif_orientation: bool = False, digest: str | None = None) -> Image.Image:
    """The photograph in a file, decoded, as RGB.

    Args:
        path: the file.
        digest: the SHA-256 that the file must have, such as ``image_digest`` of a run.
        exif_orientation: apply the orientation in the photograph's EXIF data. If False, pixels are returned
            as stored; only TIFF is always upright, since Pillow applies its orientation when it decodes.

    Raises:
        BadImage: no such file, not an image, a truncated one, or one of more than ``MAX_PIXELS``.
        ReplacedImage: the file does not have that digest.
    """
    data, actual = read_photo(path)
    if digest is not None and actual != digest:
        raise ReplacedImage(f"{path}: another image than the one explained (its bytes changed since)")
    return decode_photo(data, path, exif_orientation)


def read_photo(path: Path) -> tuple[bytes, str]:
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


def photo_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as stored, from its header; its pixels may still be damaged.

    Raises:
        BadImage: no such file, not an image, or one of a format or size that ``open_photo`` refuses.
    """
    if not path.is_file():
        raise BadImage(f"{path}: no such image")
    with _decoding(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            opened = Image.open(path)
        except ValueError as error:
            if not _is_large_text(error):
                raise
            opened = Image.open(io.BytesIO(_without_texts(read_photo(path)[0])))
        with opened:
            _check_header(opened, path)
            return opened.size


def as_photo(source: Photo, exif_orientation: bool = True) -> Image.Image:
    """A photograph in any form, as RGB, converted in the same way for all of them.

    Args:
        source: a file's path; its bytes, or an open file; a PIL image of any mode; an array (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4); a tensor (H, W), (1, H, W), (3, H, W) or (4, H, W). Arrays and
            tensors hold uint8, uint16, bool, or floats from 0 to 1. Of 16 bits the high byte is taken; if no
            value reaches 256, 8-bit values cannot be distinguished from a black image: it is refused.
        exif_orientation: apply the orientation in the photograph's EXIF data, if it has any.

    Raises:
        BadImage: it cannot be read, or is in none of these forms.
    """
    if isinstance(source, (str, os.PathLike)):
        return open_photo(Path(source), exif_orientation)
    torch = sys.modules.get("torch")  # imported already if the source is a tensor
    if torch is not None and isinstance(source, torch.Tensor):
        source = _as_array(source)
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if isinstance(source, Image.Image):
        with _decoding(_NAME):
            return _upright_rgb(source, _NAME, exif_orientation)
    if not isinstance(source, (bytes, bytearray, memoryview)):
        source = _read(cast("BinaryIO", source))
    return decode_photo(bytes(source), _NAME, exif_orientation)


def _read(file: BinaryIO) -> bytes:
    """An open file's bytes, from its start if it is seekable, as Pillow reads it.

    Raises:
        BadImage: it cannot be read, is not a binary file, or has more than ``MAX_BYTES``.
    """
    if not callable(getattr(file, "read", None)):
        raise BadImage(
            f"{_NAME}: a {type(file).__name__}; give a path, bytes, a PIL image, an array or a tensor"
        )
    try:
        if file.seekable():
            file.seek(0)
        data = file.read(MAX_BYTES + 1)
    except Exception as error:  # the caller's object may raise any error
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BadImage(f"{_NAME}: cannot be read: {reason}") from None
    if not isinstance(data, bytes):
        raise BadImage(f"{_NAME}: a file that yields {type(data).__name__}; open it in binary mode")
    if len(data) > MAX_BYTES:
        raise BadImage(f"{_NAME}: more than {MAX_BYTES:,} bytes")
    return data


def _as_array(pixels: Tensor) -> np.ndarray:
    """A tensor (C, H, W) or (H, W) as an array (H, W, C) or (H, W)."""
    try:
        pixels = pixels.detach().cpu()
        if pixels.is_floating_point():
            pixels = pixels.double()  # NumPy has no bfloat16
        return (pixels.permute(1, 2, 0) if pixels.ndim == 3 else pixels).numpy()
    except (RuntimeError, TypeError):  # sparse, quantized, nested, without data
        kind = f"{str(pixels.layout).removeprefix('torch.')} {str(pixels.dtype).removeprefix('torch.')}"
        raise BadImage(
            f"{_NAME}: a tensor ({kind}, {pixels.device}) that is no array; give a plain one"
        ) from None


def _from_array(pixels: np.ndarray) -> Image.Image:
    """Pixels as a PIL image, in one of the modes of image files."""
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    shape = "×".join(map(str, pixels.shape))
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or 0 in pixels.shape:
        raise BadImage(f"{_NAME}: an array of shape {shape}; give H×W, H×W×3 or H×W×4 (of a tensor 3×H×W)")
    if pixels.dtype.kind == "f":
        if not ((pixels >= 0) & (pixels <= 1)).all():
            raise BadImage(f"{_NAME}: numbers outside of 0 to 1; give pixels before they are normalized")
        pixels = (pixels * 255).round().astype(np.uint8)
    elif pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype == np.uint16 and pixels.ndim == 3:
        if 0 < pixels[..., :3].max() <= _MAX_8_BIT:
            raise BadImage(f"{_NAME}: uint16 that ends at {pixels[..., :3].max()}; give uint8")
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype not in (np.uint8, np.uint16):
        raise BadImage(f"{_NAME}: {pixels.dtype} numbers; give uint8, uint16, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(pixels))


def decode_photo(data: bytes, name: object, exif_orientation: bool) -> Image.Image:
    """The photograph in a file's bytes, as RGB; ``name`` names it in errors."""
    with _decoding(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own size warning: MAX_PIXELS decides here
        try:
            return _opened_rgb(data, name, exif_orientation)
        except ValueError as error:
            if not _is_large_text(error):
                raise
        try:
            return _opened_rgb(_without_texts(data, _ORIENTATION), name, exif_orientation)
        except ValueError as error:
            if not _is_large_text(error):
                raise
        # The texts with the orientation are too large as well: the pixels are returned as stored.
        return _opened_rgb(_without_texts(data), name, exif_orientation)


def _is_large_text(error: ValueError) -> bool:
    """Whether Pillow refuses a PNG because a text or profile is larger than 1 MB when unpacked."""
    return "MAX_TEXT" in str(error)


def _opened_rgb(data: bytes, name: object, exif_orientation: bool) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        _check_header(opened, name)
        return _upright_rgb(opened, name, exif_orientation)


def _check_header(opened: Image.Image, name: object) -> None:
    """Refuse a file's format or size before its pixels are decoded."""
    if opened.format not in _FORMATS:
        raise BadImage(f"{name}: an image of format {opened.format}; save it as JPEG or PNG")
    _check_pixels(opened, name)


def _check_pixels(opened: Image.Image, name: object) -> None:
    if opened.width * opened.height > MAX_PIXELS:
        raise BadImage(f"{name}: {opened.width}×{opened.height} pixels; at most {MAX_PIXELS:,}")


def _upright_rgb(opened: Image.Image, name: object, exif_orientation: bool) -> Image.Image:
    _check_pixels(opened, name)
    has_16_bits = any(";16" in str(tile) for tile in getattr(opened, "tile", ()))  # gone once it is decoded
    photo = _as_rgb(opened, name)
    if has_16_bits and opened.mode[0] not in "IF":
        _check_not_black(opened, name)
    turn = _turn(opened) if exif_orientation else None
    return photo if turn is None else photo.transpose(turn)


def _check_not_black(opened: Image.Image, name: object) -> None:
    """Refuse colors of 16 bits whose high bytes, which Pillow takes, are all 0."""
    colors = [band for band in opened.getbands() if band != "A"]
    if not any(opened.getchannel(band).getbbox() for band in colors):
        raise BadImage(f"{name}: colors of 16 bits that end at 255 or less; save it with 8 bits")


def _without_texts(data: bytes, kept_keywords: tuple[bytes, ...] = ()) -> bytes:
    """A PNG file without its color profile and texts, except texts with the given keywords."""
    chunks, start = [data[:8]], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        is_text = data[start + 4 : start + 8] in _TEXT_CHUNKS
        if not is_text or (kept_keywords and data.startswith(kept_keywords, start + 8)):
            chunks.append(data[start:end])
        start = end
    return b"".join(chunks)


@contextmanager
def _decoding(name: object) -> Iterator[None]:
    """Convert Pillow's errors to one line."""
    try:
        yield
    except UnidentifiedImageError:
        raise BadImage(f"{name}: not an image that Pillow can read") from None
    except HvxError:
        raise
    except MemoryError:
        raise BadImage(f"{name}: too little memory to decode it") from None
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{name}: damaged image: {reason}") from None


def _as_rgb(opened: Image.Image, name: object) -> Image.Image:
    """An image as RGB with 8 bits per channel.

    16-bit gray values are reduced to their high byte; Pillow would clip them. Transparent pixels are shown on
    white; Pillow would drop the transparency and show the hidden color.
    """
    if opened.mode[0] in "IF":
        return _deep_gray_as_rgb(opened, name)
    if not opened.has_transparency_data:
        return opened.convert("RGB")
    # Pillow cannot convert gray values with premultiplied alpha directly.
    layer = (opened.convert("LA") if opened.mode == "La" else opened).convert("RGBA")
    photo = Image.new("RGB", layer.size, "white")
    photo.paste(layer, mask=layer)
    return photo


def _deep_gray_as_rgb(opened: Image.Image, name: object) -> Image.Image:
    gray = np.asarray(opened)
    if gray.dtype.kind == "f" or gray.min() < 0 or gray.max() > _MAX_16_BIT:
        raise BadImage(f"{name}: grays of 32 bits (mode {opened.mode}); save it with 8 or 16 bits")
    if 0 < gray.max() <= _MAX_8_BIT:
        # The high byte of each is 0: a nearly black image or 8-bit values, which cannot be distinguished.
        kind = f"grays of 16 bits or more (mode {opened.mode})"
        raise BadImage(f"{name}: {kind} that end at {gray.max()}; save it with 8 bits")
    transparent = opened.info.get("transparency")
    if transparent is not None:
        gray = np.where(gray == transparent, _MAX_16_BIT, gray)
    return Image.fromarray((gray >> 8).astype(np.uint8)).convert("RGB")


def _turn(opened: Image.Image) -> Image.Transpose | None:
    """The transposition that makes a photograph upright; None if its EXIF data is unreadable or invalid."""
    try:
        return _TURNS.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the pixels are valid even if the EXIF data is not
        return None
