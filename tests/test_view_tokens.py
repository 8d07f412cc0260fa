"""The text panel: the printed numbers, colours that can be read, boxes that keep apart."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvx.view import fonts
from hvx.view.canvas import Box, PixelCanvas
from hvx.view.tokens import (
    HIGH,
    LOW,
    NEUTRAL,
    PRINTED_INK,
    VALUE_INK,
    WHITE,
    WRONG_INK,
    Panel,
    TextSizes,
    chip_colour,
    contrast,
    ink_on,
    lay_out,
    paint,
    value_text,
    wrap,
)

PRINTED = Path(__file__).parents[2] / "shared" / "paper" / "printed-zscores.json"
READABLE = 4.5
"""WCAG 2's contrast ratio for text."""

DONUT = ("what is the person eating ?", "-0.7168 -0.6952 -0.5488 0.5766 1.7901 -0.4058")
HAPPY = ("is the man happy ?", "-0.6286 -0.8024 -0.0144 1.7015 -0.256")
TODDLER = (
    "what color is the toddler 's hair ?",
    "-0.7498 -0.0464 -0.8698 -0.6084 1.0919 -0.2107 1.942 -0.5486",
)
WOMAN = ("what is the woman carrying ?", "-0.9485 -0.7053 -0.5041 0.965 1.52 -0.3272")


