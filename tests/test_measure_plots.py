"""What the plots of hvx measure draw: data, titles, axes and legends, read back from the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from test_measure_report_content import METRICS, NAMES, TITLES, full

from hvx.measure.bootstrap import Estimate
from hvx.measure.faithfulness import SHARES
from hvx.measure.measures import Measures
from hvx.measure.plots import write_plots

OWN, OTHER, PAPER = "#0b5cad", "#555b66", "#d1701f"


def figures(found: Measures, folder: Path) -> dict[str, Figure]:
    """The figures that ``write_plots`` saves, by the name of their file."""
    saved: list[Figure] = []
    save = Figure.savefig

    def record(figure: Figure, *given: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", record)
        drawn = write_plots(found, folder)
    return dict(zip(drawn, saved, strict=True))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    return figures(full(), tmp_path_factory.mktemp("plots"))


def lines(panel: Axes) -> list[tuple[list[float], list[float]]]:
    return [(np.array(x).tolist(), np.array(y).tolist()) for x, y in (own.get_data() for own in panel.lines)]


def whiskers(panel: Axes) -> dict[float, tuple[float, float, float, str]]:
    """Row → low, value, high and color: each a bar and then its dot, in one color."""
    found = {}
    for bar, dot in zip(panel.lines, panel.lines[1:], strict=False):
        (x, y), (value, row) = bar.get_data(), dot.get_data()
        if len(x) == 2 and len(value) == 1 and y[0] == y[1] == row[0] and bar.get_linestyle() == "-":
            assert (bar.get_linewidth(), dot.get_marker(), dot.get_markersize()) == (1.6, "o", 4)
            assert bar.get_color() == dot.get_color()
            assert row[0] not in found
            found[float(row[0])] = (x[0], value[0], x[1], to_hex(bar.get_color()))
    return found


def whisker(own: Estimate, color: str) -> tuple[float, float, float, str]:
    return own.low, own.value, own.high, color


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


def shown_spines(panel: Axes) -> list[str]:
    return sorted(name for name, spine in panel.spines.items() if spine.get_visible())


def test_each_plot_is_a_file_of_its_size_and_an_earlier_one_is_removed(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_bytes(b"an earlier report's")
    found = full()
    found.words = None
    made = figures(found, tmp_path)
    assert list(made) == ["methods", "agreement", "curves", "sanity"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.png" for name in made)
    sizes = {"methods": (2.2 + 1.9 * 7, 1.2 + 0.3 * 5), "agreement": (2.4 + 0.42 * 7 + 0.8, 2.4 + 0.42 * 7),
             "curves": (10, 4.6), "sanity": (10, 4.2)}  # fmt: skip
    for name, figure in made.items():
        assert figure.get_size_inches() == pytest.approx(sizes[name])
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG"
            assert picture.size == pytest.approx([110 * side for side in sizes[name]], abs=1)


def test_nothing_measured_is_nothing_drawn(tmp_path: Path) -> None:
    assert write_plots(Measures({}, ["proposed"]), tmp_path) == []
    found = full()
    found.paper_words = None
    assert "words" not in write_plots(found, tmp_path)


def test_each_panel_of_the_methods_has_its_measures_means_from_the_first_method_down(
    drawn: dict[str, Figure],
) -> None:
    found, panels = full(), drawn["methods"].axes
    better, less = "(more is better)", "(less is better)"
    assert [panel.get_title() for panel in panels] == [
        f"Pointing game\n{better}", f"Energy inside\n{better}", f"IoU\n{better}", "ρ with attention\n",
        f"ρ with people\n{better}", f"Deletion area\n{less}", f"Insertion area\n{better}",
    ]  # fmt: skip
    assert panels[0].get_yticks().tolist() == [4, 3, 2, 1, 0]
    assert texts(panels[0].get_yticklabels()) == TITLES
    for metric, panel in zip(METRICS, panels, strict=True):
        assert whiskers(panel) == {
            4.0 - k: whisker(found.means[metric][name], OWN if name == "proposed" else OTHER)
            for k, name in enumerate(NAMES)
            if name in found.means[metric]
        }
        base = panel.lines[-1]
        assert np.array(base.get_xdata()).tolist() == [found.means[metric]["proposed"].value] * 2
        assert (base.get_linestyle(), base.get_linewidth(), base.get_color()) == (":", 0.8, OWN)
        assert panel.title.get_fontsize() == 9
        assert panel.xaxis.get_gridlines()[0].get_visible()
        assert shown_spines(panel) == ["bottom", "left"]


def test_a_measure_without_the_proposed_map_has_no_line_of_its_mean(tmp_path: Path) -> None:
    found = full()
    found.means = {"energy": {"random": Estimate(0.5, 0.4, 0.6, 9)}}
    (panel,) = figures(found, tmp_path)["methods"].axes
    assert len(panel.lines) == 2
    assert whiskers(panel) == {0.0: (0.4, 0.5, 0.6, OTHER)}


def test_the_matrix_is_drawn_with_its_numbers_in_their_cells(drawn: dict[str, Figure]) -> None:
    found, (panel, scale) = full(), drawn["agreement"].axes
    assert found.matrix is not None
    (image,) = panel.images
    assert np.array(image.get_array()) == pytest.approx(found.matrix)
    assert image.get_clim() == (-1, 1) and image.get_cmap().name == "RdBu_r"
    names = [*TITLES, "glimpse 1", "glimpse 2"]
    for axis in (panel.xaxis, panel.yaxis):
        assert list(axis.get_ticklocs()) == list(range(7))
        assert texts(axis.get_ticklabels()) == names
    written = {own.get_position()[::-1]: own for own in panel.texts}
    assert len(written) == 49
    for (row, column), value in np.ndenumerate(found.matrix):
        assert written[row, column].get_text() == f"{value:.2f}"
        assert written[row, column].get_color() == ("white" if abs(value) > 0.6 else "black")
    assert scale.get_ylabel() == "mean rank correlation on the lattice"


def test_a_cells_ink_is_black_up_to_six_tenths(tmp_path: Path) -> None:
    found = Measures({}, ["proposed"])
    found.matrix_names, found.matrix = ["proposed", "glimpse 1"], np.array([[0.6, 0.61], [-0.6, -0.61]])
    panel = figures(found, tmp_path)["agreement"].axes[0]
    assert [own.get_color() for own in panel.texts] == ["black", "white", "black", "white"]


STYLES = {
    "Proposed (Eq. 2)": (OWN, 2.6, "-", 3),
    "Summed attention": ("#8a8f98", 1.3, "-", 2),
    "Eq. 2 unguided": ("#d1701f", 1.3, "-", 2),
    "Centre": ("#000000", 1.2, "--", 2),
    "Random": ("#000000", 1.2, ":", 2),
}
"""Color, width, style and layer of each method's line."""


