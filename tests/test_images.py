"""Photographs: what the network sees of them, and what is said of those that cannot be read."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import re
import signal
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvx.config import ImageConfig, SplitConfig
from hvx.data import images, photos
from hvx.data.image_files import image_path, missing_images, named_by_pattern
from hvx.data.images import crop_photo, input_batches, load_input, to_input
from hvx.data.photos import open_photo
from hvx.errors import BadImage, HvxError

PLAIN = ImageConfig(size=8, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
COLOR = (200, 100, 50)


def saved(path: Path, photo: Image.Image) -> Path:
    photo.save(path)
    return path


def striped(width: int, height: int) -> Image.Image:
    """Blue beside a center square of red left half and green right half (above and below likewise)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = 255
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side // 2] = (255, 0, 0)
    pixels[top : top + side, left + side // 2 : left + side] = (0, 255, 0)
    return Image.fromarray(pixels)


def ramp(dtype: type, top: int) -> np.ndarray:
    """Grays from 0 to ``top``, (16, 64)."""
    return np.tile(np.linspace(0, top, 64).astype(dtype), (16, 1))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(path: Path, pixels: np.ndarray, color: int, *between: bytes) -> Path:
    """A PNG of 16 bits a channel, (H, W, channels), with chunks ``between`` its head and its pixels."""
    height, width, _ = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [chunk(b"IHDR", head), *between, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def refused(path: Path) -> str:
    with pytest.raises(BadImage) as raised:
        open_photo(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# The crop


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (64, 64), (32, 33), (33, 32), (1000, 32)])
def test_the_crop_is_the_center_square(shape: tuple[int, int], interpolation: str) -> None:
    config = ImageConfig.model_validate({"size": 16, "interpolation": interpolation})
    crop = np.asarray(crop_photo(striped(*shape), config))
    assert crop.shape == (16, 16, 3)
    assert (crop[1:-1, 1:6] == (255, 0, 0)).all()
    assert (crop[1:-1, 10:15] == (0, 255, 0)).all()


@pytest.mark.parametrize(("interpolation", "filter_"), [("bilinear", 2), ("bicubic", 3)])
@pytest.mark.parametrize("scaled", [(32, 16), (16, 32), (16, 16), (48, 16)])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_crop_is_the_whole_scaled_to_its_shorter_side_and_cut(
    scaled: tuple[int, int], factor: int, interpolation: str, filter_: int
) -> None:
    width, height = scaled
    pixels = np.random.default_rng(0).integers(0, 256, (height * factor, width * factor, 3), np.uint8)
    left, top = (width - 16) // 2, (height - 16) // 2
    whole = Image.fromarray(pixels).resize(scaled, Image.Resampling(filter_))
    wanted = whole.crop((left, top, left + 16, top + 16))
    config = ImageConfig.model_validate({"size": 16, "interpolation": interpolation})
    found = crop_photo(Image.fromarray(pixels), config)
    # Pillow rounds its filter's weights by where they start: at most one of 255 levels.
    assert np.abs(np.asarray(found, int) - np.asarray(wanted, int)).max() <= 1


def test_a_square_photo_of_the_networks_size_is_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    crop = crop_photo(Image.fromarray(pixels), ImageConfig(size=24))
    assert (np.asarray(crop) == pixels).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 1)])
def test_a_photo_of_one_pixel_across_fills_the_crop(shape: tuple[int, int]) -> None:
    crop = np.asarray(crop_photo(Image.new("RGB", shape, COLOR), ImageConfig(size=32)))
    assert crop.shape == (32, 32, 3)
    assert (crop == COLOR).all()


def test_the_center_of_a_very_long_photo_is_seen() -> None:
    photo = Image.new("RGB", (5001, 1), "white")
    photo.paste(COLOR, (2497, 0, 2504, 1))
    assert (np.asarray(crop_photo(photo, ImageConfig(size=8))) == COLOR).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20))
def test_the_crop_has_the_networks_size_whatever_the_photos(width: int, height: int, size: int) -> None:
    crop = crop_photo(Image.new("RGB", (width, height), COLOR), ImageConfig(size=size))
    assert crop.size == (size, size)
    assert (np.asarray(crop) == COLOR).all()


# The input


