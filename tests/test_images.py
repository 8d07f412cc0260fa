"""Photographs: what the network sees of them, and what is said of those that cannot be read."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvx.config import ImageConfig, SplitConfig
from hvx.data import images
from hvx.data.images import crop_photo, image_path, input_batches, load_input, open_photo, to_input
from hvx.errors import BadImage, HvxError

PLAIN = ImageConfig(size=8, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
COLOUR = (200, 100, 50)


def saved(path: Path, photo: Image.Image) -> Path:
    photo.save(path)
    return path


def striped(width: int, height: int) -> Image.Image:
    """Blue beside a centre square of red left half and green right half (above and below likewise)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = 255
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side // 2] = (255, 0, 0)
    pixels[top : top + side, left + side // 2 : left + side] = (0, 255, 0)
    return Image.fromarray(pixels)


def ramp(dtype: type, top: int) -> np.ndarray:
    """Greys from 0 to ``top``, (16, 64)."""
    return np.tile(np.linspace(0, top, 64).astype(dtype), (16, 1))


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
def test_the_crop_is_the_centre_square(shape: tuple[int, int], interpolation: str) -> None:
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
    crop = np.asarray(crop_photo(Image.new("RGB", shape, COLOUR), ImageConfig(size=32)))
    assert crop.shape == (32, 32, 3)
    assert (crop == COLOUR).all()


def test_the_centre_of_a_very_long_photo_is_seen() -> None:
    photo = Image.new("RGB", (5001, 1), "white")
    photo.paste(COLOUR, (2497, 0, 2504, 1))
    assert (np.asarray(crop_photo(photo, ImageConfig(size=8))) == COLOUR).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20))
def test_the_crop_has_the_networks_size_whatever_the_photos(width: int, height: int, size: int) -> None:
    crop = crop_photo(Image.new("RGB", (width, height), COLOUR), ImageConfig(size=size))
    assert crop.size == (size, size)
    assert (np.asarray(crop) == COLOUR).all()


# The input


def test_an_input_is_channels_first_and_normalised_by_mean_and_deviation() -> None:
    config = ImageConfig(size=2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1] = (255, 51, 102)
    found = to_input(Image.fromarray(pixels), config)
    assert found.shape == (3, 2, 2)
    assert found.dtype == torch.float32
    assert found[:, 0, 1].tolist() == pytest.approx([1.0, -0.2, 0.2], abs=1e-6)
    assert found[:, 1, 0].tolist() == pytest.approx([-1.0, -1.0, 0.0], abs=1e-6)


def test_imagenets_statistics_are_the_default(tmp_path: Path) -> None:
    path = saved(tmp_path / "photo.png", Image.new("RGB", (9, 5), COLOUR))
    found = load_input(path, ImageConfig(size=4))
    wanted = [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (50 / 255 - 0.406) / 0.225]
    assert found.shape == (3, 4, 4)
    assert found[:, 2, 1].tolist() == pytest.approx(wanted, abs=1e-5)


# Kinds of files


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp", "photo.gif", "photo.bmp"])
def test_common_kinds_of_files_are_read(tmp_path: Path, name: str) -> None:
    found = open_photo(saved(tmp_path / name, Image.new("RGB", (20, 10), COLOUR)))
    assert (found.mode, found.size) == ("RGB", (20, 10))
    assert np.abs(np.asarray(found, int) - COLOUR).max() <= 4


def test_a_grey_photo_has_three_equal_channels(tmp_path: Path) -> None:
    grey = ramp(np.uint8, 255)
    found = np.asarray(open_photo(saved(tmp_path / "grey.png", Image.fromarray(grey))))
    assert (found == grey[..., None]).all()


def test_black_and_white_is_read(tmp_path: Path) -> None:
    white = ramp(np.uint8, 255) > 100
    found = np.asarray(open_photo(saved(tmp_path / "fax.png", Image.fromarray(white))))
    assert (found == np.where(white, 255, 0)[..., None]).all()


