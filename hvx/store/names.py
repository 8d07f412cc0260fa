"""Names of a run folder's files, and short names of run folders for figures, tables and pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DESCRIPTION, VIEW, FAILURES, RESULTS = "run.json", "explanations.h5", "failures.jsonl", "results.json"
_PLAIN_NAMES = ("run",)
"""Folder names that do not describe a run: the name of the parent folder is added."""


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest suffix of each path that no other path has; for ``…/daquar/run`` at least two parts."""
    parts = [path.resolve().parts[1:] for path in paths]
    short = []
    for index, path in enumerate(parts):
        others = parts[:index] + parts[index + 1 :]
        count = 2 if path[-1:] and path[-1] in _PLAIN_NAMES else 1
        while count < len(path) and any(other[-count:] == path[-count:] for other in others):
            count += 1
        short.append("/".join(path[-count:]))
    return short
