"""The paper's grid: which picture stands where, at every width and number of glimpses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hvx.config import ImageConfig
from hvx.data.images import crop_photo
from hvx.errors import HvxError
from hvx.view.figure import FigureLayout, FigureRow, column_names, draw_figure
from hvx.view.heat import fit, overlay_brightness
from hvx.view.style import FigureStyle
from hvx.view.tokens import PRINTED_INK, WRONG_INK, chip_color

BARE = FigureStyle("paper", legend=False)
"""Without the scale of colors under the rows."""
TOKENS = ["is", "the", "man", "happy", "?"]
Z = [-0.6286, -0.8024, -0.0144, 1.7015, -0.256]


def make_row(glimpses: int = 2, **changes: Any) -> FigureRow:
    rng = np.random.default_rng(7)
    attention = rng.random((glimpses, 14, 14)) ** 4
    values: dict[str, Any] = {
        "photo": Image.fromarray(rng.integers(30, 200, (112, 112, 3), dtype=np.uint8)),
        "attention": attention / attention.sum((1, 2), keepdims=True),
        "heatmap": np.abs(rng.laplace(size=(112, 112))),
        "tokens": TOKENS,
        "z": Z,
        "predicted": "yes",
        "ground_truth": "yes",
    }
    return FigureRow(**(values | changes))


def squares(figure: Image.Image, columns: int) -> list[tuple[int, int, int]]:
    """Left, top and side of the first row's pictures, found by what is not white."""
    dark = np.asarray(figure).min(2) < 250
    # The pictures' rows are those that are dark over most of the width; text never is.
    top = int(np.argmax(dark.mean(1) > 0.8))
    edges = np.flatnonzero(np.diff(dark[top].astype(int)))
    starts = edges[::2] + 1
    assert len(edges) == 2 * columns
    return [(int(left), top, int(right - left + 1)) for left, right in zip(starts, edges[1::2], strict=True)]


def ink_share(figure: Image.Image, ink: tuple[int, int, int]) -> float:
    pixels: NDArray[np.int64] = np.asarray(figure, np.int64)
    return float((np.abs(pixels - np.array(ink)).max(2) <= 2).mean())


@pytest.mark.parametrize("glimpses", [0, 1, 2, 4])
def test_a_row_holds_photo_attention_maps_and_heat_map_in_equal_squares(glimpses: int) -> None:
    row = make_row(glimpses)
    figure = draw_figure([row], width=900, style=BARE)
    places = squares(figure, glimpses + 2)
    side = places[0][2]
    assert {place[2] for place in places} == {side}
    expected = [
        fit(row.photo, side),
        *(overlay_brightness(row.photo, glimpse, side) for glimpse in row.attention),
    ]
    expected.append(overlay_brightness(row.photo, row.heatmap, side))
    for (left, top, _), picture in zip(places, expected, strict=True):
        assert figure.crop((left, top, left + side, top + side)).tobytes() == picture.tobytes()


@pytest.mark.parametrize("width", [300, 601, 1200, 2400])
def test_the_pictures_fill_the_width_asked_for(width: int) -> None:
    figure = draw_figure([make_row()], width=width)
    places = squares(figure, 4)
    assert figure.width == width
    assert sum(side for _, _, side in places) > 0.85 * width
    left_margin, right_margin = places[0][0], width - places[-1][0] - places[-1][2]
    assert abs(left_margin - right_margin) <= 1


@pytest.mark.parametrize(
    ("glimpses", "names"),
    [
        (0, ["Original", "Proposed"]),
        (1, ["Original", "Attention", "Proposed"]),
        (2, ["Original", "First Attention", "Second Attention", "Proposed"]),
        (3, ["Original", "First Attention", "Second Attention", "Third Attention", "Proposed"]),
    ],
)
def test_columns_are_named_as_in_the_paper(glimpses: int, names: list[str]) -> None:
    assert column_names(glimpses) == names


def test_every_column_has_a_name_of_its_own_for_many_glimpses() -> None:
    assert len(set(column_names(12))) == 14


def test_a_row_of_fewer_glimpses_keeps_the_proposed_map_in_its_column() -> None:
    full, short = make_row(4), make_row(2)
    figure = draw_figure([full, short], width=900, style=FigureStyle("paper"))
    (_, top, side), (left, _, _) = squares(figure, 6)[0], squares(figure, 6)[-1]
    proposed = overlay_brightness(short.photo, short.heatmap, side).tobytes()
    below = range(top + side, figure.height - side + 1)
    assert any(figure.crop((left, y, left + side, y + side)).tobytes() == proposed for y in below)


