"""The objects of a scene: their colors and shapes, how they are placed, and how they are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

COLORS = {
    "red": (214, 40, 40),
    "green": (46, 160, 60),
    "blue": (40, 80, 214),
    "yellow": (236, 212, 40),
    "purple": (140, 50, 170),
    "orange": (240, 130, 30),
    "cyan": (40, 196, 210),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")

_OVERSAMPLE = 4
_PLACE_TRIES = 200


@dataclass(frozen=True)
class SceneObject:
    """One drawn object; ``label`` is its value in the mask, coordinates are pixels."""

    label: int
    color: str
    shape: str
    x: float
    y: float
    radius: float
    turn: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


def place_objects(rng: np.random.Generator, size: int) -> tuple[SceneObject, ...]:
    """Two to four objects that do not touch, no two of the same color and shape."""
    pairs = [(color, shape) for color in COLORS for shape in SHAPES]
    chosen = rng.permutation(len(pairs))[: rng.integers(2, 5)]
    objects: list[SceneObject] = []
    for index in chosen:
        color, shape = pairs[index]
        radius = size * rng.uniform(0.12, 0.2)
        for _ in range(_PLACE_TRIES):
            x, y = rng.uniform(radius + 1, size - radius - 1, 2)
            if all(math.hypot(x - o.x, y - o.y) > radius + o.radius + 2 for o in objects):
                turn = rng.uniform(-0.25, 0.25)
                objects.append(SceneObject(len(objects) + 1, color, shape, x, y, radius, turn))
                break
    # A large object in the middle of a small scene leaves no space for a second one.
    return tuple(objects) if len(objects) >= 2 else place_objects(rng, size)


def draw_ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A grayish background with a soft random texture, (size, size, 3) float."""
    base = rng.uniform(70, 180) + rng.uniform(-14, 14, 3)
    coarse = rng.normal(0, 1, (6, 6)).astype(np.float32)
    soft = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return base + rng.uniform(6, 20) * np.asarray(soft)[..., None]


def cover(item: SceneObject, size: int) -> np.ndarray:
    """The fraction of each pixel that the object covers, (size, size) float in 0…1."""
    scale = _OVERSAMPLE
    canvas = Image.new("L", (size * scale, size * scale))
    corners = [((item.x + dx) * scale, (item.y + dy) * scale) for dx, dy in _outline(item)]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.asarray(canvas.reduce(scale), np.float64) / 255


def _outline(item: SceneObject) -> list[tuple[float, float]]:
    """Corners of the object around its center."""
    radius, turn = item.radius, item.turn
    if item.shape == "circle":
        polar = [(radius, 2 * math.pi * k / 48) for k in range(48)]
    elif item.shape == "square":
        polar = [(radius, math.pi * (2 * k + 1) / 4) for k in range(4)]
    elif item.shape == "triangle":
        polar = [(radius, math.pi * (4 * k - 3) / 6) for k in range(3)]
    elif item.shape == "star":
        polar = [(radius * (0.42 if k % 2 else 1), math.pi * (2 * k - 5) / 10) for k in range(10)]
    else:  # a cross: three corners on each of four sides, the inner one where two arms meet
        lean = math.atan2(0.34, 1)
        tip, inner = radius, math.sqrt(2) * radius * math.sin(lean)
        polar = []
        for k in range(4):
            side = math.pi * k / 2
            polar += [(tip, side - lean), (tip, side + lean), (inner, side + math.pi / 4)]
    return [(r * math.cos(a + turn), r * math.sin(a + turn)) for r, a in polar]
