"""Any torchvision CNN, cut at a named node of its graph; frozen under the Hadamard model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.nn.modules.module import register_module_parameter_registration_hook
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.models.resnet import BasicBlock, ResNet

from hvx.config import BackboneConfig
from hvx.device import standard_mode
from hvx.errors import HvxError, did_you_mean
from hvx.models.weights import fill_from, read_state_dict

_OWN_SIZES = {"resnet10": lambda: ResNet(BasicBlock, [1, 1, 1, 1])}
"""Sizes of torchvision's networks that have no name in torchvision."""

_TRANSFORMING = ("googlenet", "inception_v3")


class Backbone(nn.Module):
    """Normalized images (B, C, H, W) → features (B, M, S, S), in evaluation mode and with frozen weights.
    ``network`` is the cut graph."""

    def __init__(self, network: GraphModule) -> None:
        super().__init__()
        self.network: GraphModule = network
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)["features"]
        return features

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode: the backbone is frozen, its BatchNorm statistics too."""
        del mode
        return super().train(False)


def cut_network(config: BackboneConfig, network: nn.Module) -> GraphModule:
    """The part of a torchvision network that leads to the config's node, as a traced graph.

    Raises:
        HvxError: the network has no such node.
    """
    nodes = get_graph_node_names(network, suppress_diff_warning=True)[1]
    try:
        extracted = create_feature_extractor(network, {config.node: "features"}, suppress_diff_warning=True)
    except ValueError:
        raise HvxError(
            f"model.backbone.node: {config.architecture} has no node '{config.node}'"
            f"{did_you_mean(config.node, nodes)}; its last ones are: {', '.join(nodes[-6:])}"
        ) from None
    # torchvision does not trace into its own blocks (convolution, norm, activation), which hides their
    # activations; a second trace opens all but PyTorch's own modules.
    return symbolic_trace(extracted.eval())


def new_network(architecture: str, empty: bool = False) -> nn.Module:
    """A torchvision network with random weights.

    Args:
        architecture: torchvision's name of it.
        empty: weights without memory or values, for a network that will be filled; random numbers for a
            ResNet-152 take seconds.

    Raises:
        HvxError: torchvision has no network of that name.
    """
    if architecture in _OWN_SIZES:
        with torch.device("meta" if empty else "cpu"):
            return _OWN_SIZES[architecture]()
    known = [*torchvision.models.list_models(module=torchvision.models), *_OWN_SIZES]
    if architecture not in known:
        raise HvxError(
            f"model.backbone.architecture: torchvision has no network '{architecture}'"
            f"{did_you_mean(architecture, known)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices about the initialization of GoogLeNet and Inception
        make: Callable[[], nn.Module]
        # A backbone's images are normalized by ImageNet's mean and deviation. GoogLeNet and Inception expect
        # another normalization; with this option they convert it.
        options = {"transform_input": True} if architecture in _TRANSFORMING else {}
        make = partial(torchvision.models.get_model, architecture, weights=None, **options)
        if not empty:
            with torch.device("cpu"):
                return make()
        with suppress(NotImplementedError), torch.device("meta"):
            return make()
        # RegNet computes its sizes with tensors, which must have values; its parameters need none.
        with torch.device("cpu"), _parameters_without_memory():
            return make()


@contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Put parameters of modules created in this context on the meta device before they are initialized."""

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> Any:
        del module, name
        return None if parameter is None else nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(without_memory)
    try:
        yield
    finally:
        hook.remove()


def is_weights_name(config: BackboneConfig) -> bool:
    """Whether ``weights`` is the name of torchvision's weights for the architecture."""
    return config.weights is not None and config.weights in _published(config)


def _published(config: BackboneConfig) -> Mapping[str, Any]:
    """torchvision's weights for the architecture, by name."""
    if config.architecture in _OWN_SIZES:
        return {}
    members: Mapping[str, Any] = torchvision.models.get_model_weights(config.architecture).__members__
    return members


@standard_mode()
def build_backbone(config: BackboneConfig, root: Path = Path()) -> Backbone:
    """The backbone of a config, with its weights loaded.

    Raises:
        HvxError: no such network, node, weights name or file, or weights of another network.
    """
    network = new_network(config.architecture, empty=config.weights is not None)
    backbone = Backbone(cut_network(config, network))
    if config.weights is not None:
        load_weights(backbone.network, network.state_dict(), config, root)
    return backbone


def empty_backbone(config: BackboneConfig) -> Backbone:
    """The backbone of a config, without weights.

    Raises:
        HvxError: no such network or node.
    """
    return Backbone(cut_network(config, new_network(config.architecture, empty=True)))


def load_weights(
    network: GraphModule, full: Mapping[str, Tensor], config: BackboneConfig, root: Path
) -> None:
    """Fill a cut network from a torchvision weights name or from a local file with a state dict.

    Args:
        network: cut from a network of the config's architecture.
        full: the state dict of that network.
        config: names the weights.
        root: the base folder of a relative path.

    Raises:
        HvxError: neither a name nor a file, or not the weights of the architecture, as ``fill_from``.
    """
    assert config.weights is not None
    if is_weights_name(config):
        state, source = _published_state(config), config.weights
    else:
        path = root / config.weights
        if not path.is_file():
            names = ", ".join(_published(config)) or "none"
            raise HvxError(
                f"model.backbone.weights: '{config.weights}' is neither a file nor one of torchvision's "
                f"weights for {config.architecture} ({names})"
            )
        state, source = read_state_dict(path), str(path)
    if is_fbresnet152(state):
        raise HvxError(
            f"{source}: not the weights of {config.architecture}: these are those of fbresnet152; convert "
            "them with `hvx import fbresnet152`"
        )
    try:
        fill_from(network, full, state, source)
    except HvxError as error:
        reason = str(error).removeprefix(f"{source}: ")
        raise HvxError(f"{source}: not the weights of {config.architecture}: {reason}") from None


def is_fbresnet152(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is that of the Torch7 ResNet ported to PyTorch, by its names: the convolutions
    have biases, the classifier is ``last_linear``, or ``fc`` in older files."""
    names = {name.removeprefix("module.") for name in state}
    return "conv1.bias" in names and not names.isdisjoint({"last_linear.weight", "fc.weight"})


def _published_state(config: BackboneConfig) -> dict[str, Tensor]:
    weights = _published(config)[str(config.weights)]
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise HvxError(
            f"model.backbone.weights: {config.weights} could not be fetched from {weights.url} ({error}); "
            "fetch it elsewhere and give its file"
        ) from None
    return state
