"""The plots of ``hvx measure``: titles, labels, legends and the numbers that are drawn."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from made_measures import METHODS, METRICS, TITLES, made_measures
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from hvx.measure.metrics.bootstrap import Estimate
from hvx.measure.metrics.results import MetricResults
from hvx.measure.report import plots
from hvx.measure.report.markdown import PLOTS

FOUND = made_measures()
SHARES = ["0%", "1%", "2%", "4%", "8%", "16%", "32%", "64%", "100%"]


def drawn(draw: object, found: MetricResults = FOUND) -> Figure:
    figure = draw(found)  # type: ignore[operator]
    assert isinstance(figure, Figure)
    return figure


def panels(figure: Figure) -> list[Axes]:
    return figure.get_axes()


def lines(panel: Axes) -> list[tuple[list[float], list[float]]]:
    return [
        (np.asarray(line.get_xdata(), float).tolist(), np.asarray(line.get_ydata(), float).tolist())
        for line in panel.get_lines()
    ]


def legend(figure: Figure) -> list[str]:
    (own,) = figure.legends
    return [text.get_text() for text in own.get_texts()]


def whisker(own: Estimate, row: float) -> list[tuple[list[float], list[float]]]:
    return [([own.low, own.high], [row, row]), ([own.value], [row])]


def test_methods_has_a_panel_for_each_measure_and_a_row_for_each_method() -> None:
    found = panels(drawn(plots._methods))
    more, less = "(more is better)", "(less is better)"
    assert [panel.get_title() for panel in found] == [
        f"Pointing game\n{more}", f"Energy inside\n{more}", f"IoU\n{more}", "ρ with attention\n",
        f"ρ with people\n{more}", f"Deletion area\n{less}", f"Insertion area\n{more}",
    ]  # fmt: skip
    first = found[0]
    assert first.get_yticks().tolist() == [4, 3, 2, 1, 0]
    assert [label.get_text() for label in first.get_yticklabels()] == TITLES
    for panel, metric in zip(found, METRICS, strict=True):
        wanted = []
        for row, name in zip((4, 3, 2, 1, 0), METHODS, strict=True):
            if name in FOUND.means[metric]:
                wanted += whisker(FOUND.means[metric][name], row)
        proposed = FOUND.means[metric]["proposed"].value
        assert lines(panel) == [*wanted, ([proposed, proposed], [0, 1])]
        colors = [to_hex(line.get_color()) for line in panel.get_lines()]
        assert colors[:2] == ["#0b5cad"] * 2 and colors[-1] == "#0b5cad"
        assert set(colors[2:-1]) == {"#555b66"}


def test_methods_draws_only_what_was_measured() -> None:
    few = {metric: FOUND.means[metric] for metric in ("deletion", "energy")}
    titles = [
        panel.get_title().splitlines()[0]
        for panel in panels(drawn(plots._methods, replace(FOUND, means=few)))
    ]
    assert titles == ["Energy inside", "Deletion area"]
    without = {"human": {"random": FOUND.means["human"]["random"]}}
    (panel,) = panels(drawn(plots._methods, replace(FOUND, means=without)))
    assert lines(panel) == whisker(FOUND.means["human"]["random"], 0)
    assert plots._methods(replace(FOUND, means={})) is None


def test_agreement_draws_the_matrix_with_its_names_and_numbers() -> None:
    panel, bar = panels(drawn(plots._agreement))
    names = [*TITLES, "glimpse 1", "glimpse 2"]
    assert [label.get_text() for label in panel.get_xticklabels()] == names
    assert [label.get_text() for label in panel.get_yticklabels()] == names
    assert panel.get_xticks().tolist() == panel.get_yticks().tolist() == list(range(7))
    (image,) = panel.get_images()
    assert FOUND.matrix is not None
    assert np.asarray(image.get_array()).tolist() == FOUND.matrix.tolist()
    assert image.get_clim() == (-1, 1) and image.get_cmap().name == "RdBu_r"
    found = {text.get_position(): (text.get_text(), text.get_color()) for text in panel.texts}
    wanted = {
        (column, row): (f"{value:.2f}", "white" if abs(value) > 0.6 else "black")
        for (row, column), value in np.ndenumerate(FOUND.matrix)
    }
    assert found == wanted
    assert bar.get_ylabel() == "mean rank correlation on the grid"
    assert plots._agreement(replace(FOUND, matrix=None)) is None


STYLES = [
    ("#0b5cad", 2.6, "-"), ("#8a8f98", 1.3, "-"), ("#d1701f", 1.3, "-"), ("#3f8f5b", 1.3, "-"),
    ("#000000", 1.2, ":"),
]  # fmt: skip
"""Of each method's line: color, width, dashes."""


