"""The synthetic dataset (shapes): drawn scenes with questions whose answers and objects are known.

Every scene has two to four objects on a noisy background. Questions are of five kinds: ``attribute``
(the color of a shape), ``shape`` (the shape of a color), ``existence``, ``count`` and ``relation``.
The table of objects lists the objects that each question asks about, and a label mask gives their
positions, so that explanations can be checked automatically.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hvx.data.scene_drawing import COLORS, SHAPES, SceneObject, cover, draw_ground, place_objects
from hvx.errors import HvxError
from hvx.files import atomic_directory, write_json
from hvx.progress import bar
from hvx.threads import map_threads

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
"""Words → axis (0 horizontal, 1 vertical) and the sign of first minus second along it."""

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

    In the mask, an object has every pixel that it touches, including its antialiased edge.
    """

    image: np.ndarray
    mask: np.ndarray
    objects: tuple[SceneObject, ...]
    questions: tuple[SceneQuestion, ...]


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw one scene of ``size`` × ``size`` pixels, with one question of each kind that it allows."""
    objects = place_objects(rng, size)
    image = draw_ground(rng, size)
    mask = np.zeros((size, size), np.uint8)
    for item in objects:
        coverage = cover(item, size)
        paint = np.array(COLORS[item.color]) + rng.normal(0, 10, 3)
        image += coverage[..., None] * (paint - image)
        mask[coverage > 0] = item.label
    image += rng.normal(0, 8, image.shape)
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return Scene(pixels, mask, objects, tuple(_ask(rng, objects)))


def _ask(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> Iterator[SceneQuestion]:
    """One question of each kind that these objects allow."""
    for kind in KINDS:
        parts = _ASKERS[kind](rng, objects)
        if parts is not None:
            words, answer, asks_about = parts
            template = TEMPLATES[kind][rng.integers(len(TEMPLATES[kind]))]
            yield SceneQuestion(kind, template.format(**words), answer, tuple(o.label for o in asks_about))


_Asked = tuple[dict[str, str], str, list[SceneObject]]


def _pick(rng: np.random.Generator, items: list[Any]) -> Any:
    return items[rng.integers(len(items))] if items else None


def _unique_by(objects: tuple[SceneObject, ...], field: str) -> list[SceneObject]:
    """The objects that are unique in ``field``."""
    values = [getattr(o, field) for o in objects]
    return [o for o in objects if values.count(getattr(o, field)) == 1]


def _ask_attribute(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    target = _pick(rng, _unique_by(objects, "shape"))
    return target and ({"shape": target.shape}, target.color, [target])


def _ask_shape(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    target = _pick(rng, _unique_by(objects, "color"))
    return target and ({"color": target.color}, target.shape, [target])


def _ask_existence(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    """Yes for an object in the scene; no for an absent pair, half of the time with a color or shape there."""
    if rng.random() < 0.5:
        target = _pick(rng, list(objects))
        return _words(target.color, target.shape), "yes", [target]
    present = {(o.color, o.shape) for o in objects}
    pairs = [(color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in present]
    if rng.random() < 0.5:
        colors, shapes = {o.color for o in objects}, {o.shape for o in objects}
        pairs = [pair for pair in pairs if pair[0] in colors or pair[1] in shapes]
    color, shape = _pick(rng, pairs)
    return _words(color, shape), "no", []


def _words(color: str, shape: str) -> dict[str, str]:
    return {"a": "an" if color[0] in "aeiou" else "a", "color": color, "shape": shape}


def _ask_count(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    """The number of objects of a shape or color, mostly one in the scene."""
    field = _pick(rng, ["shape", "color"])
    present = [getattr(o, field) for o in objects]
    possible = list(SHAPES if field == "shape" else COLORS)
    value = _pick(rng, present if rng.random() < 0.8 else possible)
    counted = [o for o in objects if getattr(o, field) == value]
    plural = PLURALS[value] if field == "shape" else f"{value} objects"
    return {"things": plural}, str(len(counted)), counted


def _ask_relation(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> _Asked | None:
    """Between two objects that are clearly separated along the axis of the relation."""
    order = rng.permutation(len(objects))
    subject, reference = objects[order[0]], objects[order[1]]
    relation = _pick(rng, list(RELATIONS))
    axis, sign = RELATIONS[relation]
    distance = (subject.x - reference.x, subject.y - reference.y)[axis]
    if abs(distance) < min(subject.radius, reference.radius):
        return None
    words = {"one": subject.name, "relation": relation, "other": reference.name}
    return words, "yes" if distance * sign > 0 else "no", [subject, reference]


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
    """Write the synthetic dataset: images, masks, VQA v1 JSON and the tables of objects.

    The same arguments give the same bytes; a scene depends only on ``seed`` and its number.

    Raises:
        HvxError: ``folder`` exists and is not empty, or the size is too small to draw in.
    """
    if size < 32:
        raise HvxError(f"size {size}: scenes are drawn at 32 pixels or more")
    with atomic_directory(folder) as part:
        (part / "images").mkdir()
        (part / "masks").mkdir()
        for number, (subset, count) in enumerate((("train", train), ("val", val))):
            _write_subset(part, subset, count, size, [seed, number])


def _write_subset(folder: Path, subset: str, count: int, size: int, seed: list[int]) -> None:
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    table: dict[str, list[Any]] = {"images": [], "questions": []}

    def drawn(number: int) -> tuple[tuple[SceneObject, ...], tuple[SceneQuestion, ...]]:
        scene = draw_scene(np.random.default_rng([*seed, number]), size)
        name = image_name(subset).format(image_id=SUBSETS[subset] + number)
        Image.fromarray(scene.image).save(folder / "images" / name, compress_level=1)
        Image.fromarray(scene.mask).save(folder / "masks" / name)
        return scene.objects, scene.questions

    with closing(map_threads(drawn, range(count))) as scenes:
        numbered = enumerate(bar(scenes, f"drawing {subset} scenes", "scene", count), SUBSETS[subset])
        for image_id, (objects, asked) in numbered:
            table["images"].append({"image_id": image_id, "objects": [_row(o) for o in objects]})
            for rank, question in enumerate(asked):
                ids = {"question_id": image_id * 10 + rank, "image_id": image_id}
                questions.append({**ids, "question": question.question})
                annotations.append({**ids, **_annotation(question)})
                table["questions"].append({**ids, "kind": question.kind, "asks_about": question.asks_about})
    common = {"info": {"description": f"hvx scenes, {subset}"}, "data_type": "scenes", "data_subtype": subset}
    head = {**common, "license": {}}
    task = {"task_type": "Open-Ended"}
    write_json(folder / f"OpenEnded_scenes_{subset}_questions.json", {**head, **task, "questions": questions})
    write_json(folder / f"scenes_{subset}_annotations.json", {**head, "annotations": annotations})
    write_json(folder / f"scenes_{subset}_objects.json", table)


def _row(item: SceneObject) -> dict[str, Any]:
    geometry = {"x": round(item.x, 2), "y": round(item.y, 2), "radius": round(item.radius, 2)}
    return {"label": item.label, "color": item.color, "shape": item.shape, **geometry}


def _annotation(question: SceneQuestion) -> dict[str, Any]:
    """VQA's annotation of a question: ten people who all agree."""
    if question.answer in ("yes", "no"):
        answer_type = "yes/no"
    else:
        answer_type = "number" if question.kind == "count" else "other"
    people = [{"answer_id": k, "answer": question.answer, "answer_confidence": "yes"} for k in range(1, 11)]
    return {
        "question_type": question.kind,
        "answer_type": answer_type,
        "multiple_choice_answer": question.answer,
        "answers": people,
    }
