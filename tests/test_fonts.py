"""Text: any script is drawn in a font that has it, in its own order, and what no font has is reported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from matplotlib.font_manager import fontManager
from numpy.typing import NDArray

from hvx.view import text
from hvx.view.page import Page, settings
from hvx.view.tokens import TextSizes, lay_out

PRIVATE = "\U0010fffd"
"""A code point that no font has."""
RARE = "\u16a0\u16a2"
"""Two runes, which DejaVu Sans lacks."""


def ink(line: str, size: int = 40) -> NDArray[np.bool_]:
    """Which pixels of a line of text are dark; Matplotlib's warning of a missing glyph is an error."""
    with settings(), warnings.catch_warnings():
        warnings.simplefilter("error")
        page = Page(400, 200)
        page.lines((line,), (20, 0), size, (0, 0, 0))
        page.bottom = 2 * size
        return np.asarray(page.render()).min(2) < 128


@pytest.fixture
def rune_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A font of two runes, each a filled square, found as a system's fonts are."""
    pen = TTGlyphPen(None)
    for point, move in (((0, 0), pen.moveTo), ((0, 900), pen.lineTo), ((900, 900), pen.lineTo)):
        move(point)
    pen.lineTo((900, 0))
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", "one", "two"]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, RARE), names[1:], strict=True)))
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Two Runes", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    path = tmp_path / "TwoRunes.ttf"
    builder.save(path)
    known = list(fontManager.ttflist)
    monkeypatch.setattr(text, "findSystemFonts", lambda: [str(path)])
    _forget()
    yield path
    fontManager.ttflist[:] = known
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    for cached in (text._other_files, text._family_of, text._word_families, text._width, text._fonts):
        cached.cache_clear()


@pytest.mark.parametrize(
    "line", ["what is it?", "Привет", "سؤال", "שלום", "αβγ", "what Привет it", "☀", "😀", ""]
)
def test_common_scripts_are_drawn_in_dejavu_sans(line: str) -> None:
    assert text.families(line) == ("DejaVu Sans",)
    assert text.missing_glyphs([line]) == ""
    assert ink(line).any() == bool(line)


def test_what_dejavu_sans_lacks_is_drawn_in_a_font_that_has_it(rune_font: Path) -> None:
    assert text.families(f"a {RARE} b") == ("DejaVu Sans", "Two Runes")
    assert text.missing_glyphs([RARE]) == ""
    assert text.boxed(RARE) == RARE
    assert text.width(RARE, 40) == pytest.approx(80)
    drawn = ink(RARE)
    assert drawn[:, 22:54].any(0).all()  # the first square, whole
    assert not drawn[:, 57:59].any()


def test_such_a_font_is_embedded_in_a_pdf_and_named_in_an_svg(rune_font: Path, tmp_path: Path) -> None:
    with settings():
        page = Page(400, 200)
        page.lines((f"a {RARE} b",), (20, 0), 40, (0, 0, 0))
        page.bottom = 80
        for kind in ("pdf", "svg"):
            page.close().savefig(tmp_path / f"f.{kind}")
    with pypdfium2.PdfDocument(tmp_path / "f.pdf") as document:
        assert document[0].get_textpage().get_text_bounded().strip() == f"a {RARE} b"
        drawn = np.asarray(document[0].render(scale=200 / 72).to_pil().convert("L")) < 128
    alike = ink(f"a {RARE} b")[:80]
    assert (drawn[:80, :400] != alike).mean() < 0.02 < alike.mean()
    assert "Two Runes" in (tmp_path / "f.svg").read_text(encoding="utf-8")


def test_without_such_a_font_a_box_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_other_files", list)
    for cached in (text._family_of, text._word_families):
        cached.cache_clear()
    assert text.missing_glyphs([RARE, RARE]) == RARE
    assert text.boxed(f"a{RARE}") == "a□□"
    for cached in (text._family_of, text._word_families):
        cached.cache_clear()


def test_a_file_that_is_no_font_is_passed_over(rune_font: Path) -> None:
    rune_font.write_bytes(b"no font")
    text._characters.cache_clear()
    assert text.missing_glyphs([RARE]) == RARE


