"""Data as scripts: a page that was opened from a file may load scripts, but no JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

_HARMLESS = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}
"""What means something to HTML is written as JSON can write it too. All that is not ASCII is so already."""


def as_script(function: str, *arguments: Any) -> str:
    """A call of a function of the page with plain data; no text in it can end the script or begin another."""
    texts = (json.dumps(argument, allow_nan=False, separators=(",", ":")) for argument in arguments)
    return f"{function}({','.join(texts).translate(_HARMLESS)});\n"


def write_script(path: Path, function: str, *arguments: Any) -> None:
    """Write ``as_script`` to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_script(function, *arguments), encoding="ascii")


def number(value: float, digits: int = 4) -> float | None:
    """A number as JSON knows it: None for one that is no finite number."""
    return round(float(value), digits) if math.isfinite(value) else None
