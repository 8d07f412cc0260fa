"""Native checkpoints: one safetensors file that says what it is.

Its tensors are the head's (``head.*``) and, unless torchvision publishes them under a name, the
backbone's (``backbone.*``). Its metadata holds, under ``hvx``, the model's config, its words and its
answers as JSON. Nothing in it is code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from hvx.config import Config, ModelConfig
from hvx.data.words import Vocabulary
from hvx.device import standard_mode
from hvx.errors import HvxError, shown
from hvx.files import whole_file
from hvx.models.backbone import Backbone, build_backbone, empty_backbone, is_weights_name
from hvx.models.header import FORMAT, CheckpointHeader, header_of, open_tensors
from hvx.models.joint import Head
from hvx.models.networks import NETWORKS, new_head
from hvx.models.weights import fill


@dataclass(repr=False)
class VQAModel:
    """A question-answering network.

    Attributes:
        config: sizes and options.
        backbone: the frozen CNN.
        head: what joins features and question.
        vocabulary: the words that it knows.
        answers: what the classifier's outputs mean.
        training: what the trainer noted of its making: sizes, epochs, accuracies.
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
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, contiguous, {"hvx": json.dumps(about)})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        HvxError: the file cannot be written.
    """
    try:
        with whole_file(path) as part:
            save_file(tensors, part, metadata=metadata)
    except SafetensorError as error:  # its own error for the system's: no room, for one
        raise HvxError(f"{path}: cannot be written: {error}") from None


@standard_mode()
def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> VQAModel:
    """Read a native checkpoint.

    Raises:
        HvxError: no such file, not a native checkpoint, or tensors of another shape than its config says.
    """
    with open_tensors(path, "pt") as file:
        header = header_of(file, path)
        tensors = {name: file.get_tensor(name) for name in header.shapes}
    backbone = _backbone(header, tensors, path)
    sizes = len(header.words), len(header.answers)
    head = filled_head(header.config, _part(tensors, "head."), *sizes, f"{path}: head")
    vocabulary = Vocabulary(tuple(header.words))
    return VQAModel(
        header.config, backbone.to(device), head.to(device), vocabulary, header.answers, header.training
    )


def _backbone(header: CheckpointHeader, tensors: dict[str, Tensor], path: Path) -> Backbone:
    """The backbone in the file, or the one that torchvision publishes under the name it gives."""
    config = header.config.backbone
    if not header.carries_backbone:
        if not is_weights_name(config):
            # Never a path: a checkpoint does not choose what else is read on its user's machine.
            raise HvxError(
                f"{path}: holds no backbone, and its backbone.weights ({shown(config.weights)}) is not one "
                f"of torchvision's weights for {config.architecture}"
            )
        return build_backbone(config)
    backbone = empty_backbone(config)
    _fill(backbone, _part(tensors, "backbone."), f"{path}: backbone")
    return backbone


def check_config(found_model: ModelConfig, config: Config, path: Path) -> None:
    """Refuse a checkpoint whose model is not the one that a config describes, where it describes one.

    Raises:
        HvxError: names the first key that differs.
    """
    if "model" not in config.model_fields_set:
        return
    # A section named as a network says nothing of another network.
    beside = set(NETWORKS) - {found_model.network}
    wanted, found = (_flat(model.model_dump(exclude=beside)) for model in (config.model, found_model))
    for key, value in wanted.items():
        if key != "backbone.weights" and key != "form" and found[key] != value:
            raise HvxError(
                f"{path}: the checkpoint has model.{key} = {shown(found[key])}, the config {shown(value)}; "
                "give the checkpoint's own config, or leave out 'model'"
            )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def filled_head(
    config: ModelConfig, tensors: dict[str, Tensor], words: int, answers: int, source: str
) -> Head:
    """A head of these tensors, ready to be explained.

    Raises:
        HvxError: a tensor is missing, too many, of another shape than the sizes imply, or holds values that
            the network cannot have.
    """
    with torch.device("meta"):  # what is filled need not be initialized: for the GRU that takes 20 s
        head = new_head(config, channels_of(tensors, config, source), words, answers)
    _fill(head, tensors, source)
    problem = head.problem()
    if problem:
        raise HvxError(f"{source}: {problem}")
    return head.requires_grad_(False).eval()


def channels_of(head: dict[str, Tensor], config: ModelConfig, source: str) -> int:
    """M, the channels of the features that a head's tensors read.

    Raises:
        HvxError: the tensors are not a head's.
    """
    network = NETWORKS[config.network]
    weight = head.get(network.reads_features)
    if weight is None or weight.ndim != 2:
        raise HvxError(f"{source}: no matrix '{network.reads_features}'")
    return network.channels_of(int(weight.shape[1]), config)


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
    fill(module, tensors, source)
