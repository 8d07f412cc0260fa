"""The text under a row of pictures: the question's tokens coloured by z, and the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hvx.view import fonts
from hvx.view.canvas import RGB, Box, Canvas

Z_LIMIT = 2.0
"""Tokens at or beyond ±2 have the scale's end colours, so that one z has one colour in all figures."""

LOW, NEUTRAL, HIGH = (33, 102, 172), (240, 240, 240), (178, 24, 43)
"""The ends and the middle of the blue-to-red scale that ColorBrewer lists as safe for the colour-blind."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
VALUE_INK, PRINTED_INK, WRONG_INK = (64, 64, 64), (96, 96, 96), (178, 24, 43)

SMALLEST_TEXT = 10
"""Pixels; the built-in font blurs below."""


@dataclass(frozen=True)
class TextSizes:
    """Sizes of the type in pixels."""

    token: int
    value: int
    printed: int

    @classmethod
    def for_width(cls, width: int) -> TextSizes:
        """The sizes in a figure of ``width`` pixels: about 55 characters of question to a line."""
        token, value, printed = (max(SMALLEST_TEXT, round(width / share)) for share in (57, 80, 88))
        return cls(token, value, printed)


@dataclass(frozen=True)
class Chip:
    """A token on its colour, its z-score beneath, and under that the one that a paper prints, if any.

    Of several lines where the token alone fills a line.
    """

    lines: tuple[str, ...]
    value: str
    printed: str
    fill: RGB
    ink: RGB
    box: Box
    value_box: Box
    printed_box: Box


@dataclass(frozen=True)
class Answer:
    """``predicted (ground truth)``; a cross stands before a wrong one."""

    lines: tuple[str, ...]
    ink: RGB
    box: Box
    cross: Box | None


@dataclass(frozen=True)
class Panel:
    """What stands under one row of pictures; boxes count from the panel's upper left corner."""

    width: int
    height: int
    sizes: TextSizes
    chips: tuple[Chip, ...]
    answer: Answer


def lay_out(
    tokens: Sequence[str],
    z: Sequence[float],
    answer: tuple[str, str],
    width: int,
    answer_width: int,
    sizes: TextSizes,
    printed: Sequence[float | None] | None = None,
) -> Panel:
    """Places the tokens from left to right, line by line, and the answer at the right.

    Args:
        tokens: the question's tokens.
        z: one z-score for each; one that is no finite number has the neutral colour.
        answer: predicted answer, ground truth ("" where unknown).
        width: of the panel in pixels.
        answer_width: of the column at the right, within ``width``, that holds the answer.
        sizes: of the type.
        printed: what a paper prints as each token's z-score, None where it prints none.
    """
    gap = sizes.token // 2
    beside = [None] * len(tokens) if printed is None else printed
    chips, chips_height = _place_chips(tokens, z, beside, width - answer_width - gap, sizes)
    placed = _place_answer(*answer, width - answer_width, answer_width, sizes)
    return Panel(width, max(chips_height, placed.box[3]), sizes, chips, placed)