def test_what_no_font_has_is_a_box_and_is_reported() -> None:
    assert text.missing_glyphs(["fine", f"a{PRIVATE}b", "\x07", "\ud800"]) == f"\x07\ud800{PRIVATE}"
    assert text.boxed(f"a{PRIVATE}b \ud800") == "a□b □"
    assert text.wrap(f"a{PRIVATE}b", 20, 100) == ("a□b",)
    assert text.shorten(f"a{PRIVATE}b", 20, 100) == "a□b"


@pytest.mark.parametrize("line", ["a\u200db", "\u200fسؤال", "☀\ufe0f", "A\u2066b", "e\u0301", "a\u00adb"])
def test_steering_characters_need_no_glyph(line: str) -> None:
    assert text.missing_glyphs([line]) == ""
    ink(line)


@pytest.mark.parametrize("mark", ["\u0301", "\ufe0f", "\u200d"])
def test_letters_are_never_parted_from_their_marks(mark: str) -> None:
    lines = text.wrap(f"e{mark}" * 60, 20, 100)
    assert len(lines) > 1
    assert all(line.startswith("e") and line.endswith((mark, "e")) for line in lines)
    assert not any(line.startswith(mark) for line in lines)


def test_what_a_reader_takes_for_one_character_is_one_cluster() -> None:
    family, flag, thumb, syllable, hangul = "👩\u200d👧", "🇫🇷", "👍🏽", "क्षि", "\u1112\u1161\u11ab"
    assert text.clusters("e\u0301a") == ["e\u0301", "a"]
    assert text.clusters(family + flag + flag + thumb) == [family, flag, flag, thumb]
    assert text.clusters(syllable + hangul + "b") == [syllable, hangul, "b"]
    assert text.clusters("") == []


def test_arabic_letters_are_joined_and_run_from_right_to_left() -> None:
    """Drawn as a word, letters take other shapes than each by itself; and the first stands at the right."""
    word = "سؤال"
    assert text.width(word, 40) < 0.95 * sum(text.width(letter, 40) for letter in word)
    drawn = ink("اااس")  # three straight strokes, then one letter that is long and low
    columns = np.flatnonzero(drawn.any(0))
    high = np.flatnonzero(drawn[:22].any(0))
    assert high.min() > (columns.min() + columns.max()) / 2


@pytest.mark.parametrize("words", [["ما", "لون", "؟"], ["מה", "צבע", "?"]])
def test_a_question_from_right_to_left_begins_at_the_right(words: list[str]) -> None:
    sizes = TextSizes.for_figure(900, 200)
    turned, latin = (
        lay_out(each, [0.0] * 3, ("", ""), 900, 200, sizes) for each in (words, ["what", "color", "?"])
    )
    lefts = [token.box[0] for token in turned.tokens]
    assert lefts == sorted(lefts, reverse=True)
    assert turned.tokens[0].box[2] == 900 - 200 - sizes.token / 2
    assert [token.box[0] for token in latin.tokens] == sorted(token.box[0] for token in latin.tokens)


@examples(deadline=None, max_examples=60)
@given(st.text(max_size=40), st.integers(40, 300))
def test_shortened_text_fits_or_is_a_single_ellipsis(line: str, room: int) -> None:
    short = text.shorten(line, 16, room)
    assert text.width(short, 16) <= room or short == "…"
    whole = " ".join(text.boxed(line).split())
    assert short == whole or (short.endswith("…") and whole.startswith(short[:-1].rstrip()))


@examples(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_any_text_is_drawn_whole_but_for_what_is_reported(line: str) -> None:
    missing, drawn = text.missing_glyphs([line]), text.boxed(line)
    if not missing:
        assert drawn == line
    assert text.missing_glyphs([drawn]) == ""
    assert "".join(text.clusters(line)) == line


def test_widths_are_those_with_which_matplotlib_draws() -> None:
    """As text is laid out in one place and drawn in another."""
    for line in ("what is the man carrying?", "−0.4321", "سؤال", "iiiiiiiiii"):
        columns = np.flatnonzero(ink(line, 21).any(0))
        assert columns[-1] - columns[0] + 1 == pytest.approx(text.width(line, 21), abs=5)
