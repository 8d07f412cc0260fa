"""Joins runs by question: which questions all of them explain, and where each run has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

import numpy as np

from hvx.errors import HvxError, shown
from hvx.store.reader import RunReader
from hvx.store.schema import run_digest

Changed = Literal["questions", "images"]
"""What may differ between runs on request: the texts of the questions, the files of the images."""

_PLAIN_NAMES = ("run",)
"""Folder names that say nothing of a run: the folder around it is named too."""


@dataclass(frozen=True)
class Joined:
    """Two or more runs and the n questions that all of them explain, in the order of the first run.

    Attributes:
        runs: K readers; they stay the caller's, who closes them.
        labels: "A", "B", …, one for each run.
        names: the shortest end of each run's path that no other run shares.
        question_ids: (n) as the first run has them.
        numbers: for each run, (n) int64: its item ``runs[k][numbers[k][i]]`` explains common question i.
        questions: (n) texts, of the first run.
        images: (n) int64, the image of each question, 0, 1, …: questions on one image have one number.
        regions: why the maps of some run do not cover the same part of the photographs as the first run's;
            None if all do. ``apart`` says it of two runs.
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

    def apart(self, one: int, other: int) -> str | None:
        """Why the maps of two of the runs do not cover the same part of the photographs; None if they do."""
        return _regions((self.runs[one], self.runs[other]), (self.labels[one], self.labels[other]))


def join(runs: Sequence[RunReader], allow: Sequence[Changed] = ()) -> Joined:
    """Join runs by question_id.

    An integer id of one run and a text of another are the same if the text is how the integer is written:
    17 and "17", but not "017".

    Args:
        runs: two or more.
        allow: "questions": join questions whose texts differ between the runs, such as rephrased ones.
            "images": the same for image files, such as re-encoded or altered photographs.

    Raises:
        HvxError: fewer than two runs, or too many; one run given twice; no common question; an id whose text
            or image file differs between the runs; an id twice in one run.
    """
    _check_runs(runs)
    labels = tuple(ascii_uppercase[: len(runs)])
    ids: list[list[int | str]] = [run.column("question_id").tolist() for run in runs]
    places = [_places(run, own) for run, own in zip(runs, ids, strict=True)]
    common = [key for key in places[0] if all(key in own for own in places[1:])]
    if not common:
        examples = ", ".join(
            f"{run.path}: {shown(own[0]) if len(own) else 'none'}" for run, own in zip(runs, ids, strict=True)
        )
        raise HvxError(
            f"the runs have no question_id in common (first ids: {examples}); compare runs of one split"
        )
    numbers = tuple(np.array([own[key] for key in common], np.int64) for own in places)
    texts = [run.column("question")[own] for run, own in zip(runs, numbers, strict=True)]
    digests = [run.column("image_digest")[own] for run, own in zip(runs, numbers, strict=True)]
    # By the file's bytes: one photograph may have two ids, and one id two photographs if a file was replaced.
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


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path that none of the others has; of ``…/daquar/run`` at least two parts."""
    parts = [path.resolve().parts[1:] for path in paths]
    names = []
    for place, own in enumerate(parts):
        others = [other for number, other in enumerate(parts) if number != place]
        count = 2 if own[-1:] and own[-1] in _PLAIN_NAMES else 1
        while count < len(own) and any(other[-count:] == own[-count:] for other in others):
            count += 1
        names.append("/".join(own[-count:]))
    return names


def _check_runs(runs: Sequence[RunReader]) -> None:
    if not 2 <= len(runs) <= len(ascii_uppercase):
        raise HvxError(f"{len(runs):,} run(s) to compare; expected 2 to {len(ascii_uppercase)}")
    seen: dict[str, Path] = {}
    for run in runs:
        real = os.path.realpath(run.path)
        if real in seen:
            same = "" if seen[real] == run.path else f" (as {seen[real]})"
            raise HvxError(f"{run.path}: given twice{same}; a run is compared with another one")
        seen[real] = run.path


def _places(run: RunReader, ids: Sequence[int | str]) -> dict[str, int]:
    """Each question_id as text → its number in the run."""
    places = {str(one): number for number, one in enumerate(ids)}
    if len(places) < len(ids):
        twice = next(one for number, one in enumerate(ids) if places[str(one)] != number)
        raise HvxError(f"{run.path}: question_id {shown(twice)} occurs twice; its questions cannot be joined")
    return places


def _mixed_ids(ids: Sequence[list[int | str]], labels: Sequence[str]) -> list[str]:
    integers = [label for label, own in zip(labels, ids, strict=True) if isinstance(own[0], int)]
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
    what: Changed,
    allow: Sequence[Changed],
) -> list[str]:
    """A note on questions whose text, or image file, differs between the runs.

    Raises:
        HvxError: there are such, and they are not allowed.
    """
    differs = np.zeros(len(question_ids), bool)
    for run, other in zip(runs[1:], columns[1:], strict=True):
        unlike = np.asarray(columns[0] != other, bool)
        if unlike.any() and what not in allow:
            place = int(np.flatnonzero(unlike)[0])
            values = columns[0][place], other[place]
            one = "text" if what == "questions" else "image file"
            detail = " and ".join(
                f"{value!r:.60}" if what == "questions" else f"{value:.12}…" for value in values
            )
            raise HvxError(
                f"question_id {shown(question_ids[place])}: its {one} differs between {runs[0].path} and "
                f"{run.path} ({detail}; {int(unlike.sum()):,} question(s) in all): not comparable; "
                f"--allow-changed {what} compares them nevertheless"
            )
        differs |= unlike
    count = int(differs.sum())
    named = "texts of the questions" if what == "questions" else "image files"
    return [f"the {named} differ between the runs for {count:,} question(s), as allowed"] if count else []


def _identical(runs: Sequence[RunReader], labels: Sequence[str]) -> list[str]:
    digests = [run_digest(run.about["identity"]) for run in runs]
    return [
        f"{labels[digests.index(own)]} and {label} have the same model, questions and settings: "
        "one run copied, or computed twice"
        for label, place, own in zip(labels, range(len(runs)), digests, strict=True)
        if digests.index(own) < place
    ]


def _regions(runs: Sequence[RunReader], labels: Sequence[str]) -> str | None:
    """Why maps do not lie on the same part of the photographs; None where they do.

    To which size the crop is scaled does not matter: maps are brought to one grid over it.
    """
    first = _region(runs[0])
    for label, run in zip(labels[1:], runs[1:], strict=True):
        own = _region(run)
        for key in first | own:
            if first.get(key) != own.get(key):
                return (
                    f"{labels[0]} and {label} see different parts of the photographs "
                    f"({key}: {shown(first.get(key))} and {shown(own.get(key))})"
                )
    return None


def _region(run: RunReader) -> dict[str, Any]:
    """What decides which part of a photograph a run's maps cover."""
    crop = run.attribute("crop")
    rule = {key: value for key, value in crop.items() if key != "scaled_to"} if isinstance(crop, dict) else {}
    return {**rule, "exif_orientation": run.about.get("exif_orientation") is True}
