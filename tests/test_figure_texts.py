"""Every text that a figure writes, and where its scales stand: exactly, as pictures can hardly tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn import lines, pictures, rectangles, strokes, texts
from golden_figures import STYLES, marked_rows, rows
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from hvx.errors import HvxError
from hvx.view import text
from hvx.view.figure import FigureLayout, FigureRow
from hvx.view.heat import color_scale, outline
from hvx.view.legend import draw_answers, draw_label, draw_outline, draw_scales, scales
from hvx.view.page import Page, settings
from hvx.view.style import FigureStyle, Style
from hvx.view.tokens import BLACK, HIGH, LOW, NEUTRAL, PRINTED_INK, WHITE, TextSizes

SIZES = TextSizes.for_figure(1200, 200)


def drawn(rows: list[FigureRow], style: FigureStyle, width: int = 1200, title: str | None = None) -> Page:
    printed = any(row.shows_printed for row in rows)
    with settings():
        page = FigureLayout(width, 2, style, title, printed).draw(rows)
        page.close()
    return page


def page_of(draw: Callable[..., None], *arguments: Any, width: int = 1200) -> Page:
    """A page on which one part of a figure is drawn."""
    with settings():
        page = Page(width, 200)
        draw(page, *arguments)
    return page


HEADING = ["Golden", "In brackets: z printed in the paper"]
NAMES = ["Original", "First Attention", "Second Attention", "Proposed"]
NARROW = ["Original", "First Attention", "Second", "Attention", "Proposed", "Likeliest", "answers"]
"""The names of five columns."""
FIRST = ["is", "−0.43", "the", "0.63", "star", "0.10", "red", "−0.19", "?", "0.80", "yes (yes)"]
SECOND = ["how", "−0.27", "(0.50)", "many", "−0.76", "?", "0.87", "(−1.25)", "✕ two (three)"]
Z_SCALE = ["z-score", "≤ −2", "−1", "0", "1", "≥ 2"]
MAP_SCALE = ["attention, heat", "least", "most"]
OUTLINE = ["outline: heat above mean + 2 standard deviations"]
BARS = ["62.0 %", "a very l…", "20.0 %", "no", "10.0 %", "red", "5.0 %"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", [*HEADING, *NAMES, *FIRST, *SECOND, *Z_SCALE]),
        ("color", [*HEADING, *NAMES, *FIRST, *SECOND, *Z_SCALE, *MAP_SCALE]),
        ("outline", [*HEADING, *NAMES, *FIRST, *SECOND]),
        (
            "answers",
            [*HEADING, *NARROW, "yes", *BARS, *FIRST, "two", *BARS, *SECOND, *Z_SCALE,
             *MAP_SCALE, *OUTLINE],
        ),
    ],
)  # fmt: skip
def test_a_figure_writes_these_texts_in_this_order(name: str, expected: list[str]) -> None:
    assert lines(drawn(rows()[:2], STYLES[name], title="Golden")) == expected


def test_a_value_stands_under_its_token() -> None:
    """Which a picture of the figure can hardly tell."""
    page = drawn(rows()[:1], STYLES["paper"])
    words = {found.line: found for found in texts(page)}
    for token, value in zip(FIRST[:-1:2], FIRST[1::2], strict=True):
        assert words[value].middle == pytest.approx(words[token].middle)
        assert words[value].baseline > words[token].baseline


@pytest.mark.parametrize("style", ["paper", "color"])
def test_ticks_stand_under_the_colors_that_they_name(style: Style) -> None:
    expected = {
        "z-score": [(0.0, LOW), (0.25, None), (0.5, NEUTRAL), (0.75, None), (1.0, HIGH)],
        "attention, heat": [
            (end, tuple(int(level) for level in color_scale()[place].round()))
            for end, place in ((0.0, 0), (1.0, 255))
        ],
    }
    for scale in scales(style, False):
        page = page_of(draw_scales, [scale], 30, 1000, 20)
        (strip,), (name, *ticks) = pictures(page), texts(page)
        assert name.line == scale.name
        assert strip.left > name.right
        for tick, (place, color) in zip(ticks, expected[scale.name], strict=True):
            assert tick.middle == pytest.approx(strip.left + place * strip.picture.width)
            assert strip.top + strip.picture.height < tick.baseline <= page.bottom
            if color:
                at = (min(strip.picture.width - 1, int(place * strip.picture.width)), 0)
                got = np.array(strip.picture.getpixel(at), int)
                assert np.abs(got - np.array(color)).max() <= 2


def test_scales_that_do_not_fit_beside_each_other_stand_under_each_other() -> None:
    shown = scales("color", True)
    beside, under = (
        {found.line: found for found in texts(page_of(draw_scales, shown, 0, room, 20, width=room))}
        for room in (1600, 700)
    )
    names = [scale.name for scale in shown]
    assert len({beside[name].baseline for name in names}) == 1
    assert len({under[name].baseline for name in names}) > 1
    for found in (beside, under):
        ends = [(word.left, word.right, word.baseline) for word in found.values()]
        for one in ends:
            apart = [one[2] != other[2] or one[1] <= other[0] or other[1] <= one[0] for other in ends]
            assert apart.count(False) == 1  # itself


def test_a_scale_stays_within_a_narrow_figure() -> None:
    for found in texts(page_of(draw_scales, scales("paper", False), 10, 250, 20, width=270)):
        assert found.left >= 10 and found.right <= 260, found.line


def test_scales_are_those_of_the_style() -> None:
    assert [scale.name for scale in scales("paper", False)] == ["z-score"]
    assert [scale.name for scale in scales("color", False)] == ["z-score", "attention, heat"]
    assert [scale.name for scale in scales("paper", True)] == ["z-score", *OUTLINE]
    z = scales("paper", False)[0]
    assert z.ticks == ((0.0, "≤ −2"), (0.25, "−1"), (0.5, "0"), (0.75, "1"), (1.0, "≥ 2"))
    assert scales("color", False)[1].ticks == ((0.0, "least"), (1.0, "most"))


def test_bars_are_as_long_as_their_shares() -> None:
    answers = [("yes", 0.75), ("", 0.5), ("no", float("nan")), ("two", 0.1), ("red", 0.0)]
    page = page_of(draw_answers, answers, (100, 50), 200, TextSizes.for_figure(800, 200))
    assert lines(page) == ["yes", "75.0 %", "two", "10.0 %", "red", "0.0 %"]
    boxes = rectangles(page)
    troughs, bars = boxes[::2], boxes[1::2]
    assert [box[0::2] for box, _ in [*troughs[:2], boxes[-1]]] == [(100, 300)] * 3
    assert [box[0::2] for box, _ in bars[:2]] == [(100, 250), (100, 120)]
    assert len(boxes) == 5  # a share of 0 has no bar
    words = texts(page)
    assert words[0].ink == BLACK != words[2].ink
    assert all(words[place].right == pytest.approx(300) for place in (1, 3, 5))


def test_an_outline_is_a_white_line_within_a_black_one_around_what_is_above_the_threshold() -> None:
    """Around a hot square of a quarter of the picture's side: one line along its edge."""
    heat = np.zeros((40, 40))
    heat[10:20, 20:30] = 1
    page = page_of(draw_outline, outline(heat, 160), 30, 50, 160)
    (under, black, wide), (over, white, narrow) = strokes(page)
    assert (black, white) == (BLACK, WHITE)
    assert wide > 2 * narrow
    assert np.array_equal(under, over)
    assert np.abs(under.min(0) - (30 + 80, 50 + 40)).max() < 3
    assert np.abs(under.max(0) - (30 + 120, 50 + 80)).max() < 3
    assert outline(np.ones((40, 40)), 160) == []


