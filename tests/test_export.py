"""Figures as files: PNG, SVG, PDF of many pages; text as text; whole or not at all, the same every time."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pypdfium2
import pytest
from golden_figures import rows
from matplotlib.backends import backend_pdf
from PIL import Image, ImageChops, ImageFilter

from hvx.errors import HvxError
from hvx.view import export
from hvx.view.export import MOST_ROWS, export_figure
from hvx.view.figure import FigureLayout, FigureRow, draw_figure
from hvx.view.heat import fit
from hvx.view.style import FigureStyle

WIDTH = 600
STYLE = FigureStyle("color", outline=True, top_answers=True)
KINDS = (".png", ".pdf", ".svg")
SVG = "{http://www.w3.org/2000/svg}"


def write(path: Path, given: Iterable[FigureRow], page_rows: int = 8, dpi: int = 200) -> str:
    layout = FigureLayout(WIDTH, 2, STYLE, printed=True, dpi=dpi)
    return export_figure(path, layout, iter(given), page_rows)


def test_a_png_is_the_picture_drawn_in_memory(tmp_path: Path) -> None:
    write(tmp_path / "f.png", rows())
    with Image.open(tmp_path / "f.png") as read:
        assert read.mode == "RGB"
        assert read.info["dpi"] == pytest.approx((200, 200), abs=0.01)
        assert read.tobytes() == draw_figure(rows(), WIDTH, style=STYLE).tobytes()


def test_the_pixels_of_a_png_do_not_depend_on_its_dpi(tmp_path: Path) -> None:
    for dpi in (72, 300):
        write(tmp_path / f"{dpi}.png", rows()[:1], dpi=dpi)
    with Image.open(tmp_path / "72.png") as one, Image.open(tmp_path / "300.png") as other:
        assert other.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        assert one.size == other.size
        apart = np.asarray(ImageChops.difference(one, other)).max(2)
        assert (apart > 8).mean() < 0.01


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_rows_are_asked_for_one_at_a_time(tmp_path: Path, suffix: str) -> None:
    """A row is drawn and gone before the next one is made."""
    alive: list[weakref.ref[FigureRow]] = []
    most = 0

    def given() -> Iterator[FigureRow]:
        nonlocal most
        for _ in range(12):
            made = rows()[0]
            alive.append(weakref.ref(made))
            most = max(most, sum(one() is not None for one in alive))
            yield made

    write(tmp_path / f"f{suffix}", given(), page_rows=4)
    assert most <= 3


def test_the_pictures_of_a_page_are_gone_when_the_next_one_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a PDF of any length takes the memory of a page: PdfPages by itself would keep all pictures."""
    kept: list[int] = []

    class Noted(backend_pdf.PdfPages):
        def savefig(self, *arguments: Any, **more: Any) -> None:
            kept.append(len(self._ensure_file()._images))
            super().savefig(*arguments, **more)

    monkeypatch.setattr(backend_pdf, "PdfPages", Noted)
    write(tmp_path / "f.pdf", rows()[:1] * 6, page_rows=2)
    assert kept == [0, 0, 0]
    assert len(pictures_of(tmp_path / "f.pdf")) == 3 * (2 * 4 + 2)  # four of a row, two scales of a page


def text_of(path: Path) -> list[str]:
    with pypdfium2.PdfDocument(path) as document:
        return [page.get_textpage().get_text_bounded() for page in document]


def pictures_of(path: Path) -> list[Image.Image]:
    with pypdfium2.PdfDocument(path) as document:
        return [
            item.get_bitmap(render=False).to_pil().convert("RGB")
            for page in document
            for item in page.get_objects()
            if isinstance(item, pypdfium2.PdfImage)
        ]


PARTS = (
    "Original",
    "Proposed",
    "star",
    "word23",
    "Привет",
    "two (three)",
    "62.0 %",
    "(−1.25)",
    "z-score",
    "$5",
)


def test_a_pdf_has_its_text_as_text(tmp_path: Path) -> None:
    write(tmp_path / "f.pdf", [*rows(), replace(rows()[0], predicted="$5")])
    (text,) = text_of(tmp_path / "f.pdf")
    for part in PARTS:
        assert part in text, part


def test_an_svg_has_its_text_as_text(tmp_path: Path) -> None:
    write(tmp_path / "f.svg", [*rows(), replace(rows()[0], predicted="$5")])
    root = ElementTree.parse(tmp_path / "f.svg").getroot()
    text = " ".join(one.text or "" for one in root.iter(f"{SVG}text"))
    for part in PARTS:
        assert part in text, part
    assert all("DejaVu Sans" in str(one.get("style")) for one in root.iter(f"{SVG}text"))
    assert len(list(root.iter(f"{SVG}image"))) == 4 * 4 + 2
    height = draw_figure([*rows(), replace(rows()[0], predicted="$5")], WIDTH, style=STYLE).height
    assert float(str(root.get("width")).removesuffix("pt")) == pytest.approx(WIDTH * 72 / 200)
    assert float(str(root.get("height")).removesuffix("pt")) == pytest.approx(height * 72 / 200)


