"""The z-scores of tokens in the paper's figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True)
class PrintedRow:
    """A question of the paper's Figures 2-5: its tokens, their parts of speech, their z-scores."""

    figure: int
    tokens: tuple[str, ...]
    part_of_speech: tuple[str, ...]
    z: tuple[float, ...]


@lru_cache(maxsize=1)
def printed_rows() -> tuple[PrintedRow, ...]:
    """All twelve questions, from ``printed_z.json``, which names its source."""
    tree = json.loads((files("hvx.measure.report") / "printed_z.json").read_text(encoding="utf-8"))
    return tuple(
        PrintedRow(row["figure"], tuple(row["tokens"]), tuple(row["part_of_speech"]), tuple(row["z"]))
        for row in tree["rows"]
    )