def test_an_input_is_channels_first_and_normalized_by_mean_and_deviation() -> None:
    config = ImageConfig(size=2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1] = (255, 51, 102)
    found = to_input(Image.fromarray(pixels), config)
    assert found.shape == (3, 2, 2)
    assert found.dtype == torch.float32
    assert found[:, 0, 1].tolist() == pytest.approx([1.0, -0.2, 0.2], abs=1e-6)
    assert found[:, 1, 0].tolist() == pytest.approx([-1.0, -1.0, 0.0], abs=1e-6)


def test_imagenets_statistics_are_the_default(tmp_path: Path) -> None:
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 5), COLOR))
    found = load_input(path, ImageConfig(size=4))
    wanted = [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (50 / 255 - 0.406) / 0.225]
    assert found.shape == (3, 4, 4)
    assert found[:, 2, 1].tolist() == pytest.approx(wanted, abs=1e-5)


# Kinds of files


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp", "photo.gif", "photo.bmp"])
def test_common_kinds_of_files_are_read(tmp_path: Path, name: str) -> None:
    found = open_photo(saved(tmp_path / name, Image.new("RGB", (20, 10), COLOR)))
    assert (found.mode, found.size) == ("RGB", (20, 10))
    assert np.abs(np.asarray(found, int) - COLOR).max() <= 4


def test_a_gray_photo_has_three_equal_channels(tmp_path: Path) -> None:
    gray = ramp(np.uint8, 255)
    found = np.asarray(open_photo(saved(tmp_path / "gray.png", Image.fromarray(gray))))
    assert (found == gray[..., None]).all()


def test_black_and_white_is_read(tmp_path: Path) -> None:
    white = ramp(np.uint8, 255) > 100
    found = np.asarray(open_photo(saved(tmp_path / "fax.png", Image.fromarray(white))))
    assert (found == np.where(white, 255, 0)[..., None]).all()


def test_a_palette_shows_its_colors(tmp_path: Path) -> None:
    photo = Image.new("P", (6, 4), 7)
    photo.putpalette([0, 0, 0] * 7 + list(COLOR))
    photo.save(tmp_path / "palette.png", transparency=0)
    found = open_photo(tmp_path / "palette.png")
    assert (np.asarray(found) == COLOR).all()


@pytest.mark.parametrize(("mode", "color"), [("RGBA", (*COLOR, 255)), ("LA", (90, 255))])
def test_opaque_photos_with_an_alpha_channel_keep_their_colors(
    tmp_path: Path, mode: str, color: tuple[int, ...]
) -> None:
    found = open_photo(saved(tmp_path / "alpha.png", Image.new(mode, (6, 4), color)))
    assert found.mode == "RGB"
    assert (np.asarray(found) == (COLOR if mode == "RGBA" else 90)).all()


def test_four_inks_are_read_as_rgb(tmp_path: Path) -> None:
    path = saved(tmp_path / "inks.tif", Image.new("CMYK", (6, 4), (255, 0, 255, 0)))
    found = open_photo(path)
    assert found.mode == "RGB"
    assert (np.asarray(found) == (0, 255, 0)).all()
    saved(tmp_path / "inks.jpg", Image.new("CMYK", (6, 4), (255, 0, 255, 0)))
    assert np.abs(np.asarray(open_photo(tmp_path / "inks.jpg"), int) - (0, 255, 0)).max() <= 4


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("deep.png", "<u2"),
        ("deep.tif", "<u2"),
        ("big-endian.tif", ">u2"),
        ("deep.pgm", "<u2"),
        ("int.tif", "<i4"),
    ],
)
def test_sixteen_bits_are_scaled_to_eight_and_keep_the_picture(tmp_path: Path, name: str, dtype: str) -> None:
    gray = ramp(np.uint16, 65535)
    path = saved(tmp_path / name, Image.fromarray(gray.astype(dtype)))
    found = np.asarray(open_photo(path))
    assert found.shape == (*gray.shape, 3)
    assert (found == (gray // 256)[..., None]).all()


def test_a_picture_of_sixteen_bits_is_that_of_eight_bits(tmp_path: Path) -> None:
    gray = ramp(np.uint8, 255)
    eight = open_photo(saved(tmp_path / "8.png", Image.fromarray(gray)))
    sixteen = open_photo(saved(tmp_path / "16.png", Image.fromarray(gray.astype(np.uint16) * 257)))
    assert eight.tobytes() == sixteen.tobytes()


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bits_a_color_are_scaled_to_eight(tmp_path: Path, color: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, channels))
    if channels in (2, 4):
        pixels[..., -1] = 65535
    found = np.asarray(open_photo(png(tmp_path / "deep.png", pixels, color)))
    wanted = pixels[..., :3] if channels > 2 else pixels[..., :1]
    assert (found == wanted // 256).all()


def test_a_progressive_photo_is_that_of_the_usual_kind(tmp_path: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    photo.save(tmp_path / "usual.jpg")
    photo.save(tmp_path / "progressive.jpg", progressive=True)
    assert b"\xff\xc2" in (tmp_path / "progressive.jpg").read_bytes()
    assert open_photo(tmp_path / "progressive.jpg").tobytes() == open_photo(tmp_path / "usual.jpg").tobytes()


def test_inks_inverted_as_adobe_writes_them_are_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "inks.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 51)))
    assert b"Adobe" in path.read_bytes()
    assert np.abs(np.asarray(open_photo(path), int) - (204, 0, 0)).max() <= 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1)])
