"""A run's identity: everything that determines its items, and the versions that computed them."""

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
    """A run's identity, as in run.json, and the versions of the process that distributes its work.

    ``source``: the model, where it is not a native checkpoint.
    """

    values: dict[str, Any]
    versions: dict[str, str]
    source: Source | None = None

    @property
    def digest(self) -> str:
        """The digest that is stored in each of the run's files."""
        return run_digest(self.values)

    def check_versions(self) -> None:
        """Compare this process's versions with the run's; on another machine they may differ.

        Raises:
            HvxError: names the package.
        """
        installed = versions()
        for name in _DECISIVE:
            if installed[name] != self.versions[name]:
                raise HvxError(
                    f"a worker has {name} {installed[name]}, the run {self.versions[name]}; "
                    "install the same version everywhere"
                )


def versions() -> dict[str, str]:
    """Versions of the packages that compute and store explanations, in this process."""
    return {
        "hvx": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "h5py": h5py.__version__,
    }
