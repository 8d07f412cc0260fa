"""Tables of objects for photographs with hand-labeled class masks, for the config key `splits.*.objects`.

    python scripts/daquar_objects.py configs/daquar.yaml MASKS -o data/daquar/objects
    python scripts/daquar_objects.py configs/daquar.yaml MASKS -o data/daquar/yes-no --ask yes-no

MASKS is a folder of class masks (scripts/class_masks.py). OUTPUT gets SPLIT_objects.json for each split of
the config, and the masks. What a table says of a question (docs/formats.md):

- target `named`: the classes of the question's words. At its end, "in this picture ?" names the photograph;
- target `answered`: the classes of the right answer, or of its parts between commas; each is a whole word;
- kind: what the right answer is: color, number, yes/no, object or objects (several).

Questions on photographs without a mask have no target. With --ask, OUTPUT gets a question set, too:

- single: the config's questions whose right answer is one object or color;
- yes-no: made from the masks, "is there a bed in the room ?": yes where the class covers 1 % of the center
  square, which is what a network sees; no where the photograph has none of it. Of each class as many yes as
  no, so that the words alone answer half. The object in question is the target, where it is there.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
from class_masks import Labeled, Masks, labeled

from hvx.config import SplitConfig, load
from hvx.data.questions import Question, read_questions
from hvx.errors import HvxError
from hvx.files import atomic_write, write_json

COLORS = frozenset(
    {"beige", "black", "blue", "brown", "cream", "gold", "gray", "green", "grey", "maroon", "orange", "pink",
     "purple", "red", "silver", "violet", "white", "yellow"}
)  # fmt: skip
LEAST = 0.01
"""Of the center square: what a class covers that is there."""
IDS = 1000
"""Ids of made questions that an image has room for."""
_OF_THE_PHOTO = re.compile(r"\bin (?:this|the) (?:picture|photo)s? *\?*$")
_WORD = re.compile(r"[a-z]+")


def kind(answer: str) -> str:
    """What a right answer is: color, number, yes/no, object, or objects."""
    if "," in answer:
        return "objects"
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdecimal() else "color" if answer in COLORS else "object"


def targets(masks: Masks, question: Question) -> dict[str, list[int]]:
    """The labels of what a question names and of what answers it."""
    asked = _OF_THE_PHOTO.sub("", question.question.lower().strip())
    parts = [part.strip() for part in question.ground_truth.lower().split(",")]
    return {"named": masks.of_words(_WORD.findall(asked)), "answered": masks.of_words(parts)}


def table(masks: Masks, photos: list[Labeled], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A table of objects as docs/formats.md tells it."""
    images = [
        {
            "image_id": photo.image_id,
            "mask": masks.path(photo.image).relative_to(masks.folder).as_posix(),
            "objects": [{"label": label, "name": masks.names[label]} for label in photo.shares],
        }
        for photo in photos
    ]
    return {"masks": "masks", "images": images, "questions": rows}


def asked_rows(masks: Masks, photos: list[Labeled], questions: list[Question]) -> list[dict[str, Any]]:
    """The rows of questions that people asked; without targets where the photograph has no mask."""
    with_mask = {photo.image_id for photo in photos}
    return [
        {
            "question_id": question.question_id,
            "image_id": question.image_id,
            "kind": kind(question.ground_truth),
            "asks_about": targets(masks, question)
            if question.image_id in with_mask
            else {"named": [], "answered": []},
        }
        for question in questions
    ]