def test_one_pixel_and_very_long_photos_become_inputs(tmp_path: Path, shape: tuple[int, int]) -> None:
    found = load_input(saved(tmp_path / "photo.png", Image.new("RGB", shape, COLOR)), PLAIN)
    assert found.shape == (3, 8, 8)
    assert (found * 255).amin((1, 2)).tolist() == pytest.approx(COLOR, abs=1e-3)
    assert (found * 255).amax((1, 2)).tolist() == pytest.approx(COLOR, abs=1e-3)


# Transparency


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_shown_on_white(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, len(mode)), np.uint8)
    pixels[0, :, -1], pixels[1, :, -1] = 0, 255
    found = np.asarray(open_photo(saved(tmp_path / "alpha.png", Image.fromarray(pixels, mode))))
    alpha = pixels[..., -1:] / 255
    wanted = pixels[..., :-1] * alpha + 255 * (1 - alpha)
    assert np.abs(found - wanted).max() <= 1
    assert (found[0] == 255).all()
    assert (found[1] == pixels[1, :, :-1]).all()


@pytest.mark.parametrize(
    ("transparency", "wanted"),
    [
        (1, [COLOR, (255, 255, 255), (9, 8, 7)]),
        (b"\xff\x00\x33", [COLOR, (255, 255, 255), (206, 206, 205)]),
    ],
)
def test_transparent_places_of_a_palette_are_white(
    tmp_path: Path, transparency: int | bytes, wanted: list[tuple[int, int, int]]
) -> None:
    photo = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    photo.putpalette([*COLOR, 1, 2, 3, 9, 8, 7])
    photo.save(tmp_path / "palette.png", transparency=transparency)
    assert np.abs(np.asarray(open_photo(tmp_path / "palette.png"), int)[0] - wanted).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "transparency", "wanted"),
    [
        (np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), (1, 2, 3), [(255, 255, 255), (4, 5, 6)]),
        (np.array([[7, 8]], np.uint8), 8, [(7, 7, 7), (255, 255, 255)]),
        (np.array([[700, 8000]], np.uint16), 8000, [(2, 2, 2), (255, 255, 255)]),
        (np.array([[False, True]]), 0, [(255, 255, 255), (255, 255, 255)]),
    ],
)
def test_a_color_that_stands_for_transparent_is_white(
    tmp_path: Path, pixels: np.ndarray, transparency: int | tuple[int, ...], wanted: list[tuple[int, ...]]
) -> None:
    Image.fromarray(pixels).save(tmp_path / "key.png", transparency=transparency)
    assert np.asarray(open_photo(tmp_path / "key.png"))[0].tolist() == [list(color) for color in wanted]


# Orientation

SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip
"""EXIF's definition: orientation → the side of the scene at which the stored row 0 and column 0 lie."""


