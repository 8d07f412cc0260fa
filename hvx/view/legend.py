"""Parts drawn on and around the pictures: color scales, outlines, bars of the likeliest answers, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvx.explain.threshold import DEVIATIONS
from hvx.view.heat import color_scale
from hvx.view.page import Page
from hvx.view.style import Style
from hvx.view.text import line_height, shorten, unbroken, width, wrap
from hvx.view.tokens import BLACK, LOW, VALUE_INK, WHITE, Z_LIMIT, TextSizes, chip_color

LIKELIEST = 5
"""Number of answers with a bar."""

BAR, TROUGH = LOW, (228, 228, 228)
_THINNEST = 2
"""Smallest height of a bar in pixels."""
_STEPS = 256


@dataclass(frozen=True)
class Scale:
    """A strip of colors with labels under it.

    Attributes:
        name: text before the strip.
        colors: RGB (steps, 3).
        ticks: position in [0, 1] and text of each; if empty, the scale is only its name.
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
    """The scale of the z-scores, that of the maps if they are in color, and the meaning of the marks.

    Args:
        style: style of the maps.
        outlined: whether hot regions are outlined.
        unknown: whether any token is unknown to the model.
        crop: whether the model saw only a part of any photograph.
        z: whether any token has a z-score.
        attention: whether any token has its attention under it.
    """
    strips = [_z_scale()] if z else []
    if style == "color":
        colors = color_scale().round().astype(np.uint8)
        strips.append(Scale("attention, heat" if z else "attention", colors, ((0.0, "least"), (1.0, "most"))))
    marks = (
        (outlined, f"outline: heat above mean + {DEVIATIONS} standard deviations"),
        (attention, "under a token: attention to it; no z-scores without a Hadamard product"),
        (unknown, "dotted: word unknown to the model"),
        (crop, "frame: what the model saw"),
    )
    return strips + [Scale(text, np.full((1, 3), 255, np.uint8), ()) for present, text in marks if present]


def _z_scale() -> Scale:
    z = np.linspace(-Z_LIMIT, Z_LIMIT, _STEPS)
    ticks = [(-Z_LIMIT, f"≤ −{Z_LIMIT:g}"), (-1, "−1"), (0, "0"), (1, "1"), (Z_LIMIT, f"≥ {Z_LIMIT:g}")]
    positions = tuple(((value + Z_LIMIT) / (2 * Z_LIMIT), text) for value, text in ticks)
    return Scale("z-score", np.array([chip_color(float(score)) for score in z], np.uint8), positions)


def draw_scales(page: Page, strips: Sequence[Scale], left: float, max_width: float, size: float) -> None:
    """Scales from left to right, line by line in ``max_width`` pixels; the page grows by their height."""
    overhang = 2 * size  # tick labels reach beyond the ends of a scale
    x = 0.0
    height = 0
    for scale in strips:
        name = width(scale.name, size) + (overhang if scale.ticks else 0)
        strip_width = max(1, math.floor(min(12 * size, max_width - name - overhang)))
        needed = name + (strip_width + overhang if scale.ticks else 0)
        if x and x + needed > max_width:
            page.bottom += height
            x, height = 0.0, 0
        _draw_scale(page, scale, (left + x, page.bottom), (math.ceil(left + x + name), strip_width), size)
        x += needed + 2 * size
        height = max(height, math.ceil((2.3 if scale.ticks else 1.4) * line_height(size)))
    page.bottom += height


def _draw_scale(page: Page, scale: Scale, at: tuple[float, int], strip: tuple[int, int], size: float) -> None:
    """A scale's name at ``at``, and the colors with the ticks under them; ``strip``: their left and width."""
    page.lines(wrap(scale.name, size, page.width - at[0]), at, size, VALUE_INK)
    if not scale.ticks:
        return
    start, span = strip
    height = math.ceil(0.8 * size)
    top = at[1] + round((line_height(size) - height) / 2)
    page.picture(
        Image.fromarray(scale.colors[None]).resize((span, height), Image.Resampling.NEAREST), start, top
    )
    for position, text in scale.ticks:
        page.lines((text,), (start + position * span, top + height), size, VALUE_INK, "center")


def draw_outline(
    page: Page, lines: Sequence[NDArray[np.float64]], left: float, top: float, side: int
) -> None:
    """Lines (n, 2) over a picture, white within black, visible on any background."""
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
    """The likeliest answers as bars in a square: text and probability, with the bar below.

    Args:
        page: the page to draw on.
        answers: with their probabilities, in descending order.
        at: the square's left and top.
        side: of the square in pixels.
        sizes: of the text.
    """
    (left, top), size, text_height = at, sizes.small, line_height(sizes.small)
    # A narrow figure has room for only some of them.
    limit = max(1, min(LIKELIEST, int(side / (text_height + _THINNEST + 3))))
    pitch = side // limit
    bar_height = max(_THINNEST, min(pitch - math.ceil(text_height) - 3, pitch // 3))
    finite = [(answer, p) for answer, p in answers[:limit] if answer and math.isfinite(p)]
    for index, (answer, probability) in enumerate(finite):
        y, ink = top + index * pitch, BLACK if index == 0 else VALUE_INK
        percent = f"{100 * probability:.1f} %"
        name = shorten(answer, size, side - width(percent, size) - size / 2)
        page.lines((name,), (left, y), size, ink)
        page.lines((percent,), (left + side, y), size, ink, "right")
        bar_top = y + math.ceil(text_height) + 1
        page.rectangle((left, bar_top, left + side, bar_top + bar_height), TROUGH)
        length = round(side * max(0.0, min(1.0, probability)))
        if length:
            page.rectangle((left, bar_top, left + length, bar_top + bar_height), BAR)


def draw_label(page: Page, text: str, at: tuple[float, float], side: int, sizes: TextSizes) -> None:
    """Text in a white band at the bottom of a picture, whose upper left corner is ``at``."""
    margin = min(sizes.small, side / 8) / 4
    size = unbroken([text], sizes.small, side - 4 * margin)
    while len(lines := wrap(text, size, side - 3.9 * margin)) * line_height(size) > side - 2 * margin:
        size *= 0.9
    left, bottom = at[0], at[1] + side
    top = bottom - len(lines) * line_height(size) - 2 * margin
    page.rectangle((left, top, left + side, bottom), WHITE)
    page.lines(lines, (left + side / 2, top + margin), size, BLACK, "center")