def paint(panel: Panel, canvas: Canvas, left: int, top: int) -> None:
    """Draws a panel, its upper left corner at (left, top)."""
    sizes = panel.sizes
    for chip in panel.chips:
        x0, y0, x1, _ = box = _moved(chip.box, left, top)
        canvas.rectangle(box, chip.fill, radius=sizes.token // 4)
        write(canvas, chip.lines, ((x0 + x1) / 2, y0 + _padding(sizes)), sizes.token, chip.ink)
        x0, y0, x1, _ = _moved(chip.value_box, left, top)
        write(canvas, (chip.value,), ((x0 + x1) / 2, y0), sizes.value, VALUE_INK)
        x0, y0, x1, _ = _moved(chip.printed_box, left, top)
        write(canvas, (chip.printed,), ((x0 + x1) / 2, y0), sizes.printed, PRINTED_INK)
    x0, y0, x1, _ = _moved(panel.answer.box, left, top)
    write(canvas, panel.answer.lines, ((x0 + x1) / 2, y0), sizes.token, panel.answer.ink)
    if panel.answer.cross:
        _paint_cross(canvas, _moved(panel.answer.cross, left, top), panel.answer.ink)


def is_right(predicted: str, ground_truth: str) -> bool | None:
    """Whether an answer is the ground truth, but for case and outer spaces; None where that is unknown."""
    if not ground_truth:
        return None
    return ground_truth.strip().casefold() == predicted.strip().casefold()


def value_text(z: float) -> str:
    """A z-score as the paper prints it: at most four decimals, no zeros at the end."""
    if not math.isfinite(z):
        return "n/a"
    text = f"{z:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def chip_colour(z: float) -> RGB:
    """The colour of a z-score: blue below 0, through light grey, to red above."""
    place = max(-1.0, min(1.0, z / Z_LIMIT)) if math.isfinite(z) else 0.0
    end = HIGH if place > 0 else LOW
    red, green, blue = (round(n + (e - n) * abs(place)) for n, e in zip(NEUTRAL, end, strict=True))
    return red, green, blue


def ink_on(fill: RGB) -> RGB:
    """Black or white, whichever stands out more; the better of the two is never below 4.5:1."""
    return max(BLACK, WHITE, key=lambda ink: contrast(ink, fill))


def contrast(one: RGB, other: RGB) -> float:
    """Contrast ratio of two colours as WCAG 2 defines it, 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def line_height(size: int) -> int:
    """Pixels from one line of text to the next."""
    return sum(fonts.PILLOWS.at(size).getmetrics())


def wrap(text: str, size: int, width: float) -> tuple[str, ...]:
    """Lines of text no wider than ``width``; a word that is wider alone is broken between its characters."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if fonts.width(joined, size) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for cluster in fonts.clusters(word):
            if lines[-1] and fonts.width(lines[-1] + cluster, size) > width:
                lines.append("")
            lines[-1] += cluster
    return tuple(lines)


def shorten(text: str, size: int, width: float) -> str:
    """The text on one line, its end cut off with an ellipsis where it is wider than ``width``."""
    line = " ".join(text.split())
    if fonts.width(line, size) <= width:
        return line
    kept = fonts.clusters(line)
    while kept and fonts.width("".join(kept) + "…", size) > width:
        kept.pop()
    return "".join(kept).rstrip() + "…"


def write(canvas: Canvas, lines: Sequence[str], at: tuple[float, float], size: int, ink: RGB) -> None:
    """Draws lines of text, each centred on ``at``'s x, the first line's top at ``at``'s y."""
    ascent = fonts.PILLOWS.at(size).getmetrics()[0]
    for row, line in enumerate(lines):
        left, top = at[0] - fonts.width(line, size) / 2, at[1] + row * line_height(size)
        canvas.text(line, left, top + ascent, size, ink)


def _place_chips(
    tokens: Sequence[str],
    z: Sequence[float],
    printed: Sequence[float | None],
    width: int,
    sizes: TextSizes,
) -> tuple[tuple[Chip, ...], int]:
    """The chips and the height that they take."""
    gap = sizes.token // 2
    chips: list[Chip] = []
    left = top = bottom = 0
    for token, score, other in zip(tokens, z, printed, strict=True):
        lines, value = wrap(token, sizes.token, width - 2 * _padding(sizes)), value_text(score)
        beside = "" if other is None else f"({value_text(other)})"
        chip_width = _chip_width(lines, value, beside, sizes)
        if left and left + chip_width > width:
            left, top = 0, bottom + gap
        right, middle = left + chip_width, top + len(lines) * line_height(sizes.token) + 2 * _padding(sizes)
        value_bottom = middle + line_height(sizes.value)
        printed_bottom = value_bottom + (line_height(sizes.printed) if beside else 0)
        box, value_box = (left, top, right, middle), (left, middle, right, value_bottom)
        printed_box = (left, value_bottom, right, printed_bottom)
        fill = chip_colour(score)
        chips.append(Chip(lines, value, beside, fill, ink_on(fill), box, value_box, printed_box))
        left, bottom = right + gap, max(bottom, printed_bottom)
    if fonts.is_right_to_left(" ".join(tokens)):
        chips = [_mirrored(chip, width) for chip in chips]
    return tuple(chips), bottom


def _mirrored(chip: Chip, width: int) -> Chip:
    """A chip as far from the right edge as it was from the left: such a question is read from the right."""
    box, value_box, printed_box = (
        (width - right, top, width - left, bottom)
        for left, top, right, bottom in (chip.box, chip.value_box, chip.printed_box)
    )
    return replace(chip, box=box, value_box=value_box, printed_box=printed_box)


def _chip_width(lines: Sequence[str], value: str, printed: str, sizes: TextSizes) -> int:
    token_width = max(fonts.width(line, sizes.token) for line in lines) + 2 * _padding(sizes)
    value_width, printed_width = fonts.width(value, sizes.value), fonts.width(printed, sizes.printed)
    return math.ceil(max(token_width, value_width, printed_width))


def _place_answer(predicted: str, ground_truth: str, left: int, width: int, sizes: TextSizes) -> Answer:
    """The answer, centred in a column of ``width`` pixels from ``left``, on the first token's height."""
    wrong = is_right(predicted, ground_truth) is False
    text = f"{predicted} ({ground_truth})" if ground_truth else predicted
    # The cross is as high as the font's capitals and stands on the first line.
    top, height = _padding(sizes), line_height(sizes.token)
    cross_side = round(sizes.token * 0.7) if wrong else 0
    indent = cross_side + sizes.token // 3 if wrong else 0
    lines = wrap(text, sizes.token, width - indent)
    text_width = math.ceil(max(fonts.width(line, sizes.token) for line in lines))
    start = left + max(0, width - indent - text_width) // 2
    cross_top = top + round(fonts.PILLOWS.at(sizes.token).getmetrics()[0] - sizes.token * 0.7)
    cross = (start, cross_top, start + cross_side, cross_top + cross_side) if wrong else None
    box = (start + indent, top, start + indent + text_width, top + len(lines) * height)
    return Answer(lines, WRONG_INK if wrong else BLACK, box, cross)


def _padding(sizes: TextSizes) -> int:
    return sizes.token // 4


def _moved(box: Box, right: int, down: int) -> Box:
    return box[0] + right, box[1] + down, box[2] + right, box[3] + down


def _paint_cross(canvas: Canvas, box: Box, ink: RGB) -> None:
    thick = (box[2] - box[0]) / 5
    # A slanted line's square end reaches beyond its last point, by half its thickness along the diagonal.
    inset = thick / math.sqrt(8)
    x0, y0, x1, y1 = box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset
    canvas.stroke([(x0, y0), (x1, y1)], ink, thick)
    canvas.stroke([(x0, y1), (x1, y0)], ink, thick)


def _luminance(colour: RGB) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2)."""
    red, green, blue = (
        level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4
        for level in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
