"""What a run was asked for: all that decides its items, and the versions that computed them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import h5py
import torch
import torchvision

from hvx import __version__
from hvx.errors import HvxError
from hvx.run.source import Source
from hvx.store.schema import run_digest

_DECISIVE = ("hvx", "torch")
"""Versions that every worker of a run shares."""


@dataclass(frozen=True)
class RunIdentity:
    """A run's identity, as run.json has it, and the versions of the process that gives out its work.

    ``source``: what explains, where it is no native checkpoint.
    """

    values: dict[str, Any]
    versions: dict[str, str]
    source: Source | None = None

    @property
    def digest(self) -> str:
        """What each of the run's files carries."""
        return run_digest(self.values)

    def check_versions(self) -> None:
        """Compare the versions here with those of the run; on another machine they may differ.

        Raises:
            HvxError: names the package.
        """
        here = versions()
        for name in _DECISIVE:
            if here[name] != self.versions[name]:
                raise HvxError(
                    f"a worker has {name} {here[name]}, the run {self.versions[name]}; "
                    "install the same version everywhere"
                )


def versions() -> dict[str, str]:
    """Of the packages that compute and store explanations, in this process."""
    return {
        "hvx": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "h5py": h5py.__version__,
    }
