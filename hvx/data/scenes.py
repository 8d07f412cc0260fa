"""The built-in split: drawn scenes with questions whose answer, and whose object, is known.

Every scene holds two to four objects on a noisy ground. Questions are of five kinds: ``attribute``
(the colour of a shape), ``shape`` (the shape of a colour), ``existence``, ``count`` and ``relation``.
For each, the table of objects says which drawn objects the question asks about, and a label mask
says where they are, so that an explanation can be checked without a human eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hvx.errors import HvxError
from hvx.files import whole_folder, write_json
from hvx.progress import bar

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
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
KINDS = ("attribute", "shape", "existence", "count", "relation")

TEMPLATES = {
    "attribute": ("what color is the {shape}?", "what is the color of the {shape}?"),
    "shape": ("what shape is the {color} object?", "what is the shape of the {color} object?"),
    "existence": ("is there {a} {color} {shape}?", "is there any {color} {shape}?"),
    "count": ("how many {things} are there?", "what is the number of {things}?"),
    "relation": ("is the {one} {relation} the {other}?",),
}
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
"""Words → axis (0 across, 1 down) and the sign of first minus second along it."""

PARTS_OF_SPEECH = {
    **dict.fromkeys(("what", "how"), "WH"),
    **dict.fromkeys(("is", "are"), "AUX"),
    **dict.fromkeys(("the", "a", "an", "any"), "DET"),
    **dict.fromkeys(("of", "above", "below"), "ADP"),
    **dict.fromkeys(("left", "right"), "ADV"),
    **dict.fromkeys((*COLORS, "many"), "ADJ"),
    **dict.fromkeys((*SHAPES, *PLURALS.values(), "color", "shape", "object", "objects", "number"), "NOUN"),
    "there": "PRON",
    "?": "PUNCT",
}
"""Part of speech of every word of the templates, tagged by hand (universal tags, and WH)."""

SUBSETS = {"train": 0, "val": 1_000_000}
"""Subset → first image id, so that ids never collide."""

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


@dataclass(frozen=True)
class SceneQuestion:
    """A question on a scene, its answer, and the labels of the objects that it asks about."""

    kind: str
    question: str
    answer: str
    asks_about: tuple[int, ...]


@dataclass(frozen=True)
class Scene:
    """A drawn scene: image (H, W, 3) uint8, label mask (H, W) uint8, objects, questions.

    The mask gives an object every pixel that it touches, its smoothed rim included.
    """

    image: np.ndarray
    mask: np.ndarray
    objects: tuple[SceneObject, ...]
    questions: tuple[SceneQuestion, ...]


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw one scene of ``size`` × ``size`` pixels and ask one question of each kind it allows."""
    objects = _place(rng, size)
    image = _ground(rng, size)
    mask = np.zeros((size, size), np.uint8)
    for item in objects:
        coverage = _coverage(item, size)
        paint = np.array(COLORS[item.color]) + rng.normal(0, 10, 3)
        image += coverage[..., None] * (paint - image)
        mask[coverage > 0] = item.label
    image += rng.normal(0, 8, image.shape)
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Scene(pixels, mask, objects, tuple(_ask(rng, objects)))


