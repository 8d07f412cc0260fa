"""Prints what smaller heat maps, and 8-bit ones, lose against the whole maps of a run.

python scripts/measure_heatmaps.py runs/reproduce/run
python scripts/measure_heatmaps.py runs/daquar/run --count 1000 --masks MASKS

For each stored size and dtype:

- bytes of a map, and of VQA v2 val (214,354 explanations) at 448×448 pixels reduced by the same factor;
- pointing game: how often the maximum lies in the object asked about, by the split's table of objects; or by
  class masks (scripts/class_masks.py): where the question names one class and that is in the crop. Chance is
  the share of the crop that this object covers;
- rank correlation with the whole map, pixel by pixel and over 7×7 cells, the grid of an attention map;
- picture: mean difference of the drawn figure's pixels from that of the whole map, of 255, in both styles.

The last two rows are controls: the map of another question on the same image, and of another image.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch
from class_masks import Masks
from PIL import Image

from hvx.config import parse
from hvx.data.image_files import find_image
from hvx.data.object_masks import ObjectTable, read_mask
from hvx.errors import HvxError
from hvx.measure.metrics.agreement import pooled, rank_correlation
from hvx.measure.metrics.localization import enlarged, points_inside
from hvx.measure.metrics.scores import cropped
from hvx.store.heatmaps import from_8_bits, shrunk, to_8_bits
from hvx.store.reader import Item, RunReader
from hvx.view.heat import overlay
from hvx.view.style import STYLES

REDUCTIONS = (1, 2, 4, 8)
DTYPES = ("float16", "uint8")
V2_VAL, V2_SIDE = 214_354, 448
GRID = (7, 7)
PICTURE = 300
"""Side of the drawn picture in pixels."""
SINGLE = ("attribute", "shape", "existence")
"""Kinds of questions about one object."""


@dataclass(frozen=True)
class Sample:
    """An explanation, where the object lies that it asks about (None: unknown), its photograph."""

    item: Item
    inside: np.ndarray | None
    photo: Image.Image


def stored(heatmap: np.ndarray, reduction: int, dtype: str) -> np.ndarray:
    """A whole map (H, W) as a reader returns it that was stored smaller."""
    small = shrunk(torch.from_numpy(heatmap), heatmap.shape[0] // reduction).numpy()
    return from_8_bits(*to_8_bits(small)) if dtype == "uint8" else small.astype(np.float16).astype(np.float32)


class ObjectRegions:
    """Where in the crop the object lies that a question asks about.

    By the split's table of objects; or by class masks, where the question names one class.

    Args:
        reader: a run, whose config names the split.
        masks: used if the split has no table.
    """

    def __init__(self, reader: RunReader, masks: Masks | None) -> None:
        config = parse(copy.deepcopy(reader.about["config"]), str(reader.path / "run.json"))
        assert config.explain is not None
        self.split = config.split(config.explain.split)
        self._table = ObjectTable(self.split) if self.split.objects else None
        self._masks, self._size = masks, reader.heatmap_size[0]

    def of(self, item: Item) -> np.ndarray | None:
        """(H, W) bool; None if it is unknown, outside of the crop, or of several objects."""
        region = None
        if self._table and self._table.asked[item.question_id].kind in SINGLE:
            region = np.isin(self._table.mask(item.image_id), self._table.asked[item.question_id].labels)
        elif self._masks:
            region = self._named(self._masks, item)
        return region if region is not None and region.any() else None

    def _named(self, masks: Masks, item: Item) -> np.ndarray | None:
        labels, path = masks.of_words(item.tokens), masks.path(item.image_path)
        if len(labels) != 1 or not path.is_file():
            return None
        return cropped(read_mask(path) == labels[0], (self._size, self._size))


def samples(run: Path, count: int, masks: Masks | None) -> list[Sample]:
    """The first explanations of a run, as many as ``count``, those of one image together."""
    with RunReader(run) as reader:
        if reader.column("heatmap").dtype != np.float16:
            raise HvxError(f"{run}: its heat maps are stored in 8 bits; give a run of whole maps")
        regions, size = ObjectRegions(reader, masks), reader.heatmap_size[0]
        made = []
        for number in range(min(count, len(reader))):
            item = reader[number]
            photo = _photo(find_image(regions.split.folders, item.image_path), size)
            made.append(Sample(item, regions.of(item), photo))
    return made


def _photo(path: Path, size: int) -> Image.Image:
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.crop((left, top, left + side, top + side)).resize((size, size))


def row(found: list[Sample], pictures: int, reduction: int, dtype: str) -> list[float]:
    """Pointing game, two rank correlations, difference of the first so many pictures in each style."""
    hits, pixel, grid = [], [], []
    apart: list[list[float]] = [[] for _ in STYLES]
    for place, each in enumerate(found):
        whole = each.item.heatmap
        own = stored(whole, reduction, dtype)
        if each.inside is not None:
            hits.append(points_inside(own, each.inside))
        pixel.append(rank_correlation(enlarged(own, whole.shape), whole))
        grid.append(rank_correlation(pooled(own, GRID), pooled(whole, GRID)))
        for style, values in zip(STYLES if place < pictures else (), apart, strict=False):
            values.append(_difference(each.photo, own, whole, style))
    return [_mean(hits), _mean(pixel), _mean(grid), *map(_mean, apart)]


def control(found: list[Sample], pictures: int, same_image: bool) -> list[float]:
    """As ``row``, for the whole map of another question on the same image, or of another image."""
    hits, pixel, grid = [], [], []
    apart: list[list[float]] = [[] for _ in STYLES]
    for place, (one, other) in enumerate(pairwise(found)):
        if (one.item.image_id == other.item.image_id) != same_image:
            continue
        whole, own = one.item.heatmap, other.item.heatmap
        if one.inside is not None:
            hits.append(points_inside(own, one.inside))
        pixel.append(rank_correlation(own, whole))
        grid.append(rank_correlation(pooled(own, GRID), pooled(whole, GRID)))
        for style, values in zip(STYLES if place < pictures else (), apart, strict=False):
            values.append(_difference(one.photo, own, whole, style))
    return [_mean(hits), _mean(pixel), _mean(grid), *map(_mean, apart)]


def _difference(photo: Image.Image, one: np.ndarray, other: np.ndarray, style: str) -> float:
    drawn = [np.asarray(overlay(photo, map, PICTURE, style), np.float64) for map in (one, other)]  # type: ignore[arg-type]
    return float(np.abs(drawn[0] - drawn[1]).mean())


def _mean(values: list[float] | list[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", default=300, show_default=True, help="Explanations.")
@click.option("--pictures", default=60, show_default=True, help="Of these, how many are drawn.")
@click.option("--masks", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Label masks.")
def main(run: Path, count: int, pictures: int, masks: Path | None) -> None:
    """A Markdown table of stored sizes and dtypes, on the whole maps of RUN."""
    found = samples(run, count, Masks.opened(masks) if masks else None)
    side = found[0].item.heatmap.shape[0]
    covered = [float(each.inside.mean()) for each in found if each.inside is not None]
    click.echo(
        f"n = {len(found)} heat maps of {side}×{side}; pointing game n = {len(covered)}, chance "
        f"{_mean(covered):.3f}; pictures n = {min(pictures, len(found))}\n"
    )
    styles = " | ".join(f"picture, {style}" for style in STYLES)
    click.echo(f"| stored | bytes | v2 val, GB | pointing | ρ pixels | ρ 7×7 | {styles} |")
    click.echo("|---|---|---|---|---|---|" + "---|" * len(STYLES))
    for reduction in REDUCTIONS:
        for dtype in DTYPES:
            each = (side // reduction) ** 2 * np.dtype(dtype).itemsize
            total = V2_VAL * (V2_SIDE // reduction) ** 2 * np.dtype(dtype).itemsize / 1e9
            name = f"{side // reduction}×{side // reduction} {dtype}"
            click.echo(
                f"| {name} | {each:,} | {total:.1f} | {_cells(row(found, pictures, reduction, dtype))} |"
            )
    for name, same_image in (("another question's map", True), ("another image's map", False)):
        click.echo(f"| {name} | | | {_cells(control(found, pictures, same_image))} |")


def _cells(values: list[float]) -> str:
    pointed, pixel, grid, *drawn = values
    return f"{pointed:.3f} | {pixel:.4f} | {grid:.4f} | " + " | ".join(f"{value:.2f}" for value in drawn)


if __name__ == "__main__":
    main()
