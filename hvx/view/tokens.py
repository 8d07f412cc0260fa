"""The text under a row of pictures: the question's tokens colored by z, and the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hvx.view.page import RGB, Box, Page
from hvx.view.style import DIGITS
from hvx.view.text import is_right_to_left, line_height, width, wrap

Z_LIMIT = 2.0
"""z is clipped to ±2 for its color. A z-score has the same color in all figures."""

LOW, NEUTRAL, HIGH = (33, 102, 172), (240, 240, 240), (178, 24, 43)
"""The ends and the middle of ColorBrewer's blue-to-red scale, which is safe for the color-blind."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
VALUE_INK, PRINTED_INK, WRONG_INK = (64, 64, 64), (96, 96, 96), (178, 24, 43)

WRONG = "✕"
"""The mark before a wrong answer."""

SMALLEST_PIXELS = 10
"""The smallest text if no size in points is given."""
_SMALL_POINTS, _AT_POINTS = 8, 5.5 * 72
"""The smallest text of a figure 5.5 inches wide, the text width of a page; it scales with the width."""


@dataclass(frozen=True)
class TextSizes:
    """Font sizes in pixels: of tokens, answers and column names, and of the smaller text."""

    token: float
    small: float

    @classmethod
    def for_figure(cls, width: int, dpi: float, font_pt: float | None = None) -> TextSizes:
        """The sizes in a figure of ``width`` pixels; ``font_pt``: the smallest; None: by the width."""
        small = font_pt * dpi / 72 if font_pt else max(SMALLEST_PIXELS, width * _SMALL_POINTS / _AT_POINTS)
        return cls(small * 9 / 8, small)


@dataclass(frozen=True)
class TokenBox:
    """A token on its color, with its z-score and any z-score printed in a paper below.

    Attributes:
        lines: the token, broken into lines if it is too long for one.
        value: its z-score, or the attention to it.
        printed: the printed z-score in brackets, or "".
        fill: background color.
        ink: color of the token.
        box: of the background, in pixels from the panel's upper left corner.
        bottom: lower edge of everything below the token.
        unknown: whether the token is out of vocabulary; it has a dotted border then.
    """

    lines: tuple[str, ...]
    value: str
    printed: str
    fill: RGB
    ink: RGB
    box: Box
    bottom: float
    unknown: bool = False


@dataclass(frozen=True)
class Answer:
    """``predicted (ground truth)``, with a cross before a wrong answer."""

    lines: tuple[str, ...]
    ink: RGB
    box: Box


@dataclass(frozen=True)
class Panel:
    """The text under one row of pictures; sizes are in pixels.

    ``picture``: side of the picture under each token, 0 if none.
    """

    width: float
    height: int
    sizes: TextSizes
    tokens: tuple[TokenBox, ...]
    answer: Answer
    picture: int = 0

    def pictures(self) -> Iterator[tuple[float, float]]:
        """The upper left corner of each token's picture, below its text."""
        for token in self.tokens:
            yield (token.box[0] + token.box[2] - self.picture) / 2, token.bottom - self.picture


def lay_out(
    tokens: Sequence[str],
    z: Sequence[float],
    answer: tuple[str, str],
    width: float,
    answer_width: float,
    sizes: TextSizes,
    printed: Sequence[float | None] | None = None,
    digits: int = DIGITS,
    unknown: Sequence[bool] = (),
    picture: int = 0,
    attention: Sequence[float] = (),
) -> Panel:
    """Place the tokens from left to right, line by line, and the answer at the right.

    Args:
        tokens: the question's tokens.
        z: one z-score for each; a non-finite one has the neutral color. Empty if there are none.
        answer: predicted answer, ground truth ("" where unknown).
        width: of the panel in pixels.
        answer_width: of the answer's column at the right, a part of ``width``.
        sizes: of the text.
        printed: the z-score that a paper prints for each token, None where it prints none.
        digits: decimals of the z-scores.
        unknown: for each token, whether it is out of vocabulary; empty if none is.
        picture: side of a picture under each token, 0 if none.
        attention: to each token, written under it if there are no z-scores.
    """
    scores = [score_text(value, digits) for value in z or attention] or [""] * len(tokens)
    z = z or [math.nan] * len(tokens)
    printed_z = [None] * len(tokens) if printed is None else printed
    tokens_width = width - answer_width - sizes.token / 2
    boxes = _place_tokens(tokens, z, scores, printed_z, tokens_width, sizes, digits, picture)
    if unknown:
        marked = zip(boxes, unknown, strict=True)
        boxes = tuple(replace(box, unknown=bool(is_unknown)) for box, is_unknown in marked)
    placed_answer = _place_answer(*answer, width - answer_width, answer_width, sizes)
    height = math.ceil(max(placed_answer.box[3], *(box.bottom for box in boxes), 0))
    return Panel(width, height, sizes, boxes, placed_answer, picture)


