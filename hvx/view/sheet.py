"""Writes a figure to a file, PNG or PDF, as its strips come: none is ever held whole."""

from __future__ import annotations

import gc
import logging
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.view.canvas import RGB, Box, Point
from hvx.view.figure import Figure, FigureRow, Strip
from hvx.view.fonts import Face, runs, undrawable

SUFFIXES = (".png", ".pdf")

_INCH = 0.0254
"""Metres."""
_POINTS = 72
"""In an inch."""
_ROWS_TOGETHER = 16
"""Of a PDF, in memory at a time."""


@dataclass(frozen=True)
class Paper:
    """What a figure's pixels are on paper.

    Attributes:
        dpi: pixels in an inch.
        page_rows: rows on a page of a PDF, at most.
    """

    dpi: int = 200
    page_rows: int = 8


SCREEN = Paper()


def check_suffix(path: Path) -> None:
    """Raise an ``HvxError`` where a file's name is that of no kind of figure."""
    if path.suffix.lower() not in SUFFIXES:
        raise HvxError(f"{path}: a figure is written as {' or '.join(SUFFIXES)}")


def write_sheet(path: Path, figure: Figure, rows: Iterable[FigureRow], paper: Paper = SCREEN) -> str:
    """Write a figure, as PNG or PDF by the file's name, whole or not at all.

    A PNG is one picture however high. A PDF has text as text, outlines as lines and photographs without loss;
    a page is as wide as the figure and as high as its rows need, and has the heading and the foot.

    Args:
        path: ends in .png or .pdf.
        figure: its layout.
        rows: the rows, taken as they are drawn.
        paper: what pixels are on paper.

    Returns:
        The characters that no font at hand has, which stand as boxes.

    Raises:
        HvxError: another kind of file, or it cannot be written.
    """
    check_suffix(path)
    undrawn: set[str] = set()

    def noted() -> Iterator[FigureRow]:
        for row in rows:
            undrawn.update(undrawable(row.texts()))
            yield row

    with whole_file(path) as part:
        if path.suffix.lower() == ".pdf":
            _write_pdf(part, figure, noted(), paper)
        else:
            _write_png(part, figure, noted(), paper)
    return "".join(sorted(undrawn))


def _write_png(path: Path, figure: Figure, rows: Iterable[FigureRow], paper: Paper) -> None:
    with path.open("wb") as file:
        stream = _PngStream(file, figure.width, paper.dpi)
        for strip in figure.strips(rows):
            stream.add(strip.picture(figure.width))
        stream.finish()


def _write_pdf(path: Path, figure: Figure, rows: Iterator[FigureRow], paper: Paper) -> None:
    import pikepdf

    path = path.absolute()  # a relative one may look like an option to qpdf
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as folder:
        parts = [Path(folder) / "0.pdf"]
        while _write_part(parts[-1], figure, rows, paper):
            gc.collect()  # fpdf2's documents refer to themselves, and would stay until memory has grown
            parts.append(Path(folder) / f"{len(parts)}.pdf")
        # qpdf's own job copies pages from file to file; pikepdf's list of pages would hold them all.
        given = [str(part) for part in parts[:-1]]
        pikepdf.Job(["hvx", "--deterministic-id", "--empty", "--pages", *given, "--", str(path)]).run()


def _write_part(path: Path, figure: Figure, rows: Iterator[FigureRow], paper: Paper) -> bool:
    """The next few pages as a PDF; whether there was any row left for them."""
    pages = _PdfPages(figure.width, paper.dpi, path.parent)
    for _ in range(max(1, _ROWS_TOGETHER // paper.page_rows)):
        some = list(islice(rows, paper.page_rows))
        if some:
            pages.add(list(figure.strips(some)))
    if pages.count:
        pages.write(path)
    return pages.count > 0


class _PngStream:
    """A PNG written by pieces from its top, its height known at the end. Pillow would hold it whole."""

    def __init__(self, file: BinaryIO, width: int, dpi: int) -> None:
        self._file, self._width, self._height = file, width, 0
        self._above = np.zeros((width, 3), np.uint8)
        self._packer = zlib.compressobj(6)
        file.write(b"\x89PNG\r\n\x1a\n")
        self._header_at = file.tell()
        self._write_header()
        per_metre = round(dpi / _INCH)
        self._chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1))

    def add(self, picture: Image.Image) -> None:
        """The next lines, an RGB picture as wide as the whole."""
        lines = np.asarray(picture)
        above = np.concatenate([self._above[None], lines[:-1]])
        self._above = lines[-1].copy()
        self._height += len(lines)
        self._chunk(b"IDAT", self._packer.compress(_filtered(lines, above)))

    def finish(self) -> None:
        self._chunk(b"IDAT", self._packer.flush())
        self._chunk(b"IEND", b"")
        self._file.seek(self._header_at)
        self._write_header()

    def _write_header(self) -> None:
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", self._width, self._height, 8, 2, 0, 0, 0))

    def _chunk(self, kind: bytes, data: bytes) -> None:
        if data or kind == b"IEND":
            self._file.write(struct.pack(">I", len(data)) + kind + data)
            self._file.write(struct.pack(">I", zlib.crc32(kind + data)))


