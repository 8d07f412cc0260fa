"""Prints how long it takes, and how much memory, to read a split of VQA questions and plan its shards.

python scripts/measure_plan.py --questions 214354 --images 40504
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

WORDS = ["what", "is", "the", "color", "of", "man", "dog", "red", "bus", "sitting", "how", "many", "people"]
ANSWERS = 30_000
"""Different answers, a few of them by far the most frequent, as people's are."""
MEASURED = """
import resource, sys, time
from pathlib import Path
from hvx.config import SplitConfig
from hvx.data.questions import read_questions
from hvx.run.shards import plan_shards

folder = Path(sys.argv[1])
annotations = folder / "annotations.json"
split = SplitConfig(
    questions=folder / "questions.json",
    annotations=annotations if annotations.exists() else None,
    images=folder,
    image_name="{image_id}.jpg",
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, used = time.perf_counter(), time.process_time()
questions = read_questions(split)
read = time.perf_counter()
shards = plan_shards(questions, 256)
end = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{len(questions):,} questions in {len(shards):,} shards: read {read - start:.2f} s, ")
print(f"planned {end - read:.2f} s, {time.process_time() - used:.2f} s of one processor, ")
print(f"peak {peak / 1024:.0f} MiB ({before / 1024:.0f} MiB before)")
"""


@click.command()
@click.option("--questions", default=214_354, show_default=True, help="Questions of the split.")
@click.option("--images", default=40_504, show_default=True, help="Images that they are asked about.")
@click.option("--text-ids", is_flag=True, help="Ids of 16 hexadecimal digits, as texts.")
@click.option("--annotations/--no-annotations", default=True, show_default=True, help="Ten answers each.")
def main(questions: int, images: int, text_ids: bool, annotations: bool) -> None:
    """Make a split in VQA v2's layout, then read and plan it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        _write(path / "questions.json", "questions", _questions(questions, images), text_ids)
        if annotations:
            _write(path / "annotations.json", "annotations", _annotations(questions, images), text_ids)
        for file in sorted(path.iterdir()):
            click.echo(f"{file.name}: {file.stat().st_size / 1e6:.0f} MB")
        said = subprocess.run(
            [sys.executable, "-c", MEASURED, folder], check=True, capture_output=True, text=True
        )
    click.echo(said.stdout.replace("\n", ""))


def _write(path: Path, key: str, rows: Iterable[dict[str, Any]], text_ids: bool) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"version": "2.0"}, "license": {}, "data_subtype": "val2014", "' + key + '": [')
        for place, row in enumerate(rows):
            if text_ids:
                row |= {name: f"{row[name]:016x}" for name in ("question_id", "image_id")}
            file.write((", " if place else "") + json.dumps(row))
        file.write("]}")


def _ids(questions: int, images: int) -> Iterator[tuple[int, int]]:
    """Ids of images and of their questions, as VQA has them: side by side, the one leading the other."""
    for place in range(questions):
        image_id = 13 * (place * images // questions) + 42
        yield image_id, image_id * 1000 + place % 1000


def _questions(questions: int, images: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(0)
    for image_id, question_id in _ids(questions, images):
        text = " ".join(chance.choices(WORDS, k=chance.randint(4, 9))).capitalize() + "?"
        yield {"image_id": image_id, "question": text, "question_id": question_id}


def _annotations(questions: int, images: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(1)
    for image_id, question_id in _ids(questions, images):
        said = [f"answer {int(ANSWERS * chance.random() ** 6)}" for _ in range(10)]
        yield {
            "question_type": "what is the",
            "multiple_choice_answer": said[0],
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": person}
                for person, answer in enumerate(said, start=1)
            ],
            "image_id": image_id,
            "answer_type": "other",
            "question_id": question_id,
        }


if __name__ == "__main__":
    main()
