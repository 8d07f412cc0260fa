"""A photograph is the same whatever it is given as; what is none is refused with the reason."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from hvx.data.photos import as_photo, open_photo
from hvx.errors import BadImage

CHANCE = np.random.default_rng(0)
RGB = CHANCE.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GRAY = CHANCE.integers(0, 256, (6, 8), dtype=np.uint8)
DEEP = CHANCE.integers(256, 2**16, (6, 8), dtype=np.uint16)


def alpha() -> Image.Image:
    """Colors that lie hidden under full transparency."""
    pixels = np.dstack([RGB, np.where(GRAY > 128, 255, 0).astype(np.uint8)])
    return Image.fromarray(pixels)


def palette() -> Image.Image:
    image = Image.fromarray(RGB).quantize(8)
    image.info["transparency"] = 0
    return image


IMAGES = {
    "RGB": lambda: Image.fromarray(RGB), "L": lambda: Image.fromarray(GRAY),
    "I;16": lambda: Image.fromarray(DEEP), "RGBA": alpha, "P": palette,
    "1": lambda: Image.fromarray(GRAY > 128),
    "LA": lambda: alpha().convert("LA"), "I": lambda: Image.fromarray(DEEP.astype(np.int32)),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_what_its_file_is(tmp_path: Path, kind: str) -> None:
    image = IMAGES[kind]()
    path = tmp_path / ("image.tiff" if kind == "I" else "image.png")
    image.save(path)
    expected = open_photo(path, True).tobytes()
    data = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as lazy:
        sources = [
            path,
            str(path),
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            file,
            lazy,
            image,
        ]
        for source in sources:
            found = as_photo(source)
            assert found.mode == "RGB"
            assert found.tobytes() == expected, type(source)


def test_16_bits_are_scaled_not_clipped_and_what_is_transparent_is_white() -> None:
    assert np.array_equal(np.asarray(as_photo(Image.fromarray(DEEP)))[..., 1], DEEP >> 8)
    found = np.asarray(as_photo(alpha()))
    hidden = GRAY <= 128
    assert (found[hidden] == 255).all()
    assert np.array_equal(found[~hidden], RGB[~hidden])


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB), (GRAY, np.dstack([GRAY] * 3)), (GRAY[..., None], np.dstack([GRAY] * 3)),
        (DEEP, np.dstack([DEEP >> 8] * 3)), (DEEP[..., None].repeat(3, 2), np.dstack([DEEP >> 8] * 3)),
        (RGB / 255, RGB), ((RGB / 255).astype(np.float32), RGB), ((RGB / 255).astype(np.float16), RGB),
        (GRAY > 128, np.dstack([np.where(GRAY > 128, 255, 0)] * 3)), (RGB[:, ::-1], RGB[:, ::-1]),
        (np.dstack([RGB, np.full((6, 8), 255, np.uint8)]), RGB),
        (np.dstack([RGB, np.zeros((6, 8), np.uint8)]), np.full((6, 8, 3), 255)),
    ],
)  # fmt: skip
def test_arrays_and_tensors(array: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(np.asarray(as_photo(array)), expected)
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    found = as_photo(
        (tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor).requires_grad_(tensor.is_floating_point())
    )
    assert np.array_equal(np.asarray(found), expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (RGB.astype(np.float64), r"numbers outside of 0 to 1; give pixels before they are normalized"),
        (np.full((6, 8, 3), -0.001), "numbers outside of 0 to 1"),
        (np.full((6, 8, 3), np.nan), "numbers outside of 0 to 1"),
        (RGB.astype(np.int64), "int64 numbers; give uint8, uint16, or floats from 0 to 1"),
        (RGB[..., :2], r"an array of shape 6×8×2; give H×W, H×W×3 or H×W×4"),
        (RGB[None], "an array of shape 1×6×8×3"), (RGB[0, 0], "an array of shape 3"),
        (RGB[:0], "an array of shape 0×8×3"),
        (None, "the image: a NoneType; give a path, bytes, a PIL image, an array or a tensor"),
        ([1, 2], "the image: a list; give"), (3, "the image: a int; give"),
        (b"no image", "the image: not an image that Pillow can read"),
        (torch.zeros(2, 3, 6, 8), "an array of shape"),
        (Path("absent.png"), r"absent\.png: no such image"), ("absent.png", r"absent\.png: no such image"),
        (Image.fromarray(np.ones((6, 8), np.float32)), r"the image: grays of 32 bits \(mode F\)"),
    ],
)  # fmt: skip
def test_what_is_no_photograph_is_refused_in_one_line(source: Any, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as raised:
        as_photo(source)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_deep_grays_that_end_at_255_are_not_shown_black(tmp_path: Path, dtype: type) -> None:
    for largest, refused in ((255, True), (1, True), (0, False), (256, False)):
        pixels = np.zeros((4, 4), dtype)
        pixels[0, 0] = largest
        path = tmp_path / f"{largest}.tiff"
        Image.fromarray(pixels).save(path)
        for source in (path, Image.fromarray(pixels)):
            if refused:
                with pytest.raises(BadImage, match=f"that end at {largest}; save it with 8 bits"):
                    as_photo(source)
            else:
                assert np.asarray(as_photo(source)).max() == largest >> 8


def test_exif_turns_every_kind_of_source_alike(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "photo.png"
    Image.fromarray(RGB).save(path, exif=exif)
    with Image.open(path) as lazy:
        for source in (path, path.read_bytes(), lazy):
            assert as_photo(source).size == (6, 8)
            assert as_photo(source, exif_orientation=False).size == (8, 6)


def test_a_png_with_large_texts_or_a_large_profile_is_no_damaged_image(tmp_path: Path) -> None:
    """Pillow takes at most 1 MB of each, and calls the rest an error."""
    long = "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("comment", long, zip=True)
    texts.add_itxt("other", long, zip=True)
    path = tmp_path / "text.png"
    Image.fromarray(RGB).save(path, pnginfo=texts)
    assert np.array_equal(np.asarray(open_photo(path)), RGB)
    Image.fromarray(RGB).save(path, icc_profile=b"\0" * (PngImagePlugin.MAX_TEXT_CHUNK + 1))
    assert np.array_equal(np.asarray(open_photo(path)), RGB)
    damaged = bytearray(path.read_bytes())
    where = damaged.index(b"IDAT") + 8
    damaged[where : where + 4] = b"\0\0\0\0"
    path.write_bytes(damaged)
    with pytest.raises(BadImage, match=r"text\.png: damaged image"):
        open_photo(path)


def test_a_decompression_bomb_is_still_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (100, 100)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(BadImage, match=r"decompression bomb|30000×30000 pixels"):
        open_photo(path)
