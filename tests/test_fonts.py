"""Type: any script is drawn in a face that has it, whole words in one, and what no face has is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvx.view import fonts
from hvx.view.canvas import PixelCanvas
from hvx.view.tokens import TextSizes, lay_out, shorten, wrap

PRIVATE = "\U0010fffd"
"""A code point that no font has."""


def names(line: str) -> list[str]:
    return [face.path.stem if face.path else "built in" for face, _ in fonts.runs(line)]


@pytest.mark.parametrize(
    ("line", "faces"),
    [
        ("what is it?", ["built in"]),
        ("Привет", ["DejaVuSans"]),
        ("سؤال", ["DejaVuSans"]),
        ("what Привет it", ["built in", "DejaVuSans", "built in"]),
        ("", []),
    ],
)
def test_each_piece_is_drawn_in_the_first_face_that_has_it(line: str, faces: list[str]) -> None:
    assert names(line) == faces
    assert "".join(part for _, part in fonts.runs(line)) == line


def test_a_word_is_drawn_in_one_face() -> None:
    assert fonts.PILLOWS.covers("erd") and not fonts.PILLOWS.covers("ő")
    assert names("erdő") == ["DejaVuSans"]


def test_what_no_font_has_is_a_box_and_is_told() -> None:
    assert fonts.undrawable(["fine", f"a{PRIVATE}b", "\x07"]) == f"\x07{PRIVATE}"
    assert [part for _, part in fonts.runs(f"a{PRIVATE}b")] == ["a", fonts.BOX, "b"]


def test_steering_characters_need_no_glyph() -> None:
    assert fonts.undrawable(["a\u200db", "\u200fسؤال", "☀\ufe0f"]) == ""


def test_letters_are_never_parted_from_their_marks() -> None:
    marked = "e\u0301" * 30
    lines = wrap(marked, 20, 100)
    assert len(lines) > 1
    assert all(line.startswith("e") and line.endswith("\u0301") for line in lines)


def test_arabic_letters_are_joined_and_run_from_right_to_left() -> None:
    """Drawn as a word, letters take other shapes than each by itself; and the first stands at the right."""
    word = "سؤال"
    assert fonts.width(word, 40) < 0.95 * sum(fonts.width(letter, 40) for letter in word)
    picture = Image.new("RGB", (200, 60), "white")
    canvas = PixelCanvas(picture)
    canvas.text("اااس", 10, 40, 40, (0, 0, 0))  # three straight strokes, then one letter that is long and low
    columns = np.flatnonzero((np.asarray(picture).min(2) < 128).any(0))
    low = np.flatnonzero((np.asarray(picture)[:25].min(2) < 128).any(0))
    assert low.min() > (columns.min() + columns.max()) / 2


def test_a_question_from_right_to_left_begins_at_the_right() -> None:
    sizes = TextSizes.for_width(900)
    arabic, latin = (
        lay_out(words, [0.0] * 3, ("", ""), 900, 200, sizes)
        for words in (["ما", "لون", "؟"], ["what", "color", "?"])
    )
    lefts = [chip.box[0] for chip in arabic.chips]
    assert lefts == sorted(lefts, reverse=True)
    assert arabic.chips[0].box[2] == 900 - 200 - sizes.token // 2
    assert [chip.box[0] for chip in latin.chips] == sorted(chip.box[0] for chip in latin.chips)
    for chip in arabic.chips:
        assert chip.value_box[0] == chip.box[0]


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40), st.integers(40, 300))
def test_shortened_text_fits_or_is_a_single_ellipsis(text: str, width: int) -> None:
    short = shorten(text, 16, width)
    assert fonts.width(short, 16) <= width or short == "…"
    whole = " ".join(text.split())
    assert short == whole or (short.endswith("…") and whole.startswith(short[:-1].rstrip()))


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_any_text_is_cut_into_runs_without_loss(text: str) -> None:
    told = fonts.undrawable([text])
    kept = "".join(part for _, part in fonts.runs(text))
    if not told and not fonts.is_right_to_left(text):
        assert kept == text
