"""What stands around the pictures: scales of colour, outlines, bars of the likeliest answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvx.explain.threshold import DEVIATIONS
from hvx.view import fonts
from hvx.view.canvas import RGB, Canvas
from hvx.view.heat import Style, colour_scale
from hvx.view.tokens import (
    BLACK,
    LOW,
    VALUE_INK,
    WHITE,
    Z_LIMIT,
    TextSizes,
    chip_colour,
    line_height,
    shorten,
    wrap,
    write,
)

LIKELIEST = 5
"""Answers that have a bar."""

BAR, TROUGH = LOW, (228, 228, 228)
_THINNEST = 2
"""Pixels of a bar."""
_STEPS = 256


@dataclass(frozen=True)
class Scale:
    """A strip of colours with words under it.

    Attributes:
        name: what stands before it.
        colours: RGB (steps, 3).
        ticks: place in [0, 1] and text of each.
    """

    name: str
    colours: NDArray[np.uint8]
    ticks: tuple[tuple[float, str], ...]


def scales(style: Style, outlined: bool) -> list[Scale]:
    """Of the tokens' z-scores; and of the maps, where these are in colours."""
    z = np.linspace(-Z_LIMIT, Z_LIMIT, _STEPS)
    ticks = [(-Z_LIMIT, f"≤ −{Z_LIMIT:g}"), (-1, "−1"), (0, "0"), (1, "1"), (Z_LIMIT, f"≥ {Z_LIMIT:g}")]
    places = tuple(((value + Z_LIMIT) / (2 * Z_LIMIT), text) for value, text in ticks)
    found = [Scale("z-score", np.array([chip_colour(float(one)) for one in z], np.uint8), places)]
    if style == "colour":
        colours = colour_scale().round().astype(np.uint8)
        found.append(Scale("attention, heat", colours, ((0.0, "least"), (1.0, "most"))))
    if outlined:
        white = np.full((1, 3), 255, np.uint8)
        found.append(Scale(f"outline: heat above mean + {DEVIATIONS} standard deviations", white, ()))
    return found


def place_scales(
    shown: Sequence[Scale], width: int, sizes: TextSizes
) -> tuple[list[tuple[Scale, int, int]], int]:
    """Scales from left to right, line by line: each with its left and top; and the height of them all."""
    placed, left, top = [], 0, 0
    for scale in shown:
        needed = _name_width(scale, sizes) + (_colours_width(sizes) + _spill(sizes) if scale.ticks else 0)
        if left and left + needed > width:
            left, top = 0, top + _scale_height(sizes)
        placed.append((scale, left, top))
        left += needed + 2 * sizes.value
    return placed, top + _scale_height(sizes)


def draw_scale(canvas: Canvas, scale: Scale, left: int, top: int, sizes: TextSizes) -> None:
    """A scale's name, and to its right the colours with the ticks under them."""
    _text(canvas, scale.name, (left, top), sizes.value, VALUE_INK)
    if not scale.ticks:
        return
    start, thick, span = left + _name_width(scale, sizes), sizes.value, _colours_width(sizes)
    colours = Image.fromarray(np.ascontiguousarray(scale.colours[None])).resize((span, thick), 0)
    # As high as the letters beside them.
    colours_top = top + (line_height(sizes.value) - thick) // 2
    canvas.picture(colours, start, colours_top)
    for place, text in scale.ticks:
        at = start + place * span
        write(canvas, (text,), (at, colours_top + thick), sizes.value, VALUE_INK)


def _name_width(scale: Scale, sizes: TextSizes) -> int:
    """With the room between it and the colours, into which the first tick's words reach."""
    return math.ceil(fonts.width(scale.name, sizes.value)) + (_spill(sizes) if scale.ticks else 0)


def _colours_width(sizes: TextSizes) -> int:
    return 15 * sizes.value


def _spill(sizes: TextSizes) -> int:
    """How far words under the end of a scale reach beyond it, with a little room."""
    return 2 * sizes.value


def _scale_height(sizes: TextSizes) -> int:
    return sizes.value + line_height(sizes.value) + sizes.value // 2


def draw_outline(
    canvas: Canvas, lines: Sequence[NDArray[np.float64]], left: int, top: int, side: int
) -> None:
    """Lines over a picture, white within black so that they show on any ground."""
    thin = max(1.0, side / 160)
    for thickness, ink in ((2.5 * thin, BLACK), (thin, WHITE)):
        for line in lines:
            inside = np.clip(line, 1.25 * thin, side - 1.25 * thin)
            canvas.stroke([(left + float(x), top + float(y)) for x, y in inside], ink, thickness)


def draw_answers(
    canvas: Canvas, answers: Sequence[tuple[str, float]], box: tuple[int, int, int], sizes: TextSizes
) -> None:
    """The likeliest answers as bars in a square: text and probability, under them the bar.

    Args:
        canvas: drawn on.
        answers: with their probabilities, the likeliest first.
        box: the square's left, top and right.
        sizes: of the type.
    """
    left, top, right = box
    side, size = right - left, sizes.value
    # In a narrow figure there is room for fewer than all.
    room = max(1, min(LIKELIEST, side // (line_height(size) + _THINNEST + 3)))
    pitch = side // room
    thick = max(_THINNEST, min(pitch - line_height(size) - 3, pitch // 3))
    known = [(answer, share) for answer, share in answers[:room] if answer and math.isfinite(share)]
    for place, (answer, share) in enumerate(known):
        at, ink = top + place * pitch, BLACK if place == 0 else VALUE_INK
        percent = _percent(share)
        number_width = fonts.width(percent, size)
        _text(canvas, shorten(answer, size, side - number_width - size), (left, at), size, ink)
        _text(canvas, percent, (right - number_width, at), size, ink)
        bar_top = at + line_height(size) + 1
        canvas.rectangle((left, bar_top, right, bar_top + thick), TROUGH)
        end = left + round(side * max(0.0, min(1.0, share)))
        if end > left:
            canvas.rectangle((left, bar_top, end, bar_top + thick), BAR)


def draw_label(canvas: Canvas, text: str, at: tuple[int, int], side: int, sizes: TextSizes) -> None:
    """Words in a white band at the foot of a picture, whose upper left corner is ``at``."""
    lines, room = wrap(text, sizes.value, side - sizes.value), sizes.value // 4
    left, bottom = at[0], at[1] + side
    top = bottom - len(lines) * line_height(sizes.value) - 2 * room
    canvas.rectangle((left, top, left + side, bottom), WHITE)
    write(canvas, lines, (left + side / 2, top + room), sizes.value, BLACK)


def draw_lines(canvas: Canvas, lines: Sequence[str], at: tuple[float, float], size: int, ink: RGB) -> None:
    """Lines of text, each from ``at``'s x to the right, the first line's top at ``at``'s y."""
    for row, line in enumerate(lines):
        _text(canvas, line, (at[0], at[1] + row * line_height(size)), size, ink)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _text(canvas: Canvas, line: str, at: tuple[float, float], size: int, ink: RGB) -> None:
    canvas.text(line, at[0], at[1] + fonts.PILLOWS.at(size).getmetrics()[0], size, ink)
