"""The pictures of a gallery: whole photographs, and each item's maps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.path import Path as Line
from numpy.typing import NDArray
from PIL import Image

from hvx.store.reader import Item
from hvx.view.crop import middle
from hvx.view.heat import enlarge, gray_levels, outline_of

PHOTO_SIDE = 320
"""Pixels of the square that the network saw. A card is 240 pixels wide on a usual screen."""

MAP_SIDE = 112
"""Pixels. Maps are smoothed with a sigma of 1/100 of their side, here a pixel; the browser enlarges them."""

WORDS = 256
"""Limit of words' heat maps for a question: a JPEG is at most 65,535 pixels wide."""

_EDGE = 0.9
"""Distance of an outline from the picture's edge, in ``MAP_SIDE`` pixels: half its line width, as in a
figure."""
_STRAY = 0.35
"""Largest deviation of a simplified outline, in the same pixels."""

_PHOTO_QUALITY, _MAP_QUALITY = 82, 75
"""JPEG qualities."""
_FOLDER = 1000
"""Files per folder, so that listings stay fast."""


def picture_path(kind: str, number: int) -> str:
    """A picture's path in the gallery's folder; ``picturePath`` of the page computes the same."""
    return f"{kind}/{number // _FOLDER:04d}/{number:07d}.jpg"


def save_photo(photo: Image.Image, side: int, gallery: Path, number: int) -> None:
    """Save a whole photograph under its number, its shorter side ``side`` pixels; the page crops it."""
    _save(middle(photo, side), gallery / picture_path("photos", number), _PHOTO_QUALITY)


def drawn_maps(maps: Sequence[NDArray[np.floating]]) -> list[NDArray[np.float64]]:
    """Maps (H, W) of any sizes as drawn, (MAP_SIDE, MAP_SIDE). Maps of one size are processed together."""
    small = [shrunk(map) for map in maps]
    drawn: list[NDArray[np.float64]] = [np.zeros(0)] * len(small)
    for shape in {map.shape for map in small}:
        indices = [index for index, map in enumerate(small) if map.shape == shape]
        enlarged = enlarge(np.stack([small[index] for index in indices]), MAP_SIDE)
        for index, map in zip(indices, enlarged, strict=True):
            drawn[index] = map
    return drawn


def save_maps(drawn: Sequence[NDArray[np.float64]], gallery: Path, number: int) -> None:
    """Save an item's maps, from left to right, as one gray picture.

    The upper half is for the color style, the lower half for the paper's. Gray levels are ``warmth`` and
    ``emphasis``, as in a figure.

    Args:
        drawn: the maps, as ``drawn_maps`` returns them.
        gallery: its folder.
        number: of the item in the gallery.
    """
    _save_sprite(drawn, gallery, "maps", number)


def save_words(items: Sequence[Item], gallery: Path, number: int) -> None:
    """Save the heat maps of the words of each run's item, as ``save_maps`` does for those of the item.

    The picture has only runs with such maps. If no run has them, no picture is written.
    """
    maps = [map for item in items for map in item.word_heatmaps[:WORDS]]
    if maps:
        _save_sprite(drawn_maps(maps), gallery, "words", number)


def _save_sprite(drawn: Sequence[NDArray[np.float64]], gallery: Path, kind: str, number: int) -> None:
    gray = np.empty((2 * MAP_SIDE, MAP_SIDE * len(drawn)), np.uint8)
    for index, map in enumerate(drawn):
        columns = slice(MAP_SIDE * index, MAP_SIDE * (index + 1))
        gray[:MAP_SIDE, columns], gray[MAP_SIDE:, columns] = gray_levels(map)
    _save(Image.fromarray(gray), gallery / picture_path(kind, number), _MAP_QUALITY)


def outline_path(drawn: NDArray[np.float64]) -> str:
    """The outline of a drawn map as an SVG path over ``MAP_SIDE``×``MAP_SIDE``; empty if there is none."""
    parts = []
    for points in outline_of(drawn):
        path = Line(points.clip(_EDGE, MAP_SIDE - _EDGE))
        path.simplify_threshold = _STRAY
        simplified = path.cleaned(simplify=True)
        vertices = np.asarray(simplified.vertices)[np.asarray(simplified.codes) != Line.STOP]
        parts.append("M" + " ".join(f"{x:.4g} {y:.4g}" for x, y in vertices.round(1)) + "Z")
    return "".join(parts)


def shrunk(map: NDArray[np.floating]) -> NDArray[np.floating]:
    """A map, reduced by means over squares if it is much larger than drawn: smoothing a large map is slow."""
    step = min(map.shape) // MAP_SIDE
    if step < 2:
        return map
    finite = np.asarray(map, np.float32)
    if not np.isfinite(finite).all():
        finite = np.where(np.isfinite(finite), finite, 0)
    if finite.min() < 0:
        finite = finite.clip(0)
    return np.asarray(Image.fromarray(finite).reduce(step))


def _save(picture: Image.Image, path: Path, quality: int) -> None:
    try:
        picture.save(path, format="JPEG", quality=quality)
    except FileNotFoundError:  # the first file in its folder; checking for the folder each time is slow
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="JPEG", quality=quality)
