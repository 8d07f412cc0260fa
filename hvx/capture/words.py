"""The word embeddings of an external model: where gradients arrive, and Eq. 3 for each token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.modules.module import register_module_forward_hook

from hvx.capture.graph import nodes_behind
from hvx.capture.image import followed, module_of
from hvx.capture.token_positions import Positions
from hvx.errors import HvxError


class Words(Protocol):
    """Word embeddings, from any source."""

    def makes(self, node: Node) -> bool:
        """Whether a node of the graph computes word embeddings."""
        ...

    def gradient(self, textual: list[GradientEdge], cotangents: list[Tensor]) -> Tensor:
        """Cotangents at Q, or its parts → gradient at the embeddings (N, T, E)."""
        ...


class EmbeddingLookup:
    """Embeddings that the model looks up for its ids (N, T), in any of its tables.

    Gradients of several tables are concatenated: E is the sum of their widths.
    """

    def __init__(self, ids: Tensor) -> None:
        self.positions = Positions(ids)
        self._shape = ids.shape

    def makes(self, node: Node) -> bool:
        return node.name().startswith("EmbeddingBackward") and self._token_positions(node) is not None

    def _token_positions(self, node: Node) -> Tensor | None:
        return self.positions.of(node._saved_indices)  # type: ignore[attr-defined]

    def gradient(self, textual: list[GradientEdge], cotangents: list[Tensor]) -> Tensor:
        lookups = [node for node in nodes_behind([edge.node for edge in textual]) if self.makes(node)]
        edges = [GradientEdge(node, 0) for node in lookups]
        gradients = torch.autograd.grad(textual, edges, cotangents, retain_graph=True)
        tables: dict[Any, Tensor] = {}
        for node, gradient in zip(lookups, gradients, strict=True):
            positions = self._token_positions(node)
            assert positions is not None
            width = gradient.shape[-1]
            table = node.next_functions[0][0]
            if table not in tables:
                tables[table] = gradient.new_zeros(self._shape.numel() + 1, width)
            tables[table].index_add_(0, positions.flatten().to(gradient.device), gradient.reshape(-1, width))
        return torch.cat([table[1:].view(*self._shape, -1) for table in tables.values()], dim=-1)


class EmbeddingTensor:
    """Embeddings (N, T, E) that the user passes to the model, or that are part of the user's own graph."""

    def __init__(self, embeddings: Tensor) -> None:
        self._edge = get_gradient_edge(embeddings)

    def makes(self, node: Node) -> bool:
        return node is self._edge.node

    def gradient(self, textual: list[GradientEdge], cotangents: list[Tensor]) -> Tensor:
        return torch.autograd.grad(textual, [self._edge], cotangents, retain_graph=True)[0]


class EmbeddingModule:
    """Embeddings that a module of the model returns: (N, T, E) in one call, or (N, E) in each of T calls."""

    def __init__(self, model: nn.Module, module: str | nn.Module) -> None:
        self._module = module_of(model, module, "words")
        self._outputs: list[tuple[GradientEdge, Tensor]] = []

    @property
    def called(self) -> bool:
        """Whether the forward called the module."""
        return bool(self._outputs)

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self._module).__name__

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the context, each output of the module is recorded."""
        handle = register_module_forward_hook(self._note)
        try:
            yield
        finally:
            handle.remove()

    def _note(self, module: nn.Module, args: Any, out: Any) -> Any:
        if module is not self._module:
            return out
        wanted = "embeddings: one tensor (N, T, E), or (N, E) for each token"
        out = followed(out, "words", self.name, wanted, range(2, 4))
        if out.requires_grad:
            self._outputs.append((get_gradient_edge(out), torch.zeros_like(out)))
        return out.clone() if out.is_leaf else out  # a leaf may not be written to in place

    def makes(self, node: Node) -> bool:
        return any(node is edge.node for edge, _ in self._outputs)

    def gradient(self, textual: list[GradientEdge], cotangents: list[Tensor]) -> Tensor:
        edges = [edge for edge, _ in self._outputs]
        raw = torch.autograd.grad(textual, edges, cotangents, retain_graph=True, allow_unused=True)
        gradients = [
            zeros if gradient is None else gradient
            for gradient, (_, zeros) in zip(raw, self._outputs, strict=True)
        ]
        if gradients[0].ndim == 2:
            return torch.stack(gradients, dim=1)
        if len(gradients) > 1:
            raise HvxError(
                f"words: {self.name} was called {len(gradients)} times for outputs (N, T, E); "
                "name a module that makes the embeddings of all tokens at once"
            )
        return gradients[0]
