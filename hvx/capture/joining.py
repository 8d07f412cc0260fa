"""Products that form one joint: parallel ones that meet in a sum or a concatenation (MUTAN, BLOCK)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from itertools import combinations
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

from hvx.capture.factors import LAYOUT
from hvx.capture.graph import inputs_of, kind, nodes_behind
from hvx.capture.records import RecordedProduct

_MEET = {"Add", "Sub", "Cat", "Stack"}
_LINEAR = LAYOUT | _MEET | {"Sum", "Mean", "Neg"}
_PRODUCTS = {"Mul", "Bmm", "Addcmul", "Mm"}


def joints(seen: list[RecordedProduct], output: Any) -> list[list[RecordedProduct]]:
    """Groups of products, each group one joint; in the order of the forward, by the last of a group.

    Two products form one joint if neither is computed from the other and they meet in a sum or a
    concatenation: directly; or after further steps, if one expression of the code computes both.

    Args:
        seen: products that are one vector for each question.
        output: what the model returned.
    """
    graph = _Graph(output)
    groups = [[record] for record in seen]
    for left, right in combinations(seen, 2):
        if graph.meet(left, right):
            first, second = (next(group for group in groups if record in group) for record in (left, right))
            if first is not second:
                first += second
                groups.remove(second)
    ordered = [sorted(group, key=lambda record: record.product.number) for group in groups]
    return sorted(ordered, key=lambda group: group[-1].product.number)


class _Graph:
    """The graph before the output of a model: which nodes read which."""

    def __init__(self, output: Any) -> None:
        starts = [tensor.grad_fn for tensor in tensors_in(output) if tensor.grad_fn is not None]
        self._readers: dict[Node, list[Node]] = defaultdict(list)
        for node in nodes_behind(starts):
            for parent in inputs_of(node):
                self._readers[parent].append(node)
        self._taken: dict[Node, None] = {}
        self._nodes: dict[int, Node | None] = {}

    def meet(self, left: RecordedProduct, right: RecordedProduct) -> bool:
        """Whether two products are parts of one joint."""
        first, second = self._product_node(left), self._product_node(right)
        if first is None or second is None:
            return False
        after = self._descendants(first), self._descendants(second)
        if first in after[1] or second in after[0]:
            return False
        linear = self._descendants(first, _LINEAR) & self._descendants(second, _LINEAR)
        if any(kind(node) in _MEET for node in linear):
            return True
        common = after[0] & after[1]
        nearest = [node for node in common if not common.intersection(inputs_of(node))]
        return left.site == right.site and any(kind(node) in _MEET for node in nearest)

    def _product_node(self, seen: RecordedProduct) -> Node | None:
        """The node that computed a product: it reads both factors."""
        number = seen.product.number
        if number not in self._nodes:
            visual, textual = seen.visual.edge.node, seen.textual.edge.node
            nodes = [
                node
                for node in self._readers.get(visual, [])
                if kind(node) in _PRODUCTS and textual in inputs_of(node) and node not in self._taken
            ]
            self._nodes[number] = nodes[0] if nodes else None
            self._taken |= dict.fromkeys(nodes[:1])
        return self._nodes[number]

    def _descendants(self, node: Node, through: set[str] | None = None) -> set[Node]:
        """The nodes computed from a node; if ``through`` is given, only by nodes of these kinds."""
        descendants: set[Node] = set()
        waiting = [node]
        while waiting:
            for reader in self._readers.get(waiting.pop(), []):
                if reader not in descendants and (through is None or kind(reader) in through):
                    descendants.add(reader)
                    waiting.append(reader)
        return descendants


def tensors_in(value: Any) -> Iterable[Tensor]:
    """The tensors in a model's output, also within sequences, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in(vars(value))
