"""Short names of run folders, for figures, tables and pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_PLAIN_NAMES = ("run",)
"""Folder names that say nothing of a run: the folder around it is named too."""


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