def _place(rng: np.random.Generator, size: int) -> tuple[SceneObject, ...]:
    """Two to four objects that do not touch, no two of the same colour and shape."""
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
    # A large object in the middle of a small scene leaves no room for a second one.
    return tuple(objects) if len(objects) >= 2 else _place(rng, size)


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A greyish ground with a soft random texture, (size, size, 3) float."""
    base = rng.uniform(70, 180) + rng.uniform(-14, 14, 3)
    coarse = rng.normal(0, 1, (6, 6)).astype(np.float32)
    soft = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return base + rng.uniform(6, 20) * np.asarray(soft)[..., None]


def _coverage(item: SceneObject, size: int) -> np.ndarray:
    """How much of each pixel the object covers, (size, size) float in 0…1."""
    scale = _OVERSAMPLE
    canvas = Image.new("L", (size * scale, size * scale))
    corners = [((item.x + dx) * scale, (item.y + dy) * scale) for dx, dy in _outline(item)]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.asarray(canvas.reduce(scale), np.float64) / 255


def _outline(item: SceneObject) -> list[tuple[float, float]]:
    """Corners of the object around its centre."""
    radius, turn = item.radius, item.turn
    if item.shape == "circle":
        polar = [(radius, 2 * math.pi * k / 48) for k in range(48)]
    elif item.shape == "square":
        polar = [(radius, math.pi * (2 * k + 1) / 4) for k in range(4)]
    elif item.shape == "triangle":
        polar = [(radius, math.pi * (4 * k - 3) / 6) for k in range(3)]
    elif item.shape == "star":
        polar = [(radius * (0.42 if k % 2 else 1), math.pi * (2 * k - 5) / 10) for k in range(10)]
    else:  # a cross: three corners on each of four sides, the inner one at the arms' meeting
        lean = math.atan2(0.34, 1)
        tip, inner = radius, math.sqrt(2) * radius * math.sin(lean)
        polar = []
        for k in range(4):
            side = math.pi * k / 2
            polar += [(tip, side - lean), (tip, side + lean), (inner, side + math.pi / 4)]
    return [(r * math.cos(a + turn), r * math.sin(a + turn)) for r, a in polar]


def _ask(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> Iterator[SceneQuestion]:
    """One question of each kind that these objects allow."""
    for kind in KINDS:
        asked = _ASKERS[kind](rng, objects)
        if asked is not None:
            words, answer, asks_about = asked
            template = TEMPLATES[kind][rng.integers(len(TEMPLATES[kind]))]
            yield SceneQuestion(kind, template.format(**words), answer, tuple(o.label for o in asks_about))


_Asked = tuple[dict[str, str], str, list[SceneObject]]


def _pick(rng: np.random.Generator, items: list[Any]) -> Any:
    return items[rng.integers(len(items))] if items else None


def _alone(objects: tuple[SceneObject, ...], field: str) -> list[SceneObject]:
    """The objects whose ``field`` no other object shares."""
    values = [getattr(o, field) for o in objects]
    return [o for o in objects if values.count(getattr(o, field)) == 1]


def _ask_attribute(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    target = _pick(rng, _alone(objects, "shape"))
    return target and ({"shape": target.shape}, target.color, [target])


def _ask_shape(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    target = _pick(rng, _alone(objects, "color"))
    return target and ({"color": target.color}, target.shape, [target])


def _ask_existence(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    """Yes for an object there; no for a pair of which, half of the time, either half is there."""
    if rng.random() < 0.5:
        target = _pick(rng, list(objects))
        return _words(target.color, target.shape), "yes", [target]
    there = {(o.color, o.shape) for o in objects}
    pairs = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in there]
    if rng.random() < 0.5:
        colors, shapes = {o.color for o in objects}, {o.shape for o in objects}
        pairs = [pair for pair in pairs if pair[0] in colors or pair[1] in shapes]
    color, shape = _pick(rng, pairs)
    return _words(color, shape), "no", []


def _words(color: str, shape: str) -> dict[str, str]:
    return {"a": "an" if color[0] in "aeiou" else "a", "color": color, "shape": shape}


def _ask_count(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    """Of a shape or of a colour; mostly of one that is there."""
    field = _pick(rng, ["shape", "color"])
    there = [getattr(o, field) for o in objects]
    every = list(SHAPES if field == "shape" else COLORS)
    value = _pick(rng, there if rng.random() < 0.8 else every)
    counted = [o for o in objects if getattr(o, field) == value]
    things = PLURALS[value] if field == "shape" else f"{value} objects"
    return {"things": things}, str(len(counted)), counted


def _ask_relation(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    """Between two objects that lie clearly apart along the axis asked about."""
    order = rng.permutation(len(objects))
    one, other = objects[order[0]], objects[order[1]]
    relation = _pick(rng, list(RELATIONS))
    axis, sign = RELATIONS[relation]
    apart = (one.x - other.x, one.y - other.y)[axis]
    if abs(apart) < min(one.radius, other.radius):
        return None
    words = {"one": one.name, "relation": relation, "other": other.name}
    return words, "yes" if apart * sign > 0 else "no", [one, other]


_ASKERS = {
    "attribute": _ask_attribute,
    "shape": _ask_shape,
    "existence": _ask_existence,
    "count": _ask_count,
    "relation": _ask_relation,
}


def image_name(subset: str) -> str:
    """Pattern of the image names of a subset, as a split's ``image_name``."""
    return f"SCENES_{subset}_{{image_id:012d}}.png"


