"""The state of a training beside its checkpoint, from which a killed training goes on.

A state is one safetensors file. Its metadata holds, under ``hvx-training``, the training's identity (all
that decides what it leads to) and how far it is, as JSON. Nothing in it is code.
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

FORMAT = 1
Metrics = dict[str, Any]

_METADATA = "hvx-training"
_CHANGES_NOTHING = {"split", "validation", "start", "feature_cache", "workers", "save_minutes"}
"""Keys of ``train`` that do not matter to what is learned, or whose files are told by their content."""
_ANEW = "`hvx train --restart` begins anew"


@dataclass(frozen=True)
class TrainingFiles:
    """What stands beside a checkpoint, each named after it."""

    checkpoint: Path

    def _beside(self, suffix: str) -> Path:
        return self.checkpoint.with_suffix(suffix)

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch; ``checkpoint`` itself is the best epoch's."""
        return self._beside(".last.safetensors")

    @property
    def metrics(self) -> Path:
        """A JSON object for each epoch, a line each."""
        return self._beside(".metrics.jsonl")

    @property
    def plot(self) -> Path:
        """Loss and accuracy against the epoch."""
        return self._beside(".plot.png")

    @property
    def state(self) -> Path:
        """What a killed training goes on from."""
        return self._beside(".training.safetensors")

    @property
    def backbone(self) -> Path:
        """The trained backbone, until the training is finished."""
        return self._beside(".backbone.safetensors")


class Progress(Section):
    """How far a training is."""

    model_config = ConfigDict(frozen=False)

    step: NotNegative = 0
    """Steps done of the epoch."""
    steps: NotNegative = 0
    """Steps done in all."""
    loss: NonNegativeFloat = 0.0
    """Sum over the epoch's questions so far."""
    questions: NotNegative = 0
    """Questions of the epoch so far."""
    seconds: NonNegativeFloat = 0.0
    """Spent on the epoch up to the last save."""
    start_words: NotNegative | None = None
    """Words of the vocabulary that the question encoder's start file had."""
    rows: list[dict[str, int | float]] = Field(default_factory=list)
    """The metrics of the epochs that are done."""
    finished: Metrics | None = None
    """What a finished training came to."""

    @property
    def epoch(self) -> int:
        """The epoch under way, from 1."""
        return len(self.rows) + 1

    def end_epoch(self, row: Metrics) -> None:
        """Count the epoch under way as done."""
        self.rows.append(row)
        self.step, self.loss, self.questions, self.seconds = 0, 0.0, 0, 0.0


def identity(config: Config, splits: dict[str, SplitConfig]) -> dict[str, Any]:
    """All that decides what a training leads to: key → value, or the digest of the file it names.

    Args:
        config: the whole tree.
        splits: the splits trained and validated on, by their part in it.

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
    found = {"seed": config.seed} | _flat(model, "model.") | _flat(train, "train.")
    for name, split in splits.items():
        own = split.model_dump(mode="json", exclude={"images"})
        own |= {
            key: _digest(path)
            for key in ("questions", "annotations", "objects")
            if (path := getattr(split, key)) is not None
        }
        found |= _flat(own, f"splits.{name}.")
    return found


def _digest(path: Path) -> str:
    return f"sha256 {sha256(path)}"


def _flat(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def save_state(path: Path, who: dict[str, Any], progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Write a state, whole or not at all.

    Raises:
        HvxError: the file cannot be written.
    """
    about = {"format": FORMAT, "identity": who, "progress": progress.model_dump(mode="json")}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, contiguous, {_METADATA: json.dumps(about)})


def read_state(path: Path, who: dict[str, Any]) -> tuple[dict[str, Tensor], Progress] | None:
    """The tensors and the progress that a state holds; None where there is no file.

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
        raise HvxError(f"{path}: damaged state of a training ({error}); {_ANEW}") from None
    if not isinstance(about, dict) or not isinstance(about.get("identity"), dict):
        raise HvxError(f"{path}: not the state of a training; move it away, or {_ANEW}")
    if about.get("format") != FORMAT:
        raise HvxError(
            f"{path}: state of format {shown(about.get('format'))}; this hvx reads {FORMAT}; {_ANEW}"
        )
    _same(path, about["identity"], who)
    return tensors, checked(Progress, about.get("progress"), f"{path} (damaged; {_ANEW})")


def _same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for key in (*now, *before):
        if before.get(key) != now.get(key):
            raise HvxError(
                f"{path}: the state of a training with another {key} ({before.get(key)!r:.20}, now "
                f"{now.get(key)!r:.20}); give another checkpoint, or {_ANEW}"
            )
