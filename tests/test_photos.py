"""A photograph is the same whatever it is given as; what is none is refused with the reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from hvx.data import photos
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
        (RGB.astype(np.uint16) << 8, RGB), (RGB.astype(np.uint16) * 0, RGB * 0),
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


def test_tensors_of_every_float_type() -> None:
    steps = torch.arange(0, 256, 17, dtype=torch.uint8).reshape(4, 4)
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        found = np.asarray(as_photo(steps.to(dtype) / 255))[..., 0]
        error = 1 if dtype == torch.bfloat16 else 0  # it has 8 bits in all for the mantissa
        assert np.abs(found - steps.numpy().astype(int)).max() <= error, dtype


@pytest.mark.parametrize(
    "mode", ["CMYK", "YCbCr", "HSV", "RGBX", "RGBa", "La", "PA", "LAB", "I;16B", "I;16L"]
)
def test_every_mode_of_pillow_is_converted(mode: str) -> None:
    """Of a gray image, every mode yields its gray."""
    if mode.startswith("I"):
        pixels = np.asarray(as_photo(Image.new(mode, (8, 6), 200 << 8)))
    else:
        gray = Image.new("RGB", (8, 6), (200, 200, 200))
        made = {
            "La": lambda: gray.convert("LA").convert("La"),
            "RGBa": lambda: gray.convert("RGBA").convert("RGBa"),
            "PA": lambda: gray.quantize(4).convert("PA"),
            "LAB": lambda: Image.new("LAB", (8, 6), (206, 128, 128)),
        }
        pixels = np.asarray(as_photo(made.get(mode, lambda: gray.convert(mode))()))
    assert pixels.shape == (6, 8, 3)
    assert np.abs(pixels.astype(int) - 200).max() <= 2


class _Odd:
    """What a caller may take for a file."""

    def __init__(self, data: object) -> None:
        self.read = (lambda *_: data) if data is not None else None
        self.seekable = lambda: False


def _closed() -> io.BytesIO:
    file = io.BytesIO(b"")
    file.close()
    return file


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (io.StringIO("text"), "a file that yields str; open it in binary mode"),
        (_Odd([1]), "a file that yields list; open it in binary mode"),
        (_Odd(None), "a _Odd; give a path, bytes, a PIL image, an array or a tensor"),
        (_closed(), "cannot be read: I/O operation on closed file"),
        (torch.empty(3, 6, 8, device="meta"),
         "a tensor (strided float32, meta) that is no array; give a plain one"),
        (torch.eye(6).to_sparse(), "a tensor (sparse_coo float64, cpu) that is no array; give a plain one"),
        (torch.ones(6, 8, dtype=torch.cfloat).conj(),
         "a tensor (strided complex64, cpu) that is no array; give a plain one"),
        (RGB.astype(np.uint16), f"uint16 that ends at {RGB.max()}; give uint8"),
        (np.dstack([RGB, RGB[..., :1]]).astype(np.uint16), f"uint16 that ends at {RGB.max()}; give uint8"),
        (np.dstack([RGB // 2, RGB[..., :1] * 0 + 255]).astype(np.uint16) << np.array([0, 0, 0, 8], np.uint16),
         f"uint16 that ends at {RGB.max() // 2}; give uint8"),
    ],
)  # fmt: skip
def test_files_and_arrays_that_cannot_be_read_are_refused_with_the_reason(source: Any, reason: str) -> None:
    with pytest.raises(BadImage) as raised:
        as_photo(source)
    assert str(raised.value) == f"the image: {reason}"


def test_an_open_file_is_read_from_its_start_and_may_be_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(RGB).save(path)
    with path.open("rb") as file:
        for _ in range(2):
            assert np.array_equal(np.asarray(as_photo(file)), RGB)
    data = path.read_bytes()
    assert np.array_equal(np.asarray(as_photo(_Odd(data))), RGB)  # type: ignore[arg-type]
    monkeypatch.setattr(photos, "MAX_BYTES", len(data))
    assert as_photo(io.BytesIO(data)).size == (8, 6)
    monkeypatch.setattr(photos, "MAX_BYTES", len(data) - 1)
    with pytest.raises(BadImage, match=f"^the image: more than {len(data) - 1} bytes$"):
        as_photo(io.BytesIO(data))


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


def _png(pixels: np.ndarray) -> bytes:
    """A PNG with 16 bits a channel of (H, W, 2 to 4), which Pillow reads but does not write."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_deep_colors_that_end_at_255_are_not_shown_black(channels: int) -> None:
    pixels = np.zeros((4, 4, channels), np.uint16)
    if channels != 3:
        pixels[..., -1] = 2**16 - 1
    pixels[0, 0, 0] = 256
    data = _png(pixels)
    assert np.asarray(as_photo(data)).max() == 1
    pixels[0, 0, 0] = 255
    data = _png(pixels)
    for source in (data, Image.open(io.BytesIO(data))):
        with pytest.raises(BadImage) as raised:
            as_photo(source)
        assert (
            str(raised.value) == "the image: colors of 16 bits that end at 255 or less; save it with 8 bits"
        )


def test_black_images_of_8_bits_are_read(tmp_path: Path) -> None:
    for mode in ("1", "L", "RGB", "RGBA"):
        path = tmp_path / f"{mode}.png"
        Image.new(mode, (4, 4), (0, 0, 0, 255)[: len(mode)] if len(mode) > 1 else 0).save(path)
        assert not np.asarray(as_photo(path)).any()


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


@pytest.mark.parametrize(("large", "turned"), [(False, True), (True, False)])
def test_a_png_with_a_large_text_is_still_turned(tmp_path: Path, large: bool, turned: bool) -> None:
    """Only where what says how to turn it is itself too large is it left as it is stored."""
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"></x:xmpmeta>'
    texts = PngImagePlugin.PngInfo()
    long = "x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)
    texts.add_text("comment", long, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", xmp + (long if large else ""), zip=True)
    path = tmp_path / "text.png"
    Image.fromarray(RGB).save(path, pnginfo=texts)
    assert open_photo(path, True).size == ((6, 8) if turned else (8, 6))
    assert open_photo(path, False).size == (8, 6)


def test_a_decompression_bomb_is_still_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (100, 100)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(BadImage, match=r"decompression bomb|30000×30000 pixels"):
        open_photo(path)
