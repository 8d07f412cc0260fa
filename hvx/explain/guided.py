"""Guided backpropagation (Springenberg et al. 2015) through a traced network.

The rule replaces each ReLU node in a copy of the network's graph. So it applies to modules and functions, and
does not change anything outside the copy.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from hvx.errors import HvxError


class _GuidedReLU(torch.autograd.Function):
    """max(x, 0); its gradient passes where the input and the gradient are both positive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return gradients[0].clamp(min=0) * positive


def guided_relu(x: Tensor, inplace: bool = False) -> Tensor:
    """ReLU by the guided rule; ``inplace`` is ignored and only matches the signature of ReLU."""
    del inplace
    guided: Tensor = _GuidedReLU.apply(x)
    return guided


class GuidedReLU(nn.Module):
    """``guided_relu`` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return guided_relu(x)


_RELU_FUNCTIONS = (torch.relu, torch.relu_, functional.relu, functional.relu_)
_RELU_METHODS = ("relu", "relu_")
_OTHER_MODULES = (
    nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Softplus, nn.Softshrink, nn.Softsign,
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Tanhshrink, nn.Threshold, nn.GLU, nn.MultiheadAttention,
)  # fmt: skip
_OTHER_FUNCTIONS = {
    "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "hardtanh", "hardshrink", "softplus", "softshrink", "softsign", "sigmoid", "logsigmoid",
    "log_sigmoid", "tanh", "tanhshrink", "threshold", "glu", "clamp", "clamp_min", "clamp_max", "clip",
}  # fmt: skip


def guided(network: fx.GraphModule) -> fx.GraphModule:
    """A copy of a traced network in which every ReLU, module or function, is guided.

    The weights are shared with ``network``, which is unchanged.

    Raises:
        HvxError: the network has an activation for which the guided rule is not defined, or no ReLU.
    """
    modules = dict(network.named_modules())
    graph = copy.deepcopy(network.graph)
    replaced = 0
    for node in graph.nodes:
        other = _other_activation(node, modules)
        if other is not None:
            raise HvxError(
                f"backbone: guided backpropagation is defined for ReLU; node '{node.name}' is {other}; "
                "use a network with ReLU throughout"
            )
        if is_relu(node, modules):
            node.op, node.target = "call_function", guided_relu
            node.args, node.kwargs = (node.args[0] if node.args else node.kwargs["input"],), {}
            replaced += 1
    if not replaced:
        raise HvxError("backbone: no ReLU found; guided backpropagation is defined for ReLU networks")
    return fx.GraphModule(network, graph)


def is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node of a traced network is a ReLU: a module, a function or a method."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.ReLU)
    if node.op == "call_method":
        return node.target in _RELU_METHODS
    return node.op == "call_function" and node.target in _RELU_FUNCTIONS


def _other_activation(node: fx.Node, modules: dict[str, nn.Module]) -> str | None:
    """Name of the activation of a node; None if the node is a ReLU or not an activation."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        inside = list(module.modules())[1:]
        if any(isinstance(part, (nn.ReLU, *_OTHER_MODULES)) for part in inside):
            return f"a {type(module).__name__} that was not traced into"
        return type(module).__name__ if isinstance(module, _OTHER_MODULES) else None
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if node.op in ("call_function", "call_method") and str(name).strip("_") in _OTHER_FUNCTIONS:
        return str(name).lstrip("_")  # PyTorch's name for functional.threshold is _threshold
    return None


class GuidedVJP:
    """Features of a batch of images, and the VJP from the features to the images.

    The plain engine: one forward pass, whose graph is retained, and one backward pass per call of
    ``vjp``.

    Args:
        network: the traced backbone, its ReLUs guided by ``guided``.
        images: normalized images (B, C, H, W).
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self._images = images.detach().requires_grad_()
        with torch.enable_grad():
            self._features: Tensor = network(self._images)["features"]

    @property
    def features(self) -> Tensor:
        """(B, M, S, S), detached from the graph that ``vjp`` uses."""
        return self._features.detach()

    def vjp(self, cotangent: Tensor) -> Tensor:
        """Cotangent at the features (B, M, S, S) → gradient at the images (B, C, H, W)."""
        return torch.autograd.grad(self._features, self._images, cotangent, retain_graph=True)[0]
