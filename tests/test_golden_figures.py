"""Figures against pictures that were looked at and kept."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from golden_figures import FOLDER, LOOKS, draw
from PIL import Image, ImageChops

ROUNDING = 3
"""Levels of 255 by which a pixel may differ: sums in another order, another decoder."""
STRAY = 0.0005
"""Share of the pixels that may differ by more: the edges of letters and lines, which other versions of the
libraries that draw them set differently."""
CLOSE, STRAY_CLOSE = 9, 8
"""Pixels that may differ within a square of so many pixels a side: fewer than one digit for another has."""


def alike(one: Image.Image, other: Image.Image) -> bool:
    if one.size != other.size:
        return False
    apart = np.asarray(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).max(2)
    stray = apart > ROUNDING
    near = np.lib.stride_tricks.sliding_window_view(stray, (CLOSE, CLOSE)).sum((2, 3))
    return bool(stray.mean() <= STRAY and near.max() <= STRAY_CLOSE)


@pytest.mark.parametrize("name", LOOKS)
def test_a_figure_looks_as_it_did(name: str) -> None:
    with Image.open(FOLDER / f"{name}.png") as kept:
        assert alike(draw(name), kept)


@pytest.mark.parametrize(
    ("module", "name", "drawn", "instead"),
    [
        ("legend", "write", "1", "7"),
        ("legend", "write", "0", "8"),
        ("legend", "write", "≥ 2", "≥ 3"),
        ("legend", "write", "≤ −2", "≤ 2"),
        ("tokens", "value_text", "0.6324", "0.6824"),
        ("tokens", "value_text", "-0.43", "0.43"),
    ],
)
def test_the_comparison_sees_one_other_digit(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, drawn: str, instead: str
) -> None:
    """``module``'s function ``name`` takes or returns the text."""
    original = getattr(importlib.import_module(f"hvx.view.{module}"), name)

    def other(*arguments: Any) -> Any:
        given = [(instead,) if argument == (drawn,) else argument for argument in arguments]
        made = original(*given)
        return instead if made == drawn else made

    monkeypatch.setattr(f"hvx.view.{module}.{name}", other)
    with Image.open(FOLDER / "brightness.png") as kept:
        assert not alike(draw("brightness"), kept)


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
