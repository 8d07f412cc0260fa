"""The pictures of a gallery: photographs as the network saw them, and each item's maps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvx.store.reader import Item
from hvx.view.heat import enlarge, standing

PHOTO_SIDE = 320
"""Pixels. A card is 240 wide on a usual screen."""

MAP_SIDE = 112
"""Pixels. Maps are smoothed by a hundredth of their side, here a pixel; the browser enlarges them."""

_PHOTO_QUALITY, _MAP_QUALITY = 82, 75
"""Of JPEG."""
_FOLDER = 1000
"""Files in a folder, so that a listing stays quick."""


def picture_path(kind: str, number: int) -> str:
    """Where a picture lies in the gallery's folder; the page has the same rule (``picturePath``)."""
    return f"{kind}/{number // _FOLDER:04d}/{number:07d}.jpg"


def save_photo(photo: Image.Image, gallery: Path, number: int) -> None:
    """Save a photograph under its number."""
    _save(photo, gallery / picture_path("photos", number), _PHOTO_QUALITY)


def save_maps(items: Sequence[Item], gallery: Path, number: int) -> list[float]:
    """Save the attention maps and the heat map of each run's item, from left to right, as one grey picture.

    A pixel's grey is its place t^γ between a map's base and its peak; see ``hvx.view.heat.emphasis``.

    Args:
        items: of one question, one for each run.
        gallery: its folder.
        number: of the item in the gallery.

    Returns:
        How far each map's peak stands out, s of ``emphasis``: as strongly the page lays it on the photograph.
    """
    maps = [map for item in items for map in (*item.attention, item.heatmap)]
    drawn = [standing(enlarge(_shrunk(map), MAP_SIDE)) for map in maps]
    side_by_side = np.concatenate([place for place, _ in drawn], axis=1)
    grey = Image.fromarray((side_by_side * 255).round().astype(np.uint8))
    _save(grey, gallery / picture_path("maps", number), _MAP_QUALITY)
    return [strength for _, strength in drawn]


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
