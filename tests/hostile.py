"""What tests of readers of hostile files share: bytes damaged by chance, and a pickle that would do harm."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any


class Harm:
    """Unpickled freely, it would run a command."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder / 'harmed'}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, or a piece dropped, doubled or cut off."""
    broken = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(broken) or 1)
        match chance.randrange(4):
            case 0:
                broken[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del broken[at : at + chance.randint(1, 5)]
            case 2:
                broken[at:at] = broken[at : at + chance.randint(1, 9)]
            case 3:
                broken[at:at] = chance.choice(
                    [b"\x93", b"c", b"R", b"(", b"}", b"]", b"r\xff\xff\xff\xff", b"."]
                )
    return bytes(broken)
