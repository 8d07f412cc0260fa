"""Progress bars: on stderr, for what takes more than two seconds, and only on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from hvx.terminal import safe

Item = TypeVar("Item")
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Switch all bars off (``--quiet``) or back on."""
    global _quiet
    _quiet = quiet


def bar(items: Iterable[Item], label: str, unit: str = "it", total: int | None = None) -> Iterator[Item]:
    """``items``, with a bar called ``label`` that shows after two seconds."""
    # disable=None: tqdm stays silent where stderr is no terminal.
    yield from tqdm(items, desc=safe(label), unit=unit, total=total, delay=2, disable=_quiet or None)