def _filtered(lines: NDArray[np.uint8], above: NDArray[np.uint8]) -> bytes:
    """Lines (H, W, 3), each as the PNG filter writes it that leaves the smallest differences.

    The filters None, Sub and Up of the PNG specification, section 9; the choice is its own heuristic (12.8).
    """
    left = np.zeros_like(lines)
    left[:, 1:] = lines[:, :-1]
    ways = np.stack([lines, lines - left, lines - above])
    cost = np.abs(ways.view(np.int8).astype(np.int16)).sum((2, 3), dtype=np.int64)
    best = cost.argmin(0)
    chosen = ways[best, np.arange(len(lines))].reshape(len(lines), -1)
    return np.concatenate([best[:, None].astype(np.uint8), chosen], 1).tobytes()


class _PdfPages:
    """Pages of a PDF in memory, and the canvas of the last. ``folder`` is there as long as they are."""

    def __init__(self, width: int, dpi: int, folder: Path) -> None:
        from fpdf import FPDF

        for name in ("fpdf", "fontTools"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._width, self._scale = width, _POINTS / dpi
        self._folder, self._names = folder, dict[Face, str]()
        self._pdf = FPDF(unit="pt")
        self._pdf.set_margin(0)
        self._pdf.c_margin = 0
        self._pdf.set_auto_page_break(False)
        self._pdf.set_image_filter("FlateDecode")
        self._pdf.set_text_shaping(True)

    @property
    def count(self) -> int:
        return len(self._pdf.pages)

    def add(self, strips: Sequence[Strip]) -> None:
        """A page of strips."""
        size = (self._width * self._scale, sum(strip.height for strip in strips) * self._scale)
        self._pdf.add_page(format=size)
        top = 0
        for strip in strips:
            strip.draw(self, top)
            top += strip.height

    def write(self, path: Path) -> None:
        self._pdf.output(str(path))

    def picture(self, picture: Image.Image, left: int, top: int) -> None:
        x, y, width, height = (value * self._scale for value in (left, top, *picture.size))
        self._pdf.image(picture, x, y, width, height)

    def rectangle(self, box: Box, fill: RGB, radius: int = 0) -> None:
        self._pdf.set_fill_color(*fill)
        x0, y0, x1, y1 = (value * self._scale for value in box)
        self._pdf.rect(
            x0, y0, x1 - x0, y1 - y0, "F", round_corners=radius > 0, corner_radius=radius * self._scale
        )

    def stroke(self, points: Sequence[Point], ink: RGB, thickness: float) -> None:
        self._pdf.set_draw_color(*ink)
        self._pdf.set_line_width(thickness * self._scale)
        self._pdf.polyline([(x * self._scale, y * self._scale) for x, y in points])

    def text(self, line: str, left: float, baseline: float, size: int, ink: RGB) -> None:
        self._pdf.set_text_color(*ink)
        for face, part in runs(line):
            self._pdf.set_font(self._name(face), size=size * self._scale)
            # In a cell of no height, fpdf2 sets the baseline 0.3 of the type's size below the top.
            top = (baseline - 0.3 * size) * self._scale
            self._pdf.set_xy(left * self._scale, top)
            self._pdf.cell(w=0, h=0, text=part)
            left += face.at(size).getlength(part)

    def _name(self, face: Face) -> str:
        """What the document knows a face by; it takes fonts from files only."""
        if face not in self._names:
            name = f"face{len(self._names)}"
            path = face.path or self._folder / "built-in.ttf"
            if face.path is None:
                path.write_bytes(face.data)
            self._pdf.add_font(name, fname=path)
            self._names[face] = name
        return self._names[face]
