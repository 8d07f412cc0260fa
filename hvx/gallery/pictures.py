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
"""Pixels of the square that the network saw. A card is 240 wide on a usual screen."""

MAP_SIDE = 112
"""Pixels. Maps are smoothed by a hundredth of their side, here a pixel; the browser enlarges them."""

WORDS = 256
"""Words of a question that have their heat maps shown; a JPEG is no wider than 65,535 pixels."""

_EDGE = 0.9
"""Of ``MAP_SIDE`` pixels that an outline keeps from a picture's edge, so that it is seen whole; half its
width, as in a figure."""
_STRAY = 0.35
"""Of these pixels that a simplified outline strays by."""

_PHOTO_QUALITY, _MAP_QUALITY = 82, 75
"""Of JPEG."""
_FOLDER = 1000
"""Files in a folder, so that a listing stays quick."""


def picture_path(kind: str, number: int) -> str:
    """Where a picture lies in the gallery's folder; the page has the same rule (``picturePath``)."""
    return f"{kind}/{number // _FOLDER:04d}/{number:07d}.jpg"


def save_photo(photo: Image.Image, side: int, gallery: Path, number: int) -> None:
    """Save a whole photograph under its number, its shorter side ``side`` pixels; the page cuts it."""
    _save(middle(photo, side), gallery / picture_path("photos", number), _PHOTO_QUALITY)


def drawn_maps(maps: Sequence[NDArray[np.floating]]) -> list[NDArray[np.float64]]:
    """Maps (H, W) of any sizes as they are drawn, (MAP_SIDE, MAP_SIDE): those of one size at once."""
    small = [shrunk(map) for map in maps]
    found: list[NDArray[np.float64]] = [np.zeros(0)] * len(small)
    for shape in {map.shape for map in small}:
        places = [place for place, map in enumerate(small) if map.shape == shape]
        for place, drawn in zip(places, enlarge(np.stack([small[n] for n in places]), MAP_SIDE), strict=True):
            found[place] = drawn
    return found


def save_maps(drawn: Sequence[NDArray[np.float64]], gallery: Path, number: int) -> None:
    """Save an item's maps, from left to right, as one gray picture.

    Its upper half is for the color style, its lower one for the paper's: a pixel's gray is its ``warmth``,
    and its ``emphasis``, as in a figure.

    Args:
        drawn: the maps, as ``drawn_maps`` returns them.
        gallery: its folder.
        number: of the item in the gallery.
    """
    _save_sprite(drawn, gallery, "maps", number)


def save_words(items: Sequence[Item], gallery: Path, number: int) -> None:
    """Save the heat maps of the words of each run's item, as ``save_maps`` does those of the item.

    Runs without them have no place in the picture; where none has them, there is no picture.
    """
    maps = [map for item in items for map in item.word_heatmaps[:WORDS]]
    if maps:
        _save_sprite(drawn_maps(maps), gallery, "words", number)


def _save_sprite(drawn: Sequence[NDArray[np.float64]], gallery: Path, kind: str, number: int) -> None:
    gray = np.empty((2 * MAP_SIDE, MAP_SIDE * len(drawn)), np.uint8)
    for place, map in enumerate(drawn):
        column = slice(MAP_SIDE * place, MAP_SIDE * (place + 1))
        gray[:MAP_SIDE, column], gray[MAP_SIDE:, column] = gray_levels(map)
    _save(Image.fromarray(gray), gallery / picture_path(kind, number), _MAP_QUALITY)


def outline_path(drawn: NDArray[np.float64]) -> str:
    """The outline of a drawn map as an SVG path over ``MAP_SIDE``×``MAP_SIDE``; empty where there is none."""
    parts = []
    for points in outline_of(drawn):
        line = Line(points.clip(_EDGE, MAP_SIDE - _EDGE))
        line.simplify_threshold = _STRAY
        simple = line.cleaned(simplify=True)
        kept = np.asarray(simple.vertices)[np.asarray(simple.codes) != Line.STOP]
        parts.append("M" + " ".join(f"{x:.4g} {y:.4g}" for x, y in kept.round(1)) + "Z")
    return "".join(parts)


def shrunk(map: NDArray[np.floating]) -> NDArray[np.floating]:
    """A map much larger than it is shown, as means over squares: to smooth the whole takes long."""
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
    except FileNotFoundError:  # the first in its folder; to ask for the folder each time takes long
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="JPEG", quality=quality)