def styles(panel: Axes) -> dict[str, tuple[str, float, str, float]]:
    return {
        str(own.get_label()): (
            to_hex(own.get_color()), own.get_linewidth(), str(own.get_linestyle()), own.get_zorder(),
        )
        for own in panel.lines
        if not str(own.get_label()).startswith("_")
    }  # fmt: skip


def test_deletion_is_drawn_left_and_insertion_right_each_method_by_its_own_curve(
    drawn: dict[str, Figure],
) -> None:
    found, figure = full(), drawn["curves"]
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == [
        "Deletion (less is better)", "Insertion (more is better)",
    ]  # fmt: skip
    for part, panel in enumerate(panels):
        assert lines(panel) == [(list(range(len(SHARES))), found.curves[name][part]) for name in NAMES]
        assert styles(panel) == STYLES
        assert panel.get_xlabel() == "share of the pixels, the most salient first"
        assert texts(panel.get_xticklabels()) == ["0%", "1%", "2%", "4%", "8%", "16%", "32%", "64%", "100%"]
        assert panel.get_xticks().tolist() == list(range(9))
        assert panel.get_ylim() == (0, 1)
        assert shown_spines(panel) == ["bottom", "left"]
    assert panels[0].get_ylabel() == "mean probability of the answer"
    assert panels[0].yaxis.get_major_formatter()(0.2) == "20%"
    (legend,) = figure.legends
    assert texts(legend.get_texts()) == TITLES
    assert not legend.get_frame_on()


def test_sanity_starts_at_1_and_leaves_other_images_out(drawn: dict[str, Figure]) -> None:
    found, figure = full(), drawn["sanity"]
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == [
        "Rank correlation with the trained network's map", "SSIM with the trained network's map",
    ]  # fmt: skip
    for part, panel in enumerate(panels):
        wanted = [
            ([0, 1, 2], [1.0, *(found.sanity[name][stage][part].value for stage in ("classifier", "layer1"))])
            for name in ("proposed", "unguided")
        ]
        assert lines(panel)[:2] == wanted
        assert all((own.get_marker(), own.get_markersize()) == ("o", 3) for own in panel.lines[:2])
        assert lines(panel)[2][1] == [0, 0] and len(panel.lines) == 3
        assert styles(panel) == {name: STYLES[name] for name in ("Proposed (Eq. 2)", "Eq. 2 unguided")}
        assert texts(panel.get_xticklabels()) == ["trained", "classifier", "layer1"]
        assert panel.get_xticks().tolist() == [0, 1, 2]
        assert shown_spines(panel) == ["bottom", "left"]
    assert panels[0].get_xlabel() == "randomised down to"
    (legend,) = figure.legends
    assert texts(legend.get_texts()) == ["Proposed (Eq. 2)", "Eq. 2 unguided"]
    assert not legend.get_frame_on()


def test_the_runs_words_stand_above_the_papers_in_each_row(drawn: dict[str, Figure]) -> None:
    found, figure = full(), drawn["words"]
    assert found.words and found.paper_words
    (panel,) = figure.axes
    assert panel.get_yticks().tolist() == [2, 1, 0]
    assert texts(panel.get_yticklabels()) == ["NOUN", "DET", "VERB"]
    ours, theirs = found.words.part_of_speech, found.paper_words.part_of_speech
    assert whiskers(panel) == {
        2.12: whisker(ours["NOUN"], OWN), 1.88: whisker(theirs["NOUN"], PAPER),
        1.12: whisker(ours["DET"], OWN), -0.12: whisker(theirs["VERB"], PAPER),
    }  # fmt: skip
    zero = panel.lines[-1]
    assert np.array(zero.get_xdata()).tolist() == [0, 0] and zero.get_color() == "#444444"
    assert panel.get_xlabel() == "mean z (Eq. 11), with 95 % interval"
    assert figure.get_size_inches() == pytest.approx((7.5, 1.1 + 0.34 * 3))
    (legend,) = figure.legends
    assert texts(legend.get_texts()) == ["this run", "the paper's figures"]
    assert [to_hex(own.get_color()) for own in legend.get_lines()] == [OWN, PAPER]
    assert not legend.get_frame_on()
    assert shown_spines(panel) == ["bottom", "left"]
