"""The fast engine for the CNN of a foreign model, where several questions are about one image.

Each question needs a backward pass of its own through the CNN. Where the CNN is a module that can be traced,
and that computes what was recorded, hvx's own engine does these passes, in less time than the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary
from zlib import crc32

import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import GradientEdge, Node

from hvx.capture.graph import Reach, inputs_of, kind, nodes_behind
from hvx.explain.lean import LeanNetwork, LeanPullback
from hvx.explain.lean.convolution import Convolution
from hvx.explain.lean.rules import Other

WORTH = 3
"""Questions on an image from which on the engine's own forward pass pays."""
_APART = 1e-3
"""What rounding explains: difference of the features, as a share of the largest; share of a ReLU's signs."""


@dataclass(frozen=True)
class ImageCall:
    """A call of a module with the image alone, which put out one tensor.

    Attributes:
        module: that was called.
        edge: where gradients enter what it put out.
        values: what it put out.
    """

    module: nn.Module
    edge: GradientEdge
    values: Tensor


@dataclass(frozen=True)
class FusedCNN:
    """A CNN's features in the graph, and the engine that pulls cotangents back from them to the image."""

    features: GradientEdge
    pullback: LeanPullback

    def image_gradient(self, visual: list[GradientEdge], cotangents: list[Tensor]) -> Tensor:
        """Cotangents at V, or its parts, as the gradient at the image (1, C, H, W)."""
        at_features = torch.autograd.grad(visual, [self.features], cotangents, retain_graph=True)[0]
        return self.pullback.pull(at_features)


def fused_cnn(
    calls: Sequence[ImageCall], visual: Sequence[Node], image: Tensor, reach: Reach
) -> FusedCNN | None:
    """The outermost module through which all of V's dependence on the image leads; None if there is none.

    It is taken only if, on the first image of a size, the engine computes the same features by the same ReLUs
    and as many convolutions as the graph holds: a module that was traced otherwise than it ran (branches,
    hooks, ``detach``) has others.

    Args:
        calls: in the order of the forward.
        visual: the nodes that made V, or its parts.
        image: (1, C, H, W).
        reach: what a node depends on.
    """
    for call in reversed(calls):
        if call.values.ndim != 4 or _has_hooks(call.module) or _around(call.edge.node, visual, reach):
            continue
        pullback = _engine(call, image)
        if pullback is not None:
            return FusedCNN(call.edge, pullback)
    return None


def _has_hooks(module: nn.Module) -> bool:
    """Whether hooks may change what the module's parts compute, or their gradients."""
    kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return any(getattr(each, name, None) for each in module.modules() for name in kinds)


def _around(features: Node, visual: Sequence[Node], reach: Reach) -> bool:
    """Whether V depends on the image on a way that does not lead through the features."""
    seen, waiting = {features}, [node for node in visual if node is not features]
    while waiting:
        node = waiting.pop()
        if reach.is_image(node):
            return True
        seen.add(node)
        waiting += [each for each in inputs_of(node) if each not in seen]
    return False


class _Named(nn.Module):
    """A module as the engine takes networks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"features": self.module(image)}


@dataclass
class _Traced:
    """A module's engine; the network is None if it has none.

    Attributes:
        network: with the weights as they were.
        weights: a checksum of each of the module's tensors, to know when they are others.
        sizes: of the images for which the engine was found to compute what the module does.
    """

    network: LeanNetwork | None
    weights: tuple[int, ...]
    sizes: set[torch.Size]


_TRACED: WeakKeyDictionary[nn.Module, _Traced] = WeakKeyDictionary()
"""Tracing takes longer than an explanation, and questions on many images have the same CNN."""


def _engine(call: ImageCall, image: Tensor) -> LeanPullback | None:
    """The engine on a module, if it computes what the module did."""
    tensors = (*call.module.parameters(), *call.module.buffers())
    weights = tuple(_checksum(tensor) for tensor in tensors)
    traced = _TRACED.get(call.module)
    if traced is None or traced.weights != weights:
        traced = _TRACED[call.module] = _Traced(_traced(call.module), weights, set())
    if traced.network is None:
        return None
    behind = nodes_behind([call.edge.node])
    relus = sorted((node for node in behind if kind(node) == "Relu"), key=lambda node: node._sequence_nr())
    recorded = [node._saved_result for node in relus]  # type: ignore[attr-defined]
    if image.shape not in traced.sizes:
        convolutions = sum(kind(node) == "Convolution" for node in behind)
        if not _same(traced.network, call.values, recorded, convolutions, image):
            traced.network = None
            return None
        traced.sizes.add(image.shape)
    return LeanPullback(traced.network, image.detach(), recorded)


def _checksum(tensor: Tensor) -> int:
    """Of a tensor's bytes. A norm would miss a change of sign or of order; versions, writes to ``.data``."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return crc32(flat.view(torch.uint8).numpy().data, tensor.numel())


def _traced(module: nn.Module) -> LeanNetwork | None:
    try:
        network = LeanNetwork(fx.symbolic_trace(_Named(module).eval()))
    except Exception:  # tracing runs the module's own code, which may raise anything
        return None
    # A function of unknown kind may have another gradient than it was traced with.
    return None if any(isinstance(step.rule, Other) for step in network.steps) else network


def _same(
    network: LeanNetwork, features: Tensor, recorded: list[Tensor], convolutions: int, image: Tensor
) -> bool:
    """Whether an engine computes features, and ReLUs' outputs, that were recorded."""
    known = sum(isinstance(step.rule, Convolution) for step in network.steps)
    found = network(image.detach())
    if known != convolutions or found.features.shape != features.shape:
        return False
    if [mask.shape for mask in found.masks] != [values.shape for values in recorded]:
        return False
    pairs = zip(found.masks, recorded, strict=True)
    masks = all(bool(((values > 0) != mask).float().mean() <= _APART) for mask, values in pairs)
    return masks and bool((found.features - features).abs().max() <= _APART * features.abs().max())