def styles(panel: Axes, count: int) -> list[tuple[str, float, str]]:
    return [
        (to_hex(line.get_color()), line.get_linewidth(), line.get_linestyle())
        for line in panel.get_lines()[:count]
    ]


def test_curves_draws_deletion_and_insertion_of_each_method() -> None:
    figure = drawn(plots._curves)
    for part, (panel, title) in enumerate(
        zip(panels(figure), ("Deletion (less is better)", "Insertion (more is better)"), strict=True)
    ):
        assert panel.get_title() == title
        assert lines(panel) == [(list(range(9)), FOUND.curves[name][part]) for name in METHODS]
        assert [label.get_text() for label in panel.get_xticklabels()] == SHARES
        assert panel.get_xticks().tolist() == list(range(9))
        assert panel.get_xlabel() == "share of the pixels, the most salient first"
        assert styles(panel, 5) == STYLES
    assert legend(figure) == TITLES
    first = panels(figure)[0]
    assert first.get_ylabel() == "mean probability of the answer" and first.get_ylim() == (0, 1)
    assert first.yaxis.get_major_formatter()(0.25) == "25%"
    assert plots._curves(replace(FOUND, curves={})) is None


def test_sanity_draws_both_similarities_from_the_trained_network_down() -> None:
    figure = drawn(plots._sanity)
    for part, (panel, title) in enumerate(zip(panels(figure), ("Rank correlation", "SSIM"), strict=True)):
        assert panel.get_title() == f"{title} with the trained network's map"
        wanted = []
        for name in METHODS[:4]:
            own = FOUND.sanity[name]
            values = [1.0, own["classifier"][part].value, own["layer1"][part].value]
            wanted.append(([0, 1, 2], values))
        assert lines(panel) == [*wanted, ([0, 1], [0, 0])]
        assert [label.get_text() for label in panel.get_xticklabels()] == ["trained", "classifier", "layer1"]
        assert panel.get_xticks().tolist() == [0, 1, 2]
        assert styles(panel, 4) == STYLES[:4]
    assert panels(figure)[0].get_xlabel() == "randomized down to"
    assert legend(figure) == TITLES[:4]
    assert plots._sanity(replace(FOUND, sanity={})) is None


def test_words_draws_the_run_above_the_paper() -> None:
    figure = drawn(plots._words)
    (panel,) = panels(figure)
    assert FOUND.words is not None and FOUND.paper_words is not None
    ours, theirs = FOUND.words.part_of_speech, FOUND.paper_words.part_of_speech
    wanted = []
    for row, tag in zip((3, 2, 1, 0), ("NOUN", "WH", "DET", "VERB"), strict=True):
        if tag in ours:
            wanted += whisker(ours[tag], row + 0.12)
        if tag in theirs:
            wanted += whisker(theirs[tag], row - 0.12)
    assert lines(panel) == [*wanted, ([], []), ([], []), ([0, 0], [0, 1])]
    colors = [to_hex(line.get_color()) for line in panel.get_lines()]
    run, paper = ["#0b5cad"] * 2, ["#d1701f"] * 2
    assert colors[:12] == [*run, *paper, *run, *run, *paper, *paper]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["NOUN", "WH", "DET", "VERB"]
    assert panel.get_yticks().tolist() == [3, 2, 1, 0]
    assert panel.get_xlabel() == "mean z (Eq. 11), with 95 % interval"
    assert legend(figure) == ["this run", "the paper's figures"]
    handles = figure.legends[0].get_lines()
    assert [to_hex(line.get_color()) for line in handles] == ["#0b5cad", "#d1701f"]
    assert plots._words(replace(FOUND, words=None)) is None
    assert plots._words(replace(FOUND, paper_words=None)) is None


# How they look


DRAWN = {
    "methods": plots._methods, "agreement": plots._agreement, "curves": plots._curves,
    "sanity": plots._sanity, "words": plots._words,
}  # fmt: skip


def inches(figure: Figure) -> tuple[float, float]:
    width, height = (round(float(side), 6) for side in figure.get_size_inches())
    return width, height


