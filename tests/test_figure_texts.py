"""Every text that a figure writes, and where its scales stand: exactly, as pictures can hardly tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from golden_figures import LOOKS, rows
from PIL import Image

from hvx.view import fonts
from hvx.view.canvas import RGB, Box, Point
from hvx.view.figure import Figure, FigureRow, Look
from hvx.view.heat import Style, colour_scale
from hvx.view.legend import draw_answers, draw_label, draw_lines, draw_scale, scales
from hvx.view.tokens import BLACK, HIGH, LOW, NEUTRAL, PRINTED_INK, WHITE, TextSizes


@dataclass
class Recorder:
    """A canvas that notes what is drawn on it."""

    texts: list[tuple[str, float, float, int, RGB]] = field(default_factory=list)
    pictures: list[tuple[Image.Image, int, int]] = field(default_factory=list)
    rectangles: list[tuple[Box, RGB]] = field(default_factory=list)
    strokes: list[tuple[Sequence[Point], RGB, float]] = field(default_factory=list)

    def picture(self, picture: Image.Image, left: int, top: int) -> None:
        self.pictures.append((picture, left, top))

    def rectangle(self, box: Box, fill: RGB, radius: int = 0) -> None:
        self.rectangles.append((box, fill))

    def stroke(self, points: Sequence[Point], ink: RGB, thickness: float) -> None:
        self.strokes.append((points, ink, thickness))

    def text(self, line: str, left: float, baseline: float, size: int, ink: RGB) -> None:
        if line:
            self.texts.append((line, left, baseline, size, ink))

    @property
    def lines(self) -> list[str]:
        return [line for line, *_ in self.texts]


def drawn(rows: list[FigureRow], look: Look, width: int = 1200, title: str | None = None) -> Recorder:
    canvas, top = Recorder(), 0
    printed = any(row.shows_printed for row in rows)
    for strip in Figure(width, 2, look, title, printed).strips(rows):
        strip.draw(canvas, top)
        top += strip.height
    return canvas


HEADING = ["Golden", "In brackets: z as printed in the paper"]
NAMES = ["Original", "First Attention", "Second Attention", "Proposed"]
FIRST = ["is", "-0.43", "the", "0.6324", "star", "0.0965", "red", "-0.1924", "?", "0.7952", "yes (yes)"]
SECOND = ["how", "-0.2679", "(0.5)", "many", "-0.7595", "?", "0.8684", "(-1.25)", "two (three)"]
Z_SCALE = ["z-score", "≤ −2", "−1", "0", "1", "≥ 2"]
MAP_SCALE = ["attention, heat", "least", "most"]
OUTLINE = ["outline: heat above mean + 2 standard deviations"]
BARS = ["62.0 %", "a very long answer of m…", "20.0 %", "no", "10.0 %", "red", "5.0 %"]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("brightness", [*HEADING, *NAMES, *FIRST, *SECOND, *Z_SCALE]),
        ("colour", [*HEADING, *NAMES, *FIRST, *SECOND, *Z_SCALE, *MAP_SCALE]),
        ("outline", [*HEADING, *NAMES, *FIRST, *SECOND]),
        (
            "answers",
            [*HEADING, *NAMES, "Likeliest answers", "yes", *BARS, *FIRST, "two", *BARS, *SECOND, *Z_SCALE,
             *MAP_SCALE, *OUTLINE],
        ),
    ],
)  # fmt: skip
def test_a_figure_writes_these_texts_in_this_order(name: str, lines: list[str]) -> None:
    assert drawn(rows()[:2], LOOKS[name], title="Golden").lines == lines


@pytest.mark.parametrize("style", ["brightness", "colour"])
def test_ticks_stand_under_the_colours_that_they_name(style: Style) -> None:
    sizes = TextSizes.for_width(1200)
    expected = {
        "z-score": [(0.0, LOW), (0.25, None), (0.5, NEUTRAL), (0.75, None), (1.0, HIGH)],
        "attention, heat": [
            (end, tuple(int(level) for level in colour_scale()[place].round()))
            for end, place in ((0.0, 0), (1.0, 255))
        ],
    }
    for scale in scales(style, False):
        canvas = Recorder()
        draw_scale(canvas, scale, 30, 40, sizes)
        ((colours, left, top),) = canvas.pictures
        assert colours.size == (15 * sizes.value, sizes.value)
        assert left > 30 + fonts.width(scale.name, sizes.value)
        for (line, start, baseline, size, _), (place, colour) in zip(
            canvas.texts[1:], expected[scale.name], strict=True
        ):
            assert start + fonts.width(line, size) / 2 == pytest.approx(left + place * colours.width)
            assert baseline > top + colours.height
            if colour:
                pixel = (min(colours.width - 1, int(place * colours.width)), 0)
                got = np.array(colours.getpixel(pixel), int)
                assert np.abs(got - np.array(colour)).max() <= 2


def test_scales_are_those_of_the_style() -> None:
    assert [scale.name for scale in scales("brightness", False)] == ["z-score"]
    assert [scale.name for scale in scales("colour", False)] == ["z-score", "attention, heat"]
    assert [scale.name for scale in scales("brightness", True)] == ["z-score", *OUTLINE]
    z = scales("brightness", False)[0]
    assert z.ticks == ((0.0, "≤ −2"), (0.25, "−1"), (0.5, "0"), (0.75, "1"), (1.0, "≥ 2"))
    assert scales("colour", False)[1].ticks == ((0.0, "least"), (1.0, "most"))


def test_bars_are_as_long_as_their_shares() -> None:
    canvas, sizes = Recorder(), TextSizes.for_width(1200)
    answers = [("yes", 0.75), ("", 0.5), ("no", float("nan")), ("two", 0.1), ("red", 0.0)]
    draw_answers(canvas, answers, (100, 50, 300), sizes)
    assert canvas.lines == ["yes", "75.0 %", "two", "10.0 %", "red", "0.0 %"]
    troughs, bars = canvas.rectangles[::2], canvas.rectangles[1::2]
    assert [box[0::2] for box, _ in [*troughs[:2], canvas.rectangles[-1]]] == [(100, 300)] * 3
    assert [box[0::2] for box, _ in bars[:2]] == [(100, 250), (100, 120)]
    assert len(canvas.rectangles) == 5  # a share of 0 has no bar
    assert canvas.texts[0][4] == BLACK != canvas.texts[2][4]


IMAGE_LABEL, WORDS_NOTE = (
    "zero gradient: no heat map",
    "The gradient of the words is zero everywhere: there are no z-scores.",
)


@pytest.mark.parametrize(
    ("bits", "said"),
    [(0, []), (1, [IMAGE_LABEL]), (2, [WORDS_NOTE]), (3, [IMAGE_LABEL, WORDS_NOTE])],
)
@pytest.mark.parametrize("style", ["brightness", "colour"])
def test_a_gradient_that_is_zero_everywhere_is_said(style: Style, bits: int, said: list[str]) -> None:
    row = replace(rows()[0], zero_gradient=bits)
    look = Look(style, outline=True, top_answers=True)
    lines = drawn([row], look, width=1600).lines
    assert [line for line in lines if line in (IMAGE_LABEL, WORDS_NOTE)] == said
    without = drawn([replace(row, zero_gradient=0)], look, width=1600).lines
    assert sorted([*without, *said]) == sorted(lines)


def test_the_label_stands_on_the_heat_map_and_the_note_under_the_tokens() -> None:
    row = replace(rows()[0], zero_gradient=3)
    canvas = drawn([row], Look(legend=False), width=1600)
    places = {line: (left, baseline, ink) for line, left, baseline, _, ink in canvas.texts}
    heatmap, left, top = canvas.pictures[-1]
    start, baseline, _ = places[IMAGE_LABEL]
    assert left < start < left + heatmap.width
    assert top + 0.8 * heatmap.height < baseline < top + heatmap.height
    (band, fill) = next((box, fill) for box, fill in canvas.rectangles if box[0] == left)
    assert (band[0], band[2], band[3], fill) == (left, left + heatmap.width, top + heatmap.height, WHITE)
    start, below, ink = places[WORDS_NOTE]
    assert start == canvas.pictures[0][1]
    assert below > max(baseline for line, (_, baseline, _) in places.items() if line != WORDS_NOTE)
    assert ink == PRINTED_INK


def test_a_label_of_several_lines_stays_on_its_picture() -> None:
    canvas, sizes = Recorder(), TextSizes.for_width(300)
    draw_label(canvas, IMAGE_LABEL, (10, 20), 60, sizes)
    assert " ".join(canvas.lines) == IMAGE_LABEL
    assert len(canvas.lines) > 1
    assert all(left >= 10 and left + fonts.width(line, size) <= 70 for line, left, _, size, _ in canvas.texts)
    ((band, _),) = canvas.rectangles
    assert band[3] == 80
    assert all(band[1] < baseline < 80 for _, _, baseline, _, _ in canvas.texts)


def test_lines_stand_one_under_the_other() -> None:
    canvas = Recorder()
    draw_lines(canvas, ("a", "b"), (5, 7), 20, BLACK)
    (first, second) = canvas.texts
    assert (first[0], first[1], second[0], second[1]) == ("a", 5, "b", 5)
    assert second[2] - first[2] == sum(fonts.PILLOWS.at(20).getmetrics())
    assert first[2] == 7 + fonts.PILLOWS.at(20).getmetrics()[0]
