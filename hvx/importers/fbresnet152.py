"""The Torch7 ResNet-152 as ported to PyTorch (``fbresnet152``) → the weights of torchvision's ``resnet152``.

The port's names are torchvision's, except that every convolution carries a bias and that the classifier is
``last_linear``, or ``fc`` in older files. Each convolution goes straight into a BatchNorm, which takes the
running mean off again: the bias b folds in exactly as running_mean − b.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.models.backbone import is_fbresnet152, new_network
from hvx.models.weights import read_state_dict

_COUNTER = ".num_batches_tracked"
"""Of BatchNorm, younger than the port: counts training steps, and matters to nothing here."""


def import_fbresnet152(path: Path, output: Path) -> None:
    """Write the port's weights as a state dict of torchvision's ``resnet152``, whole or not at all.

    Raises:
        HvxError: as ``convert_fbresnet152``, or ``output`` cannot be written.
    """
    state = convert_fbresnet152(path)
    # By way of memory: on a full disk, torch.save fails with errors of many kinds.
    written = io.BytesIO()
    torch.save(state, written)
    with whole_file(output) as part:
        part.write_bytes(written.getbuffer())


def convert_fbresnet152(path: Path) -> dict[str, Tensor]:
    """The port's weights under torchvision's names, the convolutions' biases folded away.

    Raises:
        HvxError: no file of tensors by name, or not those of the port: the first that is missing,
            misshapen or too many is named.
    """
    if not path.is_file():
        raise HvxError(f"{path}: no such file (the state dict of fbresnet152)")
    state = {name: tensor.detach() for name, tensor in read_state_dict(path).items()}
    with torch.device("meta"):
        network = new_network("resnet152")
    if not is_fbresnet152(state):
        raise HvxError(f"{path}: not fbresnet152: {_instead(state, network)}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if not any(name.startswith("last_linear.") for name in state):
        state = {_ported(name): tensor for name, tensor in state.items()}
    _check(state, network, path)
    return _folded(state, network)


def _instead(state: dict[str, Tensor], network: nn.Module) -> str:
    """What a state dict that is not the port's is, as far as its names tell."""
    if set(network.state_dict()) <= set(state):
        return "these are torchvision's resnet152 already; give the file itself as model.backbone.weights"
    missing = next(name for name in ("conv1.bias", "last_linear.weight") if name not in state)
    return f"tensor '{missing}' is missing"


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def _norm_of(convolution: str) -> str:
    """The BatchNorm that a convolution of a ResNet goes into."""
    if convolution.endswith("downsample.0"):
        return convolution.removesuffix("0") + "1"
    head, _, number = convolution.rpartition("conv")
    return f"{head}bn{number}"


def _ported(name: str) -> str:
    """The port's name of one of torchvision's tensors."""
    return f"last_linear.{name.removeprefix('fc.')}" if name.startswith("fc.") else name


def _check(state: dict[str, Tensor], network: nn.Module, path: Path) -> None:
    """Refuse a state dict that is not the port's, by the first tensor that is wrong."""
    shapes = {_ported(name): tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes |= {f"{name}.bias": (module.out_channels,) for name, module in _convolutions(network).items()}
    for name, shape in shapes.items():
        if name.endswith(_COUNTER):
            continue
        if name not in state:
            raise HvxError(f"{path}: not fbresnet152: tensor '{name}' is missing")
        tensor = state[name]
        if tensor.shape != shape:
            found = tuple(tensor.shape)
            raise HvxError(f"{path}: not fbresnet152: tensor '{name}' has shape {found}, not {shape}")
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.is_floating_point()
        if not plain or not torch.isfinite(tensor.float()).all():
            raise HvxError(f"{path}: tensor '{name}' does not hold finite numbers")
    extra = sorted(set(state) - set(shapes))
    if extra:
        raise HvxError(f"{path}: not fbresnet152: unexpected tensor '{extra[0]}'")


def _folded(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The port's tensors as those of ``network``, float32."""
    own = {}
    for name in network.state_dict():
        if name.endswith(_COUNTER):
            own[name] = torch.tensor(0)
        else:
            own[name] = state[_ported(name)].float().clone(memory_format=torch.contiguous_format)
    for convolution in _convolutions(network):
        mean = f"{_norm_of(convolution)}.running_mean"
        # In float64, so that only the difference is rounded.
        own[mean] = (state[mean].double() - state[f"{convolution}.bias"].double()).float()
    return own