IMAGE_LABEL, WORDS_NOTE = (
    "zero gradient: no heat map",
    "The gradient of the words is zero everywhere: there are no z-scores.",
)


@pytest.mark.parametrize(
    ("bits", "said"),
    [(0, []), (1, [IMAGE_LABEL]), (2, [WORDS_NOTE]), (3, [IMAGE_LABEL, WORDS_NOTE])],
)
@pytest.mark.parametrize("style", ["paper", "color"])
def test_a_gradient_that_is_zero_everywhere_is_said(style: Style, bits: int, said: list[str]) -> None:
    row = replace(rows()[0], zero_gradient=bits)
    shown = FigureStyle(style, outline=True, top_answers=True, font_pt=5)
    found = lines(drawn([row], shown, width=1600))
    assert [line for line in found if line in (IMAGE_LABEL, WORDS_NOTE)] == said
    without = lines(drawn([replace(row, zero_gradient=0)], shown, width=1600))
    assert sorted([*without, *said]) == sorted(found)


def test_the_label_stands_on_the_heat_map_and_the_note_under_the_tokens() -> None:
    row = replace(rows()[0], zero_gradient=3)
    page = drawn([row], FigureStyle(legend=False, font_pt=5), width=1600)
    words = {found.line: found for found in texts(page)}
    heatmap = pictures(page)[-1]
    left, top, side = heatmap.left, heatmap.top, heatmap.picture.width
    label, note = words[IMAGE_LABEL], words[WORDS_NOTE]
    assert left < label.left < left + side
    assert top + 0.8 * side < label.baseline < top + side
    (band, fill) = next((box, fill) for box, fill in rectangles(page) if box[0] == left)
    assert (band[0], band[2], band[3], fill) == (left, left + side, top + side, WHITE)
    assert note.left == pictures(page)[0].left
    assert note.baseline > max(word.baseline for line, word in words.items() if line != WORDS_NOTE)
    assert note.ink == PRINTED_INK


