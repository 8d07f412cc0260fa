"""Figures as files: PNG by pieces, PDF with text as text; whole or not at all."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pikepdf
import pypdfium2
import pytest
from golden_figures import rows
from PIL import Image, ImageChops, ImageFilter

from hvx.errors import HvxError
from hvx.view.figure import Figure, FigureRow, Look, draw_figure
from hvx.view.heat import fit
from hvx.view.sheet import SCREEN, Paper, write_sheet

WIDTH = 600
LOOK = Look("colour", outline=True, top_answers=True)


def write(path: Path, given: Iterable[FigureRow], paper: Paper = SCREEN) -> str:
    return write_sheet(path, Figure(WIDTH, 2, LOOK, printed=True), iter(given), paper)


def test_a_png_by_pieces_is_the_picture_drawn_whole(tmp_path: Path) -> None:
    write(tmp_path / "f.png", rows(), Paper(dpi=300))
    with Image.open(tmp_path / "f.png") as read:
        assert read.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        assert read.tobytes() == draw_figure(rows(), WIDTH, look=LOOK).tobytes()


def test_a_png_by_pieces_is_not_much_larger_than_pillows(tmp_path: Path) -> None:
    write(tmp_path / "f.png", rows())
    draw_figure(rows(), WIDTH, look=LOOK).save(tmp_path / "pillow.png")
    assert (tmp_path / "f.png").stat().st_size < 1.2 * (tmp_path / "pillow.png").stat().st_size


def test_rows_are_asked_for_one_at_a_time(tmp_path: Path) -> None:
    """A row is drawn and gone before the next one is made: the road to flat memory."""
    alive: list[weakref.ref[FigureRow]] = []
    most = 0

    def given() -> Iterator[FigureRow]:
        nonlocal most
        for _ in range(12):
            made = rows()[0]
            alive.append(weakref.ref(made))
            most = max(most, sum(one() is not None for one in alive))
            yield made

    write(tmp_path / "f.png", given())
    assert most <= 3


def text_of(path: Path) -> list[str]:
    with pypdfium2.PdfDocument(path) as document:
        return [page.get_textpage().get_text_bounded() for page in document]


def test_a_pdf_has_its_text_as_text(tmp_path: Path) -> None:
    write(tmp_path / "f.pdf", rows())
    (text,) = text_of(tmp_path / "f.pdf")
    for part in (
        "Original",
        "Proposed",
        "star",
        "word23",
        "Привет",
        "two (three)",
        "62.0 %",
        "(-1.25)",
        "z-score",
    ):
        assert part in text, part


def test_a_pdf_looks_as_the_png(tmp_path: Path) -> None:
    write(tmp_path / "f.pdf", rows(), Paper(dpi=200))
    expected = draw_figure(rows(), WIDTH, look=LOOK)
    with pypdfium2.PdfDocument(tmp_path / "f.pdf") as document:
        size, drawn = document[0].get_size(), document[0].render(scale=200 / 72).to_pil().convert("RGB")
    assert size == pytest.approx([side * 72 / 200 for side in expected.size], abs=0.1)
    drawn = drawn.resize(expected.size)
    # Edges fall between other pixels; a picture or a word in a wrong place outlives the blur.
    one, other = (image.filter(ImageFilter.GaussianBlur(3)) for image in (drawn, expected))
    apart = np.asarray(ImageChops.difference(one, other)).max(2)
    assert (apart > 40).mean() < 0.002
    moved = np.asarray(ImageChops.difference(one, ImageChops.offset(other, 4, 0))).max(2)
    assert (moved > 40).mean() > 0.01


def test_photographs_are_in_a_pdf_without_loss(tmp_path: Path) -> None:
    write(tmp_path / "f.pdf", rows()[:1])
    side = Figure(WIDTH, 2, LOOK).side
    with pikepdf.open(tmp_path / "f.pdf") as document:
        objects = document.pages[0].resources["/XObject"]
        images = [pikepdf.PdfImage(objects[name]).as_pil_image() for name in objects]
    expected = fit(rows()[0].photo, side).tobytes()
    assert any(image.size == (side, side) and image.convert("RGB").tobytes() == expected for image in images)


def test_a_pdf_goes_on_over_pages_each_with_heading_and_foot(tmp_path: Path) -> None:
    many = [row for _ in range(3) for row in rows()[:2]]
    write(tmp_path / "f.pdf", many, Paper(page_rows=4))
    pages = text_of(tmp_path / "f.pdf")
    assert len(pages) == 2
    assert all("Original" in page and "z-score" in page for page in pages)
    assert [page.count("star") for page in pages] == [2, 1]


def test_a_pdf_of_more_rows_than_are_in_memory_at_a_time_has_them_all(tmp_path: Path) -> None:
    write(tmp_path / "f.pdf", rows()[:1] * 40, Paper(page_rows=15))
    assert [page.count("star") for page in text_of(tmp_path / "f.pdf")] == [15, 15, 10]


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}{suffix}", rows())
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_a_figure_that_fails_halfway_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    def failing() -> Iterator[FigureRow]:
        yield rows()[0]
        raise HvxError("photo.jpg: no such image")

    with pytest.raises(HvxError, match="no such image"):
        write(tmp_path / f"f{suffix}", failing())
    assert not list(tmp_path.iterdir())


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HvxError, match=r"f\.jpg: a figure is written as \.png or \.pdf"):
        write(tmp_path / "f.jpg", rows())
    assert not list(tmp_path.iterdir())


def test_characters_that_no_font_has_are_told(tmp_path: Path) -> None:
    row = replace(rows()[0], predicted="\U0010fffd")
    assert write(tmp_path / "f.png", [row]) == "\U0010fffd"
    assert write(tmp_path / "f.pdf", [row]) == "\U0010fffd"