@pytest.mark.parametrize(("metrics", "methods"), [(1, 2), (3, 2), (1, 5), (7, 5)])
def test_methods_has_room_for_each_panel_and_each_row(metrics: int, methods: int) -> None:
    means = {metric: FOUND.means[metric] for metric in METRICS[:metrics]}
    figure = drawn(plots._methods, replace(FOUND, means=means, methods=METHODS[:methods]))
    assert inches(figure) == pytest.approx((2.2 + 1.9 * metrics, 1.2 + 0.3 * methods))
    assert len(panels(figure)) == metrics


@pytest.mark.parametrize("count", [2, 7])
def test_agreement_has_room_for_each_name_and_the_bar_beside_them(count: int) -> None:
    assert FOUND.matrix is not None
    names, matrix = FOUND.matrix_names[:count], FOUND.matrix[:count, :count]
    width, height = inches(drawn(plots._agreement, replace(FOUND, matrix=matrix, matrix_names=names)))
    assert height == pytest.approx(2.4 + 0.42 * count)
    assert width - height == pytest.approx(0.8)


def test_words_has_room_for_each_part_of_speech_of_either_side() -> None:
    assert inches(drawn(plots._words)) == pytest.approx((7.5, 1.1 + 0.34 * 4))
    alone = replace(FOUND, words=FOUND.paper_words)
    assert inches(drawn(plots._words, alone)) == pytest.approx((7.5, 1.1 + 0.34 * 3))


def test_curves_and_sanity_have_their_sizes() -> None:
    assert (inches(drawn(plots._curves)), inches(drawn(plots._sanity))) == ((10, 4.6), (10, 4.2))


@pytest.mark.parametrize("name", ["methods", "curves", "sanity", "words"])
def test_panels_are_open_above_and_to_the_right_and_have_a_faint_grid(name: str) -> None:
    for panel in panels(drawn(DRAWN[name])):
        visible = {side for side, spine in panel.spines.items() if spine.get_visible()}
        assert visible == {"left", "bottom"}
        vertical, horizontal = (axis.get_gridlines() for axis in (panel.xaxis, panel.yaxis))
        assert all(line.get_visible() and line.get_alpha() == 0.25 for line in vertical)
        both = name in ("curves", "sanity")
        assert all(line.get_visible() is both for line in horizontal)