def test_rows_keep_apart() -> None:
    figure = draw_figure([make_row(), make_row(), make_row()], width=800, style=FigureStyle("paper"))
    blank = (np.asarray(figure) == 255).all((1, 2))
    pictures = np.flatnonzero(np.asarray(figure).min(2).mean(1) < 160)
    row_starts = pictures[np.flatnonzero(np.diff(pictures, prepend=-100) > 50)]
    assert len(row_starts) == 3
    for start in row_starts[1:]:
        assert blank[start - 16 : start].all()


def test_the_tokens_stand_under_the_pictures_in_their_colors() -> None:
    figure = draw_figure([make_row()], 900, style=BARE)
    _, top, side = squares(figure, 4)[0]
    text = figure.crop((0, top + side, figure.width, figure.height))
    for z in Z:
        assert ink_share(text, chip_color(z)) > 0.001


def test_only_a_wrong_answer_is_marked() -> None:
    plain: dict[str, Any] = {"tokens": ["?"], "z": [0.0]}
    right = draw_figure([make_row(**plain)], 900, style=BARE)
    unknown = draw_figure([make_row(**plain, ground_truth="")], 900, style=BARE)
    wrong = draw_figure([make_row(**plain, predicted="no")], 900, style=BARE)
    _, top, side = squares(right, 4)[0]
    share = [
        ink_share(figure.crop((0, top + side, figure.width, figure.height)), WRONG_INK)
        for figure in (right, unknown, wrong)
    ]
    assert share[0] == share[1] == 0
    assert share[2] > 0


def test_a_title_stands_above_and_pushes_the_rest_down_unchanged() -> None:
    bare, titled = draw_figure([make_row()]), draw_figure([make_row()], title="Validation split")
    shift = titled.height - bare.height
    assert shift > 0
    assert not (np.asarray(titled)[:shift] == 255).all()
    top = squares(bare, 4)[0][1]
    below = titled.crop((0, shift + top, 1200, titled.height))
    assert below.tobytes() == bare.crop((0, top, 1200, bare.height)).tobytes()


def test_printed_scores_stand_under_the_pictures_and_a_note_above_says_what_they_are() -> None:
    bare, printed = draw_figure([make_row()]), draw_figure([make_row(printed=[*Z[:-1], None])])
    parts = []
    for figure in (bare, printed):
        _, top, side = squares(figure, 4)[0]
        parts.append((figure.crop((0, 0, 1200, top)), figure.crop((0, top + side, 1200, figure.height))))
    for bare_part, printed_part in zip(*parts, strict=True):
        assert printed_part.height > bare_part.height
        assert ink_share(printed_part, PRINTED_INK) > 1.5 * ink_share(bare_part, PRINTED_INK)


def test_rows_without_any_printed_score_are_drawn_as_if_there_were_none() -> None:
    bare, none = draw_figure([make_row()]), draw_figure([make_row(printed=[None] * 5)])
    assert bare.tobytes() == none.tobytes()


def test_title_and_note_keep_apart() -> None:
    figure = draw_figure([make_row(printed=list(Z))], title="Figure 2")
    above = np.asarray(figure)[: squares(figure, 4)[0][1]]
    blank = (above == 255).all((1, 2))
    lines = np.flatnonzero(np.diff(blank.astype(int)) == -1)
    assert len(lines) == 3  # title, note, column names


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_row_whose_scores_and_maps_say_nothing_is_drawn(value: float) -> None:
    row = make_row(z=[value] * 5, heatmap=np.full((112, 112), value), attention=np.full((2, 14, 14), value))
    figure = draw_figure([row], width=900, style=BARE)
    places = squares(figure, 4)
    side = places[0][2]
    photo = np.asarray(fit(row.photo, side), np.int64)
    for left, top, _ in places:
        shown = np.asarray(figure.crop((left, top, left + side, top + side)), np.int64)
        assert np.abs(shown - photo).max() <= 1


