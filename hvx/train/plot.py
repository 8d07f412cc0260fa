"""Plot of a training's loss and accuracy by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hvx.files import atomic_write

_TRAIN, _VALIDATION, _EXACT = "#8a8f98", "#0b5cad", "#d1701f"
_LOSSES = (("loss", "train, with dropout", _TRAIN), ("val_loss", "validation", _VALIDATION))
_ACCURACIES = (
    ("val_vqa_accuracy", "VQA accuracy", _VALIDATION),
    ("val_evalai_accuracy", "EvalAI accuracy", _VALIDATION),
    ("val_accuracy", "exact match", _EXACT),
)


def write_plot(path: Path, rows: list[dict[str, Any]], best: int | None) -> None:
    """Draw a training's metrics as PNG.

    Args:
        path: the picture's file.
        rows: the metrics of each epoch.
        best: the epoch of the best checkpoint; None without validation.

    Raises:
        HvxError: the file cannot be written.
    """
    # Without pyplot and its global state, since this runs during a training.
    validated = best is not None
    figure = Figure(figsize=(10 if validated else 5.5, 4.2), dpi=120)
    FigureCanvasAgg(figure)
    left, right = (0.055, 0.97) if validated else (0.12, 0.97)
    figure.subplots_adjust(left=left, right=right, top=0.93, bottom=0.21, wspace=0.2)
    panels = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    _draw(panels[0], rows, _LOSSES, None)
    panels[0].set(title="Loss", ylabel="cross-entropy (nats)")
    panels[0].set_ylim(0, 1.05 * panels[0].get_ylim()[1])
    if validated:
        _draw(panels[1], rows, _ACCURACIES, best)
        panels[1].set(title="Accuracy on validation", ylabel="questions answered right", ylim=(0, 1))
        panels[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for panel in panels:
        panel.legend(
            frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, columnspacing=1.4
        )
    with atomic_write(path) as part:
        figure.savefig(part, format="png")


def _draw(
    panel: Axes, rows: list[dict[str, Any]], lines: tuple[tuple[str, str, str], ...], best: int | None
) -> None:
    """Plot lines of (key, label, color) by epoch, for the keys that the rows have."""
    width = 3.2  # the first line is wider, so that it stays visible under the second
    for key, label, color in lines:
        points = [(row["epoch"], row[key]) for row in rows if key in row]
        if points:
            epochs, values = zip(*points, strict=True)
            panel.plot(
                epochs, values, "o-", color=color, label=label, linewidth=width, markersize=2.2 * width
            )
        width = 1.6
    if best is not None:
        panel.axvline(best, color="#444444", linewidth=1, linestyle=":", label=f"best: epoch {best}")
    panel.set_xlabel("epoch")
    panel.set_xlim(0.5, max(len(rows), 1) + 0.5)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