def stored_as(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that a camera stores of an upright scene, by EXIF's definition."""
    row_side, column_side = SIDES[orientation]
    stored = upright if row_side in ("top", "bottom") else upright.swapaxes(0, 1)
    if row_side in ("bottom", "right"):
        stored = stored[::-1]
    return stored[:, ::-1] if column_side in ("bottom", "right") else stored


def with_exif(path: Path, pixels: np.ndarray, orientation: object) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif, **lossless)
    return path


@pytest.mark.parametrize("name", ["photo.png", "photo.webp"])
@pytest.mark.parametrize("orientation", SIDES)
def test_a_photo_is_turned_as_its_exif_data_says_when_asked(
    tmp_path: Path, name: str, orientation: int
) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    stored = stored_as(upright, orientation)
    path = with_exif(tmp_path / name, stored, orientation)
    assert np.array_equal(open_photo(path, exif_orientation=True), upright)
    assert np.array_equal(open_photo(path), stored)


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_camera_file_of_any_mode_is_turned(tmp_path: Path, orientation: int, mode: str) -> None:
    upright = np.zeros((16, 48), np.uint8)
    upright[:, 32:] = 255  # black, black, white from left to right
    stored = Image.fromarray(np.ascontiguousarray(stored_as(upright, orientation))).convert(mode)
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "photo.jpg", exif=exif)
    found = open_photo(tmp_path / "photo.jpg", exif_orientation=True)
    assert found.mode == "RGB"
    assert np.abs(np.asarray(found, int) - upright[..., None]).max() <= 8


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("asked", [False, True])
def test_tiff_is_upright_whether_asked_or_not(tmp_path: Path, orientation: int, asked: bool) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path = with_exif(tmp_path / "scan.tif", stored_as(upright, orientation), orientation)
    assert np.array_equal(open_photo(path, exif_orientation=asked), upright)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(tmp_path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path = with_exif(tmp_path / "photo.png", pixels, orientation)
    assert np.array_equal(open_photo(path, exif_orientation=True), pixels)


def exif_of(entries: list[tuple[int, int, int, int]]) -> bytes:
    """EXIF data with these entries: tag, kind, count, value or offset."""
    listed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + listed + struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (b"Exif\0\0", False),
        (b"Exif\0\0garbage", False),
        (b"Exif\0\0II*\0" + b"\xff" * 20, False),
        (exif_of([(274, 3, 1, 6)])[:-9], False),
        (exif_of([(274, 2, 4, 0x41414141)]), False),
        (exif_of([(274, 3, 2**31, 6)]), False),
        (exif_of([(274, 3, 1, 6)]), True),
        (exif_of([(271, 2, 100, 2**31), (274, 3, 1, 6), (305, 77, 1, 0)]), True),
    ],
)
def test_malformed_exif_data_leaves_the_photo_readable(tmp_path: Path, exif: bytes, turned: bool) -> None:
    Image.new("RGB", (30, 20), COLOR).save(tmp_path / "photo.jpg", exif=exif)
    found = open_photo(tmp_path / "photo.jpg", exif_orientation=True)
    assert found.size == ((20, 30) if turned else (30, 20))


def test_inputs_are_turned_when_asked(tmp_path: Path) -> None:
    scene = np.asarray(striped(48, 32))
    path = with_exif(tmp_path / "photo.png", stored_as(scene, 6), 6)
    upright = to_input(crop_photo(Image.fromarray(scene), PLAIN), PLAIN)
    assert torch.equal(load_input(path, PLAIN, exif_orientation=True), upright)
    assert not torch.equal(load_input(path, PLAIN), upright)
    (batch,) = input_batches([path], PLAIN, [[0]], 0, exif_orientation=True)
    assert torch.equal(batch.inputs[0], upright)


# Grays of unknown range


@pytest.mark.parametrize(
    "pixels", [np.full((4, 4), 0.5, np.float32), np.array([[0, 2**16]]), np.array([[-1, 5]])]
)
def test_grays_of_unknown_range_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    values = pixels if pixels.dtype == np.float32 else pixels.astype(np.int32)
    path = saved(tmp_path / "measured.tif", Image.fromarray(values))
    assert refused(path).endswith("save it with 8 or 16 bits")


# Files that cannot be read


def test_a_missing_photo_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.jpg"
    assert refused(path) == f"{path}: no such image"


