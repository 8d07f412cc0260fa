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
from hvx.capture.records import Seen

_MEET = {"Add", "Sub", "Cat", "Stack"}
_LINEAR = LAYOUT | _MEET | {"Sum", "Mean", "Neg"}
_PRODUCTS = {"Mul", "Bmm", "Addcmul", "Mm"}


def joints(seen: list[Seen], output: Any) -> list[list[Seen]]:
    """Groups of products, each group one joint; in the order of the forward, by the last of a group.

    Two products belong together if neither is computed from the other and they meet in a sum or a
    concatenation: directly; or after further steps, if one expression of the code takes both.

    Args:
        seen: products that are one vector for each question.
        output: what the model returned.
    """
    graph = _Graph(output)
    groups = [[each] for each in seen]
    for one, other in combinations(seen, 2):
        if graph.meet(one, other):
            first, second = (next(g for g in groups if each in g) for each in (one, other))
            if first is not second:
                first += second
                groups.remove(second)
    ordered = [sorted(group, key=lambda each: each.product.number) for group in groups]
    return sorted(ordered, key=lambda group: group[-1].product.number)


class _Graph:
    """Which nodes read which, below the output of a model."""

    def __init__(self, output: Any) -> None:
        starts = [tensor.grad_fn for tensor in tensors_in(output) if tensor.grad_fn is not None]
        self._readers: dict[Node, list[Node]] = defaultdict(list)
        for node in nodes_behind(starts):
            for each in inputs_of(node):
                self._readers[each].append(node)
        self._taken: dict[Node, None] = {}
        self._nodes: dict[int, Node | None] = {}

    def meet(self, one: Seen, other: Seen) -> bool:
        """Whether two products are parts of one joint."""
        first, second = self._node(one), self._node(other)
        if first is None or second is None:
            return False
        after = self._after(first), self._after(second)
        if first in after[1] or second in after[0]:
            return False
        linear = self._after(first, _LINEAR) & self._after(second, _LINEAR)
        if any(kind(node) in _MEET for node in linear):
            return True
        common = after[0] & after[1]
        nearest = [node for node in common if not common.intersection(inputs_of(node))]
        return one.site == other.site and any(kind(node) in _MEET for node in nearest)

    def _node(self, seen: Seen) -> Node | None:
        """The node that took a product: it reads both factors."""
        number = seen.product.number
        if number not in self._nodes:
            one, other = seen.visual.edge.node, seen.textual.edge.node
            both = [
                node
                for node in self._readers.get(one, [])
                if kind(node) in _PRODUCTS and other in inputs_of(node) and node not in self._taken
            ]
            self._nodes[number] = both[0] if both else None
            self._taken |= dict.fromkeys(both[:1])
        return self._nodes[number]

    def _after(self, node: Node, through: set[str] | None = None) -> set[Node]:
        """What is computed from a node; only by steps of certain kinds, if they are given."""
        found: set[Node] = set()
        waiting = [node]
        while waiting:
            for each in self._readers.get(waiting.pop(), []):
                if each not in found and (through is None or kind(each) in through):
                    found.add(each)
                    waiting.append(each)
        return found


def tensors_in(value: Any) -> Iterable[Tensor]:
    """The tensors of a model's output: in sequences, mappings, dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in(vars(value))
