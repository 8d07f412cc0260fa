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
from hvx.view.heat import emphasis, enlarge, outline, warmth

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


def save_maps(items: Sequence[Item], gallery: Path, number: int) -> None:
    """Save the attention maps and the heat map of each run's item, from left to right, as one gray picture.

    Its upper half is for the color style, its lower one for the paper's: a pixel's gray is its ``warmth``,
    and its ``emphasis``, as in a figure.

    Args:
        items: of one question, one for each run.
        gallery: its folder.
        number: of the item in the gallery.
    """
    _save_sprite([map for item in items for map in (*item.attention, item.heatmap)], gallery, "maps", number)


def save_words(items: Sequence[Item], gallery: Path, number: int) -> None:
    """Save the heat maps of the words of each run's item, as ``save_maps`` does those of the item.

    Runs without them have no place in the picture; where none has them, there is no picture.
    """
    maps = [map for item in items for map in item.word_heatmaps[:WORDS]]
    if maps:
        _save_sprite(maps, gallery, "words", number)


def _save_sprite(maps: Sequence[NDArray[np.floating]], gallery: Path, kind: str, number: int) -> None:
    drawn = [enlarge(_shrunk(map), MAP_SIDE) for map in maps]
    halves = [np.concatenate([rule(map) for map in drawn], axis=1) for rule in (warmth, emphasis)]
    gray = Image.fromarray((np.concatenate(halves) * 255).round().astype(np.uint8))
    _save(gray, gallery / picture_path(kind, number), _MAP_QUALITY)


def outline_path(map: NDArray[np.floating]) -> str:
    """The outline of a heat map as an SVG path over ``MAP_SIDE``×``MAP_SIDE``; empty where there is none."""
    parts = []
    for points in outline(_shrunk(map), MAP_SIDE):
        line = Line(points.clip(_EDGE, MAP_SIDE - _EDGE))
        line.simplify_threshold = _STRAY
        simple = line.cleaned(simplify=True)
        kept = np.asarray(simple.vertices)[np.asarray(simple.codes) != Line.STOP]
        parts.append("M" + " ".join(f"{x:.4g} {y:.4g}" for x, y in kept.round(1)) + "Z")
    return "".join(parts)


def _shrunk(map: NDArray[np.floating]) -> NDArray[np.floating]:
    """A map much larger than it is shown, as means over squares: to smooth the whole takes long."""
    step = min(map.shape) // MAP_SIDE
    if step < 2:
        return map
    finite = np.where(np.isfinite(map), map, 0).astype(np.float32, copy=False).clip(0)
    return np.asarray(Image.fromarray(finite).reduce(step))


def _save(picture: Image.Image, path: Path, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="JPEG", quality=quality)
