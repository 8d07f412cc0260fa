"""Prints what a drawn picture shows: the photograph or the map that lies on it, in both styles of figures.

python scripts/measure_styles.py runs/daquar/run --count 60

For one explanation of each of so many images, drawn at random, the heat map is drawn on its photograph. Then
the mean, over these, of the rank correlation, pixel by pixel, of

- the picture's luminance, and
- its color: the place on the color scale whose color the pixel has when its gray part is taken away, which
  the photograph, drawn in gray, does not change; in the paper's style, which has no scale, the distance from
  gray

with the photograph's luminance, with the heat map as a figure draws it (lightly smoothed), and, as a control,
with the heat map of the next of these images.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hvx.errors import HvxError
from hvx.measure.metrics.agreement import rank_correlation
from hvx.store.reader import RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT
from hvx.view.heat import FLOOR_TINT, TINT, color_scale, enlarge, overlay
from hvx.view.run_figures import figure_row
from hvx.view.style import STYLES, Style

SIDE = 300
"""Of the drawn picture in pixels."""
_LUMA = np.array([0.299, 0.587, 0.114])
_NAMES = {"color": "place on the color scale", "paper": "distance from gray"}

Values = NDArray[np.float64]


def without_gray(pixels: Values) -> Values:
    """Colors (…, 3) less the gray of their mean: what a photograph in gray under them does not change."""
    return np.asarray(pixels - pixels.mean(-1, keepdims=True), np.float64)


def place_on_scale(drawn: Values) -> Values:
    """Where on the color scale each pixel of a picture (H, W, 3) in the color style lies, 0 to 255."""
    opacity = np.linspace(FLOOR_TINT, TINT, len(color_scale()))[:, None]
    _, places = cKDTree(opacity * without_gray(color_scale())).query(without_gray(drawn))
    return np.asarray(places, np.float64)


def color_of(drawn: Values, style: Style) -> Values:
    """One number for the color of each pixel of a picture (H, W, 3)."""
    if style == "color":
        return place_on_scale(drawn)
    return np.asarray(np.linalg.norm(without_gray(drawn), axis=-1), np.float64)


def chosen(reader: RunReader, count: int, seed: int) -> list[int]:
    """An explanation of each of ``count`` images, none of whose gradient is zero everywhere."""
    order = np.random.default_rng(seed).permutation(len(reader))
    zero, images = reader.column("zero_gradient"), reader.column("image_id")
    by_image = {images[number]: int(number) for number in order if not zero[number] & ZERO_IMAGE_GRADIENT}
    if len(by_image) < max(2, count):
        raise HvxError(
            f"{reader.path}: has {len(by_image)} images with a heat map; --count {count} asks for more"
        )
    return list(by_image.values())[:count]


def correlations(reader: RunReader, numbers: list[int]) -> dict[tuple[Style, str], Values]:
    """By style and by what is read from the picture: with photograph, own map, another image's map."""
    found: dict[tuple[Style, str], list[list[float]]] = {}
    others = [*numbers[1:], numbers[0]]
    for number, other in zip(numbers, others, strict=True):
        row = figure_row(reader, number, SIDE)
        against = [
            np.asarray(row.photo, np.float64) @ _LUMA,
            enlarge(row.heatmap, SIDE),
            enlarge(reader[other].heatmap, SIDE),
        ]
        for style in STYLES:
            drawn = np.asarray(overlay(row.photo, row.heatmap, SIDE, style), np.float64)
            for name, values in (("luminance", drawn @ _LUMA), (_NAMES[style], color_of(drawn, style))):
                agreed = [rank_correlation(values, one) for one in against]
                found.setdefault((style, name), []).append(agreed)
    return {key: np.mean(rows, axis=0) for key, rows in found.items()}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", default=60, show_default=True, type=click.IntRange(2), help="Images.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of images.")
def main(run: Path, count: int, seed: int) -> None:
    """A Markdown table of what pictures of RUN show in each style."""
    with RunReader(run) as reader:
        found = correlations(reader, chosen(reader, count, seed))
    click.echo(f"n = {count} images, pictures of {SIDE}×{SIDE}; mean rank correlation\n")
    click.echo("| style | read from the picture | photograph | heat map | another image's heat map |")
    click.echo("|---|---|---|---|---|")
    for (style, name), values in found.items():
        click.echo(f"| {style} | {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")


if __name__ == "__main__":
    main()
