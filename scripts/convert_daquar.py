"""Converts DAQUAR's published files to what configs/daquar.yaml reads.

Where they are: Max Planck Institute for Informatics, "Visual Turing Challenge" (Malinowski & Fritz 2014):
qa.894.raw.train.txt and qa.894.raw.test.txt (or those of 37 classes), and the images of NYU Depth v2,
nyu_depth_images.tar, unpacked.

python scripts/convert_daquar.py qa.894.raw.train.txt qa.894.raw.test.txt nyu_depth_images -o data/daquar

The text files alternate lines: a question that ends with "in the image3 ?", and its answer, or several with
commas between. Questions lose that ending. The parts are VQA v1 JSON; the test part becomes `val`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from PIL import Image

from hvx.data.photos import open_photo
from hvx.errors import HvxError
from hvx.files import atomic_write, write_json

_ENDING = re.compile(r"\s+(?:in|on|of|at)\s+(?:the\s+)?image\s*(\d{1,6})\s*\?*\s*$")
_IMAGE = re.compile(r"\bimage\s*(\d{1,6})\b")
_QUESTIONS = 1000
"""Ids that an image has room for."""
_QUALITY = 95
"""Of the JPEG files."""


def pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """The image's number, the question without it, and the answer, of each pair of lines.

    Raises:
        HvxError: the file cannot be read, or is not one of DAQUAR's; names the line.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise HvxError(f"{path}: cannot be read: {error}") from None
    if not lines or len(lines) % 2:
        raise HvxError(f"{path}: expected lines of questions and answers in turn; there are {len(lines):,}")
    for number in range(0, len(lines), 2):
        question, answer = lines[number : number + 2]
        found = _IMAGE.findall(question)
        if not found:
            raise HvxError(
                f"{path}: line {number + 1}: expected a question that names imageN, not {question!r:.60}"
            )
        yield int(found[-1]), f"{_ENDING.sub('', question).rstrip(' ?')} ?", answer


def converted(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A part's questions and annotations as VQA v1 JSON."""
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    asked: Counter[int] = Counter()
    for image_id, question, answer in pairs(path):
        asked[image_id] += 1
        if asked[image_id] > _QUESTIONS:
            raise HvxError(f"{path}: more than {_QUESTIONS} questions on image{image_id}")
        ids = {"question_id": _QUESTIONS * image_id + asked[image_id] - 1, "image_id": image_id}
        questions.append({**ids, "question": question})
        annotations.append(
            {
                **ids,
                "question_type": " ".join(question.split()[:2]),
                "answer_type": _answer_type(answer),
                "multiple_choice_answer": answer,
                "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": 1}],
            }
        )
    return {"questions": questions}, {"annotations": annotations}


def _answer_type(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdecimal() else "other"


def copy_image(source: Path, target: Path) -> None:
    """An image of NYU Depth v2 as JPEG; one that is there already stays.

    Raises:
        HvxError: there is none, or it cannot be read.
    """
    if target.exists():
        return
    photo: Image.Image = open_photo(source)
    with atomic_write(target) as part:
        photo.save(part, format="JPEG", quality=_QUALITY)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("train", type=click.Path(path_type=Path))
@click.argument("test", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
def main(train: Path, test: Path, images: Path, output: Path) -> None:
    """Convert DAQUAR's TRAIN and TEST text files and its folder of IMAGES (image1.png, …)."""
    try:
        parts = {"train": converted(train), "val": converted(test)}
        numbers = {row["image_id"] for questions, _ in parts.values() for row in questions["questions"]}
        absent = sorted(number for number in numbers if not (images / f"image{number}.png").is_file())
        if absent:
            raise HvxError(f"{images}: {len(absent):,} images are missing, such as image{absent[0]}.png")
        for number in sorted(numbers):
            copy_image(images / f"image{number}.png", output / "images" / f"DAQUAR_{number:012d}.jpg")
        for part, (questions, annotations) in parts.items():
            write_json(output / f"OpenEnded_daquar_{part}_questions.json", questions)
            write_json(output / f"daquar_{part}_annotations.json", annotations)
    except HvxError as error:
        raise click.ClickException(str(error)) from None
    counts = ", ".join(
        f"{len(questions['questions']):,} {part} questions" for part, (questions, _) in parts.items()
    )
    click.echo(f"{output}: {counts}, {len(numbers):,} images")


if __name__ == "__main__":
    main()
