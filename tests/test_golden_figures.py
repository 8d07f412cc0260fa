"""Figures against pictures that were looked at and kept; their texts are compared in test_figure_texts.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from golden_figures import FOLDER, STYLES, draw
from PIL import Image, ImageChops

from hvx.view.page import Page

ROUNDING = 3
"""Levels of 255 by which a pixel may differ: sums in another order, another decoder."""
STRAY = 0.0005
"""Share of the pixels that may differ by more: the edges of letters and lines, which other versions of the
libraries that draw them set differently."""
CLOSE, STRAY_CLOSE = 9, 8
"""Pixels that may differ within a square of so many pixels a side: fewer than one digit for another has."""


WORD = (8, 158, 32, 190)
"""Where the first token of the golden figures stands."""


def alike(one: Image.Image, other: Image.Image) -> bool:
    if one.size != other.size:
        return False
    apart = np.asarray(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).max(2)
    stray = apart > ROUNDING
    near = np.lib.stride_tricks.sliding_window_view(stray, (CLOSE, CLOSE)).sum((2, 3))
    return bool(stray.mean() <= STRAY and near.max() <= STRAY_CLOSE)


@pytest.mark.parametrize("name", STYLES)
def test_a_figure_looks_as_it_did(name: str) -> None:
    with Image.open(FOLDER / f"{name}.png") as kept:
        assert alike(draw(name), kept)


@pytest.mark.parametrize(
    ("shown", "instead"),
    [("1", "7"), ("0", "8"), ("≥ 2", "≥ 3"), ("≤ −2", "≤ 2"), ("0.63", "0.68"), ("−0.43", "0.43")],
)
def test_the_comparison_sees_one_other_digit(
    monkeypatch: pytest.MonkeyPatch, shown: str, instead: str
) -> None:
    """On a scale or below a token."""
    draw_lines = Page.lines

    def other(page: Page, lines: Sequence[str], *arguments: Any) -> None:
        draw_lines(page, [instead if line == shown else line for line in lines], *arguments)

    monkeypatch.setattr(Page, "lines", other)
    with Image.open(FOLDER / "paper.png") as kept:
        assert not alike(draw("paper"), kept)


def test_the_comparison_sees_what_a_reader_would_see() -> None:
    with Image.open(FOLDER / "paper.png") as opened:
        kept = opened.convert("RGB")
    with Image.open(FOLDER / "color.png") as other:
        assert not alike(kept, other)
    assert not alike(kept, ImageChops.offset(kept, 1, 0))
    assert not alike(kept, kept.point(lambda level: min(255, level + ROUNDING + 1)))
    without_a_word = kept.copy()
    without_a_word.paste("white", WORD)
    assert without_a_word.crop(WORD).tobytes() != kept.crop(WORD).tobytes()
    assert not alike(kept, without_a_word)
    rounded = kept.point(lambda level: max(0, level - 1))
    assert alike(kept, rounded)