def test_a_label_lies_above_the_outline() -> None:
    row = replace(rows()[0], zero_gradient=1, heatmap=np.eye(96)[::-1])
    style = FigureStyle(outline=True, legend=False)
    band, _ = next((box, fill) for box, fill in rectangles(drawn([row], style)) if fill == WHITE)
    with settings():
        picture = FigureLayout(1200, 2, style).draw([row]).render()
    left, top, right, bottom = (round(side) for side in band)
    corner = np.asarray(picture.crop((left, top + 1, left + (right - left) // 24, bottom)))
    assert (corner == 255).all()


def test_a_label_of_several_lines_stays_on_its_picture() -> None:
    page = page_of(draw_label, IMAGE_LABEL, (10, 20), 60, TextSizes.for_figure(300, 200))
    assert " ".join(lines(page)) == IMAGE_LABEL
    assert len(lines(page)) > 1
    assert all(word.left >= 10 and word.right <= 70 for word in texts(page))
    ((band, _),) = rectangles(page)
    assert band[3] == 80
    assert all(band[1] < word.baseline < 80 for word in texts(page))


def test_in_a_narrow_figure_labels_stay_on_their_pictures_and_no_name_is_broken() -> None:
    """Six columns in 3.3 inches, with text of 8 points."""
    row = replace(rows()[0], zero_gradient=1)
    layout = FigureLayout(495, 4, FigureStyle(font_pt=8), dpi=150)
    with settings():
        page = layout.draw([row])
    top = pictures(page)[0].top
    band = next(box for box, fill in rectangles(page) if fill == WHITE)
    assert top <= band[1] < band[3] == top + layout.side
    above = " ".join(word.line for word in texts(page) if word.baseline < top)
    assert above.split().count("Attention") == 4
    label = [word for word in texts(page) if band[1] <= word.baseline <= band[3] and word.left >= band[0]]
    assert " ".join(word.line for word in label) == IMAGE_LABEL


def test_lines_stand_one_under_the_other() -> None:
    page = page_of(lambda page: page.lines(("a", "b"), (5, 7), 20, BLACK))
    (first, second) = texts(page)
    assert (first.line, first.left, second.line, second.left) == ("a", 5, "b", 5)
    assert second.baseline - first.baseline == pytest.approx(text.line_height(20))
    assert first.baseline == pytest.approx(7 + text.ascent(20))


def test_scores_have_the_digits_asked_for() -> None:
    found = lines(drawn(rows()[1:2], FigureStyle(digits=4)))
    assert [line for line in found if "0." in line or "1." in line] == [
        "−0.2679", "(0.5000)", "−0.7595", "0.8684", "(−1.2500)"
    ]  # fmt: skip


@pytest.mark.parametrize(("points", "dpi"), [(8, 200), (12.5, 200), (12.5, 300)])
def test_no_text_is_smaller_than_asked_for(points: float, dpi: int) -> None:
    row = replace(rows()[1], zero_gradient=3)
    layout = FigureLayout(
        round(5.5 * dpi), 2, FigureStyle("color", True, True, font_pt=points), "T", True, 1, dpi
    )
    with settings():
        page = layout.draw([row])
    assert min(word.size for word in texts(page)) * 72 / dpi == pytest.approx(points)


def test_dollar_signs_are_text_and_no_formula() -> None:
    row = replace(rows()[0], tokens=["$5", "or", "$\\frac{1}{2}$", "5$", "?"], predicted="$x$")
    found = lines(drawn([row], FigureStyle()))
    for word in (*row.tokens, "✕ $x$ (yes)"):
        assert word in found
    assert FigureLayout(600, 2).draw([row]).render().size[0] == 600


UNKNOWN, FRAME = "dotted: word unknown to the model", "frame: what the model saw"


def dotted(page: Page) -> list[FancyBboxPatch]:
    patches = page.figure.axes[0].patches
    return [one for one in patches if isinstance(one, FancyBboxPatch) and not one.get_fill()]


def test_dots_stand_around_the_words_that_the_model_does_not_know() -> None:
    page = drawn(marked_rows()[:1], FigureStyle())
    marks = dotted(page)
    words = {found.line: found for found in texts(page)}
    assert len(marks) == 2
    for mark, word in zip(marks, ("star", "red"), strict=True):
        left, right = mark.get_x(), mark.get_x() + mark.get_width()
        assert left < words[word].left < words[word].right < right
        assert mark.get_y() < words[word].baseline < mark.get_y() + mark.get_height()
    assert lines(page)[-2:] == [UNKNOWN, FRAME]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unknown": (), "whole": None}, []),
        ({"unknown": [False] * 5, "whole": Image.new("RGB", (50, 50))}, []),
        ({"unknown": [False] * 4 + [True], "whole": None}, [UNKNOWN]),
        ({"unknown": (), "whole": Image.new("RGB", (51, 50))}, [FRAME]),
    ],
)
def test_the_foot_explains_the_marks_that_a_page_has(changes: dict[str, Any], said: list[str]) -> None:
    page = drawn([replace(rows()[0], **changes), rows()[1]], FigureStyle("paper"))
    assert [line for line in lines(page) if line in (UNKNOWN, FRAME)] == said
    assert bool(dotted(page)) == (UNKNOWN in said)
    assert bool(strokes(page)) == (FRAME in said)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((80, 60), (1, 0.75)), ((60, 80), (0.75, 1)), ((1000, 10), (1, 1 / 3)), ((61, 60), (1, 1))],
)
def test_a_cropped_photograph_is_shown_whole_with_a_frame(
    size: tuple[int, int], shown: tuple[float, float]
) -> None:
    """Red within the center square, blue beside it. Of one longer than 3:1 the middle is shown."""
    width, height = size
    whole, side = Image.new("RGB", size, (0, 0, 200)), min(size)
    whole.paste(
        (200, 0, 0), ((width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2)
    )
    page = drawn([replace(rows()[0], whole=whole)], FigureStyle("paper"))
    photo, attention = pictures(page)[:2]
    cell = attention.picture.width
    assert photo.picture.size == pytest.approx([cell * share for share in shown], abs=6)
    ((line, ink, _),) = strokes(page)
    assert ink == BLACK
    frame = [*line.min(0), *line.max(0)]
    short = min(photo.picture.size)
    left, top = photo.left + (photo.picture.width - short) / 2, photo.top + (photo.picture.height - short) / 2
    assert frame == pytest.approx([left, top, left + short, top + short], abs=2)
    assert photo.left + photo.picture.width / 2 == pytest.approx(attention.left - 10 - cell / 2, abs=1)
    pixels = np.asarray(photo.picture, int)
    assert np.abs(pixels[pixels.shape[0] // 2, pixels.shape[1] // 2] - (200, 0, 0)).max() <= 1
    if max(size) > 1.1 * side:
        assert np.abs(pixels[0, 0] - (166, 166, 236)).max() <= 2  # pale


def test_each_heat_map_that_is_zero_everywhere_is_labeled() -> None:
    row = rows()[0]
    blocks = np.stack([np.zeros_like(row.heatmap), row.heatmap])
    with settings():
        page = FigureLayout(1600, 2, FigureStyle(font_pt=5), blocks=2).draw(
            [replace(row, block_heatmaps=blocks)]
        )
    (label,) = [found for found in texts(page) if found.line == IMAGE_LABEL]
    first = pictures(page)[3]
    assert first.left < label.left < label.right < first.left + first.picture.width


def test_an_outline_goes_with_color_and_a_style_that_there_is_not_is_refused() -> None:
    assert FigureStyle().style == "color"
    asked = {
        (style, given): FigureStyle(style, given).outlined
        for style in ("color", "paper")
        for given in (None, True, False)
    }
    assert asked == {
        ("color", None): True, ("color", True): True, ("color", False): False,
        ("paper", None): False, ("paper", True): True, ("paper", False): False,
    }  # fmt: skip
    with pytest.raises(HvxError, match="style: 'brightness': this style is called 'paper'"):
        FigureStyle("brightness")  # type: ignore[arg-type]
    with pytest.raises(HvxError, match="style: 'hot': give one of color, paper"):
        FigureStyle("hot")  # type: ignore[arg-type]
