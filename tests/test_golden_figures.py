"""Figures against pictures that were looked at and kept."""

from __future__ import annotations

import numpy as np
import pytest
from golden_figures import FOLDER, LOOKS, draw
from PIL import Image, ImageChops

ROUNDING = 3
"""Levels of 255 by which a pixel may differ: sums in another order, another decoder."""
STRAY = 0.0005
"""Share of the pixels that may differ by more: the edges of letters and lines, which other versions of the
libraries that draw them set differently."""


def alike(one: Image.Image, other: Image.Image) -> bool:
    if one.size != other.size:
        return False
    apart = np.asarray(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).max(2)
    return bool((apart > ROUNDING).mean() <= STRAY)


@pytest.mark.parametrize("name", LOOKS)
def test_a_figure_looks_as_it_did(name: str) -> None:
    with Image.open(FOLDER / f"{name}.png") as kept:
        assert alike(draw(name), kept)


def test_the_comparison_sees_what_a_reader_would_see() -> None:
    with Image.open(FOLDER / "brightness.png") as opened:
        kept = opened.convert("RGB")
    with Image.open(FOLDER / "colour.png") as other:
        assert not alike(kept, other)
    assert not alike(kept, ImageChops.offset(kept, 1, 0))
    assert not alike(kept, kept.point(lambda level: min(255, level + ROUNDING + 1)))
    without_a_word = kept.copy()
    without_a_word.paste("white", (8, 152, 32, 184))
    assert not alike(kept, without_a_word)
    rounded = kept.point(lambda level: max(0, level - 1))
    assert alike(kept, rounded)
