"""Prints how far Eq. 3 agrees with explicit attention to words, and which words each stresses.

python scripts/measure_textual.py mlb=runs/reproduce/run r-dan=runs/dan/run hiecoatt=runs/hiecoatt/run

The runs must be of one split. Readings of a question are the z-scores (Eq. 11) of each run that has them, and
each attention to words. For the means by part of speech attention is standardized within its question, as
Eq. 11 standardizes saliency. The control says which reading is right: the rank correlation with what the
answer's log probability loses if a token is left out (word_deletion.py), in a sample of questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import click
import numpy as np
from word_deletion import deletion_losses

from hvx.errors import HvxError
from hvx.measure.metrics.agreement import unit_ranks
from hvx.measure.metrics.bootstrap import Estimate, mean
from hvx.measure.metrics.pos_tags import parts_of_speech
from hvx.measure.metrics.words import FAMILIES
from hvx.measure.sample import draw
from hvx.store.reader import RunReader

SEED = 0
ATTENTION = {
    "textual_attention": "attention", "word_attention": "attention, words",
    "phrase_attention": "attention, phrases",
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question's id, tokens and image, and what each reading gives its tokens."""

    id: str
    tokens: tuple[str, ...]
    image: str
    values: dict[str, np.ndarray]

    def ranks(self, name: str) -> np.ndarray:
        """Unit ranks of a reading, whose scalar product is Spearman's rank correlation."""
        return unit_ranks(self.values[name][None])[0]


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="NAME=RUN...")
@click.option(
    "--deletions", default=300, show_default=True, type=click.IntRange(0), help="Questions of the control."
)
def main(runs: Sequence[str], deletions: int) -> None:
    """Markdown tables of the runs named NAME=RUN."""
    paths = dict(named(run) for run in runs)
    if len(paths) < len(runs):
        raise click.UsageError("two runs have one name; give each a name of its own")
    questions = common(list(paths.items()))
    names = list(questions[0].values)
    print(f"{len(questions):,} questions of two tokens or more.\n")
    print("| ρ of | and | the same question | another question of as many tokens |")
    print("|---|---|---:|---:|")
    for one, other in combinations(names, 2):
        print(f"| {one} | {other} | {' | '.join(map(shown, agreement(questions, one, other)))} |")
    print(f"\n| mean z | {' | '.join(FAMILIES)} | ρ with the place in the question |")
    print(f"|---|{'---:|' * len(FAMILIES)}---:|")
    for name in names:
        found = [*by_family(questions, name), with_place(questions, name)]
        print(f"| {name} | {' | '.join(shown(one, '+') for one in found)} |")
    if deletions:
        print_control(paths, questions, names, deletions)


def print_control(paths: dict[str, Path], questions: list[Question], names: list[str], count: int) -> None:
    """The table of each reading next to the deletion of words from its own network's question."""
    sample = [questions[place] for place in draw(np.array([one.image for one in questions]), count, SEED)]
    for name, path in paths.items():
        add_deletions(name, path, sample)
    print(f"\nLeaving out a word, in {len(sample):,} questions:\n")
    print("| ρ of | with the loss by deletion | with that of another question of as many tokens |")
    print("|---|---:|---:|")
    for name in names:
        found = agreement(sample, name, f"{name.split(':')[0]}: deletion")
        print(f"| {name} | {' | '.join(map(shown, found))} |")
    print(f"\n| mean z of the loss by deletion | {' | '.join(FAMILIES)} |\n|---|{'---:|' * len(FAMILIES)}")
    for name in paths:
        families = by_family(sample, f"{name}: deletion")
        print(f"| {name} | {' | '.join(shown(one, '+') for one in families)} |")


def add_deletions(name: str, path: Path, sample: list[Question]) -> None:
    """Give each question, as another reading, what a run's network loses by leaving out each token."""
    with RunReader(path) as reader:
        numbers = {str(id): number for number, id in enumerate(reader.column("question_id").tolist())}
        losses = deletion_losses(reader, [numbers[question.id] for question in sample])
        for question in sample:
            question.values[f"{name}: deletion"] = losses[numbers[question.id]]


def named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or ":" in name:
        raise click.UsageError(f"{text}: expected NAME=RUN, such as mlb=runs/reproduce/run")
    return name, Path(path)


