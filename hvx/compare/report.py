"""The report of a comparison: tables and notes, JSON, a row for each question."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hvx.compare.answers import METRIC, choices, members
from hvx.compare.compare import KINDS, Agreement, Comparison, Pair
from hvx.files import whole_file, write_json
from hvx.measure.bootstrap import DRAWS, LEVEL, Estimate
from hvx.table import table

_Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""A header, and rows of texts."""

_UNTYPED = "(no type)"
_CONTROLS = {
    "same": "same question",
    "other_question": "other question",
    "above": "difference",
    "other_image": "other image",
}
_READING = (
    "Controls: \"other question\" correlates A's with the other run's of another question on the same image, "
    '"other image" of another image (token z: of another question with as many tokens). "difference" is '
    'what "same question" lies above "other question", where there is one: that alone is agreement on the '
    "question."
)


def as_document(found: Comparison, width: int | None = None) -> str:
    """The whole report.

    Args:
        found: what was compared.
        width: columns of a terminal; None: as Markdown.
    """
    plain = width is not None

    def shown(made: _Table) -> str:
        return table(*made, markdown=width is None, width=width)

    def heading(text: str) -> str:
        return f"{text}\n{'=' * len(text)}" if plain else f"## {text}"

    def prose(text: str, mark: str = "") -> str:
        if width is None:
            return mark + text
        return textwrap.fill(text, width, initial_indent=mark, subsequent_indent=" " * len(mark))

    parts = [] if plain else ["# Runs side by side"]
    parts += [shown(_runs(found)), prose(_common(found))]
    parts += [heading(f"Accuracy ({METRIC})"), shown(_accuracy(found))]
    for pair in found.pairs:
        label = found.joined.labels[pair.other]
        parts += [heading(f"Answers of A and {label}"), shown(_answers(found, pair.other))]
    for pair in found.pairs:
        label = found.joined.labels[pair.other]
        parts += [heading(f"Rank correlation of A and {label}"), shown(_agreement(pair))]
    notes = [*found.joined.notes, *_notes(found)]
    parts += [prose(_READING), "\n".join(prose(note, "- ") for note in notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _runs(found: Comparison) -> _Table:
    joined = found.joined
    rows: list[tuple[str, ...]] = [
        (label, name, f"{len(run):,}")
        for label, name, run in zip(joined.labels, joined.names, joined.runs, strict=True)
    ]
    return ("", "run", "explanations"), rows


def _common(found: Comparison) -> str:
    count, images = len(found.joined), len(np.unique(found.joined.images))
    return (
        f"In common: {count:,} question{'s' * (count > 1)} on {images:,} image{'s' * (images > 1)}; only "
        f"these count. Intervals: {LEVEL:.0%}, bootstrap over images, {DRAWS:,} draws (seed {found.seed})."
    )


def _accuracy(found: Comparison) -> _Table:
    labels = found.joined.labels
    rows: list[tuple[str, ...]] = [
        (label, name, *_cells(one))
        for label, name, one in zip(labels, found.joined.names, found.accuracies, strict=True)
    ]
    rows += [
        (f"{labels[pair.other]} − A", "difference", *_cells(pair.accuracy, signed=True))
        for pair in found.pairs
    ]
    return ("", "run", "accuracy", "interval", "n"), rows


def _cells(one: Estimate, signed: bool = False) -> tuple[str, str, str]:
    """A mean, its interval and n."""
    if not one.known:
        return "none", "", "0"
    low, high = (_number(value, signed) for value in (one.low, one.high))
    return _number(one.value, signed), f"{low} … {high}" if one.bounded else "(one image)", f"{one.n:,}"


def _number(value: float, signed: bool) -> str:
    """Three decimals; nothing that rounds to 0 has a sign."""
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.lstrip("+-") if float(text) == 0 else text


def answer_counts(found: Comparison, other: int, among: np.ndarray) -> dict[str, int]:
    """How many of the questions marked in ``among`` (n) have answers of A and of another run that are …"""
    same, known = found.answers.same[other], found.answers.known
    first, second = found.answers.right[0], found.answers.right[other]
    marks = {
        "questions": np.ones(len(same), bool),
        "same": same,
        "changed": ~same,
        "only_a_correct": known & first & ~second,
        "only_b_correct": known & second & ~first,
        "both_correct": known & first & second,
        "neither_correct": known & ~first & ~second,
        "unknown": ~known,
    }
    return {name: int((mark & among).sum()) for name, mark in marks.items()}


def _by_type(found: Comparison, other: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Counts of each answer type, the commonest first; none where no type is known."""
    types = found.answers.types.astype(str)
    names, counts = np.unique(types, return_counts=True)
    if list(names) == [""]:
        return
    for place in np.argsort(-counts, kind="stable"):
        yield names[place] or _UNTYPED, answer_counts(found, other, types == names[place])


def _answers(found: Comparison, other: int) -> _Table:
    label = found.joined.labels[other]
    rows = [("all", answer_counts(found, other, np.ones(len(found.joined), bool))), *_by_type(found, other)]
    unknown = any(own["unknown"] for _, own in rows)
    header = ["answer type", "n", "same", "changed", "only A ✓", f"only {label} ✓", "both ✓", "neither ✓"]
    keys = [
        "questions",
        "same",
        "changed",
        "only_a_correct",
        "only_b_correct",
        "both_correct",
        "neither_correct",
    ]
    if unknown:
        header, keys = [*header, "no truth"], [*keys, "unknown"]
    return tuple(header), [(name, *(f"{own[key]:,}" for key in keys)) for name, own in rows]


def _agreement(pair: Pair) -> _Table:
    rows: list[tuple[str, ...]] = []
    for one in pair.agreement:
        grid = f" {one.grid[0]}×{one.grid[1]}" if one.grid else ""
        title = KINDS[one.kind] + grid
        if one.none:
            rows.append((title, "", "none", "", "0"))
            continue
        for name, label in _CONTROLS.items():
            cells = _cells(getattr(one, name), signed=name == "above")
            rows.append((title if name == "same" else "", label, *cells))
    return ("", "with", "mean", "interval", "n"), rows


def _notes(found: Comparison) -> list[str]:
    """What was left out, and why."""
    notes = []
    answers, labels = found.answers, found.joined.labels
    if answers.disputed:
        notes.append(
            f"the ground truth of {answers.disputed:,} question(s) differs between the runs and counts as "
            "unknown"
        )
    unknown = int((~answers.known).sum())
    if unknown:
        notes.append(f"accuracy leaves out {unknown:,} question(s) without a known ground truth")
    for pair in found.pairs:
        for one in pair.agreement:
            where = f"{KINDS[one.kind]}, A and {labels[pair.other]}"
            if one.none:
                notes.append(f"{where}: none ({one.none})")
            else:
                notes += [
                    f"{where}: left out {n:,} question(s) with {why}" for why, n in one.left_out.items()
                ]
    return notes


def as_json(found: Comparison) -> dict[str, Any]:
    """All of it as plain values; what is not known is null."""
    joined = found.joined
    runs = zip(joined.labels, joined.names, joined.runs, found.accuracies, strict=True)
    return {
        "runs": [
            {
                "label": label,
                "name": name,
                "path": str(run.path),
                "explanations": len(run),
                "accuracy": _estimate(accuracy),
            }
            for label, name, run, accuracy in runs
        ],
        "questions": len(joined),
        "images": len(np.unique(joined.images)),
        "metric": METRIC,
        "level": LEVEL,
        "draws": DRAWS,
        "seed": found.seed,
        "groups": {choice: int(members(found.answers, choice).sum()) for choice in choices(joined)},
        "pairs": [
            {
                "a": joined.labels[0],
                "b": joined.labels[pair.other],
                "accuracy_difference": _estimate(pair.accuracy),
                "answers": answer_counts(found, pair.other, np.ones(len(joined), bool)),
                "answers_by_type": dict(_by_type(found, pair.other)),
                "rank_correlation": {one.kind: _one(one) for one in pair.agreement},
            }
            for pair in found.pairs
        ],
        "notes": [*joined.notes, *_notes(found)],
    }


def _one(one: Agreement) -> dict[str, Any]:
    return {
        "grid": list(one.grid) if one.grid else None,
        "same_question": _estimate(one.same),
        "another_question_same_image": _estimate(one.other_question),
        "same_less_another_question": _estimate(one.above),
        "another_image": _estimate(one.other_image),
        "left_out": one.left_out,
        "none": one.none,
    }


def _estimate(one: Estimate) -> dict[str, Any] | None:
    if not one.known:
        return None
    low, high = (one.low, one.high) if one.bounded else (None, None)
    return {"mean": one.value, "low": low, "high": high, "n": one.n}


def write_report(found: Comparison, folder: Path) -> list[Path]:
    """Write ``compare.md``, ``compare.json`` and ``questions.csv``, each whole or not at all.

    Returns:
        The files.

    Raises:
        HvxError: one cannot be written.
    """
    paths = [folder / name for name in ("compare.md", "compare.json", "questions.csv")]
    with whole_file(paths[0]) as part:
        part.write_text(as_document(found), encoding="utf-8", errors="backslashreplace")
    write_json(paths[1], as_json(found), indent=1)
    with whole_file(paths[2]) as part, part.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(question_rows(found))
    return paths


def question_rows(found: Comparison) -> Iterator[list[Any]]:
    """A header, and a row for each common question; empty where nothing is known."""
    joined, answers = found.joined, found.answers
    columns: dict[str, Any] = {
        "question_id": joined.question_ids,
        **{name: joined.column(0, name) for name in ("image_id", "image_path", "question", "question_type")},
        "answer_type": answers.types,
        "ground_truth": answers.truths,
        "changed": _flags(members(answers, "changed")),
    }
    for run, label in enumerate(map(str.lower, joined.labels)):
        columns[f"answer_{label}"] = answers.given[run]
        columns[f"correct_{label}"] = _flags(answers.right[run], answers.known)
        columns[f"probability_{label}"] = _numbers(joined.column(run, "probability"))
    for pair in found.pairs:
        for one in pair.agreement:
            name = f"{one.kind}_correlation_a{joined.labels[pair.other].lower()}"
            columns[name] = _numbers(one.values)
    yield list(columns)
    yield from map(list, zip(*columns.values(), strict=True))


def _flags(values: np.ndarray, known: np.ndarray | None = None) -> list[str]:
    told = np.ones(len(values), bool) if known is None else known
    return [str(int(value)) if own else "" for value, own in zip(values, told, strict=True)]


def _numbers(values: np.ndarray) -> list[str]:
    return [f"{value:.4f}" if np.isfinite(value) else "" for value in values]