def made_questions(
    masks: Masks, photos: list[Labeled], seed: int
) -> tuple[list[Question], list[dict[str, Any]]]:
    """Yes/no questions after the classes that have a word, and their rows of the table."""
    rng = np.random.default_rng(seed)
    made: list[tuple[Labeled, int, bool]] = []
    for label in sorted(set(masks.words.values())):
        there = [photo for photo in photos if photo.shares.get(label, (0, 0))[1] >= LEAST]
        absent = [photo for photo in photos if label not in photo.shares]
        count = min(len(there), len(absent))
        for group, yes in ((there, True), (absent, False)):
            made += [(group[place], label, yes) for place in rng.permutation(len(group))[:count]]
    places = {photo.image_id: place for place, photo in enumerate(photos)}
    made.sort(key=lambda row: (places[row[0].image_id], row[1]))
    questions, rows = [], []
    for photo, label, yes in made:
        question_id = places[photo.image_id] * IDS + label
        text, answer = f"{_existence(masks.names[label])} in the room ?", "yes" if yes else "no"
        questions.append(
            Question(question_id, photo.image_id, photo.image, text, answer, (answer,), "is there", "yes/no")
        )
        ids = {"question_id": question_id, "image_id": photo.image_id}
        rows.append({**ids, "kind": masks.names[label], "asks_about": [label] if yes else []})
    return questions, rows


def _existence(name: str) -> str:
    if name.endswith("s"):
        return f"are there {name}"
    return f"is there {'an' if name[0] in 'aeiou' else 'a'} {name}"


def write_questions(questions: list[Question], folder: Path, name: str) -> None:
    """A question set in VQA v1 layout."""
    ids = [{"question_id": q.question_id, "image_id": q.image_id} for q in questions]
    asked = [{**own, "question": q.question} for own, q in zip(ids, questions, strict=True)]
    answered = [
        {
            **own,
            "question_type": q.question_type,
            "answer_type": q.answer_type,
            "multiple_choice_answer": q.ground_truth,
            "answers": [{"answer": answer, "answer_id": 1 + k} for k, answer in enumerate(q.answers)],
        }
        for own, q in zip(ids, questions, strict=True)
    ]
    write_json(folder / f"{name}_questions.json", {"questions": asked})
    write_json(folder / f"{name}_annotations.json", {"annotations": answered})


def write_split(masks: Masks, name: str, split: SplitConfig, ask: str, folder: Path, seed: int) -> str:
    """Write a split's table, its masks, and the questions that --ask makes; returns a line of counts."""
    questions = read_questions(split)
    photos = labeled(masks, split, questions)
    if ask == "yes-no":
        questions, rows = made_questions(masks, photos, seed)
    else:
        if ask == "single":
            questions = [q for q in questions if kind(q.ground_truth) in ("object", "color")]
        rows = asked_rows(masks, photos, questions)
    if ask != "all":
        write_questions(questions, folder, name)
    for photo in photos:
        source = masks.path(photo.image)
        with atomic_write(folder / "masks" / source.relative_to(masks.folder)) as part:
            shutil.copyfile(source, part)
    write_json(folder / f"{name}_objects.json", table(masks, photos, rows))
    return f"{name}: {_counts(photos, rows)}"


def _counts(photos: list[Labeled], rows: list[dict[str, Any]]) -> str:
    """How many questions there are, on photographs with a mask, and with each target that is there."""
    square = {
        photo.image_id: {label for label, own in photo.shares.items() if own[1] > 0} for photo in photos
    }
    found: dict[str, int] = {}
    for row in rows:
        own = row["asks_about"] if isinstance(row["asks_about"], dict) else {"object": row["asks_about"]}
        for target, labels in own.items():
            found[target] = found.get(target, 0) + bool(square.get(row["image_id"], set()) & set(labels))
    on_masks = sum(row["image_id"] in square for row in rows)
    counts = ", ".join(f"{count:,} with the {target} in the center square" for target, count in found.items())
    return f"{len(rows):,} questions, {on_masks:,} on {len(photos):,} photographs with a mask; {counts}"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("masks", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--ask", type=click.Choice(["all", "single", "yes-no"]), default="all", show_default=True,
    help="The questions that the table is of; all: those of the config.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of the draw of yes/no questions.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Overrides a key of the config.")
def main(config: Path, masks: Path, output: Path, ask: str, seed: int, overrides: tuple[str, ...]) -> None:
    """Write tables of objects for the splits of CONFIG from the class masks in the folder MASKS."""
    try:
        tree, opened = load(config, list(overrides)), Masks.opened(masks)
        for name in tree.splits:
            click.echo(write_split(opened, name, tree.split(name), ask, output, seed))
    except HvxError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
