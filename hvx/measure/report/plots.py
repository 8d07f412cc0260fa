"""The report's plots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hvx.files import atomic_write
from hvx.measure.methods.registry import METHODS, PROPOSED
from hvx.measure.metrics.bootstrap import Estimate
from hvx.measure.metrics.faithfulness import SHARES
from hvx.measure.metrics.results import MetricResults
from hvx.measure.metrics.sanity import OTHER_IMAGE
from hvx.measure.metrics.scores import METRICS

_RUN_COLOR, _PAPER_COLOR = "#0b5cad", "#d1701f"
_PALETTE = (
    "#8a8f98",
    "#d1701f",
    "#3f8f5b",
    "#9a4fb3",
    "#c0392b",
    "#b8860b",
    "#4aa3a2",
    "#7a5230",
    "#e377a2",
    "#5b6abf",
    "#2f6f2f",
    "#a0522d",
    "#6b7fa8",
    "#c45ab3",
)
_BASELINES = ("center", "random")
_BETTER = {True: "(more is better)", False: "(less is better)", None: ""}
_DPI = 110


def write_plots(measures: MetricResults, folder: Path) -> list[str]:
    """Draw the plots that have data, each into ``NAME.png``; returns their names.

    Raises:
        HvxError: a file cannot be written.
    """
    drawn = []
    for name, draw in _DRAWN.items():
        figure = draw(measures)
        if figure is not None:
            with atomic_write(folder / f"{name}.png") as part:
                figure.savefig(part, format="png", dpi=_DPI)
            drawn.append(name)
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)  # from an earlier report
    return drawn


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")  # neither pyplot nor its global state
    FigureCanvasAgg(figure)
    return figure


def _methods(measures: MetricResults) -> Figure | None:
    """A panel for each measure, a row for each method."""
    metrics = [metric for metric in METRICS if metric in measures.means]
    if not metrics:
        return None
    figure = _figure(2.2 + 1.9 * len(metrics), 1.2 + 0.3 * len(measures.methods))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    rows = np.arange(len(measures.methods))[::-1]
    for panel, metric in zip(panels, metrics, strict=True):
        for row, name in zip(rows, measures.methods, strict=True):
            estimate = measures.means[metric].get(name)
            if estimate:
                _whisker(panel, estimate, float(row), _RUN_COLOR if name == PROPOSED else "#555b66")
        proposed = measures.means[metric].get(PROPOSED)
        if proposed:
            panel.axvline(proposed.value, color=_RUN_COLOR, linewidth=0.8, linestyle=":")
        better = _BETTER[METRICS[metric].more_is_better]
        panel.set_title(f"{METRICS[metric].title}\n{better}", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(rows, [METHODS[name].title for name in measures.methods])
    return figure


def _whisker(panel: Axes, estimate: Estimate, row: float, color: str) -> None:
    panel.plot([estimate.low, estimate.high], [row, row], color=color, linewidth=1.6)
    panel.plot([estimate.value], [row], "o", color=color, markersize=4)


def _agreement(measures: MetricResults) -> Figure | None:
    if measures.matrix is None:
        return None
    names = [METHODS[name].title if name in METHODS else name for name in measures.matrix_names]
    side = 2.4 + 0.42 * len(names)
    figure = _figure(side + 0.8, side)
    panel = figure.subplots()
    image = panel.imshow(measures.matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    panel.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    for (row, column), value in np.ndenumerate(measures.matrix):
        ink = "white" if abs(value) > 0.6 else "black"
        panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=ink)
    figure.colorbar(image, ax=panel, shrink=0.7, label="mean rank correlation on the grid")
    return figure


def _curves(measures: MetricResults) -> Figure | None:
    if not measures.curves:
        return None
    figure = _figure(10, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    for part, title in enumerate(("Deletion (less is better)", "Insertion (more is better)")):
        for name, pair in measures.curves.items():
            panels[part].plot(
                range(len(SHARES)), pair[part], label=METHODS[name].title, **_line(measures, name)
            )
        panels[part].set_title(title, fontsize=10)
        panels[part].set_xlabel("share of the pixels, the most salient first")
        panels[part].set_xticks(range(len(SHARES)), [f"{share:.0%}" for share in SHARES])
        panels[part].grid(alpha=0.25)
        panels[part].spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("mean probability of the answer")
    panels[0].set_ylim(0, 1)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
    )
    return figure


def _sanity(measures: MetricResults) -> Figure | None:
    if not measures.sanity:
        return None
    stages = [stage for stage in next(iter(measures.sanity.values())) if stage != OTHER_IMAGE]
    figure = _figure(10, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for part, title in enumerate(("Rank correlation", "SSIM")):
        for name, by_stage in measures.sanity.items():
            values = [1.0, *(by_stage[stage][part].value for stage in stages)]
            line = _line(measures, name)
            panels[part].plot(
                range(len(values)), values, marker="o", markersize=3, label=METHODS[name].title, **line
            )
        panels[part].axhline(0, color="#444444", linewidth=0.8)
        panels[part].set_title(f"{title} with the trained network's map", fontsize=10)
        panels[part].set_xticks(
            range(len(stages) + 1), ["trained", *stages], rotation=40, ha="right", fontsize=8
        )
        panels[part].grid(alpha=0.25)
        panels[part].spines[["top", "right"]].set_visible(False)
    panels[0].set_xlabel("randomized down to")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
    )
    return figure


def _line(measures: MetricResults, name: str) -> dict[str, object]:
    """The line style of a method: the proposed one thick, the baselines dotted or dashed."""
    if name == PROPOSED:
        return {"color": _RUN_COLOR, "linewidth": 2.6, "zorder": 3}
    others = [other for other in measures.methods if other not in (PROPOSED, *_BASELINES)]
    if name in _BASELINES:
        return {"color": "black", "linewidth": 1.2, "linestyle": ":" if name == "random" else "--"}
    return {"color": _PALETTE[others.index(name) % len(_PALETTE)], "linewidth": 1.3}


def _words(measures: MetricResults) -> Figure | None:
    if not measures.words or not measures.paper_words:
        return None
    run_means, paper_means = measures.words.part_of_speech, measures.paper_words.part_of_speech
    tags = [*run_means, *(tag for tag in paper_means if tag not in run_means)]
    figure = _figure(7.5, 1.1 + 0.34 * len(tags))
    panel = figure.subplots()
    rows = np.arange(len(tags))[::-1]
    for row, tag in zip(rows, tags, strict=True):
        for shift, means, color in ((0.12, run_means, _RUN_COLOR), (-0.12, paper_means, _PAPER_COLOR)):
            if tag in means:
                _whisker(panel, means[tag], float(row) + shift, color)
    panel.plot([], [], "o-", color=_RUN_COLOR, label="this run")
    panel.plot([], [], "o-", color=_PAPER_COLOR, label="the paper's figures")
    panel.axvline(0, color="#444444", linewidth=0.8)
    panel.set_yticks(rows, tags)
    panel.set_xlabel("mean z (Eq. 11), with 95 % interval")
    panel.grid(axis="x", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", frameon=False, ncols=2, fontsize=9)
    return figure


_DRAWN: dict[str, Callable[[MetricResults], Figure | None]] = {
    "methods": _methods,
    "agreement": _agreement,
    "curves": _curves,
    "sanity": _sanity,
    "words": _words,
}
