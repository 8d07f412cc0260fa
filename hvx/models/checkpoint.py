"""Native checkpoints: one safetensors file that says what it is.

Its tensors are the head's (``head.*``) and, unless torchvision publishes them under a name, the
backbone's (``backbone.*``). Its metadata holds, under ``hvx``, the model's config, its words and its
answers as JSON. Nothing in it is code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hvx.config import Config, ModelConfig, checked
from hvx.data.words import Vocabulary
from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.models.backbone import Backbone, build_backbone, is_weights_name
from hvx.models.mlb import MLB

FORMAT = 1


@dataclass
class VQAModel:
    """A question-answering network: a frozen backbone, a Hadamard head, its words and its answers.

    ``training`` is what the trainer noted of its making: sizes, epochs, accuracies.
    """

    config: ModelConfig
    backbone: Backbone
    head: MLB
    vocabulary: Vocabulary
    answers: list[str]
    training: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, model: VQAModel) -> None:
    """Write a native checkpoint, whole or not at all.

    Raises:
        HvxError: the file cannot be written.
    """
    config = model.config
    tensors = {f"head.{name}": tensor for name, tensor in model.head.state_dict().items()}
    if not is_weights_name(config.backbone):
        # A path or chance does not travel: the weights themselves do.
        config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": None})})
        tensors |= {f"backbone.{name}": tensor for name, tensor in model.backbone.state_dict().items()}
    about = {
        "format": FORMAT,
        "model": config.model_dump(mode="json"),
        "words": model.vocabulary.words,
        "answers": model.answers,
        "training": model.training,
    }
    with whole_file(path) as part:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, part, metadata={"hvx": json.dumps(about)})


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> VQAModel:
    """Read a native checkpoint.

    Raises:
        HvxError: no such file, not a native checkpoint, or tensors of another shape than its config says.
    """
    about, tensors = _read(path)
    source = f"{path} (metadata)"
    config = checked(ModelConfig, about.get("model"), source)
    words, answers = about.get("words"), about.get("answers")
    if not (_strings(words) and _strings(answers)):
        raise HvxError(f"{source}: 'words' and 'answers' must be lists of strings")
    backbone = build_backbone(config.backbone)
    in_file = _part(tensors, "backbone.")
    if in_file:
        _fill(backbone, in_file, f"{path}: backbone")
    head = MLB(config, _channels(tensors, config, path), len(words), len(answers))
    _fill(head, _part(tensors, "head."), f"{path}: head")
    head.requires_grad_(False).eval()
    vocabulary = Vocabulary(tuple(words))
    return VQAModel(
        config, backbone.to(device), head.to(device), vocabulary, answers, about.get("training") or {}
    )


def check_config(model: VQAModel, config: Config, path: Path) -> None:
    """Refuse a checkpoint whose model is not the one that a config describes, where it describes one.

    Raises:
        HvxError: names the first key that differs.
    """
    if "model" not in config.model_fields_set:
        return
    wanted, found = _flat(config.model.model_dump()), _flat(model.config.model_dump())
    for key, value in wanted.items():
        if key != "backbone.weights" and key != "form" and found[key] != value:
            raise HvxError(
                f"{path}: the checkpoint has model.{key} = {found[key]!r}, the config {value!r}; "
                "give the checkpoint's own config, or leave out 'model'"
            )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise HvxError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        about = json.loads(metadata.get("hvx", "null"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise HvxError(f"{path}: not a readable safetensors checkpoint: {error}") from None
    if not isinstance(about, dict) or "format" not in about:
        raise HvxError(f"{path}: a safetensors file, but not a native hvx checkpoint (no 'hvx' metadata)")
    if about["format"] != FORMAT:
        raise HvxError(f"{path}: checkpoint format {about['format']!r}; this hvx reads {FORMAT}")
    return about, tensors


def _strings(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _channels(tensors: dict[str, Tensor], config: ModelConfig, path: Path) -> int:
    weight = tensors.get("head.attention_visual.weight")
    if weight is None or weight.ndim != 2:
        raise HvxError(f"{path}: no matrix 'head.attention_visual.weight' in the checkpoint")
    return int(weight.shape[1])


def _fill(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load ``tensors`` into ``module``; the first that is missing, too many or misshapen is named."""
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            raise HvxError(f"{source}: tensor '{name}' is missing")
        if tensors[name].shape != tensor.shape:
            found, wanted = tuple(tensors[name].shape), tuple(tensor.shape)
            raise HvxError(
                f"{source}: tensor '{name}' has shape {found}; the checkpoint's config implies {wanted}"
            )
    extra = sorted(set(tensors) - set(own))
    if extra:
        raise HvxError(f"{source}: unexpected tensor '{extra[0]}'")
    module.load_state_dict(tensors)
