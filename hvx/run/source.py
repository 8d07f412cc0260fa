"""Sources of a run's explainer: a native checkpoint here; later stages define others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hvx.config import Config, ExplainConfig, ImageConfig
from hvx.errors import HvxError
from hvx.explain.explainer import Answered, Explainer
from hvx.files import sha256
from hvx.models.checkpoint import check_config, load_checkpoint
from hvx.models.header import read_header
from hvx.run.size import check_map_size, explanation_bytes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class SplitExplainer(Protocol):
    """Explains images and questions in a worker, on a device."""

    device: torch.device

    def memory(self) -> int:
        """About how many bytes explaining one image takes."""

    def explain(self, inputs: Tensor, images: list[int], questions: list[str]) -> Answered:
        """Explain questions on normalized images (B, C, H, W); ``images``: the image of each question.

        Raises:
            OutOfMemory: too many images for the device's memory.
        """


class Source(Protocol):
    """A model that can explain a split. It is small, and is sent to workers by pickling.

    Attributes:
        image: how a photograph becomes its input.
    """

    @property
    def image(self) -> ImageConfig: ...

    def identity(self) -> dict[str, Any]:
        """Everything that determines the items of a run, with digests of files; plain values, for run.json.

        Raises:
            HvxError: a file is missing, or not what the config says.
        """

    def check(self, identity: dict[str, Any]) -> None:
        """Check that the files match a run's identity.

        Raises:
            HvxError: one was replaced.
        """

    def load(self, device: torch.device) -> SplitExplainer:
        """Raises:
        HvxError: the model cannot be loaded, or cannot be explained.
        """

    def item_bytes(self) -> int:
        """About how many bytes a run stores for each explanation."""

    def versions(self) -> dict[str, str]:
        """Versions of further packages that compute explanations."""

    def facts(self) -> dict[str, Any]:
        """The lines that `hvx check` prints about it, by name.

        Raises:
            HvxError: as ``identity``.
        """

    def notes(self) -> list[str]:
        """Messages for the user before the run begins, a line each."""


@dataclass(frozen=True)
class CheckpointSource:
    """The native checkpoint that a config names."""

    config: Config

    @property
    def image(self) -> ImageConfig:
        return read_header(self._path).config.image

    @property
    def has_product(self) -> bool:
        """Whether its network has a Hadamard product, so that the run has heat maps."""
        return read_header(self._path).config.has_product

    @property
    def _path(self) -> Path:
        return self.config.path(self.config.checkpoint)

    def identity(self) -> dict[str, Any]:
        if not self._path.is_file():
            raise HvxError(f"{self._path}: no such checkpoint")
        assert self.config.explain is not None
        if self.config.explain.cotangent != "joint":
            raise HvxError("explain.cotangent: 'score' is for dual encoders, whose score is ΣF")
        if self.config.split(self.config.explain.split).labels is not None:
            name = self.config.explain.split
            raise HvxError(
                f"splits.{name}.labels: for dual encoders (model.network: open_clip, transformers)"
            )
        # The header is read after the digest is taken, and workers take the digest again after they have
        # loaded the model: a file that was replaced meanwhile is rejected.
        digest = sha256(self._path)
        header = read_header(self._path)
        check_config(header.config, self.config, self._path)
        check_map_size(header.config, self.config.explain, self._path)
        if not header.config.has_product:
            _check_no_map_options(self.config.explain, header.config.network)
        return {"checkpoint_sha256": digest}

    def check(self, identity: dict[str, Any]) -> None:
        if sha256(self._path) != identity["checkpoint_sha256"]:
            raise HvxError(
                f"{self._path}: replaced since this run began; restore it, or give explain.run a new folder"
            )
        check_config(read_header(self._path).config, self.config, self._path)

    def load(self, device: torch.device) -> SplitExplainer:
        explain = self.config.explain
        assert explain is not None
        model = load_checkpoint(self._path, device)
        free = explain.product == "free"
        return Explainer(model, explain.gradient, DTYPES[explain.precision], explain.compile, free)

    def item_bytes(self) -> int:
        assert self.config.explain is not None
        return explanation_bytes(read_header(self._path).config, self.config.explain)

    def versions(self) -> dict[str, str]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {"file": str(self._path)}

    def notes(self) -> list[str]:
        network = read_header(self._path).config
        if network.has_product:
            return []
        return [f"{self._path}: {network.network} has no Hadamard product: no heat maps, no z-scores"]


def _check_no_map_options(explain: ExplainConfig, network: str) -> None:
    """Refuse options of heat maps for a network that has none.

    Raises:
        HvxError: names the key.
    """
    plain = ExplainConfig(run=explain.run)
    for key in ("heatmap", "gradient", "product"):
        if getattr(explain, key) != getattr(plain, key):
            raise HvxError(f"explain.{key}: the network {network} has no Hadamard product, and no heat maps")
