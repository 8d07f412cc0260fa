"""The checks of a run over the built-in split: measured, required, ok."""

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
from hvx.data.objects import ObjectTable
from hvx.data.scenes import PARTS_OF_SPEECH
from hvx.errors import HvxError
from hvx.measure.agreement import pooled, rank_correlation
from hvx.measure.localization import points_inside
from hvx.measure.words import content_and_function, is_standardized, mean_z
from hvx.progress import bar
from hvx.store.reader import Item, RunReader
from hvx.table import table

SINGLE = ("attribute", "shape", "existence")
"""Kinds whose questions ask about one object at most."""
_WIDTH = 80
"""Characters of the longest line of the table and of its notes, where no terminal says another width."""


@dataclass(frozen=True)
class Check:
    """One line of the table.

    ``required`` is the least that passes; None: reported only. ``chance``: the chance level, if there is one.
    ``count``: questions that it is measured on.
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
    """What one pass over the run collects."""

    right: dict[str, list[bool]]
    truth: dict[str, list[str]]
    heat_hits: list[float]
    attention_hits: list[float]
    chance: list[float]
    agreement: list[float]
    words: list[tuple[list[str], list[float]]]


def check_run(reader: RunReader, split: SplitConfig) -> list[Check]:
    """The checks of the paper's two claims, on a run over the built-in split.

    Raises:
        HvxError: the split has no table of objects or masks, or the run is of another split.
    """
    tally = _collect(reader, split, ObjectTable(split))
    means = mean_z(tally.words, content_and_function(PARTS_OF_SPEECH))
    contrast = means["content"][0] - means["function"][0]
    good = [is_standardized(np.array(z)) for _, z in tally.words]
    single = [hit for kind in SINGLE for hit in tally.right.get(kind, [])]
    others = {kind: hits for kind, hits in tally.right.items() if kind not in SINGLE}
    aside = f"that of the attention maps is {np.mean(tally.attention_hits):.3f}"
    parts = ", ".join(
        f"{tag} {mean:+.2f}" for tag, (mean, _) in _by_mean(mean_z(tally.words, PARTS_OF_SPEECH))
    )
    agreement, hits = float(np.mean(tally.agreement)), float(np.mean(tally.heat_hits))
    single_chance, regions = _most_frequent(tally, SINGLE), float(np.mean(tally.chance))
    return [
        Check(f"accuracy: {', '.join(SINGLE)}", float(np.mean(single)), 0.97, len(single), "", single_chance),
        *(
            Check(f"accuracy: {kind}", float(np.mean(own)), None, len(own), "", _most_frequent(tally, [kind]))
            for kind, own in others.items()
        ),
        Check("pointing game: heat map", hits, 0.90, len(tally.heat_hits), aside, regions),
        Check("rank correlation: heat map, attention", agreement, 0.40, len(good), "", 0.0),
        Check("mean z: content less function words", contrast, 1.0, len(good), parts, 0.0),
        Check("questions with Σz = 0, Σz² = n − 1", float(np.mean(good)), 1.0, len(good)),
    ]


def _most_frequent(tally: _Tally, kinds: Iterable[str]) -> float:
    """The chance level of the accuracy: that of the most frequent answer to each kind of question."""
    truths = [tally.truth.get(kind, []) for kind in kinds]
    right = sum(max(Counter(own).values()) for own in truths if own)
    return right / max(1, sum(map(len, truths)))


def _collect(reader: RunReader, split: SplitConfig, table: ObjectTable) -> _Tally:
    tally = _Tally({}, {}, [], [], [], [], [])
    for number in bar(range(len(reader)), "measuring", "explanation"):
        item = reader[number]
        asked = table.asked.get(item.question_id)
        if asked is None:
            raise HvxError(
                f"{split.objects}: no question {item.question_id}, which {reader.path} explains; "
                "the run is of another split"
            )
        tally.right.setdefault(asked.kind, []).append(item.answer == item.ground_truth)
        tally.truth.setdefault(asked.kind, []).append(item.ground_truth)
        tally.words.append((item.tokens, item.token_z))
        summed = item.attention.sum(0)
        tally.agreement.append(rank_correlation(pooled(item.heatmap, summed.shape), summed))
        if asked.kind in SINGLE and asked.labels:
            _localize(tally, item, summed, np.isin(table.mask(item.image_id), asked.labels))
    return tally


def _localize(tally: _Tally, item: Item, summed: np.ndarray, inside: np.ndarray) -> None:
    tally.heat_hits.append(points_inside(item.heatmap, inside))
    tally.attention_hits.append(points_inside(summed, inside))
    tally.chance.append(float(inside.mean()))


def _by_mean(means: dict[str, tuple[float, int]]) -> list[tuple[str, tuple[float, int]]]:
    return sorted(means.items(), key=lambda row: -row[1][0])


def as_table(checks: Iterable[Check], markdown: bool | None = True) -> str:
    """The checks as a table, with their notes as lines under it; ``markdown`` as of ``hvx.table.table``.

    No line is longer than 80 characters, or than the terminal is wide.
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
    """A note in lines; a signed number stays with the word before it."""
    joined = re.sub(r" (?=[-+]\d)", "\N{NO-BREAK SPACE}", note)
    lines = textwrap.fill(joined, width, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def as_json(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """The checks as plain values."""
    return [{**asdict(check), "ok": check.ok} for check in checks]
