"""Prints where the words' heat maps point on the built-in split, of a network with a product for
each word.

python scripts/measure_word_maps.py runs/mi/run runs/mi1/run

Each run must be of `configs/scenes_mi.yaml`. The word of the object is the noun that names it: "star" in
"what color is the star?", "object" in "what shape is the red object?".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from hvx.config import Config, parse
from hvx.data.object_masks import ObjectTable
from hvx.data.scene_drawing import SHAPES
from hvx.errors import HvxError
from hvx.measure.metrics.bootstrap import mean
from hvx.measure.metrics.localization import Peaks, covers, peaks
from hvx.store.reader import RunReader

SINGLE = ("attribute", "shape", "existence")
NAMES = {*SHAPES, "object"}
ROWS = {
    "own": "the object's word",
    "last": "the last word (`heatmap`)",
    "first": "control: the first word",
    "others": "control: another word before the last, mean",
    "question": "control: the object's word of another question on the image, about another object",
    "any": "the object's word, in any object",
    "chance": "chance",
}
SEED = 0


@dataclass
class Tally:
    """What was found of each measure: values, and the image and the kind of question of each."""

    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ROWS})
    images: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in ROWS})
    kinds: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in ROWS})
    right: list[bool] = field(default_factory=list)

    def add(self, name: str, value: float, image: int, kind: str) -> None:
        self.values[name].append(value)
        self.images[name].append(image)
        self.kinds[name].append(kind)


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
def main(runs: Sequence[Path]) -> None:
    """A Markdown table for each of RUNS."""
    for run in runs:
        with RunReader(run) as reader:
            if not reader.maps_words:
                raise HvxError(f"{run}: its network has no product for each word; see configs/scenes_mi.yaml")
            tally = measured(reader)
        print(f"{run}: answers right {np.mean(tally.right):.3f} (n = {len(tally.right):,})\n")
        print(f"| maximum in the object asked about | all | {' | '.join(SINGLE)} |")
        print(f"|---|---|{'---|' * len(SINGLE)}")
        for name, title in ROWS.items():
            print(f"| {title} | {' | '.join(cells(tally, name))} |")
        print()


def cells(tally: Tally, name: str) -> list[str]:
    """Of all questions with the interval, then of each kind."""
    values, kinds = np.array(tally.values[name]), np.array(tally.kinds[name])
    whole = mean(values, tally.images[name], SEED)
    shares = [f"{values[kinds == kind].mean():.3f}" if (kinds == kind).any() else "" for kind in SINGLE]
    return [f"{whole.value:.3f} [{whole.low:.3f}, {whole.high:.3f}], n = {whole.n:,}", *shares]


def measured(reader: RunReader) -> Tally:
    """Of questions about one object that is there."""
    config: Config = parse(reader.about["config"], str(reader.path / "run.json"))
    assert config.explain is not None
    table, tally = ObjectTable(config.split(config.explain.split)), Tally()
    asked: dict[int, list[tuple[str, tuple[int, ...], Peaks]]] = {}
    for number in range(len(reader)):
        item = reader[number]
        own = table.asked[item.question_id]
        if own.kind not in SINGLE:
            continue
        tally.right.append(item.answer == item.ground_truth)
        if not own.labels:
            continue
        image, mask = int(item.image_id), table.mask(item.image_id)
        inside, of_words = np.isin(mask, own.labels), [peaks(map) for map in item.word_heatmaps]
        place = object_word(item.tokens)
        asked.setdefault(image, []).append((own.kind, own.labels, of_words[place]))
        between = [covers(inside, one) for n, one in enumerate(of_words[:-1]) if n != place]
        found = {
            "own": covers(inside, of_words[place]), "last": covers(inside, of_words[-1]),
            "first": covers(inside, of_words[0]), "others": np.mean(between),
            "any": covers(mask > 0, of_words[place]), "chance": inside.mean(),
        }  # fmt: skip
        for name, value in found.items():
            tally.add(name, float(value), image, own.kind)
    for image, questions in asked.items():
        add_others(tally, table, image, questions)
    return tally


def add_others(
    tally: Tally, table: ObjectTable, image: int, questions: list[tuple[str, tuple[int, ...], Peaks]]
) -> None:
    """For each question on an image whether the maps of those about other objects point into its own."""
    mask = table.mask(image)
    for kind, labels, _ in questions:
        others = [point for _, about, point in questions if not set(about) & set(labels)]
        if others:
            inside = np.isin(mask, labels)
            tally.add("question", float(np.mean([covers(inside, point) for point in others])), image, kind)


def object_word(tokens: Sequence[str]) -> int:
    """The place of the noun that names the object asked about, the last such word."""
    return max(place for place, token in enumerate(tokens) if token in NAMES)


if __name__ == "__main__":
    main()