@pytest.mark.parametrize(
    "content", [b"", b"this is no photograph", b"<html>404</html>", b"\xff\xd8\xff", b"\0" * 99]
)
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.jpg"
    path.write_bytes(content)
    assert refused(path) == f"{path}: not an image that Pillow can read"


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp", "photo.tif"])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_photo_is_refused(tmp_path: Path, name: str, kept: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / name, Image.fromarray(pixels))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    refused(path)


def test_a_folder_and_a_path_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(tmp_path)
    refused(tmp_path / "file" / "photo.jpg")


def test_a_photo_with_a_flipped_byte_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
    for name in ("photo.jpg", "photo.png", "photo.gif"):
        path = saved(tmp_path / name, Image.fromarray(pixels))
        content = bytearray(path.read_bytes())
        for place in rng.integers(0, len(content), 150):
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                assert open_photo(path).mode == "RGB"
            except BadImage as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017


def test_a_photo_of_too_many_pixels_is_refused_and_one_of_just_as_many_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "photo.png", Image.new("RGB", (40, 30)))
    monkeypatch.setattr(photos, "MAX_PIXELS", 1200)
    assert open_photo(path).size == (40, 30)
    monkeypatch.setattr(photos, "MAX_PIXELS", 1199)
    assert refused(path) == f"{path}: 40×30 pixels; at most 1,199"


@pytest.mark.parametrize(("name", "kind"), [("photo.eps", "EPS"), ("photo.tga", "TGA"), ("photo.jpg", "EPS")])
def test_formats_that_no_photo_has_are_refused_undecoded(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    Image.new("RGB", (4, 4)).save(path, kind)
    assert refused(path) == f"{path}: an image of format {kind}; save it as JPEG or PNG"


def test_a_fault_without_words_is_named_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "photo.png", Image.new("RGB", (4, 4)))

    def exhausted(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(photos, "_as_rgb", exhausted)
    assert refused(path) == f"{path}: damaged image: IndexError"


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7)))

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(photos, "_as_rgb", exhausted)
    assert refused(path) == f"{path}: too little memory to decode it"


@pytest.mark.parametrize("side", [10_001, 60_000])
def test_a_decompression_bomb_is_refused_unread(tmp_path: Path, side: int) -> None:
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    assert "pixels" in refused(path)


@pytest.mark.filterwarnings("error")
def test_a_large_photo_below_the_limit_is_read_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = saved(tmp_path / "photo.png", Image.new("RGB", (40, 30)))
    assert open_photo(path).size == (40, 30)


# Where images lie


def test_the_name_of_an_id_follows_the_pattern() -> None:
    name = named_by_pattern("COCO_val2014_{image_id:012d}.jpg", 262148)
    assert name == "COCO_val2014_000000262148.jpg"
    assert named_by_pattern("val/{image_id}/photo..png", "0x7") == "val/0x7/photo..png"


@pytest.mark.parametrize(
    "pattern", ["../{image_id}.jpg", "a/../../{image_id}.jpg", "/etc/{image_id}", "{image_id}/.."]
)
def test_a_pattern_that_leads_out_of_the_folder_is_refused(pattern: str) -> None:
    with pytest.raises(HvxError) as raised:
        named_by_pattern(pattern, 5)
    name = pattern.format(image_id=5)
    assert str(raised.value) == f"splits: image_name: '{name}' leads out of the images' folder"
    split = SplitConfig(questions=Path("q.json"), images=Path("photos"))
    with pytest.raises(HvxError, match="leads out of the images' folder photos"):
        image_path(split, name)


def test_an_image_is_taken_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders[:2]:
        (folder / "deep").mkdir(parents=True)
    for path in ("b/x.png", "a/y.png", "b/y.png", "b/deep/z.png"):
        (tmp_path / path).touch()
    split = SplitConfig(questions=Path("q.json"), images=tuple(folders))
    names = ["x.png", "y.png", "deep/z.png", "none.png"]
    with pytest.raises(HvxError, match="c: no such folder of images"):
        missing_images(split, names)
    folders[2].mkdir()
    assert missing_images(split, names) == [tmp_path / "a" / "none.png"]
    found = [image_path(split, name).relative_to(tmp_path).as_posix() for name in names]
    assert found == ["b/x.png", "a/y.png", "b/deep/z.png", "a/none.png"]


