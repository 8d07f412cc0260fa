"""Writes a figure to a file: PNG, SVG, or PDF of many pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from PIL.PngImagePlugin import PngInfo

from hvx.errors import HvxError
from hvx.files import atomic_write
from hvx.view.figure import FigureLayout, FigureRow, PageTooLarge
from hvx.view.page import settings
from hvx.view.style import DPI
from hvx.view.text import missing_glyphs

SUFFIXES = (".png", ".pdf", ".svg")

MOST_ROWS = 100
"""Limit of a PNG or SVG, which is one picture in memory."""
MOST_PIXELS = 400_000_000
"""Limit of a PNG or SVG."""

_INSTEAD = "write a .pdf, which has as many pages as it needs, or look at the run with `hvx gallery`"


@dataclass(frozen=True)
class PageSetup:
    """The size of a figure on paper.

    Attributes:
        dpi: pixels per inch.
        page_rows: maximum rows on a page of a PDF.
    """

    dpi: int = DPI
    page_rows: int = 8


SCREEN = PageSetup()


@dataclass(frozen=True)
class FigureSource:
    """The provenance of a figure's rows, stored in its file.

    Attributes:
        runs: each run's name, not a local path, and the SHA-256 of its checkpoint, None if unknown.
        question_ids: of the questions drawn, in order.
    """

    runs: Sequence[tuple[str, str | None]]
    question_ids: Sequence[int | str]

    def as_json(self) -> str:
        """JSON in ASCII, which the metadata of all three formats can hold."""
        runs = [{"run": name, "checkpoint_sha256": digest} for name, digest in self.runs]
        return json.dumps({"runs": runs, "question_ids": list(self.question_ids)})


def check_suffix(path: Path) -> None:
    """Raise an ``HvxError`` if a file's suffix is of no supported format."""
    if path.suffix.lower() not in SUFFIXES:
        raise HvxError(f"{path}: a figure is written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def check_rows(path: Path, count: int) -> None:
    """Raise an ``HvxError`` if a PNG or SVG would have more than ``MOST_ROWS`` rows."""
    if path.suffix.lower() != ".pdf" and count > MOST_ROWS:
        kind = path.suffix[1:].upper()
        raise HvxError(f"{path}: {count} rows; a {kind} holds at most {MOST_ROWS}: {_INSTEAD}")


def export_figure(
    path: Path,
    layout: FigureLayout,
    rows: Iterable[FigureRow],
    page_rows: int = 8,
    source: FigureSource | None = None,
) -> str:
    """Write a figure atomically as PNG, PDF or SVG, by the file's suffix.

    A PNG or SVG is one picture. A page of a PDF is as wide as the figure and as high as its rows need, has
    the heading and the foot, and is written before the next one is drawn. In PDF and SVG, text stays text,
    outlines are vector lines, and photographs are lossless. The same rows give the same bytes.

    Args:
        path: ends in .png, .pdf or .svg.
        layout: the layout of the figure.
        rows: at least one, consumed as they are drawn.
        page_rows: maximum rows on a page of a PDF.
        source: stored in the file's metadata as JSON: "Description" of a PNG (tEXt) and of an SVG,
            "Subject" of a PDF.

    Returns:
        The characters that no font here has; they are drawn as boxes.

    Raises:
        HvxError: an unknown format, too many rows for it, or the file cannot be written.
    """
    check_suffix(path)
    missing: set[str] = set()
    description = source.as_json() if source else None

    def checked_rows() -> Iterator[FigureRow]:
        for number, row in enumerate(rows, start=1):
            check_rows(path, number)
            missing.update(missing_glyphs(row.texts()))
            yield row

    kind = path.suffix.lower()
    with atomic_write(path) as part, settings(), part.open("wb") as file:
        if kind == ".pdf":
            _write_pdf(file, layout, checked_rows(), page_rows, description)
            return "".join(sorted(missing))
        try:
            page = layout.draw(checked_rows(), MOST_PIXELS)
        except PageTooLarge as error:
            raise HvxError(f"{path}: {error}; {_INSTEAD}") from None
        if kind == ".svg":
            from matplotlib.backends.backend_svg import FigureCanvasSVG  # slow import

            metadata = {"Creator": "hvx", "Date": None} | (
                {"Description": description} if description else {}
            )
            FigureCanvasSVG(page.close()).print_svg(file, metadata=metadata)
        else:
            # Twice as fast as Pillow's default level, and the file is 2 % larger.
            text = PngInfo()
            text.add_text("Software", "hvx")
            if description:
                text.add_text("Description", description)
            page.render().save(file, "png", dpi=(layout.dpi, layout.dpi), compress_level=4, pnginfo=text)
    return "".join(sorted(missing))


def _write_pdf(
    file: BinaryIO, layout: FigureLayout, rows: Iterator[FigureRow], page_rows: int, description: str | None
) -> None:
    """Write page by page.

    PdfPages would keep the pictures of all pages in memory until the end. Here each page's pictures are
    written with the page, and only their names and numbers stay in memory.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    saved_images: dict[Any, tuple[None, Any, Any]] = {}
    metadata = {"Creator": "hvx", "CreationDate": None} | ({"Subject": description} if description else {})
    with PdfPages(file, metadata=metadata) as pages:
        document: Any = pages._ensure_file()
        for first in rows:
            pages.savefig(layout.draw(chain([first], islice(rows, page_rows - 1))).close())
            document.writeImages()
            saved_images |= {name: (None, name, number) for _, name, number in document._images.values()}
            document._images = {}
        document._images, document.writeImages = saved_images, lambda: None