def test_a_palette_shows_its_colours(tmp_path: Path) -> None:
    photo = Image.new("P", (6, 4), 7)
    photo.putpalette([0, 0, 0] * 7 + list(COLOUR))
    photo.save(tmp_path / "palette.png", transparency=0)
    found = open_photo(tmp_path / "palette.png")
    assert (np.asarray(found) == COLOUR).all()


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (*COLOUR, 255)), ("LA", (90, 255))])
def test_opaque_photos_with_an_alpha_channel_keep_their_colours(
    tmp_path: Path, mode: str, colour: tuple[int, ...]
) -> None:
    found = open_photo(saved(tmp_path / "alpha.png", Image.new(mode, (6, 4), colour)))
    assert found.mode == "RGB"
    assert (np.asarray(found) == (COLOUR if mode == "RGBA" else 90)).all()


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
    grey = ramp(np.uint16, 65535)
    path = saved(tmp_path / name, Image.fromarray(grey.astype(dtype)))
    found = np.asarray(open_photo(path))
    assert found.shape == (*grey.shape, 3)
    assert (found == (grey // 256)[..., None]).all()


def test_a_picture_of_sixteen_bits_is_that_of_eight_bits(tmp_path: Path) -> None:
    grey = ramp(np.uint8, 255)
    eight = open_photo(saved(tmp_path / "8.png", Image.fromarray(grey)))
    sixteen = open_photo(saved(tmp_path / "16.png", Image.fromarray(grey.astype(np.uint16) * 257)))
    assert eight.tobytes() == sixteen.tobytes()


@pytest.mark.parametrize(
    "pixels", [np.full((4, 4), 0.5, np.float32), np.array([[0, 2**16]]), np.array([[-1, 5]])]
)
def test_greys_of_unknown_range_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
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
    monkeypatch.setattr(images, "MAX_PIXELS", 1200)
    assert open_photo(path).size == (40, 30)
    monkeypatch.setattr(images, "MAX_PIXELS", 1199)
    assert refused(path) == f"{path}: 40×30 pixels; at most 1,199"


@pytest.mark.parametrize("side", [10_001, 60_000])
def test_a_decompression_bomb_is_refused_unread(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

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


def named(pattern: str) -> SplitConfig:
    return SplitConfig(questions=Path("q.json"), images=Path("photos"), image_name=pattern)


def test_the_path_of_an_id_follows_the_pattern() -> None:
    assert image_path(named("COCO_val2014_{image_id:012d}.jpg"), 262148) == Path(
        "photos/COCO_val2014_000000262148.jpg"
    )
    assert image_path(named("val/{image_id}/photo..png"), 7) == Path("photos/val/7/photo..png")


@pytest.mark.parametrize(
    "pattern", ["../{image_id}.jpg", "a/../../{image_id}.jpg", "/etc/{image_id}", "{image_id}/.."]
)
def test_a_pattern_that_leads_out_of_the_folder_is_refused(pattern: str) -> None:
    with pytest.raises(HvxError) as raised:
        image_path(named(pattern), 5)
    name = pattern.format(image_id=5)
    assert str(raised.value) == f"splits: image_name: '{name}' leads out of the images' folder photos"


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
    assert [places for places, _, _ in found] == [[4, 0], [1, 5], []]
    assert [list(bad) for _, _, bad in found] == [[2], [], [3, 6]]
    for places, inputs, bad in found:
        assert len(inputs) == len(places)
        for place, pixels in zip(places, inputs, strict=True):
            assert torch.equal(pixels, load_input(paths[place], PLAIN))
            assert pixels[0, 3, 3].item() == pytest.approx(10 * place / 255)
        for place, reason in bad.items():
            assert reason.startswith(f"{paths[place]}: ")


@pytest.mark.parametrize("workers", [0, 1])
def test_no_batches_yield_nothing(workers: int) -> None:
    assert list(input_batches([], PLAIN, [], workers)) == []
