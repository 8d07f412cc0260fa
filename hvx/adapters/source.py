"""A user's module as the source of a run, and the choice of a source from a command's arguments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hvx.adapters.adapter import Adapter
from hvx.adapters.dual.source import source_of as dual_source_of
from hvx.adapters.explainer import AdapterExplainer
from hvx.adapters.framing import check_framing
from hvx.adapters.user_code import UserCode
from hvx.config import Config, ExplainConfig, ImageConfig, checked
from hvx.data.image_files import image_path
from hvx.data.images import load_input
from hvx.data.questions import Question, read_questions
from hvx.errors import BadImage, HvxError
from hvx.files import read_json
from hvx.run.source import Source, SplitExplainer
from hvx.store.names import DESCRIPTION
from hvx.terminal import echo

_TRIALS = 4
"""Number of questions that a module is tested with before a run."""
_TEXTS = 2_500
"""Bytes of an explanation's texts and scores, as in ``hvx.run.size``."""


@dataclass(frozen=True)
class AdapterSource:
    """A module that a user's function returns: see ``hvx.run.source.Source``.

    Args:
        config: the whole tree, with ``explain`` and an absolute root.
        code: the function.
    """

    config: Config
    code: UserCode

    def __reduce__(self) -> Any:
        """Pickle without the module: each worker runs the user's file and compares its digest."""
        return AdapterSource, (self.config, self.code)

    @property
    def _explain(self) -> ExplainConfig:
        assert self.config.explain is not None
        return self.config.explain

    @cached_property
    def _loaded(self) -> tuple[Adapter, dict[str, str]]:
        """The adapter, and the digests of code and weights."""
        adapter, digest = self.code.loaded(self.config.seed)
        return adapter, {"model_code_sha256": digest, "model_weights_sha256": _digest(adapter)}

    @cached_property
    def image(self) -> ImageConfig:
        adapter, _ = self._loaded
        values: dict[str, Any] = {"size": adapter.size, "interpolation": adapter.interpolation}
        if adapter.prepare is None:
            values |= {"mean": adapter.mean, "std": adapter.std}
        else:  # the user's function gets the pixels
            values |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        return checked(ImageConfig, values, self.code.name)

    def identity(self) -> dict[str, Any]:
        """Names of file and function, digests of code and weights, and all other settings that matter."""
        self._check_options()
        return {
            "model_file": self.code.file.name,
            "model_function": self.code.function,
            **self._loaded[1],
            "image": self.image.model_dump(mode="json"),
            "cotangent": self._explain.cotangent,
        }

    def _check_options(self) -> None:
        """Refuse options for hvx's own networks."""
        explain = self._explain
        if explain.precision != "float32":
            raise HvxError("explain.precision: a module of one's own (--model) runs as it is; leave it out")
        if explain.compile:
            raise HvxError("explain.compile: for hvx's own networks, not for --model")
        if explain.product != "constant":
            raise HvxError("explain.product: free is for hvx's own networks, not for --model")
        if self.config.split(explain.split).labels is not None:
            raise HvxError(
                f"splits.{explain.split}.labels: for dual encoders (model.network: open_clip, transformers)"
            )

    def check(self, identity: dict[str, Any]) -> None:
        for key, part in (("model_code_sha256", "its code"), ("model_weights_sha256", "its weights")):
            if self._loaded[1][key] != identity[key]:
                raise HvxError(
                    f"{self.code.name}: {part} changed since this run began, or differs here; restore it, or "
                    "give explain.run a new folder"
                )

    def load(self, device: torch.device) -> SplitExplainer:
        explainer = AdapterExplainer(
            self._loaded[0], self.code, device, self._explain.cotangent, self._explain.gradient
        )
        if explainer.adapter.prepare is not None:
            with self.code.told():
                check_framing(explainer.adapter.prepare, self.image)
        shape, messages = explainer.check(*self._trial_inputs())
        for message in messages:
            echo(f"{self.code.name}: {message}", err=True)
        self._check_map(shape)
        return explainer

    def _trial_inputs(self) -> tuple[Tensor, list[str]]:
        """Two images and some questions of the split, of different lengths if possible."""
        split = self.config.split(self._explain.split)
        questions = read_questions(split, extract=False)
        by_length: dict[int, Question] = {}
        for question in questions:
            if question.question.split():
                by_length.setdefault(len(question.question.split()), question)
        chosen = list(by_length.values())[:_TRIALS] or questions[:1]
        chosen += [question for question in questions if question not in chosen][: _TRIALS - len(chosen)]
        images: list[Tensor] = []
        for name in dict.fromkeys(question.image for question in questions[:200]):
            try:
                images.append(load_input(image_path(split, name), self.image, split.exif_orientation))
            except BadImage:
                continue
            if len(images) == 2:
                break
        generator = torch.Generator().manual_seed(0)
        while len(images) < 2:  # a split whose first images cannot be read
            images.append(torch.rand(3, self.image.size, self.image.size, generator=generator))
        return torch.stack(images), [question.question for question in chosen]

    def _check_map(self, shape: tuple[int, int]) -> None:
        """Refuse a size of stored maps that does not divide the module's.

        Raises:
            HvxError: names valid sizes.
        """
        side = self._explain.heatmap.size
        if side is None or (side <= min(shape) and not any(length % side for length in shape)):
            return
        divisors = [length for length in range(1, shape[0] + 1) if shape[0] % length == 0][-6:]
        raise HvxError(
            f"explain.heatmap.size: expected a divisor of {shape[0]}, the side of the maps of "
            f"{self.code.name}, such as {', '.join(map(str, divisors))}; not {side}"
        )

    def item_bytes(self) -> int:
        side = self._explain.heatmap.size or self.image.size
        gradient = 2 * 3 * self.image.size**2 if self._explain.gradient else 0
        return side**2 * (1 if self._explain.heatmap.dtype == "uint8" else 2) + gradient + _TEXTS

    def versions(self) -> dict[str, str]:
        return {}

    def facts(self) -> dict[str, Any]:
        adapter, digests = self._loaded
        weights = sum(weight.numel() for weight in adapter.owner.parameters())
        return {
            "function": self.code.name,
            "code sha256": digests["model_code_sha256"],
            "module": type(adapter.owner).__name__,
            "parameters": weights,
            "image size": self.image.size,
            "output": adapter.output,
            "answers": "none" if adapter.answers is None else len(adapter.answers),
        }

    def notes(self) -> list[str]:
        return []


