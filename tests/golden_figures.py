"""The figures of tests/golden; `python tests/golden_figures.py` draws them again, to be looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from hvx.data.scenes import draw_scene
from hvx.view.figure import FigureRow, draw_figure
from hvx.view.style import FigureStyle

FOLDER = Path(__file__).parent / "golden"
WIDTH = 400

STYLES = {
    "paper": FigureStyle("paper"),
    "color": FigureStyle(outline=False),
    "outline": FigureStyle("paper", outline=True, legend=False),
    "answers": FigureStyle(top_answers=True),
    "marks": FigureStyle(),
}


def rows() -> list[FigureRow]:
    """A right answer, a wrong one with printed scores beside its own, a long question in three scripts."""
    long = [f"word{place}" for place in range(24)] + ["Привет", "αβγ", "سؤال", "?"]
    return [
        _row(0, ["is", "the", "star", "red", "?"], "yes", "yes"),
        _row(1, ["how", "many", "?"], "two", "three", [0.5, None, -1.25]),
        _row(2, long, "green", ""),
    ]


def marked_rows() -> list[FigureRow]:
    """Photographs of which the network saw a part, words that it does not know, gradients that are zero."""
    right, wrong, long = rows()
    wide = Image.fromarray(draw_scene(np.random.default_rng(5), 128).image).crop((0, 16, 128, 112))
    high = wide.rotate(90, expand=True)
    nothing = np.zeros_like(wrong.heatmap)
    return [
        replace(
            right, photo=wide.crop((16, 0, 112, 96)), whole=wide, unknown=[False, False, True, True, False]
        ),
        replace(wrong, heatmap=nothing, z=[0.0] * 3, zero_gradient=3, whole=wrong.photo),
        replace(long, photo=high.crop((0, 16, 96, 112)), whole=high),
    ]


def _row(
    seed: int, tokens: list[str], predicted: str, truth: str, printed: list[float | None] | None = None
) -> FigureRow:
    chance = np.random.default_rng(seed)
    scene = Image.fromarray(draw_scene(chance, 96).image)
    y, x = 0.25 + 0.5 * chance.random(2)
    heat, cells = (_hill(side, y, x) for side in (96, 14))
    speckled = np.abs(chance.laplace(size=heat.shape)) * (0.3 + 8 * heat)
    attention = np.stack([cells, cells[::-1] + 0.2])
    attention /= attention.sum((1, 2), keepdims=True)
    z = chance.normal(size=len(tokens)).round(4).tolist()
    top = (
        (predicted, 0.62),
        ("a very long answer of many words", 0.2),
        ("no", 0.1),
        ("red", 0.05),
        ("", np.nan),
    )
    return FigureRow(scene, attention, speckled, tokens, z, predicted, truth, printed, top)


def _hill(side: int, y: float, x: float) -> np.ndarray:
    down, right = (np.mgrid[:side, :side] + 0.5) / side
    hill: np.ndarray = np.exp(-((down - y) ** 2 + (right - x) ** 2) / 0.02)
    return hill


def draw(name: str) -> Image.Image:
    """One of the figures, by its file's stem."""
    return draw_figure(marked_rows() if name == "marks" else rows(), WIDTH, "Golden", STYLES[name])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in STYLES:
        draw(name).save(FOLDER / f"{name}.png")