def panel_of(
    tokens: list[str],
    z: list[float],
    predicted: str = "yes",
    ground_truth: str = "yes",
    width: int = 1160,
    printed: list[float | None] | None = None,
) -> Panel:
    answer, sizes = (predicted, ground_truth), TextSizes.for_width(width)
    return lay_out(tokens, z, answer, width, width // 4, sizes, printed)


def boxes(panel: Panel) -> list[Box]:
    found = [box for chip in panel.chips for box in (chip.box, chip.value_box, chip.printed_box)]
    found.append(panel.answer.box)
    return found + ([panel.answer.cross] if panel.answer.cross else [])


def assert_in_order(panel: Panel) -> None:
    """No two boxes overlap, all lie inside the panel, and each is as wide as its text."""
    for left, top, right, bottom in boxes(panel):
        assert 0 <= left <= right <= panel.width
        assert 0 <= top <= bottom <= panel.height
    for a, b in combinations(boxes(panel), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    for chip in panel.chips:
        sizes = panel.sizes
        assert max(fonts.width(line, sizes.token) for line in chip.lines) <= chip.box[2] - chip.box[0]
        assert fonts.width(chip.value, sizes.value) <= chip.value_box[2] - chip.value_box[0]
        assert fonts.width(chip.printed, sizes.printed) <= chip.printed_box[2] - chip.printed_box[0]


def paper_rows() -> list[dict[str, object]]:
    if not PRINTED.exists():
        pytest.skip("the paper's printed z-scores are not beside this repository")
    rows: list[dict[str, object]] = json.loads(PRINTED.read_text(encoding="utf-8"), parse_float=str)["rows"]
    return rows


@pytest.mark.parametrize(("question", "printed"), [DONUT, HAPPY, TODDLER, WOMAN])
def test_a_row_of_the_paper_shows_the_numbers_as_printed(question: str, printed: str) -> None:
    panel = panel_of(question.split(), [float(z) for z in printed.split()])
    assert [chip.lines for chip in panel.chips] == [(token,) for token in question.split()]
    assert [chip.value for chip in panel.chips] == printed.split()
    assert_in_order(panel)


def test_all_rows_of_the_paper_show_tokens_numbers_and_answer_as_printed() -> None:
    rows = paper_rows()
    assert len(rows) == 12
    for row in rows:
        tokens, printed = row["tokens"], row["z"]
        assert isinstance(tokens, list)
        assert isinstance(printed, list)
        predicted, ground_truth = str(row["predicted"]), str(row["ground_truth"])
        panel = panel_of(tokens, [float(z) for z in printed], predicted, ground_truth)
        assert [" ".join(chip.lines) for chip in panel.chips] == tokens
        assert [chip.value for chip in panel.chips] == printed
        assert " ".join(panel.answer.lines) == f"{predicted} ({ground_truth})"
        assert panel.answer.cross is None
        assert_in_order(panel)


def test_single_precision_as_in_a_run_file_shows_the_printed_numbers() -> None:
    stored = np.array(TODDLER[1].split(), np.float32)
    assert [value_text(float(z)) for z in stored] == TODDLER[1].split()


@pytest.mark.parametrize(
    ("z", "text"),
    [(0.0, "0"), (-0.0, "0"), (-0.00001, "0"), (1.0, "1"), (-10.0, "-10"), (0.5, "0.5"), (2.34567, "2.3457")],
)
def test_a_value_has_at_most_four_decimals_and_no_zeros_at_its_end(z: float, text: str) -> None:
    assert value_text(z) == text


def test_a_printed_score_stands_in_brackets_right_under_the_tokens_own() -> None:
    panel = panel_of(["is", "it", "red"], [0.5, -1.25, 1.0], printed=[-0.256, None, 1.942])
    assert [chip.value for chip in panel.chips] == ["0.5", "-1.25", "1"]
    assert [chip.printed for chip in panel.chips] == ["(-0.256)", "", "(1.942)"]
    for chip in panel.chips:
        assert chip.printed_box[:2] == (chip.value_box[0], chip.value_box[3])
        assert chip.printed_box[2] == chip.value_box[2] == chip.box[2]
    assert_in_order(panel)


def test_a_printed_score_is_drawn_in_its_place_and_ink() -> None:
    panel = panel_of(["umbrella", "it"], [0.5, -1.25], printed=[-0.256, None])
    picture = Image.new("RGB", (panel.width, panel.height), WHITE)
    paint(panel, PixelCanvas(picture), 0, 0)
    colours = picture.crop(panel.chips[0].printed_box).getcolors()
    assert colours is not None
    assert PRINTED_INK in {colour for _, colour in colours}


def test_the_next_line_of_tokens_stands_under_the_printed_scores() -> None:
    tokens = ["umbrella"] * 20
    panel, bare = panel_of(tokens, [0.0] * 20, printed=[0.1] * 20), panel_of(tokens, [0.0] * 20)
    assert panel.height > bare.height
    assert_in_order(panel)


def test_no_printed_scores_take_no_room() -> None:
    assert panel_of(["is", "it"], [0.5, 1.0], printed=[None, None]) == panel_of(["is", "it"], [0.5, 1.0])


def test_printed_scores_that_do_not_match_the_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        panel_of(["is", "it"], [0.5, 1.0], printed=[0.5])


def test_colour_runs_from_blue_through_neutral_to_red() -> None:
    assert [chip_colour(z) for z in (-2.0, 0.0, 2.0)] == [LOW, NEUTRAL, HIGH]
    assert LOW[2] > LOW[0]
    assert HIGH[0] > HIGH[2]
    assert len(set(NEUTRAL)) == 1
    colours = [chip_colour(z) for z in np.linspace(-2, 2, 41)]
    assert all(b[0] - b[2] > a[0] - a[2] for a, b in pairwise(colours))


def test_values_beyond_the_limits_have_the_colours_at_the_limits() -> None:
    assert chip_colour(-7.0) == chip_colour(-2.0) == LOW
    assert chip_colour(7.0) == chip_colour(2.0) == HIGH


def test_the_same_z_has_the_same_colour_whatever_stands_beside_it() -> None:
    calm, lively = panel_of(["a", "b"], [0.6, -0.6]), panel_of(["c", "d", "e"], [3.0, 0.6, -4.0])
    assert calm.chips[0].fill == lively.chips[1].fill


def test_all_text_stands_out_from_what_is_behind_it() -> None:
    for z in np.linspace(-2.5, 2.5, 501):
        fill = chip_colour(float(z))
        assert contrast(ink_on(fill), fill) >= READABLE
    assert contrast(VALUE_INK, WHITE) >= READABLE
    assert contrast(PRINTED_INK, WHITE) >= READABLE
    assert contrast(WRONG_INK, WHITE) >= READABLE


def test_contrast_is_that_of_wcag() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize(
    ("predicted", "ground_truth", "text"),
    [("scarf", "scarf", "scarf (scarf)"), ("Yes", "yes ", "Yes (yes )"), ("scarf", "", "scarf")],
)
def test_a_right_or_unjudged_answer_bears_no_mark(predicted: str, ground_truth: str, text: str) -> None:
    answer = panel_of(["a"], [0.0], predicted, ground_truth).answer
    assert answer.cross is None
    assert answer.ink == (0, 0, 0)
    assert " ".join(answer.lines) == " ".join(text.split())


def test_a_wrong_answer_bears_a_cross_before_it_and_another_colour() -> None:
    panel = panel_of(["a"], [0.0], "tie", "scarf")
    assert panel.answer.lines == ("tie (scarf)",)
    assert panel.answer.ink == WRONG_INK
    assert panel.answer.cross is not None
    assert panel.answer.cross[2] < panel.answer.box[0]
    assert_in_order(panel)


def test_the_cross_is_drawn_as_two_slanted_lines() -> None:
    panel = panel_of(["a"], [0.0], "tie", "scarf")
    picture = Image.new("RGB", (panel.width, panel.height), WHITE)
    paint(panel, PixelCanvas(picture), 0, 0)
    assert panel.answer.cross is not None
    ink = np.asarray(picture.crop(panel.answer.cross).convert("L"), np.float64) < 128
    middle, end = ink.shape[0] // 2, ink.shape[0] - 2
    assert all(ink[y, x] for y, x in [(1, 1), (middle, middle), (end, end), (1, end), (end, 1)])
    assert not any(ink[y, x] for y, x in [(1, middle), (middle, 1), (end, middle), (middle, end)])


@pytest.mark.parametrize("width", [300, 600, 1160, 2400])
def test_sixty_tokens_wrap_onto_further_lines(width: int) -> None:
    tokens = [f"token{'s' * (i % 9)}" for i in range(60)]
    panel = panel_of(tokens, list(np.linspace(-2, 2, 60)), width=width)
    assert ["".join(chip.lines) for chip in panel.chips] == tokens
    tops = [chip.box[1] for chip in panel.chips]
    assert tops == sorted(tops)
    assert len(set(tops)) > 1
    assert_in_order(panel)


def test_a_token_longer_than_a_line_is_broken_and_kept_whole() -> None:
    panel = panel_of(["see", "x" * 400, "?"], [0.1, 1.0, -1.0], width=600)
    assert len(panel.chips[1].lines) > 1
    assert "".join(panel.chips[1].lines) == "x" * 400
    assert_in_order(panel)


def test_a_long_answer_wraps_within_its_column() -> None:
    panel = panel_of(["a"], [0.0], "a very long answer of many words", "x" * 90, width=600)
    assert len(panel.answer.lines) > 2
    assert panel.answer.box[0] >= 600 - 600 // 4
    assert_in_order(panel)


@pytest.mark.parametrize("z", [float("nan"), float("inf"), 0.0])
def test_a_row_without_usable_scores_is_neutral(z: float) -> None:
    panel = panel_of(["is", "it", "?"], [z] * 3)
    assert {chip.fill for chip in panel.chips} == {NEUTRAL}
    assert {chip.value for chip in panel.chips} == {"0" if z == 0 else "n/a"}


def test_a_question_of_no_tokens_leaves_the_answer() -> None:
    panel = panel_of([], [])
    assert panel.chips == ()
    assert panel.height >= panel.answer.box[3] > 0


def test_scores_that_do_not_match_the_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        panel_of(["is", "it"], [0.5])


@pytest.mark.parametrize("width", [1, 300, 800, 1200, 3000])
def test_type_grows_with_the_figure_and_is_never_below_ten_pixels(width: int) -> None:
    sizes = TextSizes.for_width(width)
    assert 10 <= sizes.printed <= sizes.value <= sizes.token
    assert sizes.token <= TextSizes.for_width(2 * width + 600).token - 1


def test_wrapping_keeps_every_word_and_the_width() -> None:
    text = "red and blue (red and blue) incomprehensibilities"
    lines = wrap(text, 20, 110)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(fonts.width(line, 20) <= 110 for line in lines)
    assert lines[0] == "red and"


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.text(max_size=40), st.floats(-99, 99), st.floats(-99, 99) | st.none()), max_size=40
    ),
    st.text(max_size=60),
    st.text(max_size=20),
    st.integers(280, 1600),
)
def test_no_text_overlaps_or_leaves_the_panel_whatever_it_says(
    scored: list[tuple[str, float, float | None]], predicted: str, ground_truth: str, width: int
) -> None:
    tokens, z = [row[0] for row in scored], [row[1] for row in scored]
    panel = panel_of(tokens, z, predicted, ground_truth, width, [row[2] for row in scored])
    assert_in_order(panel)
    assert len(panel.chips) == len(scored)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.text(st.characters(codec="ascii"), max_size=12), max_size=12), st.integers(280, 900))
def test_painting_stays_inside_the_panel(tokens: list[str], width: int) -> None:
    printed: list[float | None] = [-0.1234] * len(tokens)
    panel = panel_of(tokens, [0.5] * len(tokens), "tie", "scarf", width, printed)
    picture = Image.new("RGB", (width + 40, panel.height + 40), WHITE)
    paint(panel, PixelCanvas(picture), 20, 20)
    picture.paste(WHITE, (20, 20, 20 + width, 20 + panel.height))
    assert picture.getcolors() == [(picture.width * picture.height, WHITE)]