def common(runs: list[tuple[str, Path]]) -> list[Question]:
    """The questions that all runs hold, in the first one's order, of two tokens or more.

    Raises:
        HvxError: the runs split a question into other tokens.
    """
    each = [dict(readings(name, path)) for name, path in runs]
    found = []
    for question_id, first in each[0].items():
        others = [own[question_id] for own in each[1:] if question_id in own]
        if len(others) + 1 < len(each) or len(first.tokens) < 2:
            continue
        for other in others:
            if other.tokens != first.tokens:
                raise HvxError(f"question_id {question_id}: the runs split it into other tokens")
            first.values.update(other.values)
        found.append(first)
    if not found:
        raise HvxError("the runs have no question of two tokens or more in common")
    return found


def readings(name: str, path: Path) -> Iterator[tuple[str, Question]]:
    """Each question of a run by its id."""
    with RunReader(path) as reader:
        columns = {f"{name}: z": "token_z"} if reader.has_heatmaps else {}
        if reader.attends_to_words:
            columns |= {f"{name}: attention": "textual_attention"}
        if reader.attends_on_levels:
            columns |= {
                f"{name}: {ATTENTION[column]}": column for column in ("word_attention", "phrase_attention")
            }
        values = {title: reader.column(column) for title, column in columns.items()}
        sides = (reader.column(column) for column in ("question_id", "tokens", "length", "image_id"))
        for place, (number, tokens, length, image) in enumerate(zip(*sides, strict=True)):
            own = {title: column[place, :length].astype(float) for title, column in values.items()}
            yield str(number), Question(str(number), tuple(map(str, tokens[:length])), str(image), own)


def agreement(questions: list[Question], one: str, other: str) -> list[Estimate]:
    """Mean rank correlations of two readings: of the same question, and of one with another question's."""
    images, partner = images_of(questions), partners(questions)
    own = [float(question.ranks(one) @ question.ranks(other)) for question in questions]
    known = [place for place, its in enumerate(partner) if its >= 0]
    crossed = [float(questions[place].ranks(one) @ questions[partner[place]].ranks(other)) for place in known]
    return [mean(own, images, SEED), mean(crossed, images[known], SEED)]


def with_place(questions: list[Question], name: str) -> Estimate:
    """The mean rank correlation of a reading with the tokens' places, from the first to the last."""
    found = [
        float(question.ranks(name) @ unit_ranks(np.arange(len(question.tokens))[None])[0])
        for question in questions
    ]
    return mean(found, images_of(questions), SEED)


def images_of(questions: list[Question]) -> np.ndarray:
    """The number of each question's image, which is drawn again in the bootstrap."""
    return np.asarray(np.unique([question.image for question in questions], return_inverse=True)[1])


def partners(questions: list[Question]) -> list[int]:
    """For each question the next one of as many tokens, other tokens and another image; −1: there is none."""
    by_length: dict[int, list[int]] = {}
    for place, question in enumerate(questions):
        by_length.setdefault(len(question.tokens), []).append(place)
    found = [-1] * len(questions)
    for places in by_length.values():
        for rank, place in enumerate(places):
            own = questions[place]
            for step in range(1, len(places)):
                other = questions[places[(rank + step) % len(places)]]
                if other.image != own.image and other.tokens != own.tokens:
                    found[place] = places[(rank + step) % len(places)]
                    break
    return found


def by_family(questions: list[Question], name: str) -> list[Estimate]:
    """The mean of a reading, standardized within each question, over the tokens of each family."""
    values: dict[str, list[float]] = {family: [] for family in FAMILIES}
    images: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for question in questions:
        given = question.values[name]
        spread = given.std(ddof=1)
        z = (given - given.mean()) / (spread if spread > 0 else 1)
        for token, tag, value in zip(question.tokens, parts_of_speech(question.tokens), z, strict=True):
            for family, is_one in FAMILIES.items():
                if is_one(token, tag):
                    values[family].append(float(value))
                    images[family].append(question.image)
    groups = {family: np.unique(own, return_inverse=True)[1] for family, own in images.items()}
    return [mean(values[family], groups[family], SEED) for family in FAMILIES]


def shown(found: Estimate, sign: str = "") -> str:
    if not found.known:
        return "–"
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


if __name__ == "__main__":
    main()