def write_scenes(folder: Path, train: int, val: int, size: int, seed: int) -> None:
    """Write the built-in split: images, masks, VQA v1 JSON and the tables of objects.

    The same arguments give the same bytes; a scene depends on ``seed`` and its own number alone.

    Raises:
        HvxError: ``folder`` exists and is not empty, or the size is too small to draw in.
    """
    if size < 32:
        raise HvxError(f"size {size}: scenes are drawn at 32 pixels or more")
    with whole_folder(folder) as part:
        (part / "images").mkdir()
        (part / "masks").mkdir()
        for number, (subset, count) in enumerate((("train", train), ("val", val))):
            _write_subset(part, subset, count, size, [seed, number])


def _write_subset(folder: Path, subset: str, count: int, size: int, seed: list[int]) -> None:
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    table: dict[str, list[Any]] = {"images": [], "questions": []}
    for number in bar(range(count), f"drawing {subset} scenes", "scene"):
        scene = draw_scene(np.random.default_rng([*seed, number]), size)
        image_id = SUBSETS[subset] + number
        name = image_name(subset).format(image_id=image_id)
        Image.fromarray(scene.image).save(folder / "images" / name, compress_level=1)
        Image.fromarray(scene.mask).save(folder / "masks" / name)
        table["images"].append({"image_id": image_id, "objects": [_row(o) for o in scene.objects]})
        for rank, asked in enumerate(scene.questions):
            ids = {"question_id": image_id * 10 + rank, "image_id": image_id}
            questions.append({**ids, "question": asked.question})
            annotations.append({**ids, **_annotation(asked)})
            table["questions"].append({**ids, "kind": asked.kind, "asks_about": asked.asks_about})
    common = {"info": {"description": f"hvx scenes, {subset}"}, "data_type": "scenes", "data_subtype": subset}
    head = {**common, "license": {}}
    task = {"task_type": "Open-Ended"}
    write_json(folder / f"OpenEnded_scenes_{subset}_questions.json", {**head, **task, "questions": questions})
    write_json(folder / f"scenes_{subset}_annotations.json", {**head, "annotations": annotations})
    write_json(folder / f"scenes_{subset}_objects.json", table)


def _row(item: SceneObject) -> dict[str, Any]:
    place = {"x": round(item.x, 2), "y": round(item.y, 2), "radius": round(item.radius, 2)}
    return {"label": item.label, "color": item.color, "shape": item.shape, **place}


def _annotation(asked: SceneQuestion) -> dict[str, Any]:
    """VQA's annotation of a question: ten people who all agree."""
    if asked.answer in ("yes", "no"):
        answer_type = "yes/no"
    else:
        answer_type = "number" if asked.kind == "count" else "other"
    people = [{"answer_id": k, "answer": asked.answer, "answer_confidence": "yes"} for k in range(1, 11)]
    return {
        "question_type": asked.kind,
        "answer_type": answer_type,
        "multiple_choice_answer": asked.answer,
        "answers": people,
    }
