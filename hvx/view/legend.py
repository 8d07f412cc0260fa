"""What stands around the pictures: color scales, outlines, bars of the likeliest answers, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvx.explain.threshold import DEVIATIONS
from hvx.view.heat import Style, color_scale
from hvx.view.page import Page
from hvx.view.text import line_height, shorten, unbroken, width, wrap
from hvx.view.tokens import BLACK, LOW, VALUE_INK, WHITE, Z_LIMIT, TextSizes, chip_color

LIKELIEST = 5
"""Answers that have a bar."""

BAR, TROUGH = LOW, (228, 228, 228)
_THINNEST = 2
"""Pixels of a bar."""
_STEPS = 256


@dataclass(frozen=True)
class Scale:
    """A strip of colors with words under it.

    Attributes:
        name: what stands before it.
        colors: RGB (steps, 3).
        ticks: place in [0, 1] and text of each; without, the scale is its name alone.
    """

    name: str
    colors: NDArray[np.uint8]
    ticks: tuple[tuple[float, str], ...]


def scales(
    style: Style,
    outlined: bool,
    unknown: bool = False,
    crop: bool = False,
    z: bool = True,
    attention: bool = False,
) -> list[Scale]:
    """Of the tokens' z-scores; of the maps, where these are in color; and what the marks on a page mean.

    Args:
        style: of the maps.
        outlined: whether lines are drawn around what is hot.
        unknown: whether any token is unknown to the model.
        crop: whether any photograph is more than what the model saw.
        z: whether any token has a z-score.
        attention: whether the attention to a token stands under any.
    """
    found = [_z_scale()] if z else []
    if style == "color":
        colors = color_scale().round().astype(np.uint8)
        found.append(Scale("attention, heat" if z else "attention", colors, ((0.0, "least"), (1.0, "most"))))
    marks = (
        (outlined, f"outline: heat above mean + {DEVIATIONS} standard deviations"),
        (attention, "under a token: attention to it; no z-scores without a Hadamard product"),
        (unknown, "dotted: word unknown to the model"),
        (crop, "frame: what the model saw"),
    )
    return found + [Scale(text, np.full((1, 3), 255, np.uint8), ()) for shown, text in marks if shown]


def _z_scale() -> Scale:
    z = np.linspace(-Z_LIMIT, Z_LIMIT, _STEPS)
    ticks = [(-Z_LIMIT, f"≤ −{Z_LIMIT:g}"), (-1, "−1"), (0, "0"), (1, "1"), (Z_LIMIT, f"≥ {Z_LIMIT:g}")]
    places = tuple(((value + Z_LIMIT) / (2 * Z_LIMIT), text) for value, text in ticks)
    return Scale("z-score", np.array([chip_color(float(one)) for one in z], np.uint8), places)


def draw_scales(page: Page, shown: Sequence[Scale], left: float, room: float, size: float) -> None:
    """Scales from left to right, line by line in ``room`` pixels; the page grows by their height."""
    spill = 2 * size  # words under the ends of a scale reach beyond it
    x = 0.0
    height = 0
    for scale in shown:
        name = width(scale.name, size) + (spill if scale.ticks else 0)
        span = max(1, math.floor(min(12 * size, room - name - spill)))
        needed = name + (span + spill if scale.ticks else 0)
        if x and x + needed > room:
            page.bottom += height
            x, height = 0.0, 0
        _draw_scale(page, scale, (left + x, page.bottom), (math.ceil(left + x + name), span), size)
        x += needed + 2 * size
        height = max(height, math.ceil((2.3 if scale.ticks else 1.4) * line_height(size)))
    page.bottom += height


def _draw_scale(page: Page, scale: Scale, at: tuple[float, int], strip: tuple[int, int], size: float) -> None:
    """A scale's name at ``at``, and the colors with the ticks under them; ``strip``: their left and width."""
    page.lines(wrap(scale.name, size, page.width - at[0]), at, size, VALUE_INK)
    if not scale.ticks:
        return
    start, span = strip
    thick = math.ceil(0.8 * size)
    top = at[1] + round((line_height(size) - thick) / 2)
    page.picture(
        Image.fromarray(scale.colors[None]).resize((span, thick), Image.Resampling.NEAREST), start, top
    )
    for place, text in scale.ticks:
        page.lines((text,), (start + place * span, top + thick), size, VALUE_INK, "center")


def draw_outline(
    page: Page, lines: Sequence[NDArray[np.float64]], left: float, top: float, side: int
) -> None:
    """Lines (n, 2) over a picture, white within black so that they show on any ground."""
    thin = max(1.0, side / 160)
    for thickness, ink in ((2.5 * thin, BLACK), (thin, WHITE)):
        for line in lines:
            x, y = np.clip(line, 1.25 * thin, side - 1.25 * thin).T
            page.stroke(x + left, y + top, ink, thickness)


def draw_frame(page: Page, square: tuple[int, int, int, int], left: float, top: float, side: int) -> None:
    """A thin line along the inner edge of a square (left, top, right, bottom) on a picture."""
    thin = max(1.0, side / 160)
    inner = thin / 2
    x, right = left + square[0] + inner, left + square[2] - inner
    y, bottom = top + square[1] + inner, top + square[3] - inner
    page.stroke((x, right, right, x, x), (y, y, bottom, bottom, y), BLACK, thin)


def draw_answers(
    page: Page, answers: Sequence[tuple[str, float]], at: tuple[float, float], side: int, sizes: TextSizes
) -> None:
    """The likeliest answers as bars in a square: text and probability, under them the bar.

    Args:
        page: drawn on.
        answers: with their probabilities, the likeliest first.
        at: the square's left and top.
        side: of the square in pixels.
        sizes: of the text.
    """
    (left, top), size, text_height = at, sizes.small, line_height(sizes.small)
    # In a narrow figure there is room for fewer than all.
    room = max(1, min(LIKELIEST, int(side / (text_height + _THINNEST + 3))))
    pitch = side // room
    thick = max(_THINNEST, min(pitch - math.ceil(text_height) - 3, pitch // 3))
    known = [(answer, share) for answer, share in answers[:room] if answer and math.isfinite(share)]
    for place, (answer, share) in enumerate(known):
        y, ink = top + place * pitch, BLACK if place == 0 else VALUE_INK
        percent = f"{100 * share:.1f} %"
        name = shorten(answer, size, side - width(percent, size) - size / 2)
        page.lines((name,), (left, y), size, ink)
        page.lines((percent,), (left + side, y), size, ink, "right")
        bar = y + math.ceil(text_height) + 1
        page.rectangle((left, bar, left + side, bar + thick), TROUGH)
        length = round(side * max(0.0, min(1.0, share)))
        if length:
            page.rectangle((left, bar, left + length, bar + thick), BAR)


def draw_label(page: Page, text: str, at: tuple[float, float], side: int, sizes: TextSizes) -> None:
    """Words in a white band at the foot of a picture, whose upper left corner is ``at``."""
    margin = min(sizes.small, side / 8) / 4
    size = unbroken([text], sizes.small, side - 4 * margin)
    while len(lines := wrap(text, size, side - 3.9 * margin)) * line_height(size) > side - 2 * margin:
        size *= 0.9
    left, bottom = at[0], at[1] + side
    top = bottom - len(lines) * line_height(size) - 2 * margin
    page.rectangle((left, top, left + side, bottom), WHITE)
    page.lines(lines, (left + side / 2, top + margin), size, BLACK, "center")
