"""Native checkpoints: one safetensors file that says what it is.

Its tensors are the head's (``head.*``) and, unless torchvision publishes them under a name, the
backbone's (``backbone.*``). Its metadata holds, under ``hvx``, the model's config, its words and its
answers as JSON. Nothing in it is code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hvx.config import Config, ModelConfig, checked
from hvx.data.words import Vocabulary
from hvx.device import standard_mode
from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.models.backbone import Backbone, build_backbone, empty_backbone, is_weights_name
from hvx.models.joint import HadamardHead
from hvx.models.networks import NETWORKS, new_head
from hvx.models.weights import check_finite, fill

FORMAT = 1


@dataclass
class VQAModel:
    """A question-answering network: a frozen backbone, a Hadamard head, its words and its answers.

    ``training`` is what the trainer noted of its making: sizes, epochs, accuracies.
    """

    config: ModelConfig
    backbone: Backbone
    head: HadamardHead
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


@dataclass(frozen=True)
class CheckpointHeader:
    """What a native checkpoint says of itself, read without its tensors.

    ``shapes`` are those of its tensors by name: ``head.*``, and ``backbone.*`` where it carries them.
    """

    config: ModelConfig
    words: list[str]
    answers: list[str]
    training: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def carries_backbone(self) -> bool:
        """Whether the backbone's weights are in the file."""
        return any(name.startswith("backbone.") for name in self.shapes)


def read_header(path: Path) -> CheckpointHeader:
    """What a native checkpoint is, from its header alone.

    Raises:
        HvxError: no such file, or not a native checkpoint.
    """
    with _opened(path) as file:
        return _header(file, path)


@standard_mode()
def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> VQAModel:
    """Read a native checkpoint.

    Raises:
        HvxError: no such file, not a native checkpoint, or tensors of another shape than its config says.
    """
    with _opened(path) as file:
        header = _header(file, path)
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
                f"{path}: holds no backbone, and its backbone.weights ({config.weights!r}) is not one of "
                f"torchvision's weights for {config.architecture}"
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
                f"{path}: the checkpoint has model.{key} = {found[key]!r}, the config {value!r}; "
                "give the checkpoint's own config, or leave out 'model'"
            )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; what is wrong with it as one line."""
    if not path.is_file():
        raise HvxError(f"{path}: no such checkpoint" + (" (a folder)" if path.is_dir() else ""))
    other = _other_format(path)
    if other:
        raise HvxError(f"{path}: {other}, not a native checkpoint (safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise HvxError(f"{path}: not a readable safetensors checkpoint: {error}") from None


_FORMATS = {
    b"PK\x03\x04": "a PyTorch file (zip); `hvx import` makes a checkpoint of published ones, "
    "`hvx.explain_product` explains any model in Python",
    b"\x80": "a PyTorch pickle; `hvx import` makes a checkpoint of published ones, `hvx.explain_product` "
    "explains any model in Python",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file; unpack it",
}
"""Beginnings of files that are given as checkpoints, with what to do with them."""


def _other_format(path: Path) -> str | None:
    """What a file is that is no safetensors file, where its beginning tells."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
    if not start:
        return "empty"
    if start[8:] == b"{":  # the header of a safetensors file, after its length
        return None
    return next((text for magic, text in _FORMATS.items() if start.startswith(magic)), None)


def _header(file: Any, path: Path) -> CheckpointHeader:
    about = json.loads((file.metadata() or {}).get("hvx", "null"))
    if not isinstance(about, dict) or "format" not in about:
        raise HvxError(f"{path}: a safetensors file, but not a native hvx checkpoint (no 'hvx' metadata)")
    if about["format"] != FORMAT:
        raise HvxError(f"{path}: checkpoint format {about['format']!r}; this hvx reads {FORMAT}")
    source = f"{path} (metadata)"
    config = checked(ModelConfig, about.get("model"), source)
    words, answers, training = about.get("words"), about.get("answers"), about.get("training") or {}
    if not (_strings(words) and _strings(answers)):
        raise HvxError(f"{source}: 'words' and 'answers' must be lists of strings")
    if not isinstance(training, dict):
        raise HvxError(f"{source}: 'training' must be an object")
    names = file.keys()
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return CheckpointHeader(config, words, answers, training, shapes)


def _strings(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def filled_head(
    config: ModelConfig, tensors: dict[str, Tensor], words: int, answers: int, source: str
) -> HadamardHead:
    """A head of these tensors, ready to be explained.

    Raises:
        HvxError: a tensor is missing, too many or of another shape than the sizes imply.
    """
    with torch.device("meta"):  # what is filled need not be initialised: for the GRU that takes 20 s
        head = new_head(config, channels_of(tensors, config, source), words, answers)
    _fill(head, tensors, source)
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
    check_finite(tensors, source)
    fill(module, tensors)
