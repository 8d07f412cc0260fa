"""The text panel: the printed numbers, colors that can be read, boxes that keep apart."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from hvx.view.page import Box, Page, settings
from hvx.view.text import line_height, width, wrap
from hvx.view.tokens import (
    HIGH,
    LOW,
    NEUTRAL,
    PRINTED_INK,
    VALUE_INK,
    WHITE,
    WRONG,
    WRONG_INK,
    Panel,
    TextSizes,
    chip_color,
    contrast,
    draw_panel,
    ink_on,
    lay_out,
    score_text,
    value_text,
)

PRINTED = Path(__file__).parents[2] / "shared" / "paper" / "printed-zscores.json"
READABLE = 4.5
"""WCAG 2's contrast ratio for text."""
EPSILON = 1e-6

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
    across: int = 1160,
    printed: list[float | None] | None = None,
    digits: int = 4,
) -> Panel:
    answer, sizes = (predicted, ground_truth), TextSizes.for_figure(across, 200)
    return lay_out(tokens, z, answer, across, across // 4, sizes, printed, digits)


def boxes(panel: Panel) -> list[Box]:
    """Of each token with all that stands under it, and of the answer."""
    return [(*token.box[:3], token.bottom) for token in panel.tokens] + [panel.answer.box]


def picture_of(panel: Panel, margin: int = 0) -> Image.Image:
    with settings():
        page = Page(int(panel.width) + 2 * margin, 200)
        draw_panel(panel, page, margin, margin)
        page.bottom = panel.height + 2 * margin
        return page.render()


def assert_in_order(panel: Panel) -> None:
    """No two boxes overlap, all lie inside the panel, and each is as wide as its text."""
    for left, top, right, bottom in boxes(panel):
        assert -EPSILON <= left <= right <= panel.width + EPSILON
        assert 0 <= top <= bottom <= panel.height
    for a, b in combinations(boxes(panel), 2):
        apart = max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
        assert apart > -EPSILON, (a, b)
    sizes = panel.sizes
    for token in panel.tokens:
        across = token.box[2] - token.box[0] + EPSILON
        assert max(width(line, sizes.token) for line in token.lines) <= across
        assert max(width(text, sizes.small) for text in (token.value, token.printed)) <= across
        under = [text for text in (token.value, token.printed) if text]
        assert token.bottom == pytest.approx(token.box[3] + len(under) * line_height(sizes.small))


def shown(printed: list[str]) -> list[str]:
    """The paper's numbers with four decimals and a true minus sign."""
    return [f"{float(text):.4f}".replace("-", "−") for text in printed]


def paper_rows() -> list[dict[str, object]]:
    if not PRINTED.exists():
        pytest.skip("the paper's printed z-scores are not beside this repository")
    rows: list[dict[str, object]] = json.loads(PRINTED.read_text(encoding="utf-8"), parse_float=str)["rows"]
    return rows


@pytest.mark.parametrize(("question", "printed"), [DONUT, HAPPY, TODDLER, WOMAN])
def test_a_row_of_the_paper_shows_the_numbers_as_printed(question: str, printed: str) -> None:
    panel = panel_of(question.split(), [float(z) for z in printed.split()])
    assert [token.lines for token in panel.tokens] == [(word,) for word in question.split()]
    assert [token.value for token in panel.tokens] == shown(printed.split())
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
        assert [" ".join(token.lines) for token in panel.tokens] == tokens
        assert [token.value for token in panel.tokens] == shown(printed)
        assert " ".join(panel.answer.lines) == f"{predicted} ({ground_truth})"
        assert WRONG not in panel.answer.lines[0]
        assert_in_order(panel)


def test_single_precision_as_in_a_run_file_shows_the_printed_numbers() -> None:
    stored = np.array(TODDLER[1].split(), np.float32)
    assert [value_text(float(z)) for z in stored] == TODDLER[1].split()


@pytest.mark.parametrize(
    ("z", "text"),
    [(0.0, "0"), (-0.0, "0"), (-0.00001, "0"), (1.0, "1"), (-10.0, "-10"), (0.5, "0.5"), (2.34567, "2.3457")],
)
def test_a_value_in_the_gallery_has_at_most_four_decimals(z: float, text: str) -> None:
    assert value_text(z) == text


@pytest.mark.parametrize(
    ("z", "digits", "text"),
    [
        (0.0, 2, "0.00"),
        (-0.0, 2, "0.00"),
        (-0.004, 2, "0.00"),
        (-0.005001, 2, "−0.01"),
        (1.0, 2, "1.00"),
        (-10.0, 0, "−10"),
        (-0.4, 0, "0"),
        (2.34567, 4, "2.3457"),
        (float("nan"), 2, "n/a"),
        (float("-inf"), 2, "n/a"),
    ],
)
def test_a_score_in_a_figure_has_the_digits_asked_for_and_a_true_minus(
    z: float, digits: int, text: str
) -> None:
    assert score_text(z, digits) == text
    assert "-" not in score_text(z, digits)


def test_a_figure_shows_two_digits_unless_asked_for_others() -> None:
    assert score_text(-0.4321) == "−0.43"
    sizes = TextSizes.for_figure(1200, 200)
    panel = lay_out(["is"], [-0.4321], ("", ""), 1200, 300, sizes, [0.9876])
    assert (panel.tokens[0].value, panel.tokens[0].printed) == ("−0.43", "(0.99)")


def test_a_printed_score_stands_in_brackets_right_under_the_tokens_own() -> None:
    panel = panel_of(["is", "it", "red"], [0.5, -1.25, 1.0], printed=[-0.256, None, 1.942], digits=3)
    assert [token.value for token in panel.tokens] == ["0.500", "−1.250", "1.000"]
    assert [token.printed for token in panel.tokens] == ["(−0.256)", "", "(1.942)"]
    assert panel.tokens[0].bottom > panel.tokens[1].bottom
    assert_in_order(panel)


def test_a_printed_score_is_drawn_in_its_place_and_ink() -> None:
    panel = panel_of(["umbrella", "it"], [0.5, -1.25], printed=[-0.256, None])
    token = panel.tokens[0]
    under = token.box[3] + line_height(panel.sizes.small)
    place = [round(side) for side in (token.box[0], under, token.box[2], token.bottom)]
    colors = picture_of(panel).crop((place[0], place[1], place[2], place[3])).getcolors()
    assert colors is not None
    assert PRINTED_INK in {color for _, color in colors}


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


def test_color_runs_from_blue_through_neutral_to_red() -> None:
    assert [chip_color(z) for z in (-2.0, 0.0, 2.0)] == [LOW, NEUTRAL, HIGH]
    assert LOW[2] > LOW[0]
    assert HIGH[0] > HIGH[2]
    assert len(set(NEUTRAL)) == 1
    colors = [chip_color(z) for z in np.linspace(-2, 2, 41)]
    assert all(b[0] - b[2] > a[0] - a[2] for a, b in pairwise(colors))


def test_values_beyond_the_limits_have_the_colors_at_the_limits() -> None:
    assert chip_color(-7.0) == chip_color(-2.0) == LOW
    assert chip_color(7.0) == chip_color(2.0) == HIGH


def test_the_same_z_has_the_same_color_whatever_stands_beside_it() -> None:
    calm, lively = panel_of(["a", "b"], [0.6, -0.6]), panel_of(["c", "d", "e"], [3.0, 0.6, -4.0])
    assert calm.tokens[0].fill == lively.tokens[1].fill


def test_all_text_stands_out_from_what_is_behind_it() -> None:
    for z in np.linspace(-2.5, 2.5, 501):
        fill = chip_color(float(z))
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
    assert WRONG not in answer.lines[0]
    assert answer.ink == (0, 0, 0)
    assert " ".join(answer.lines) == " ".join(text.split())


def test_a_wrong_answer_bears_a_cross_before_it_and_another_color() -> None:
    panel = panel_of(["a"], [0.0], "tie", "scarf")
    assert panel.answer.lines == ("✕ tie (scarf)",)
    assert panel.answer.ink == WRONG_INK
    assert_in_order(panel)


def test_the_cross_is_drawn_in_the_ink_of_a_wrong_answer() -> None:
    panel = panel_of(["a"], [0.0], "tie", "scarf")
    left, top, _, bottom = panel.answer.box
    size = panel.sizes.token
    cross = picture_of(panel).crop((int(left), int(top), int(left + width(WRONG, size)), int(bottom)))
    colors = cross.getcolors()
    assert colors is not None
    assert WRONG_INK in {color for _, color in colors}


@pytest.mark.parametrize("across", [300, 600, 1160, 2400])
def test_sixty_tokens_wrap_onto_further_lines(across: int) -> None:
    tokens = [f"token{'s' * (i % 9)}" for i in range(60)]
    panel = panel_of(tokens, list(np.linspace(-2, 2, 60)), across=across)
    assert ["".join(token.lines) for token in panel.tokens] == tokens
    tops = [token.box[1] for token in panel.tokens]
    assert tops == sorted(tops)
    assert len(set(tops)) > 1
    assert_in_order(panel)


def test_a_token_longer_than_a_line_is_broken_and_kept_whole() -> None:
    panel = panel_of(["see", "x" * 400, "?"], [0.1, 1.0, -1.0], across=600)
    assert len(panel.tokens[1].lines) > 1
    assert "".join(panel.tokens[1].lines) == "x" * 400
    assert_in_order(panel)


def test_a_long_answer_wraps_within_its_column() -> None:
    panel = panel_of(["a"], [0.0], "a very long answer of many words", "x" * 90, across=600)
    assert len(panel.answer.lines) > 2
    assert panel.answer.box[0] >= 600 - 600 // 4
    assert_in_order(panel)


@pytest.mark.parametrize("z", [float("nan"), float("inf"), 0.0])
def test_a_row_without_usable_scores_is_neutral(z: float) -> None:
    panel = panel_of(["is", "it", "?"], [z] * 3)
    assert {token.fill for token in panel.tokens} == {NEUTRAL}
    assert {token.value for token in panel.tokens} == {"0.0000" if z == 0 else "n/a"}


def test_a_question_of_no_tokens_leaves_the_answer() -> None:
    panel = panel_of([], [])
    assert panel.tokens == ()
    assert panel.height >= panel.answer.box[3] > 0


def test_scores_that_do_not_match_the_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        panel_of(["is", "it"], [0.5])


@pytest.mark.parametrize("across", [1, 300, 800, 1200, 3000])
def test_text_grows_with_the_figure_and_is_never_below_ten_pixels(across: int) -> None:
    sizes = TextSizes.for_figure(across, 200)
    assert 10 <= sizes.small <= sizes.token
    assert sizes.token <= TextSizes.for_figure(2 * across + 600, 200).token - 1


@pytest.mark.parametrize("dpi", [72, 200, 300])
def test_text_is_of_eight_points_or_more_at_the_width_of_a_page_or_of_the_size_asked_for(dpi: int) -> None:
    across = round(5.5 * dpi)
    assert TextSizes.for_figure(across, dpi).small * 72 / dpi == pytest.approx(8) or across < 495
    asked = TextSizes.for_figure(across, dpi, font_pt=11)
    assert asked.small * 72 / dpi == pytest.approx(11)
    assert asked.token > asked.small


def test_wrapping_keeps_every_word_and_the_width() -> None:
    text = "red and blue (red and blue) incomprehensibilities"
    lines = wrap(text, 20, 110)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(width(line, 20) <= 110 for line in lines)
    assert lines[0] == "red and"


@examples(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.text(max_size=40), st.floats(-99, 99), st.floats(-99, 99) | st.none()), max_size=40
    ),
    st.text(max_size=60),
    st.text(max_size=20),
    st.integers(280, 1600),
)
def test_no_text_overlaps_or_leaves_the_panel_whatever_it_says(
    scored: list[tuple[str, float, float | None]], predicted: str, ground_truth: str, across: int
) -> None:
    tokens, z = [row[0] for row in scored], [row[1] for row in scored]
    panel = panel_of(tokens, z, predicted, ground_truth, across, [row[2] for row in scored])
    assert_in_order(panel)
    assert len(panel.tokens) == len(scored)


@examples(deadline=None, max_examples=15)
@given(st.lists(st.text(st.characters(codec="ascii"), max_size=12), max_size=12), st.integers(280, 900))
def test_drawing_stays_inside_the_panel(tokens: list[str], across: int) -> None:
    printed: list[float | None] = [-0.1234] * len(tokens)
    panel = panel_of(tokens, [0.5] * len(tokens), "tie", "scarf", across, printed)
    picture = picture_of(panel, margin=20)
    picture.paste(WHITE, (20, 20, 20 + across, 20 + panel.height))
    assert picture.getcolors() == [(picture.width * picture.height, WHITE)]
