"""Checks device names without PyTorch, which takes seconds to import."""

from __future__ import annotations

import re

from hvx.errors import HvxError

_NAME = re.compile("auto|cpu|cuda(?::(0|[1-9][0-9]*))?")


def check_device_name(name: str) -> int | None:
    """The number in ``cuda:i``, 0 for ``cuda``; None for ``auto`` and ``cpu``.

    Raises:
        HvxError: another name.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise HvxError(f"--device {name}: expected auto, cpu, cuda or cuda:i")
    return int(match[1] or 0) if name.startswith("cuda") else None
