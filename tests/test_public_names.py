"""What `import hvx` offers: every name is there, documented, and shows itself in a line."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

import hvx

NAMES = [name for name in hvx.__all__ if name != "__version__"]


def documented(thing: Any) -> list[tuple[str, Any]]:
    """A public thing and, of a class, its public methods and properties, by name."""
    found = [(thing.__name__, thing)]
    if inspect.isclass(thing) and not issubclass(thing, Exception):
        for name, value in vars(thing).items():
            if not name.startswith("_") and (callable(value) or isinstance(value, property)):
                found.append((f"{thing.__name__}.{name}", value))
    return found


PARTS = [part for name in NAMES for part in documented(getattr(hvx, name))]


def test_names_are_sorted_and_all_can_be_had() -> None:
    assert hvx.__all__ == sorted(hvx.__all__)
    assert set(hvx.__all__) - {"__version__"} == set(hvx._HOMES) <= set(dir(hvx))


@pytest.mark.parametrize(("name", "thing"), PARTS, ids=[name for name, _ in PARTS])
def test_each_has_a_docstring_that_names_its_arguments(name: str, thing: Any) -> None:
    text = inspect.getdoc(thing) or ""
    assert text and text.splitlines()[0].endswith((".", ":", "``")), name
    if dataclasses.is_dataclass(thing):
        names = [field.name for field in dataclasses.fields(thing) if not field.name.startswith("_")]
    elif inspect.isfunction(thing):
        names = [one for one in inspect.signature(thing).parameters if one != "self"]
    else:
        return
    if "arguments" in text.lower() or "Made by" in text or len(names) < 2:  # told otherwise
        return
    missing = [own for own in names if not re.search(rf"\b{own}\b", text)]
    assert not missing, f"{name}: says nothing of {missing}"
