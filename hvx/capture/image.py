"""The image of an external model: pixels or features among its inputs, or the output of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.modules.module import register_module_forward_hook

from hvx.capture.graph import IMAGE
from hvx.capture.recorder import ProductRecorder
from hvx.errors import HvxError, did_you_mean


class _Share(torch.autograd.Function):
    """A tensor's storage as a node of a graph: not a copy and not a leaf, so that a model may write to it."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, source: Tensor) -> Tensor:
        return source.new_empty(0).set_(source)  # type: ignore[call-overload]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        return None, None  # gradients are taken at this node's output


class InputImage:
    """A tensor among the inputs: (B, C, H, W), or features of any shape (B, …).

    The model reads the tensor's own storage; what it writes there is restored (``preserve_state``).
    """

    def __init__(self, image: Tensor) -> None:
        plain = type(image) is Tensor and image.layout == torch.strided and not image.is_inference()
        leaf = torch.empty(0, dtype=image.dtype, device=image.device, requires_grad=True)
        self.tensor: Tensor = _Share.apply(leaf, image.detach() if plain else image.detach().clone())
        self.edge, self.rows = get_gradient_edge(self.tensor), len(image)

    def makes(self, node: Node) -> bool:
        return node is self.edge.node

    def listening(self, recorder: ProductRecorder) -> Any:
        recorder.touch(self.tensor, IMAGE)
        return nullcontext()


class ModuleImage:
    """The output of a module that is called once: a CNN's map (B, C, H, W), or patch tokens (B, K, E)."""

    def __init__(self, model: nn.Module, module: str | nn.Module) -> None:
        self._module = module_of(model, module, "image")
        self._output: tuple[GradientEdge, int] | None = None

    @contextmanager
    def listening(self, recorder: ProductRecorder) -> Iterator[None]:
        def note(module: nn.Module, args: Any, out: Any) -> Any:
            if module is not self._module:
                return out
            if self._output is not None:
                raise HvxError(f"image: {self._name} is called more than once; name a module called once")
            output = followed(out, "image", self._name, "one tensor (B, …) of floats", range(2, 6))
            if output.requires_grad:
                self._output = get_gradient_edge(output), len(output)
            recorder.touch(output, IMAGE)
            return output.clone() if output.is_leaf else output  # a leaf may not be written to in place

        handle = register_module_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()

    @property
    def _name(self) -> str:
        return type(self._module).__name__

    def _recorded(self) -> tuple[GradientEdge, int]:
        if self._output is None:
            raise HvxError(
                f"image: the forward does not call {self._name}, or calls it under torch.no_grad(); name "
                "another module, or pass through_no_grad=True"
            )
        return self._output

    @property
    def edge(self) -> GradientEdge:
        return self._recorded()[0]

    @property
    def rows(self) -> int:
        return self._recorded()[1]

    def makes(self, node: Node) -> bool:
        return self._output is not None and node is self._output[0].node


def module_of(model: nn.Module, module: str | nn.Module, argument: str) -> nn.Module:
    """A module of the model, given as its path or as the module.

    Args:
        argument: the caller's name for it, for the error.

    Raises:
        HvxError: the model has no such module.
    """
    paths = dict(model.named_modules())
    if isinstance(module, str) and module not in paths:
        raise HvxError(f"{argument}: the model has no module '{module}'{did_you_mean(module, paths)}")
    target = paths[module] if isinstance(module, str) else module
    if target not in paths.values():
        raise HvxError(f"{argument}: the {type(target).__name__} given is no module of the model")
    return target


def followed(out: Any, argument: str, name: str, wanted: str, dimensions: range) -> Tensor:
    """A module's output with a gradient: the output, or a new leaf if it has none and gradients are on.

    Raises:
        HvxError: the output is not one tensor of floats with this number of dimensions.
    """
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.ndim not in dimensions:
        actual = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise HvxError(f"{argument}: {name} puts out {actual}; expected {wanted}")
    return out.detach().requires_grad_() if not out.requires_grad and torch.is_grad_enabled() else out