@pytest.mark.parametrize(
    ("name", "place", "columns", "size"),
    [("curves", "right center", 1, 8), ("sanity", "right center", 1, 8), ("words", "upper right", 2, 9)],
)
def test_legends_stand_beside_the_panels_without_a_frame(
    name: str, place: str, columns: int, size: float
) -> None:
    figure = drawn(DRAWN[name])
    figure.draw_without_rendering()
    (own,) = figure.legends
    assert not own.get_frame_on()
    box = own.get_window_extent()
    outside = [panel.get_tightbbox() for panel in panels(figure)]
    assert not any(box.overlaps(panel) for panel in outside if panel)  # also no label is hidden
    rows = {round(text.get_window_extent().y0) for text in own.get_texts()}
    assert len(rows) == -(-len(own.get_texts()) // columns)
    assert {text.get_fontsize() for text in own.get_texts()} == {size}
    assert box.x1 == pytest.approx(figure.bbox.width, abs=15)
    if place == "right center":
        assert (box.y0 + box.y1) / 2 == pytest.approx(figure.bbox.height / 2, abs=2)
    else:
        assert box.y1 == pytest.approx(figure.bbox.height, abs=15)


@pytest.mark.parametrize("name", list(DRAWN))
def test_no_two_labels_of_an_axis_cover_each_other(name: str) -> None:
    figure = drawn(DRAWN[name])
    figure.draw_without_rendering()
    for panel in panels(figure):
        for labels in (panel.get_xticklabels(), panel.get_yticklabels()):
            shown = [label for label in labels if label.get_visible() and label.get_text()]
            turned = [label for label in shown if label.get_rotation()]
            boxes = [label.get_window_extent() for label in shown if label not in turned]
            assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
            assert all(label.get_ha() == "right" and 30 <= label.get_rotation() <= 50 for label in turned)


def sizes(labels: object) -> set[float]:
    return {label.get_fontsize() for label in labels}  # type: ignore[attr-defined]


def test_text_is_as_large_as_its_part_of_a_plot() -> None:
    for panel in panels(drawn(plots._methods)):
        assert panel.title.get_fontsize() == 9
        assert sizes([*panel.get_xticklabels(), *panel.get_yticklabels()]) == {8}
    panel, _ = panels(drawn(plots._agreement))
    assert sizes([*panel.get_xticklabels(), *panel.get_yticklabels()]) == {8}
    assert sizes(panel.texts) == {6.5}
    assert {(text.get_ha(), text.get_va()) for text in panel.texts} == {("center", "center")}
    for draw in (plots._curves, plots._sanity):
        assert {panel.title.get_fontsize() for panel in panels(drawn(draw))} == {10}
    for panel in panels(drawn(plots._sanity)):
        assert sizes(panel.get_xticklabels()) == {8}


def test_marks_and_lines_are_told_apart_by_their_weight() -> None:
    """A mean is a dot on its interval's line; lines that guide the eye are thinner than those of data."""
    for draw, rows in ((plots._methods, METHODS), (plots._words, ["NOUN", "WH", "DET", "VERB"])):
        panel = panels(drawn(draw))[0]
        *data, guide = panel.get_lines()
        intervals = [line for line in data if len(line.get_xydata()) == 2]  # type: ignore[arg-type]
        dots = [line for line in data if len(line.get_xydata()) == 1]  # type: ignore[arg-type]
        assert len(intervals) == len(dots) >= len(rows)
        assert {(line.get_linewidth(), line.get_marker()) for line in intervals} == {(1.6, "None")}
        assert {(line.get_markersize(), line.get_marker()) for line in dots} == {(4, "o")}
        assert guide.get_linewidth() == 0.8
        assert guide.get_linestyle() == (":" if draw is plots._methods else "-")
    for panel in panels(drawn(plots._sanity)):
        *data, guide = panel.get_lines()
        assert {(line.get_markersize(), line.get_marker()) for line in data} == {(3, "o")}
        assert (guide.get_linewidth(), guide.get_color()) == (0.8, "#444444")
    panel, bar = panels(drawn(plots._agreement))
    panel.figure.draw_without_rendering()  # type: ignore[union-attr]
    share = bar.get_window_extent().height / panel.get_window_extent().height
    assert 0.7 < share < 0.9  # the bar is shorter than the matrix


def test_a_share_of_the_answers_probability_is_a_whole_percentage() -> None:
    form = panels(drawn(plots._curves))[0].yaxis.get_major_formatter()
    assert [form(value) for value in (0, 0.254, 0.2, 1)] == ["0%", "25%", "20%", "100%"]


def test_the_palette_starts_again_and_floors_are_black() -> None:
    others = [f"method {number}" for number in range(16)]
    found = replace(FOUND, methods=["proposed", *others, "center", "random"])
    colors = [plots._line(found, name)["color"] for name in others]
    assert len(set(colors[:14])) == 14 and colors[14:] == colors[:2]
    assert plots._line(found, "center") == {"color": "black", "linewidth": 1.2, "linestyle": "--"}
    assert plots._line(found, "random") == {"color": "black", "linewidth": 1.2, "linestyle": ":"}
    assert plots._line(found, "proposed") == {"color": "#0b5cad", "linewidth": 2.6, "zorder": 3}


def test_each_plot_is_written_under_its_name_and_an_earlier_one_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def painted(color: str) -> object:
        def draw(found: MetricResults) -> Figure | None:
            del found
            return Figure(figsize=(2, 1), facecolor=color) if color else None

        return draw

    colors = {"methods": "#ff0000", "agreement": "#00ff00", "curves": "", "sanity": "#0000ff", "words": ""}
    assert list(plots._DRAWN) == list(colors) == list(PLOTS)
    assert plots._DRAWN == DRAWN
    monkeypatch.setattr(plots, "_DRAWN", {name: painted(color) for name, color in colors.items()})
    for name in ("curves", "sanity", "other"):
        (tmp_path / f"{name}.png").write_text("earlier")
    assert plots.write_plots(FOUND, tmp_path) == ["methods", "agreement", "sanity"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "agreement.png", "methods.png", "other.png", "sanity.png"
    ]  # fmt: skip
    for name, color in colors.items():
        if color:
            with Image.open(tmp_path / f"{name}.png") as picture:
                assert (picture.format, picture.size) == ("PNG", (220, 110))
                assert picture.convert("RGB").getpixel((5, 5)) == tuple(bytes.fromhex(color[1:]))