def test_a_pdf_looks_as_the_png(tmp_path: Path) -> None:
    write(tmp_path / "f.pdf", rows())
    expected = draw_figure(rows(), WIDTH, style=STYLE)
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
    side = FigureLayout(WIDTH, 2, STYLE).side
    expected = fit(rows()[0].photo, side).tobytes()
    found = pictures_of(tmp_path / "f.pdf")
    assert any(image.size == (side, side) and image.tobytes() == expected for image in found)


def test_a_pdf_goes_on_over_pages_each_with_heading_and_foot(tmp_path: Path) -> None:
    many = [row for _ in range(3) for row in rows()[:2]]
    write(tmp_path / "f.pdf", many, page_rows=4)
    pages = text_of(tmp_path / "f.pdf")
    assert len(pages) == 2
    assert all("Original" in page and "z-score" in page for page in pages)
    assert [page.count("star") for page in pages] == [2, 1]


def test_a_pdf_of_full_pages_has_no_empty_one_after_them(tmp_path: Path) -> None:
    write(tmp_path / "f.pdf", rows()[:1] * 30, page_rows=15)
    assert [page.count("star") for page in text_of(tmp_path / "f.pdf")] == [15, 15]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_more_rows_than_a_picture_holds_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"f{suffix}"
    with pytest.raises(HvxError, match=rf"holds at most {MOST_ROWS}: write a \.pdf.*hvx gallery"):
        export.check_rows(path, MOST_ROWS + 1)
    export.check_rows(path, MOST_ROWS)
    export.check_rows(tmp_path / "f.pdf", 100 * MOST_ROWS)


def test_rows_of_unknown_number_are_refused_when_they_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MOST_ROWS", 2)
    write(tmp_path / "f.png", rows()[:2])
    with pytest.raises(HvxError, match="3 rows; a PNG holds at most 2"):
        write(tmp_path / "g.png", rows())
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]


def test_a_picture_that_would_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MOST_PIXELS", 250_000)
    with pytest.raises(HvxError, match=r"f\.png: a picture of more than 250,000 pixels; write a \.pdf"):
        write(tmp_path / "f.png", rows())
    assert not list(tmp_path.iterdir())
    write(tmp_path / "f.pdf", rows())


@pytest.mark.parametrize("suffix", KINDS)
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}{suffix}", rows())
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    """No hash that changes from process to process, no date, no name of the machine."""
    program = (
        "import sys; from pathlib import Path; from test_export import KINDS, write, rows\n"
        "for kind in KINDS: write(Path(sys.argv[1]) / ('other' + kind), rows()[:2])"
    )
    folder = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=folder)
    for kind in KINDS:
        write(tmp_path / f"this{kind}", rows()[:2])
        assert (tmp_path / f"this{kind}").read_bytes() == (tmp_path / f"other{kind}").read_bytes(), kind


@pytest.mark.parametrize("suffix", KINDS)
def test_a_matplotlibrc_changes_nothing_and_is_not_changed(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"plain{suffix}", rows()[:2])
    own = {
        "font.weight": "bold",
        "font.family": ["monospace"],
        "text.usetex": True,
        "text.parse_math": True,
        "savefig.dpi": 30,
        "savefig.facecolor": "red",
        "savefig.bbox": "tight",
        "image.interpolation": "bicubic",
        "pdf.fonttype": 3,
        "svg.fonttype": "path",
        "path.sketch": (1, 100, 2),
    }
    with matplotlib.rc_context(own):
        before = dict(matplotlib.rcParams)
        write(tmp_path / f"own{suffix}", rows()[:2])
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / f"plain{suffix}").read_bytes() == (tmp_path / f"own{suffix}").read_bytes()


def test_drawing_needs_no_pyplot(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from test_export import KINDS, write, rows\n"
        "for kind in KINDS: write(Path(sys.argv[1]) / ('f' + kind), rows()[:1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=Path(__file__).parent)


@pytest.mark.parametrize("suffix", KINDS)
def test_a_figure_that_fails_halfway_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    def failing() -> Iterator[FigureRow]:
        yield rows()[0]
        raise HvxError("photo.jpg: no such image")

    with pytest.raises(HvxError, match="no such image"):
        write(tmp_path / f"f{suffix}", failing(), page_rows=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", KINDS)
def test_a_full_disk_is_one_line_and_leaves_the_older_figure(tmp_path: Path, suffix: str) -> None:
    """A limit on a file's size stands for the disk."""
    (tmp_path / f"f{suffix}").write_bytes(b"older")
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from test_export import write, rows; from hvx.errors import HvxError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: write(Path(sys.argv[1]), rows()[:2], page_rows=1)\n"
        "except HvxError as error: print(error)"
    )
    path = tmp_path / f"f{suffix}"
    command = [sys.executable, "-B", "-c", program, str(path)]
    done = subprocess.run(
        command, check=True, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith(f"{path}: cannot be written: File too large")
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HvxError, match=r"f\.jpg: a figure is written as \.png, \.pdf or \.svg"):
        write(tmp_path / "f.jpg", rows())
    assert not list(tmp_path.iterdir())


def test_characters_that_no_font_has_are_reported_once(tmp_path: Path) -> None:
    row = replace(rows()[0], predicted="\U0010fffd", top_answers=(("\U0010fffd", 0.5),))
    for kind in KINDS:
        assert write(tmp_path / f"f{kind}", [row, row]) == "\U0010fffd"
