"""The resume state of a training, next to its checkpoint, from which a killed training is resumed.

A state is one safetensors file. Its metadata contains, under ``hvx-training``, the training's identity (all
that determines its result) and its progress, as JSON. It contains no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, NonNegativeFloat
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hvx.config import Config, NotNegative, Section, SplitConfig, checked
from hvx.errors import HvxError, shown
from hvx.files import sha256
from hvx.models.backbone import is_weights_name
from hvx.models.checkpoint import write_tensors
from hvx.models.header import flat

FORMAT = 1
Metrics = dict[str, Any]

_METADATA = "hvx-training"
_CHANGES_NOTHING = {"split", "validation", "start", "feature_cache", "workers", "save_minutes"}
"""Keys of ``train`` that do not change the result, or whose files are identified by their content."""
_RESTART = "`hvx train --restart` starts again"


@dataclass(frozen=True)
class TrainingFiles:
    """The files next to a checkpoint, named after it."""

    checkpoint: Path

    def _path_with(self, suffix: str) -> Path:
        return self.checkpoint.with_suffix(suffix)

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch; ``checkpoint`` itself is the best epoch's."""
        return self._path_with(".last.safetensors")

    @property
    def metrics(self) -> Path:
        """A JSON object for each epoch, a line each."""
        return self._path_with(".metrics.jsonl")

    @property
    def plot(self) -> Path:
        """Loss and accuracy against the epoch."""
        return self._path_with(".plot.png")

    @property
    def state(self) -> Path:
        """The resume state of a killed training."""
        return self._path_with(".training.safetensors")

    @property
    def backbone(self) -> Path:
        """The trained backbone, until the training is finished."""
        return self._path_with(".backbone.safetensors")


class Progress(Section):
    """The progress of a training."""

    model_config = ConfigDict(frozen=False)

    step: NotNegative = 0
    """Finished steps of the epoch."""
    steps: NotNegative = 0
    """Finished steps of the training."""
    loss: NonNegativeFloat = 0.0
    """Sum over the epoch's questions so far."""
    questions: NotNegative = 0
    """Questions of the epoch so far."""
    seconds: NonNegativeFloat = 0.0
    """Time spent on the epoch up to the last save."""
    start_words: NotNegative | None = None
    """Number of words of the vocabulary in the question encoder's start file."""
    rows: list[dict[str, int | float]] = Field(default_factory=list)
    """The metrics of the finished epochs."""
    finished: Metrics | None = None
    """The final metrics of a finished training."""

    @property
    def epoch(self) -> int:
        """The current epoch, from 1."""
        return len(self.rows) + 1

    def end_epoch(self, row: Metrics) -> None:
        """Count the current epoch as finished."""
        self.rows.append(row)
        self.step, self.loss, self.questions, self.seconds = 0, 0.0, 0, 0.0


def identity(config: Config, splits: dict[str, SplitConfig]) -> dict[str, Any]:
    """All that determines the result of a training: key → value, or the digest of the file it names.

    Args:
        config: the full config.
        splits: the training and validation splits, by role.

    Raises:
        HvxError: a file cannot be read.
    """
    model = config.model.model_dump(mode="json")
    train = config.train.model_dump(mode="json", exclude=_CHANGES_NOTHING)
    weights = config.model.backbone.weights
    if weights is not None and not is_weights_name(config.model.backbone):
        model["backbone"]["weights"] = _digest(config.path(Path(weights)))
    if config.train.start is not None:
        train["start"] = _digest(config.path(config.train.start))
    values = {"seed": config.seed} | flat(model, "model.") | flat(train, "train.")
    for name, split in splits.items():
        split_values = split.model_dump(mode="json", exclude={"images"})
        split_values |= {
            key: _digest(path)
            for key in ("questions", "annotations", "objects")
            if (path := getattr(split, key)) is not None
        }
        values |= flat(split_values, f"splits.{name}.")
    return values


def _digest(path: Path) -> str:
    return f"sha256 {sha256(path)}"


def save_state(
    path: Path, training_identity: dict[str, Any], progress: Progress, tensors: dict[str, Tensor]
) -> None:
    """Write a state atomically.

    Raises:
        HvxError: the file cannot be written.
    """
    about = {"format": FORMAT, "identity": training_identity, "progress": progress.model_dump(mode="json")}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, contiguous, {_METADATA: json.dumps(about)})


def read_state(path: Path, training_identity: dict[str, Any]) -> tuple[dict[str, Tensor], Progress] | None:
    """The tensors and the progress of a state; None if there is no file.

    Raises:
        HvxError: the file is damaged, or of a training with another identity.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(_METADATA, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise HvxError(f"{path}: damaged state of a training ({error}); {_RESTART}") from None
    if not isinstance(about, dict) or not isinstance(about.get("identity"), dict):
        raise HvxError(f"{path}: not the state of a training; move it away, or {_RESTART}")
    if about.get("format") != FORMAT:
        raise HvxError(
            f"{path}: state of format {shown(about.get('format'))}; this hvx reads {FORMAT}; {_RESTART}"
        )
    _check_identity(path, about["identity"], training_identity)
    return tensors, checked(Progress, about.get("progress"), f"{path} (damaged; {_RESTART})")


def _check_identity(path: Path, saved: dict[str, Any], current: dict[str, Any]) -> None:
    for key in (*current, *saved):
        if saved.get(key) != current.get(key):
            raise HvxError(
                f"{path}: the state of a training with another {key} ({saved.get(key)!r:.20}, now "
                f"{current.get(key)!r:.20}); give another checkpoint, or {_RESTART}"
            )
