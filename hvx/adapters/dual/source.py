"""A dual encoder as the source of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hvx.adapters.dual import huggingface, open_clip_model
from hvx.adapters.dual.encoder import DualEncoder
from hvx.adapters.dual.explainer import DualExplainer
from hvx.adapters.dual.extra import RANDOM
from hvx.adapters.dual.labels import Labels
from hvx.config import Config, ExplainConfig, ImageConfig, SplitConfig
from hvx.data.labels import label_names
from hvx.errors import HvxError
from hvx.files import sha256
from hvx.run.source import Source, SplitExplainer

_PACKAGES = {"open_clip": ("open_clip_torch", "timm"), "transformers": ("transformers",)}
_TEXTS = 2_500
"""Bytes of an explanation's texts and scores, as in ``hvx.run.size``."""


@dataclass(frozen=True)
class DualSource:
    """The dual encoder that a config's ``model`` describes: see ``hvx.run.source.Source``.

    Args:
        config: the whole tree, with ``explain`` and an absolute root.
    """

    config: Config

    def __reduce__(self) -> Any:
        """Pickle without the source: another machine has the files in other places."""
        return DualSource, (self.config,)

    @property
    def _explain(self) -> ExplainConfig:
        assert self.config.explain is not None
        return self.config.explain

    @property
    def _split(self) -> SplitConfig:
        return self.config.split(self._explain.split)

    @cached_property
    def _source(self) -> open_clip_model.OpenClipSource | huggingface.HuggingFaceSource:
        """The model that the config names, on this machine."""
        model, root = self.config.dual_encoder, self.config.path(Path())
        assert model is not None
        if model.network == "open_clip":
            return open_clip_model.find(model.name, model.pretrained, root)
        return huggingface.find(model.name, root)

    @property
    def image(self) -> ImageConfig:
        return self._source.image

    @property
    def _random(self) -> bool:
        model = self.config.dual_encoder
        return model is not None and model.pretrained == RANDOM

    def identity(self) -> dict[str, Any]:
        """The network, the digests of its files, and all settings that affect the explanations."""
        self._check_options()
        model, labels = self.config.dual_encoder, label_names(self._split)
        assert model is not None
        return {
            "network": model.network,
            "name": model.name,
            "weights": self._digests(),
            "image": self.image.model_dump(mode="json"),
            "random_seed": self.config.seed if self._random else None,
            "cotangent": self._explain.cotangent,
            "labels": None if labels is None else list(labels),
            "template": None if labels is None else self._split.template,
        }

    def _digests(self) -> dict[str, str]:
        return {path.name: sha256(path) for path in self._source.files}

    def _check_options(self) -> None:
        """Refuse options for hvx's own networks."""
        explain = self._explain
        if explain.precision != "float32":
            raise HvxError("explain.precision: a dual encoder is explained in float32")
        if explain.compile:
            raise HvxError("explain.compile: for hvx's own networks")
        if explain.product == "free" and explain.cotangent == "score":
            raise HvxError("explain.product: free moves F in V − F; the score's cotangent has no F")

    def check(self, identity: dict[str, Any]) -> None:
        digests = self._digests()
        for name, digest in identity["weights"].items():
            if digests.get(name) != digest:
                raise HvxError(
                    f"{name} of {identity['name']}: replaced since this run began, or another here; "
                    "restore it, or give explain.run a new folder"
                )

    def encoder(self, device: torch.device) -> DualEncoder:
        """The towers, on a device.

        Raises:
            HvxError: as ``load``.
        """
        source = self._source
        if isinstance(source, open_clip_model.OpenClipSource):
            return open_clip_model.load(source, self.config.seed, device)
        return huggingface.load(source, device)

    def load(self, device: torch.device) -> SplitExplainer:
        encoder, explain, names = self.encoder(device), self._explain, label_names(self._split)
        _check_map(encoder, explain)
        labels = None if names is None else Labels.of(encoder, names, self._split.template)
        free = explain.product == "free"
        return DualExplainer(encoder, labels, explain.cotangent, free, explain.gradient)

    def item_bytes(self) -> int:
        side = self._explain.heatmap.size or self.image.size
        gradient = 2 * 3 * self.image.size**2 if self._explain.gradient else 0
        return side**2 * (1 if self._explain.heatmap.dtype == "uint8" else 2) + gradient + _TEXTS

    def versions(self) -> dict[str, str]:
        model, versions = self.config.dual_encoder, {}
        assert model is not None
        for name in _PACKAGES[model.network]:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
        return versions

    def facts(self) -> dict[str, Any]:
        identity = self.identity()
        labels = identity["labels"]
        return {
            "network": identity["network"],
            "name": identity["name"],
            "weights": ", ".join(map(str, self._source.files)) or RANDOM,
            "image size": self.image.size,
            "cotangent": identity["cotangent"],
            "labels": "none: captions" if labels is None else len(labels),
        }

    def notes(self) -> list[str]:
        model = self.config.dual_encoder
        assert model is not None
        if not self._random:
            return []
        return [f"model.pretrained: {model.name} has random weights: its explanations say nothing"]


def source_of(config: Config) -> Source | None:
    """The source for a config's split if its model is a dual encoder, else None."""
    if config.dual_encoder is None:
        return None
    return DualSource(config.model_copy(update={"root": config.path(Path()).absolute()}))


def _check_map(encoder: DualEncoder, explain: ExplainConfig) -> None:
    """Refuse a size of stored maps that does not divide the encoder's, and gradients at patches.

    Raises:
        HvxError: names valid sizes, or the option to leave out.
    """
    size = encoder.image.size
    shape: tuple[int, ...] = (size, size)
    if encoder.patches is not None:
        if explain.gradient:
            raise HvxError(
                f"explain.gradient: {encoder.name} is explained at its patches, which have no color channels"
            )
        with torch.no_grad():
            shape = encoder.patches(torch.zeros(1, 3, size, size, device=encoder.device)).shape[-2:]
    side = explain.heatmap.size
    if side is not None and any(length % side for length in shape):
        divisors = [length for length in range(1, shape[0] + 1) if shape[0] % length == 0][-6:]
        raise HvxError(
            f"explain.heatmap.size: expected a divisor of {shape[0]}, the side of {encoder.name}'s maps, "
            f"such as {', '.join(map(str, divisors))}; not {side}"
        )
