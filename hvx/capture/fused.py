"""The fast engine for the CNN of an external model, if several questions are about one image.

Each question needs its own backward pass through the CNN. If the CNN is a module that can be traced, and the
traced module reproduces the recorded features, hvx's own engine runs these passes faster than autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary
from zlib import crc32

import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import GradientEdge, Node

from hvx.capture.graph import Dependencies, inputs_of, kind, nodes_behind
from hvx.explain.fused import FusedGuidedBackbone, FusedGuidedVJP
from hvx.explain.fused.convolution import Convolution
from hvx.explain.fused.ops import GenericOp

WORTH = 3
"""Smallest number of questions on an image for which the engine saves time despite its forward pass."""
_TOLERANCE = 1e-3
"""Tolerance for rounding: of the features, relative to the largest; and the share of a ReLU's signs."""


@dataclass(frozen=True)
class ImageCall:
    """A call of a module with the image alone, which returned one tensor.

    Attributes:
        module: that was called.
        edge: where gradients enter its output.
        values: its output.
    """

    module: nn.Module
    edge: GradientEdge
    values: Tensor


@dataclass(frozen=True)
class FusedCNN:
    """A CNN's features in the graph, and the engine for the VJP from the features to the image."""

    features: GradientEdge
    pullback: FusedGuidedVJP

    def image_gradient(self, visual: list[GradientEdge], cotangents: list[Tensor]) -> Tensor:
        """Cotangents at V, or its parts → gradient at the image (1, C, H, W)."""
        at_features = torch.autograd.grad(visual, [self.features], cotangents, retain_graph=True)[0]
        return self.pullback.vjp(at_features)


def fused_cnn(
    calls: Sequence[ImageCall], visual: Sequence[Node], image: Tensor, reach: Dependencies
) -> FusedCNN | None:
    """The outermost module that all paths from the image to V lead through; None if there is none.

    It is used only if, on the first image of a size, the engine computes the same features with the same
    ReLUs and as many convolutions as the graph. A module that ran differently from its trace (branches,
    hooks, ``detach``) fails this check.

    Args:
        calls: in the order of the forward.
        visual: the nodes that computed V, or its parts.
        image: (1, C, H, W).
        reach: what a node depends on.
    """
    for call in reversed(calls):
        if call.values.ndim != 4 or _has_hooks(call.module) or _bypasses(call.edge.node, visual, reach):
            continue
        pullback = _engine(call, image)
        if pullback is not None:
            return FusedCNN(call.edge, pullback)
    return None


def _has_hooks(module: nn.Module) -> bool:
    """Whether hooks may change what the module's parts compute, or their gradients."""
    kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return any(getattr(part, name, None) for part in module.modules() for name in kinds)


def _bypasses(features: Node, visual: Sequence[Node], reach: Dependencies) -> bool:
    """Whether V depends on the image by a path that does not lead through the features."""
    seen, waiting = {features}, [node for node in visual if node is not features]
    while waiting:
        node = waiting.pop()
        if reach.is_image(node):
            return True
        seen.add(node)
        waiting += [parent for parent in inputs_of(node) if parent not in seen]
    return False


class _Named(nn.Module):
    """Wraps a module so that it returns features by name, as the engine expects."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"features": self.module(image)}


@dataclass
class _Traced:
    """A module's engine; the network is None if the module cannot have one.

    Attributes:
        network: with the weights as they were.
        weights: a checksum of each of the module's tensors, to detect changes.
        sizes: of the images for which the engine is known to match the module.
    """

    network: FusedGuidedBackbone | None
    weights: tuple[int, ...]
    sizes: set[torch.Size]


_TRACED: WeakKeyDictionary[nn.Module, _Traced] = WeakKeyDictionary()
"""A cache: tracing takes longer than an explanation, and questions on many images share one CNN."""


def _engine(call: ImageCall, image: Tensor) -> FusedGuidedVJP | None:
    """The engine for a module, if it reproduces the module's output."""
    tensors = (*call.module.parameters(), *call.module.buffers())
    weights = tuple(_checksum(tensor) for tensor in tensors)
    traced = _TRACED.get(call.module)
    if traced is None or traced.weights != weights:
        traced = _TRACED[call.module] = _Traced(_traced(call.module), weights, set())
    if traced.network is None:
        return None
    ancestors = nodes_behind([call.edge.node])
    relus = sorted((node for node in ancestors if kind(node) == "Relu"), key=lambda node: node._sequence_nr())
    recorded = [node._saved_result for node in relus]  # type: ignore[attr-defined]
    if image.shape not in traced.sizes:
        convolutions = sum(kind(node) == "Convolution" for node in ancestors)
        if not _reproduces(traced.network, call.values, recorded, convolutions, image):
            traced.network = None
            return None
        traced.sizes.add(image.shape)
    return FusedGuidedVJP(traced.network, image.detach(), recorded)


def _checksum(tensor: Tensor) -> int:
    """CRC of a tensor's bytes. A norm misses changes of sign or order, a version those through ``.data``."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return crc32(flat.view(torch.uint8).numpy().data, tensor.numel())


def _traced(module: nn.Module) -> FusedGuidedBackbone | None:
    try:
        network = FusedGuidedBackbone(fx.symbolic_trace(_Named(module).eval()))
    except Exception:  # tracing runs the module's own code, which may raise anything
        return None
    # A function of unknown kind may have another gradient than its trace.
    return None if any(isinstance(step.op, GenericOp) for step in network.steps) else network


def _reproduces(
    network: FusedGuidedBackbone, features: Tensor, recorded: list[Tensor], convolutions: int, image: Tensor
) -> bool:
    """Whether an engine reproduces the recorded features and ReLU outputs."""
    convolution_steps = sum(isinstance(step.op, Convolution) for step in network.steps)
    pullback = network(image.detach())
    if convolution_steps != convolutions or pullback.features.shape != features.shape:
        return False
    if [mask.shape for mask in pullback.masks] != [values.shape for values in recorded]:
        return False
    pairs = zip(pullback.masks, recorded, strict=True)
    masks = all(bool(((values > 0) != mask).float().mean() <= _TOLERANCE) for mask, values in pairs)
    return masks and bool((pullback.features - features).abs().max() <= _TOLERANCE * features.abs().max())
