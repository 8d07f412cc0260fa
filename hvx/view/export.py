"""Writes a figure to a file: PNG, SVG, or PDF of many pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.view.figure import DPI, FigureLayout, FigureRow, PageTooLarge
from hvx.view.page import settings
from hvx.view.text import missing_glyphs

SUFFIXES = (".png", ".pdf", ".svg")

MOST_ROWS = 100
"""Of a PNG or SVG, which is one picture and held whole."""
MOST_PIXELS = 400_000_000
"""Of a PNG or SVG."""

_INSTEAD = "write a .pdf, which has as many pages as it needs, or look at the run with `hvx gallery`"


@dataclass(frozen=True)
class PageSetup:
    """What a figure's pixels are on paper.

    Attributes:
        dpi: pixels in an inch.
        page_rows: rows on a page of a PDF, at most.
    """

    dpi: int = DPI
    page_rows: int = 8


SCREEN = PageSetup()


def check_suffix(path: Path) -> None:
    """Raise an ``HvxError`` where a file's name is that of no kind of figure."""
    if path.suffix.lower() not in SUFFIXES:
        raise HvxError(f"{path}: a figure is written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def check_rows(path: Path, count: int) -> None:
    """Raise an ``HvxError`` where a PNG or SVG would have more than ``MOST_ROWS`` rows."""
    if path.suffix.lower() != ".pdf" and count > MOST_ROWS:
        kind = path.suffix[1:].upper()
        raise HvxError(f"{path}: {count} rows; a {kind} holds at most {MOST_ROWS}: {_INSTEAD}")


def export_figure(path: Path, layout: FigureLayout, rows: Iterable[FigureRow], page_rows: int = 8) -> str:
    """Write a figure, as PNG, PDF or SVG by the file's name, whole or not at all.

    A PNG or SVG is one picture. A page of a PDF is as wide as the figure and as high as its rows need, has
    the heading and the foot, and is written before the next one is drawn. PDF and SVG have text as text,
    outlines as lines, and photographs without loss. The same rows give the same bytes.

    Args:
        path: ends in .png, .pdf or .svg.
        layout: the figure's.
        rows: at least one, taken as they are drawn.
        page_rows: rows on a page of a PDF, at most.

    Returns:
        The characters that no font here has, which are drawn as boxes.

    Raises:
        HvxError: another kind of file, too many rows for it, or it cannot be written.
    """
    check_suffix(path)
    missing: set[str] = set()

    def noted() -> Iterator[FigureRow]:
        for number, row in enumerate(rows, start=1):
            check_rows(path, number)
            missing.update(missing_glyphs(row.texts()))
            yield row

    kind = path.suffix.lower()
    with whole_file(path) as part, settings(), part.open("wb") as file:
        if kind == ".pdf":
            _write_pdf(file, layout, noted(), page_rows)
            return "".join(sorted(missing))
        try:
            page = layout.draw(noted(), MOST_PIXELS)
        except PageTooLarge as error:
            raise HvxError(f"{path}: {error}; {_INSTEAD}") from None
        if kind == ".svg":
            from matplotlib.backends.backend_svg import FigureCanvasSVG  # hvx starts sooner without

            FigureCanvasSVG(page.close()).print_svg(file, metadata={"Creator": "hvx", "Date": None})
        else:
            # Twice as fast as Pillow's default level, and the file a fiftieth larger.
            page.render().save(file, "png", dpi=(layout.dpi, layout.dpi), compress_level=4)
    return "".join(sorted(missing))


def _write_pdf(file: BinaryIO, layout: FigureLayout, rows: Iterator[FigureRow], page_rows: int) -> None:
    """Write page by page.

    PdfPages would keep the pictures of all pages until the document ends. Here a page's pictures are written
    with it, and only their names and numbers are kept.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    written: dict[Any, tuple[None, Any, Any]] = {}
    with PdfPages(file, metadata={"Creator": "hvx", "CreationDate": None}) as pages:
        document: Any = pages._ensure_file()
        for first in rows:
            pages.savefig(layout.draw(chain([first], islice(rows, page_rows - 1))).close())
            document.writeImages()
            written |= {name: (None, name, number) for _, name, number in document._images.values()}
            document._images = {}
        document._images, document.writeImages = written, lambda: None
