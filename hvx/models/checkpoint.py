"""Native checkpoints: one self-describing safetensors file.

Its tensors are the head's (``head.*``) and, unless they are named weights of torchvision, the backbone's
(``backbone.*``). Its metadata contains, under ``hvx``, the model's config, words and answers as JSON. It
contains no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hvx.config import Config, ModelConfig
from hvx.data.tokenize import Vocabulary
from hvx.device import standard_mode
from hvx.errors import HvxError, shown
from hvx.files import atomic_write
from hvx.models.backbone import Backbone, build_backbone, empty_backbone, is_weights_name
from hvx.models.base import Head
from hvx.models.header import FORMAT, CheckpointHeader, flat, read_header
from hvx.models.networks import NETWORKS, new_head
from hvx.models.weights import fill


@dataclass(repr=False)
class VQAModel:
    """A question-answering network.

    Attributes:
        config: sizes and options.
        backbone: the frozen CNN.
        head: joins features and question.
        vocabulary: the known words.
        answers: the answers of the classifier's outputs.
        training: notes of the trainer: sizes, epochs, accuracies.
    """

    config: ModelConfig
    backbone: Backbone
    head: Head
    vocabulary: Vocabulary
    answers: list[str]
    training: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        config, backbone = self.config, self.config.backbone
        return (
            f"VQAModel({config.network}, {backbone.architecture} at {backbone.node}, {config.image.size} "
            f"pixels, {len(self.vocabulary):,} words, {len(self.answers):,} answers)"
        )


def save_checkpoint(path: Path, model: VQAModel) -> None:
    """Write a native checkpoint atomically.

    Raises:
        HvxError: the file cannot be written.
    """
    config = model.config
    tensors = {f"head.{name}": tensor for name, tensor in model.head.state_dict().items()}
    if not is_weights_name(config.backbone):
        # A path or random weights cannot be restored elsewhere, so the weights are stored.
        config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": None})})
        tensors |= {f"backbone.{name}": tensor for name, tensor in model.backbone.state_dict().items()}
    about = {
        "format": FORMAT,
        "model": config.model_dump(mode="json"),
        "words": model.vocabulary.words,
        "answers": model.answers,
        "training": model.training,
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, contiguous, {"hvx": json.dumps(about)})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically.

    Raises:
        HvxError: the file cannot be written.
    """
    try:
        with atomic_write(path) as part:
            save_file(tensors, part, metadata=metadata)
    except SafetensorError as error:  # raised for system errors such as a full disk
        raise HvxError(f"{path}: cannot be written: {error}") from None


@standard_mode()
def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> VQAModel:
    """Read a native checkpoint.

    Raises:
        HvxError: no such file, not a native checkpoint, or tensors of another shape than its config says.
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in header.shapes}
    except (SafetensorError, OSError) as error:
        raise HvxError(f"{path}: not a readable safetensors checkpoint: {error}") from None
    backbone = _backbone(header, tensors, path)
    sizes = len(header.words), len(header.answers)
    head = load_head(header.config, _part(tensors, "head."), *sizes, f"{path}: head")
    vocabulary = Vocabulary(tuple(header.words))
    return VQAModel(
        header.config, backbone.to(device), head.to(device), vocabulary, header.answers, header.training
    )


def _backbone(header: CheckpointHeader, tensors: dict[str, Tensor], path: Path) -> Backbone:
    """The backbone in the file, or torchvision's weights that the file names."""
    config = header.config.backbone
    if not header.carries_backbone:
        if not is_weights_name(config):
            # Never a path: a checkpoint must not choose other files to read on the user's machine.
            raise HvxError(
                f"{path}: holds no backbone, and its backbone.weights ({shown(config.weights)}) is not one "
                f"of torchvision's weights for {config.architecture}"
            )
        return build_backbone(config)
    backbone = empty_backbone(config)
    _fill(backbone, _part(tensors, "backbone."), f"{path}: backbone")
    return backbone


def check_config(checkpoint_model: ModelConfig, config: Config, path: Path) -> None:
    """Reject a checkpoint whose model differs from that of a config, if the config has a ``model`` section.

    Raises:
        HvxError: names the first key that differs.
    """
    if "model" not in config.model_fields_set:
        return
    # The section of a network does not apply to another network.
    other_networks = set(NETWORKS) - {checkpoint_model.network}
    expected, actual = (
        flat(model.model_dump(exclude=other_networks)) for model in (config.model, checkpoint_model)
    )
    for key, value in expected.items():
        if key != "backbone.weights" and key != "form" and actual[key] != value:
            raise HvxError(
                f"{path}: the checkpoint has model.{key} = {shown(actual[key])}, the config {shown(value)}; "
                "give the checkpoint's own config, or leave out 'model'"
            )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def load_head(config: ModelConfig, tensors: dict[str, Tensor], words: int, answers: int, source: str) -> Head:
    """A head with these tensors, frozen and in evaluation mode.

    Raises:
        HvxError: a tensor is missing, unexpected, of another shape than the sizes imply, or has invalid
            values.
    """
    with torch.device("meta"):  # the tensors are replaced; initializing the GRU would take 20 s
        head = new_head(config, channels_of(tensors, config, source), words, answers)
    _fill(head, tensors, source)
    problem = head.problem()
    if problem:
        raise HvxError(f"{source}: {problem}")
    return head.requires_grad_(False).eval()


def channels_of(head: dict[str, Tensor], config: ModelConfig, source: str) -> int:
    """M, the channels of the features, from a head's tensors.

    Raises:
        HvxError: the tensors are not a head's.
    """
    network = NETWORKS[config.network]
    weight = head.get(network.feature_weight_name)
    if weight is None or weight.ndim != 2:
        raise HvxError(f"{source}: no matrix '{network.feature_weight_name}'")
    return network.channels_of(int(weight.shape[1]), config)


def _fill(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load ``tensors`` into ``module``; an error names the first missing, unexpected or misshapen one."""
    state = module.state_dict()
    for name, tensor in state.items():
        if name not in tensors:
            raise HvxError(f"{source}: tensor '{name}' is missing")
        if tensors[name].shape != tensor.shape:
            shape, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            raise HvxError(
                f"{source}: tensor '{name}' has shape {shape}; the checkpoint's config implies {expected}"
            )
    extra = sorted(set(tensors) - set(state))
    if extra:
        raise HvxError(f"{source}: unexpected tensor '{extra[0]}'")
    fill(module, tensors, source)
