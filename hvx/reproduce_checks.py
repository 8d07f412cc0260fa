"""The checks of a run over the synthetic dataset: measured, required, ok."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hvx.config import SplitConfig
from hvx.data.object_masks import ObjectTable
from hvx.data.scenes import PARTS_OF_SPEECH
from hvx.errors import HvxError
from hvx.measure.metrics.agreement import pooled, rank_correlation
from hvx.measure.metrics.localization import points_inside
from hvx.measure.metrics.words import content_and_function, is_standardized, mean_z
from hvx.progress import bar
from hvx.store.reader import Item, RunReader
from hvx.table import table

SINGLE = ("attribute", "shape", "existence")
"""Kinds of questions that ask about at most one object."""
_WIDTH = 80
"""Largest line width of the table and its notes, in characters, without a terminal."""


@dataclass(frozen=True)
class Check:
    """One line of the table.

    ``required`` is the smallest value that passes; None: reported only. ``chance``: the chance level, if
    there is one. ``count``: the number of questions.
    """

    name: str
    measured: float
    required: float | None
    count: int
    note: str = ""
    chance: float | None = None

    @property
    def ok(self) -> bool:
        return self.required is None or bool(self.measured >= self.required)


@dataclass
class _Tally:
    """Values collected in one pass over the run."""

    right: dict[str, list[bool]]
    truth: dict[str, list[str]]
    heat_hits: list[float]
    attention_hits: list[float]
    chance: list[float]
    agreement: list[float]
    words: list[tuple[list[str], list[float]]]


def check_run(reader: RunReader, split: SplitConfig) -> list[Check]:
    """The checks of the paper's two claims, on a run over the synthetic dataset.

    Raises:
        HvxError: the split has no table of objects or masks, or the run is of another split.
    """
    tally = _collect(reader, split, ObjectTable(split))
    means = mean_z(tally.words, content_and_function(PARTS_OF_SPEECH))
    contrast = means["content"][0] - means["function"][0]
    standardized = [is_standardized(np.array(z)) for _, z in tally.words]
    single = [hit for kind in SINGLE for hit in tally.right.get(kind, [])]
    others = {kind: hits for kind, hits in tally.right.items() if kind not in SINGLE}
    attention_note = f"that of the attention maps is {np.mean(tally.attention_hits):.3f}"
    z_note = ", ".join(
        f"{tag} {mean:+.2f}" for tag, (mean, _) in _by_mean(mean_z(tally.words, PARTS_OF_SPEECH))
    )
    agreement, hits = float(np.mean(tally.agreement)), float(np.mean(tally.heat_hits))
    single_chance, regions = _most_frequent(tally, SINGLE), float(np.mean(tally.chance))
    return [
        Check(f"accuracy: {', '.join(SINGLE)}", float(np.mean(single)), 0.97, len(single), "", single_chance),
        *(
            Check(
                f"accuracy: {kind}",
                float(np.mean(right)),
                None,
                len(right),
                "",
                _most_frequent(tally, [kind]),
            )
            for kind, right in others.items()
        ),
        Check("pointing game: heat map", hits, 0.90, len(tally.heat_hits), attention_note, regions),
        Check("rank correlation: heat map, attention", agreement, 0.40, len(standardized), "", 0.0),
        Check("mean z: content less function words", contrast, 1.0, len(standardized), z_note, 0.0),
        Check("questions with Σz = 0, Σz² = n − 1", float(np.mean(standardized)), 1.0, len(standardized)),
    ]


def _most_frequent(tally: _Tally, kinds: Iterable[str]) -> float:
    """The chance level of the accuracy: always the most frequent answer to each kind of question."""
    truths = [tally.truth.get(kind, []) for kind in kinds]
    right = sum(max(Counter(truth).values()) for truth in truths if truth)
    return right / max(1, sum(map(len, truths)))


def _collect(reader: RunReader, split: SplitConfig, table: ObjectTable) -> _Tally:
    tally = _Tally({}, {}, [], [], [], [], [])
    for number in bar(range(len(reader)), "measuring", "explanation"):
        item = reader[number]
        target = table.asked.get(item.question_id)
        if target is None:
            raise HvxError(
                f"{split.objects}: no question {item.question_id}, which {reader.path} explains; "
                "the run is of another split"
            )
        tally.right.setdefault(target.kind, []).append(item.answer == item.ground_truth)
        tally.truth.setdefault(target.kind, []).append(item.ground_truth)
        tally.words.append((item.tokens, item.token_z))
        summed = item.attention.sum(0)
        tally.agreement.append(rank_correlation(pooled(item.heatmap, summed.shape), summed))
        if target.kind in SINGLE and target.labels:
            _localize(tally, item, summed, np.isin(table.mask(item.image_id), target.labels))
    return tally


def _localize(tally: _Tally, item: Item, summed: np.ndarray, inside: np.ndarray) -> None:
    tally.heat_hits.append(points_inside(item.heatmap, inside))
    tally.attention_hits.append(points_inside(summed, inside))
    tally.chance.append(float(inside.mean()))


def _by_mean(means: dict[str, tuple[float, int]]) -> list[tuple[str, tuple[float, int]]]:
    return sorted(means.items(), key=lambda row: -row[1][0])


def as_table(checks: Iterable[Check], markdown: bool | None = True) -> str:
    """The checks as a table, with their notes as lines under it; ``markdown`` as of ``hvx.table.table``.

    No line is longer than 80 characters, or than the width of the terminal.
    """
    checks = list(checks)
    rows = []
    for check in checks:
        required = "reported" if check.required is None else f"≥ {check.required:.2f}"
        verdict = "" if check.required is None else ("yes" if check.ok else "NO")
        chance = "" if check.chance is None else f"{check.chance:.3f}"
        rows.append((check.name, f"{check.measured:.3f}", chance, required, verdict, f"{check.count:,}"))
    parts = [table(("check", "measured", "chance", "required", "ok", "n"), rows, markdown=markdown)]
    terminal = markdown is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else _WIDTH
    notes = [f"{check.name}: {check.note}" for check in checks if check.note]
    return "\n\n".join([*parts, *(_wrapped(note, width) for note in notes)])


def _wrapped(note: str, width: int) -> str:
    """A note, wrapped; a signed number stays on the line of the word before it."""
    text = re.sub(r" (?=[-+]\d)", "\N{NO-BREAK SPACE}", note)
    lines = textwrap.fill(text, width, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def as_json(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """The checks as plain values."""
    return [{**asdict(check), "ok": check.ok} for check in checks]