def test_a_long_question_makes_the_figure_higher_and_no_wider() -> None:
    short, long = draw_figure([make_row()]), draw_figure([make_row(tokens=["umbrella"] * 60, z=[0.0] * 60)])
    assert long.width == short.width
    assert long.height > short.height + 100


def test_the_same_rows_give_the_same_pixels() -> None:
    one, other = (draw_figure([make_row(), make_row(1)], title="Twice").tobytes() for _ in range(2))
    assert one == other


def test_a_figure_of_no_rows_is_refused() -> None:
    with pytest.raises(HvxError, match="at least one row"):
        draw_figure([])


def test_too_narrow_a_figure_is_refused_with_the_width_that_would_do() -> None:
    with pytest.raises(HvxError, match="4 columns needs a width of") as refusal:
        draw_figure([make_row()], width=100)
    needed = next(int(word) for word in str(refusal.value).split() if word.isdigit() and int(word) > 100)
    assert draw_figure([make_row()], width=needed).width == needed
    with pytest.raises(HvxError):
        draw_figure([make_row()], width=needed - 1)


def test_a_wide_photograph_is_cropped_and_not_squeezed() -> None:
    """A disc in the middle of a 2:1 photograph is as high as wide in the figure."""
    wide = Image.new("RGB", (400, 200), (40, 90, 40))
    ImageDraw.Draw(wide).ellipse((150, 50, 250, 150), (230, 30, 30))
    figure = draw_figure([make_row(photo=crop_photo(wide, ImageConfig(size=224)))], 900, style=BARE)
    left, top, side = squares(figure, 4)[0]
    disc = np.asarray(figure.crop((left, top, left + side, top + side)))[:, :, 0] > 128
    across, down = int(disc.any(0).sum()), int(disc.any(1).sum())
    assert abs(across - down) <= 1
    assert across == pytest.approx(side / 2, abs=2)


@pytest.mark.parametrize("count", [5, 60])
def test_each_word_has_its_map_under_it(count: int) -> None:
    tokens, z = [f"word{n}" for n in range(count)], list(np.linspace(-2, 2, count))
    maps = np.zeros((count, 112, 112))
    for n in range(count):
        maps[n, 8 + n : 40 + n, 8:100] = 1 + n
    row = make_row(tokens=tokens, z=z, word_heatmaps=maps)
    figure = draw_figure([row], width=900, style=BARE)
    without = draw_figure([make_row(tokens=tokens, z=z)], width=900, style=BARE)
    assert figure.height > without.height
    pixels = np.asarray(figure)
    layout = FigureLayout(900, 2, BARE)
    side = layout._word_side(layout._grid.inner_width, layout.side)
    small, found = fit(row.photo, side), []
    for map in maps:
        wanted = np.asarray(overlay_brightness(small, map, side))
        places = [
            (top, left)
            for top, left in np.argwhere((pixels[: -side + 1 or None, : -side + 1] == wanted[0, 0]).all(2))
            if (pixels[top : top + side, left : left + side] == wanted).all()
        ]
        assert len(places) == 1
        found.append(places[0])
    assert found == sorted(found)  # line by line, each from left to right
    assert len({top for top, _ in found}) == (1 if count == 5 else 10)
    none = draw_figure([make_row(word_heatmaps=np.zeros((0, 1, 1)))], width=900, style=BARE)
    assert none.tobytes() == draw_figure([make_row()], width=900, style=BARE).tobytes()


def test_a_network_of_several_blocks_has_a_column_for_each() -> None:
    assert column_names(1, 3) == ["Original", "Attention", "Block 1", "Block 2", "Block 3"]
    assert column_names(0, 1) == ["Original", "Proposed"]
    row = make_row(glimpses=1)
    blocks = np.stack([np.zeros((112, 112)), np.eye(112), row.heatmap])
    figure = draw_figure([make_row(glimpses=1, block_heatmaps=blocks)], width=900, style=BARE)
    pictures = [
        np.asarray(figure.crop((left, top, left + side, top + side)))
        for left, top, side in squares(figure, columns=5)
    ]
    one = draw_figure([row], width=900, style=BARE)
    assert len(squares(one, columns=3)) == 3
    assert all((a != b).any() for a, b in pairwise(pictures))
    lone = draw_figure([make_row(glimpses=1, block_heatmaps=np.zeros((0, 1, 1)))], width=900, style=BARE)
    np.testing.assert_array_equal(np.asarray(lone), np.asarray(one))