# Batches


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_every_place_once_and_the_reason_of_each_that_is_bad(
    tmp_path: Path, workers: int
) -> None:
    paths = [saved(tmp_path / f"{n}.png", Image.new("RGB", (9, 7), (10 * n, 0, 0))) for n in range(7)]
    paths[2].unlink()
    paths[3].write_text("no image")
    paths[6].unlink()
    batches = [[4, 2, 0], [1, 5], [3, 6]]
    found = list(input_batches(paths, PLAIN, batches, workers))
    assert [batch.indices for batch in found] == [[4, 0], [1, 5], []]
    assert [list(batch.failures) for batch in found] == [[2], [], [3, 6]]
    for batch in found:
        assert len(batch.inputs) == len(batch.indices)
        for place, pixels, digest in zip(batch.indices, batch.inputs, batch.digests, strict=True):
            assert torch.equal(pixels, load_input(paths[place], PLAIN))
            assert pixels[0, 3, 3].item() == pytest.approx(10 * place / 255)
            assert digest == hashlib.sha256(paths[place].read_bytes()).hexdigest()
        for place, reason in batch.failures.items():
            assert reason.startswith(f"{paths[place]}: ")


@pytest.mark.parametrize("shared", [True, False])
def test_batches_that_wait_for_a_slow_reader_are_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Decoding processes are as far ahead as they may be; without shared memory, through a pipe."""
    if shared:
        assert images._slots([[0]], 2, PLAIN) is not None
    else:
        with monkeypatch.context() as patch:
            patch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
            assert images._slots([[0]], 2, PLAIN) is None
        monkeypatch.setattr(images, "_slots", lambda *arguments: None)
    paths = [saved(tmp_path / f"{n}.png", Image.new("RGB", (9, 7), (10 * n, n, 0))) for n in range(24)]
    batches = [[n, 23 - n] if n % 3 else [n] for n in range(24)]
    normalized = images.normalized

    def slow(crops: torch.Tensor, image: ImageConfig) -> torch.Tensor:
        time.sleep(0.03)
        return normalized(crops, image)

    monkeypatch.setattr(images, "normalized", slow)
    found = list(input_batches(paths, PLAIN, batches, workers=2))
    monkeypatch.undo()
    assert [batch.indices for batch in found] == batches
    for batch in found:
        for index, pixels in zip(batch.indices, batch.inputs, strict=True):
            assert torch.equal(pixels, load_input(paths[index], PLAIN))


@pytest.mark.parametrize("workers", [0, 1])
def test_no_batches_yield_nothing(workers: int) -> None:
    assert list(input_batches([], PLAIN, [], workers)) == []


def test_batches_that_are_not_wanted_any_more_are_left(tmp_path: Path) -> None:
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7)))
    batches = input_batches([path] * 6, PLAIN, [[n] for n in range(6)], 1)
    assert next(batches).indices == [0]
    batches.close()  # type: ignore[attr-defined]


def test_a_decoding_process_that_dies_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_crop_and_digest", lambda *_: os._exit(1))
    with pytest.raises(HvxError) as raised:
        list(input_batches([tmp_path / "photo.png"], PLAIN, [[0]], 1))
    reason = r"DataLoader worker \(pid\(s\) \d+\) exited unexpectedly"
    assert re.fullmatch(
        rf"an image-decoding process died or does not answer \({reason}\); set explain\.workers, or "
        r"train\.workers in a training, to a smaller number; 0 decodes without them",
        str(raised.value),
    )


def _decoders() -> list[int]:
    """The processes that this one has started, but for Python's own."""
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def test_a_decoding_process_killed_while_the_network_computes_is_told_there(tmp_path: Path) -> None:
    """As the system does where memory is short, most often outside of the wait for a batch."""
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7)))
    batches = input_batches([path] * 9, PLAIN, [[n] for n in range(9)], 2)
    next(batches)

    def computing() -> None:
        os.kill(_decoders()[0], signal.SIGKILL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            sum(range(1000))

    with pytest.raises(HvxError, match=r"an image-decoding process died .* is killed by signal: Killed\);"):
        computing()
    batches.close()  # type: ignore[attr-defined]
    assert _decoders() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoding_process_killed_in_the_middle_of_a_batch_is_told(tmp_path: Path, workers: int) -> None:
    """Half of a batch lies in the pipe, and the pipe's lock is held for ever."""
    large = PLAIN.model_copy(update={"size": 400})
    path = saved(tmp_path / "photo.png", Image.new("RGB", (400, 400)))
    batches = input_batches([path] * 8, large, [[n] for n in range(8)], workers)
    next(batches)
    time.sleep(0.5)  # the pipe is full: whoever writes waits
    os.kill(_decoders()[0], signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (_decoders()[0], signal.SIGKILL)).start()
    with pytest.raises(HvxError, match="an image-decoding process died"):
        list(batches)
    batches.close()  # type: ignore[attr-defined]
    assert _decoders() == []


def test_a_decoding_process_that_does_not_answer_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7)))
    assert images._PATIENCE == 600
    monkeypatch.setattr(images, "_PATIENCE", 1)
    monkeypatch.setattr(images, "_crop_and_digest", lambda *_: time.sleep(2.5))
    with pytest.raises(HvxError, match=r"does not answer \(DataLoader timed out after 1 seconds\);"):
        list(input_batches([path], PLAIN, [[0]], 1))


