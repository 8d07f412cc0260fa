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
from hvx.files import atomic_write, write_json
from hvx.measure.metrics.bootstrap import DRAWS, LEVEL, Estimate
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


def as_document(comparison: Comparison, width: int | None = None) -> str:
    """The whole report.

    Args:
        comparison: of the runs.
        width: columns of a terminal; None: as Markdown.
    """
    plain = width is not None

    def as_text(data: _Table) -> str:
        return table(*data, markdown=width is None, width=width)

    def heading(text: str) -> str:
        return f"{text}\n{'=' * len(text)}" if plain else f"## {text}"

    def prose(text: str, mark: str = "") -> str:
        if width is None:
            return mark + text
        return textwrap.fill(text, width, initial_indent=mark, subsequent_indent=" " * len(mark))

    parts = [] if plain else ["# Runs side by side"]
    parts += [as_text(_runs(comparison)), prose(_common(comparison))]
    parts += [heading(f"Accuracy ({METRIC})"), as_text(_accuracy(comparison))]
    for pair in comparison.pairs:
        label = comparison.joined.labels[pair.other]
        parts += [heading(f"Answers of A and {label}"), as_text(_answers(comparison, pair.other))]
    for pair in comparison.pairs:
        label = comparison.joined.labels[pair.other]
        parts += [heading(f"Rank correlation of A and {label}"), as_text(_agreement(pair))]
    notes = [*comparison.joined.notes, *_notes(comparison)]
    parts += [prose(_READING), "\n".join(prose(note, "- ") for note in notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _runs(comparison: Comparison) -> _Table:
    joined = comparison.joined
    rows: list[tuple[str, ...]] = [
        (label, name, f"{len(run):,}")
        for label, name, run in zip(joined.labels, joined.names, joined.runs, strict=True)
    ]
    return ("", "run", "explanations"), rows


def _common(comparison: Comparison) -> str:
    count, images = len(comparison.joined), len(np.unique(comparison.joined.images))
    return (
        f"In common: {count:,} question{'s' * (count > 1)} on {images:,} image{'s' * (images > 1)}; only "
        f"these count. Intervals: {LEVEL:.0%}, bootstrap over images, {DRAWS:,} draws "
        f"(seed {comparison.seed})."
    )


def _accuracy(comparison: Comparison) -> _Table:
    labels = comparison.joined.labels
    rows: list[tuple[str, ...]] = [
        (label, name, *_cells(accuracy))
        for label, name, accuracy in zip(labels, comparison.joined.names, comparison.accuracies, strict=True)
    ]
    rows += [
        (f"{labels[pair.other]} − A", "difference", *_cells(pair.accuracy, signed=True))
        for pair in comparison.pairs
    ]
    return ("", "run", "accuracy", "interval", "n"), rows


def _cells(mean: Estimate, signed: bool = False) -> tuple[str, str, str]:
    """A mean, its interval and n."""
    if not mean.known:
        return "none", "", "0"
    low, high = (_number(value, signed) for value in (mean.low, mean.high))
    interval = f"{low} … {high}" if mean.bounded else "(one image)"
    return _number(mean.value, signed), interval, f"{mean.n:,}"


def _number(value: float, signed: bool) -> str:
    """Three decimals; a number that rounds to 0 has no sign."""
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.lstrip("+-") if float(text) == 0 else text


def answer_counts(comparison: Comparison, other: int, among: np.ndarray) -> dict[str, int]:
    """Counts of the questions in ``among`` (n) by the answers of A and another run."""
    same, known = comparison.answers.same[other], comparison.answers.known
    first, second = comparison.answers.right[0], comparison.answers.right[other]
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


def _by_type(comparison: Comparison, other: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Counts of each answer type, the most frequent first; empty if no type is known."""
    types = comparison.answers.types.astype(str)
    names, counts = np.unique(types, return_counts=True)
    if list(names) == [""]:
        return
    for index in np.argsort(-counts, kind="stable"):
        yield names[index] or _UNTYPED, answer_counts(comparison, other, types == names[index])


def _answers(comparison: Comparison, other: int) -> _Table:
    label = comparison.joined.labels[other]
    total = answer_counts(comparison, other, np.ones(len(comparison.joined), bool))
    rows = [("all", total), *_by_type(comparison, other)]
    unknown = any(counts["unknown"] for _, counts in rows)
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
    return tuple(header), [(name, *(f"{counts[key]:,}" for key in keys)) for name, counts in rows]


def _agreement(pair: Pair) -> _Table:
    rows: list[tuple[str, ...]] = []
    for agreement in pair.agreement:
        grid = f" {agreement.grid[0]}×{agreement.grid[1]}" if agreement.grid else ""
        title = KINDS[agreement.kind] + grid
        if agreement.none:
            rows.append((title, "", "none", "", "0"))
            continue
        for name, label in _CONTROLS.items():
            cells = _cells(getattr(agreement, name), signed=name == "above")
            rows.append((title if name == "same" else "", label, *cells))
    return ("", "with", "mean", "interval", "n"), rows


def _notes(comparison: Comparison) -> list[str]:
    """What was left out, with reasons."""
    notes = []
    answers, labels = comparison.answers, comparison.joined.labels
    if answers.disputed:
        notes.append(
            f"the ground truth of {answers.disputed:,} question(s) differs between the runs and counts as "
            "unknown"
        )
    unknown = int((~answers.known).sum())
    if unknown:
        notes.append(f"accuracy leaves out {unknown:,} question(s) without a known ground truth")
    for pair in comparison.pairs:
        for agreement in pair.agreement:
            subject = f"{KINDS[agreement.kind]}, A and {labels[pair.other]}"
            if agreement.none:
                notes.append(f"{subject}: none ({agreement.none})")
            else:
                notes += [
                    f"{subject}: left out {n:,} question(s) with {why}"
                    for why, n in agreement.left_out.items()
                ]
    return notes


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All results as plain values; unknown values are null."""
    joined = comparison.joined
    runs = zip(joined.labels, joined.names, joined.runs, comparison.accuracies, strict=True)
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
        "seed": comparison.seed,
        "groups": {choice: int(members(comparison.answers, choice).sum()) for choice in choices(joined)},
        "pairs": [
            {
                "a": joined.labels[0],
                "b": joined.labels[pair.other],
                "accuracy_difference": _estimate(pair.accuracy),
                "answers": answer_counts(comparison, pair.other, np.ones(len(joined), bool)),
                "answers_by_type": dict(_by_type(comparison, pair.other)),
                "rank_correlation": {
                    agreement.kind: _agreement_json(agreement) for agreement in pair.agreement
                },
            }
            for pair in comparison.pairs
        ],
        "notes": [*joined.notes, *_notes(comparison)],
    }


def _agreement_json(agreement: Agreement) -> dict[str, Any]:
    return {
        "grid": list(agreement.grid) if agreement.grid else None,
        "same_question": _estimate(agreement.same),
        "another_question_same_image": _estimate(agreement.other_question),
        "same_less_another_question": _estimate(agreement.above),
        "another_image": _estimate(agreement.other_image),
        "left_out": agreement.left_out,
        "none": agreement.none,
    }


def _estimate(estimate: Estimate) -> dict[str, Any] | None:
    if not estimate.known:
        return None
    low, high = (estimate.low, estimate.high) if estimate.bounded else (None, None)
    return {"mean": estimate.value, "low": low, "high": high, "n": estimate.n}


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``compare.md``, ``compare.json`` and ``questions.csv``, each atomically.

    Returns:
        The files.

    Raises:
        HvxError: one cannot be written.
    """
    paths = [folder / name for name in ("compare.md", "compare.json", "questions.csv")]
    with atomic_write(paths[0]) as part:
        part.write_text(as_document(comparison), encoding="utf-8", errors="backslashreplace")
    write_json(paths[1], as_json(comparison), indent=1)
    with atomic_write(paths[2]) as part, part.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(question_rows(comparison))
    return paths


def question_rows(comparison: Comparison) -> Iterator[list[Any]]:
    """A header, and a row for each common question; unknown values are empty."""
    joined, answers = comparison.joined, comparison.answers
    columns: dict[str, Any] = {
        "question_id": joined.question_ids,
        **{name: joined.column(0, name) for name in ("image_id", "image_path", "question", "question_type")},
        "answer_type": answers.types,
        "ground_truth": answers.truths,
        "changed": _flags(members(answers, "changed")),
    }
    for run, label in enumerate(map(str.lower, joined.labels)):
        columns[f"answer_{label}"] = answers.texts[run]
        columns[f"correct_{label}"] = _flags(answers.right[run], answers.known)
        columns[f"probability_{label}"] = _numbers(joined.column(run, "probability"))
    for pair in comparison.pairs:
        for agreement in pair.agreement:
            name = f"{agreement.kind}_correlation_a{joined.labels[pair.other].lower()}"
            columns[name] = _numbers(agreement.values)
    yield list(columns)
    yield from map(list, zip(*columns.values(), strict=True))


def _flags(values: np.ndarray, known: np.ndarray | None = None) -> list[str]:
    is_known = np.ones(len(values), bool) if known is None else known
    return [str(int(value)) if is_shown else "" for value, is_shown in zip(values, is_known, strict=True)]


def _numbers(values: np.ndarray) -> list[str]:
    return [f"{value:.4f}" if np.isfinite(value) else "" for value in values]
