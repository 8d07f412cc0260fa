"""Joins runs by question: the questions that all of them explain, and their item numbers in each run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

import numpy as np

from hvx.errors import HvxError, shown
from hvx.store.names import short_names
from hvx.store.reader import RunReader
from hvx.store.schema import run_digest

Changed = Literal["questions", "images"]
"""What a user may allow to differ between runs: the texts of the questions, the files of the images."""


@dataclass(frozen=True)
class Joined:
    """Two or more runs and the n questions that all of them explain, in the order of the first run.

    Attributes:
        runs: K readers; the caller closes them.
        labels: "A", "B", …, one for each run.
        names: the shortest unique end of each run's path.
        question_ids: (n) as in the first run.
        numbers: for each run, (n) int64: its item ``runs[k][numbers[k][i]]`` explains common question i.
        questions: (n) texts, of the first run.
        images: (n) int64, the image of each question, 0, 1, …: questions on one image share a number.
        regions: why the maps of some run do not cover the same part of the photographs as the first run's;
            None if all do. ``apart`` returns it for two runs.
        notes: lines that a user should read.
    """

    runs: tuple[RunReader, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    question_ids: list[int | str]
    numbers: tuple[np.ndarray, ...]
    questions: np.ndarray
    images: np.ndarray
    regions: str | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.question_ids)

    def column(self, run: int, name: str) -> np.ndarray:
        """A dataset of a run (``RunReader.column``), in the order of the common questions."""
        values: np.ndarray = self.runs[run].column(name)[self.numbers[run]]
        return values

    def apart(self, first: int, second: int) -> str | None:
        """Why the maps of two of the runs do not cover the same part of the photographs; None if they do."""
        return _regions((self.runs[first], self.runs[second]), (self.labels[first], self.labels[second]))


def join(runs: Sequence[RunReader], allow: Sequence[Changed] | None = None) -> Joined:
    """Join runs by question_id.

    An integer id of one run and a text of another are the same if the text is how the integer is written:
    17 and "17", but not "017".

    Args:
        runs: two or more.
        allow: "questions": join questions whose texts differ between the runs, such as rephrased ones.
            "images": the same for image files, such as re-encoded or altered photographs. None: neither, and
            error messages name no option that would allow it.

    Raises:
        HvxError: fewer than two runs, or too many; a duplicate run; no common question; an id whose text or
            image file differs between the runs; a duplicate id in one run.
    """
    _check_runs(runs)
    labels = tuple(ascii_uppercase[: len(runs)])
    ids: list[list[int | str]] = [run.column("question_id").tolist() for run in runs]
    numbers_by_id = [_numbers_by_id(run, run_ids) for run, run_ids in zip(runs, ids, strict=True)]
    common = [key for key in numbers_by_id[0] if all(key in other for other in numbers_by_id[1:])]
    if not common:
        examples = ", ".join(
            f"{run.path}: {shown(run_ids[0]) if len(run_ids) else 'none'}"
            for run, run_ids in zip(runs, ids, strict=True)
        )
        raise HvxError(
            f"the runs have no question_id in common (first ids: {examples}); compare runs of one split"
        )
    numbers = tuple(np.array([by_id[key] for key in common], np.int64) for by_id in numbers_by_id)
    texts = [run.column("question")[items] for run, items in zip(runs, numbers, strict=True)]
    digests = [run.column("image_digest")[items] for run, items in zip(runs, numbers, strict=True)]
    # By the file's bytes: a photograph may have two ids, and an id two photographs if a file was replaced.
    _, images = np.unique(digests[0].astype(str), return_inverse=True)
    question_ids = [ids[0][number] for number in numbers[0]]
    notes = [
        *_mixed_ids(ids, labels),
        *_changed(runs, question_ids, texts, "questions", allow),
        *_changed(runs, question_ids, digests, "images", allow),
        *_identical(runs, labels),
    ]
    return Joined(
        tuple(runs),
        labels,
        tuple(short_names([run.path for run in runs])),
        question_ids,
        numbers,
        texts[0],
        images.astype(np.int64),
        _regions(runs, labels),
        tuple(notes),
    )


def _check_runs(runs: Sequence[RunReader]) -> None:
    if not 2 <= len(runs) <= len(ascii_uppercase):
        raise HvxError(f"{len(runs):,} run(s) to compare; expected 2 to {len(ascii_uppercase)}")
    paths: dict[str, Path] = {}
    for run in runs:
        real_path = os.path.realpath(run.path)
        if real_path in paths:
            same = "" if paths[real_path] == run.path else f" (as {paths[real_path]})"
            raise HvxError(f"{run.path}: given twice{same}; a run is compared with another one")
        paths[real_path] = run.path


def _numbers_by_id(run: RunReader, ids: Sequence[int | str]) -> dict[str, int]:
    """Each question_id as text → its number in the run."""
    numbers = {str(id_): number for number, id_ in enumerate(ids)}
    if len(numbers) < len(ids):
        twice = next(id_ for number, id_ in enumerate(ids) if numbers[str(id_)] != number)
        raise HvxError(f"{run.path}: question_id {shown(twice)} occurs twice; its questions cannot be joined")
    return numbers


def _mixed_ids(ids: Sequence[list[int | str]], labels: Sequence[str]) -> list[str]:
    integers = [label for label, run_ids in zip(labels, ids, strict=True) if isinstance(run_ids[0], int)]
    texts = [label for label in labels if label not in integers]
    if not integers or not texts:
        return []
    return [
        f"question_ids are integers in {', '.join(integers)} and texts in {', '.join(texts)}; "
        'joined where the text is the integer as written (17 and "17", not "017")'
    ]


def _changed(
    runs: Sequence[RunReader],
    question_ids: Sequence[int | str],
    columns: Sequence[np.ndarray],
    kind: Changed,
    allow: Sequence[Changed] | None,
) -> list[str]:
    """A note on questions whose text, or image file, differs between the runs.

    Raises:
        HvxError: some differ, and that is not allowed.
    """
    differs = np.zeros(len(question_ids), bool)
    for run, other in zip(runs[1:], columns[1:], strict=True):
        different = np.asarray(columns[0] != other, bool)
        if different.any() and kind not in (allow or ()):
            index = int(np.flatnonzero(different)[0])
            values = columns[0][index], other[index]
            label = "text" if kind == "questions" else "image file"
            detail = " and ".join(
                f"{value!r:.60}" if kind == "questions" else f"{value:.12}…" for value in values
            )
            raise HvxError(
                f"question_id {shown(question_ids[index])}: its {label} differs between {runs[0].path} and "
                f"{run.path} ({detail}; {int(different.sum()):,} question(s) in all): not comparable"
                + (f"; --allow-changed {kind} compares them nevertheless" if allow is not None else "")
            )
        differs |= different
    count = int(differs.sum())
    things = "texts of the questions" if kind == "questions" else "image files"
    return [f"the {things} differ between the runs for {count:,} question(s), as allowed"] if count else []


def _identical(runs: Sequence[RunReader], labels: Sequence[str]) -> list[str]:
    digests = [run_digest(run.about["identity"]) for run in runs]
    return [
        f"{labels[digests.index(digest)]} and {label} have the same model, questions and settings: "
        "one run copied, or computed twice"
        for label, index, digest in zip(labels, range(len(runs)), digests, strict=True)
        if digests.index(digest) < index
    ]


def _regions(runs: Sequence[RunReader], labels: Sequence[str]) -> str | None:
    """Why maps do not cover the same part of the photographs; None if they do.

    The size to which the crop is scaled does not matter: maps are averaged on one grid over it.
    """
    first = _region(runs[0])
    for label, run in zip(labels[1:], runs[1:], strict=True):
        region = _region(run)
        for key in first | region:
            if first.get(key) != region.get(key):
                return (
                    f"{labels[0]} and {label} see different parts of the photographs "
                    f"({key}: {shown(first.get(key))} and {shown(region.get(key))})"
                )
    return None


def _region(run: RunReader) -> dict[str, Any]:
    """What determines the part of a photograph that a run's maps cover."""
    crop = run.attribute("crop")
    rule = {key: value for key, value in crop.items() if key != "scaled_to"} if isinstance(crop, dict) else {}
    return {**rule, "exif_orientation": run.about.get("exif_orientation") is True}