def test_a_decoding_process_that_cannot_be_started_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were started end, also where SIGTERM does not end them."""
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7)))
    fork, calls = os.fork, []

    def fails() -> int:
        calls.append(1)
        if len(calls) == 1:
            return fork()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fails)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(HvxError) as raised:
            list(input_batches([path], PLAIN, [[0]], 2))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert str(raised.value).startswith(
        "an image-decoding process cannot be started (Resource temporarily unavailable); set explain.workers"
    )
    assert _decoders() == []


def test_errors_of_other_parts_are_not_taken_for_dead_decoders(tmp_path: Path) -> None:
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7)))

    def network() -> None:
        raise RuntimeError("of the network")

    for workers in (0, 1):
        batches = input_batches([path, path], PLAIN, [[0], [1]], workers)
        next(batches)
        with pytest.raises(RuntimeError, match=r"^of the network$"):
            network()
        batches.close()  # type: ignore[attr-defined]
    before = signal.getsignal(signal.SIGCHLD)
    assert isinstance(before, images._DeathHandler)
    assert not isinstance(before._inner, images._DeathHandler)
    list(input_batches([path], PLAIN, [[0]], 1))
    assert signal.getsignal(signal.SIGCHLD) is before


def test_batches_are_decoded_in_a_thread_too(tmp_path: Path) -> None:
    """Handlers of signals can be installed in the main thread only."""
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7)))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: list(input_batches([path], PLAIN, [[0]], 1))).result()
    assert [batch.indices for batch in found] == [[0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_inputs_do_not_depend_on_the_callers_defaults(tmp_path: Path, dtype: torch.dtype) -> None:
    path = saved(tmp_path / "photo.png", Image.effect_noise((9, 7), 60))
    image = PLAIN.model_copy(update={"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)})
    expected = load_input(path, image)
    assert expected.dtype == torch.float32
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    try:
        found = load_input(path, image)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.equal(found, expected)


def test_a_photograph_with_another_digest_is_refused(tmp_path: Path) -> None:
    """What was explained is another photograph than what lies under its name now."""
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7), "red"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert open_photo(path, digest=digest).size == (9, 7)
    saved(path, Image.new("RGB", (9, 7), "blue"))
    with pytest.raises(BadImage) as raised:
        open_photo(path, digest=digest)
    assert str(raised.value) == f"{path}: another image than the one explained (its bytes changed since)"


def test_files_that_are_no_photographs_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "absent.png", tmp_path, Path("/dev/zero")):
        with pytest.raises(BadImage, match=f"{path}: no such image"):
            open_photo(path)
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 7)))
    size = path.stat().st_size
    monkeypatch.setattr(photos, "MAX_BYTES", size)
    assert open_photo(path).size == (9, 7)
    monkeypatch.setattr(photos, "MAX_BYTES", size - 1)
    with pytest.raises(BadImage, match=f"{size} bytes; at most {size - 1}"):
        open_photo(path)
