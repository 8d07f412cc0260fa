"""Converts the PyTorch port of Torch7's ResNet-152 (``fbresnet152``) to torchvision's ``resnet152``.

The port's names are torchvision's, except that every convolution has a bias and that the classifier is
``last_linear``, or ``fc`` in older files. Each convolution is followed by a BatchNorm, which subtracts the
running mean: the bias b is folded exactly, as running_mean − b.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from hvx.errors import HvxError
from hvx.files import atomic_write
from hvx.models.backbone import is_fbresnet152, new_network
from hvx.models.weights import read_state_dict

_COUNTER = ".num_batches_tracked"
"""BatchNorm's counter of training steps, which is newer than the port and not used here."""


def import_fbresnet152(path: Path, output: Path) -> None:
    """Write the port's weights as a state dict of torchvision's ``resnet152``, atomically.

    Raises:
        HvxError: as ``convert_fbresnet152``, or ``output`` cannot be written.
    """
    state = convert_fbresnet152(path)
    # Through memory: on a full disk, torch.save fails with errors of many kinds.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(output) as part:
        part.write_bytes(buffer.getbuffer())


def convert_fbresnet152(path: Path) -> dict[str, Tensor]:
    """The port's weights under torchvision's names, with the convolutions' biases folded.

    Raises:
        HvxError: not a state dict, or not the port's; names the first tensor that is missing, unexpected or
            has a wrong shape.
    """
    if not path.is_file():
        raise HvxError(f"{path}: no such file (the state dict of fbresnet152)")
    state = {name: tensor.detach() for name, tensor in read_state_dict(path).items()}
    with torch.device("meta"):
        network = new_network("resnet152")
    if not is_fbresnet152(state):
        raise HvxError(f"{path}: not fbresnet152: {_describe_mismatch(state, network)}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if not any(name.startswith("last_linear.") for name in state):
        state = {_port_name(name): tensor for name, tensor in state.items()}
    _check(state, network, path)
    return _folded(state, network)


def _describe_mismatch(state: dict[str, Tensor], network: nn.Module) -> str:
    """Why a state dict is not the port's, judged by its names."""
    if set(network.state_dict()) <= set(state):
        return "these are torchvision's resnet152 already; give the file itself as model.backbone.weights"
    missing = next(name for name in ("conv1.bias", "last_linear.weight") if name not in state)
    return f"tensor '{missing}' is missing"


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def _norm_of(convolution: str) -> str:
    """The BatchNorm after a convolution of a ResNet."""
    if convolution.endswith("downsample.0"):
        return convolution.removesuffix("0") + "1"
    head, _, number = convolution.rpartition("conv")
    return f"{head}bn{number}"


def _port_name(name: str) -> str:
    """The port's name for a tensor of torchvision."""
    return f"last_linear.{name.removeprefix('fc.')}" if name.startswith("fc.") else name


def _check(state: dict[str, Tensor], network: nn.Module, path: Path) -> None:
    """Refuse a state dict that is not the port's; names the first wrong tensor."""
    shapes = {_port_name(name): tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes |= {f"{name}.bias": (module.out_channels,) for name, module in _convolutions(network).items()}
    for name, shape in shapes.items():
        if name.endswith(_COUNTER):
            continue
        if name not in state:
            raise HvxError(f"{path}: not fbresnet152: tensor '{name}' is missing")
        tensor = state[name]
        if tensor.shape != shape:
            actual = tuple(tensor.shape)
            raise HvxError(f"{path}: not fbresnet152: tensor '{name}' has shape {actual}, not {shape}")
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.is_floating_point()
        if not plain or not torch.isfinite(tensor.float()).all():
            raise HvxError(f"{path}: tensor '{name}' does not hold finite numbers")
    extra = sorted(set(state) - set(shapes))
    if extra:
        raise HvxError(f"{path}: not fbresnet152: unexpected tensor '{extra[0]}'")


def _folded(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``network``, from the port's, float32."""
    tensors = {}
    for name in network.state_dict():
        if name.endswith(_COUNTER):
            tensors[name] = torch.tensor(0)
        else:
            tensors[name] = state[_port_name(name)].float().clone(memory_format=torch.contiguous_format)
    for convolution in _convolutions(network):
        mean = f"{_norm_of(convolution)}.running_mean"
        # In float64, so that only the result is rounded.
        tensors[mean] = (state[mean].double() - state[f"{convolution}.bias"].double()).float()
    return tensors