def source_for(config: Config, model: str | None) -> Source | None:
    """The source for a config's split: ``--model``, a dual encoder, or (None) the config's checkpoint.

    Raises:
        HvxError: ``--model`` names no function in a file, or is missing, or does not apply to the config.
    """
    if model is None:
        _reject_run_of_a_module(config)
        return dual_source_of(config)
    if config.dual_encoder is not None:
        raise HvxError(
            f"--model {model}: the config's model is a dual encoder ({config.dual_encoder.network}); leave "
            "one of the two out"
        )
    if config.explain is None:
        raise HvxError("config: key 'explain' is missing; it names the run folder (explain.run)")
    rooted = config.model_copy(update={"root": config.path(Path()).absolute()})
    return AdapterSource(rooted, UserCode.parsed(model))


def _reject_run_of_a_module(config: Config) -> None:
    """Refuse to resume a run of ``--model`` without ``--model``: a run directory never says what code runs.

    Raises:
        HvxError: says what to pass.
    """
    run = config.path(config.explain.run) if config.explain else None
    if run is None or not (run / DESCRIPTION).is_file():
        return
    about = read_json(run / DESCRIPTION, "a run folder's description")
    identity = about.get("identity") if isinstance(about, dict) else None
    if isinstance(identity, dict) and "model_file" in identity:
        name = f"{identity['model_file']}:{identity.get('model_function')}"
        raise HvxError(
            f"{run}: a run of a module of one's own ({name!s:.200}); name its file again by --model"
        )


def _digest(adapter: Adapter) -> str:
    """SHA-256 of the module's weights and buffers, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(adapter.owner.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
