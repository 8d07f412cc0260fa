"""Data as scripts: a page opened from a file can load scripts, but not JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

_HARMLESS = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}
"""HTML's special characters as JSON escapes. Non-ASCII characters are escaped anyway."""


def as_script(function: str, *arguments: Any) -> str:
    """A call of a function of the page with plain data; no text in it can close the script element."""
    texts = (json.dumps(argument, allow_nan=False, separators=(",", ":")) for argument in arguments)
    return f"{function}({','.join(texts).translate(_HARMLESS)});\n"


def write_script(path: Path, function: str, *arguments: Any) -> None:
    """Write ``as_script`` to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_script(function, *arguments), encoding="ascii")


def number(value: float, digits: int = 4) -> float | None:
    """A rounded number for JSON; None if it is not finite."""
    return round(float(value), digits) if math.isfinite(value) else None