def draw_panel(panel: Panel, page: Page, left: float, top: float) -> None:
    """Draw a panel, its upper left corner at (left, top)."""
    sizes = panel.sizes
    for token in panel.tokens:
        x0, y0, x1, y1 = token.box
        page.rectangle((x0 + left, y0 + top, x1 + left, y1 + top), token.fill, sizes.token / 4)
        if token.unknown:
            # Around the background, so that black is visible.
            dot = max(1.0, sizes.token / 12)
            dot_box = (x0 + left - dot, y0 + top - dot, x1 + left + dot, y1 + top + dot)
            page.dotted(dot_box, BLACK, dot, sizes.token / 4 + dot)
        x, value_top = left + (x0 + x1) / 2, top + y1
        page.lines(token.lines, (x, top + y0 + _padding(sizes)), sizes.token, token.ink, "center")
        page.lines((token.value,), (x, value_top), sizes.small, VALUE_INK, "center")
        printed_top = value_top + line_height(sizes.small)
        page.lines((token.printed,), (x, printed_top), sizes.small, PRINTED_INK, "center")
    x0, y0, x1, _ = panel.answer.box
    page.lines(panel.answer.lines, (left + (x0 + x1) / 2, top + y0), sizes.token, panel.answer.ink, "center")


def is_right(predicted: str, ground_truth: str) -> bool | None:
    """Whether an answer equals the ground truth, ignoring case and outer spaces; None if that is unknown."""
    if not ground_truth:
        return None
    return ground_truth.strip().casefold() == predicted.strip().casefold()


def value_text(z: float) -> str:
    """A z-score as the paper prints it: at most four decimals, no zeros at the end."""
    if not math.isfinite(z):
        return "n/a"
    text = f"{z:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def score_text(z: float, digits: int = DIGITS) -> str:
    """A z-score as a figure shows it: with ``digits`` decimals and a true minus sign."""
    if not math.isfinite(z):
        return "n/a"
    text = f"{z:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def chip_color(z: float) -> RGB:
    """The color of a z-score: blue below 0, through light gray, to red above."""
    position = max(-1.0, min(1.0, z / Z_LIMIT)) if math.isfinite(z) else 0.0
    end = HIGH if position > 0 else LOW
    red, green, blue = (round(n + (e - n) * abs(position)) for n, e in zip(NEUTRAL, end, strict=True))
    return red, green, blue


def ink_on(fill: RGB) -> RGB:
    """Black or white, whichever has the higher contrast, which is at least 4.5:1."""
    return max(BLACK, WHITE, key=lambda ink: contrast(ink, fill))


def contrast(first: RGB, second: RGB) -> float:
    """Contrast ratio of two colors as WCAG 2 defines it, 1 to 21."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _place_tokens(
    tokens: Sequence[str],
    z: Sequence[float],
    values: Sequence[str],
    printed: Sequence[float | None],
    max_width: float,
    sizes: TextSizes,
    digits: int,
    picture: int,
) -> tuple[TokenBox, ...]:
    """The tokens' boxes in lines ``max_width`` pixels wide."""
    boxes: list[TokenBox] = []
    padding, gap = _padding(sizes), sizes.token / 2
    left = top = bottom = 0.0
    for token, score, value, printed_z in zip(tokens, z, values, printed, strict=True):
        lines = wrap(token, sizes.token, max_width - 2 * padding)
        printed_text = "" if printed_z is None else f"({score_text(printed_z, digits)})"
        text_width = max(width(line, sizes.token) for line in lines) + 2 * padding
        box_width = max(text_width, width(value, sizes.small), width(printed_text, sizes.small), picture)
        if left and left + box_width > max_width:
            left, top = 0, bottom + gap
        box_bottom = top + len(lines) * line_height(sizes.token) + 2 * padding
        token_bottom = box_bottom + (2 if printed_text else 1) * line_height(sizes.small)
        token_bottom += picture + gap / 2 if picture else 0
        fill, box = chip_color(score), (left, top, left + box_width, box_bottom)
        boxes.append(TokenBox(lines, value, printed_text, fill, ink_on(fill), box, token_bottom))
        left, bottom = left + box_width + gap, max(bottom, token_bottom)
    if is_right_to_left(" ".join(tokens)):  # read from the right
        mirrored = ((max_width - box.box[2], box.box[1], max_width - box.box[0], box.box[3]) for box in boxes)
        return tuple(replace(box, box=position) for box, position in zip(boxes, mirrored, strict=True))
    return tuple(boxes)


def _place_answer(
    predicted: str, ground_truth: str, left: float, max_width: float, sizes: TextSizes
) -> Answer:
    """The answer, centered in a column of ``max_width`` pixels from ``left``, at the first token's height."""
    wrong = is_right(predicted, ground_truth) is False
    text = f"{predicted} ({ground_truth})" if ground_truth else predicted
    lines = wrap(f"{WRONG} {text}" if wrong else text, sizes.token, max_width)
    text_width = max(width(line, sizes.token) for line in lines)
    x, top = left + max(0.0, max_width - text_width) / 2, _padding(sizes)
    box = (x, top, x + text_width, top + len(lines) * line_height(sizes.token))
    return Answer(lines, WRONG_INK if wrong else BLACK, box)


def _padding(sizes: TextSizes) -> float:
    return sizes.token / 4


def _luminance(color: RGB) -> float:
    """Relative luminance of an sRGB color, 0 to 1 (WCAG 2)."""
    red, green, blue = (
        level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4
        for level in (channel / 255 for channel in color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
