"""A traced network as steps: BatchNorm is folded, sums and ReLUs are merged into the convolution before."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.nn import functional

from hvx.explain.fused.convolution import Convolution, batchnorm_scale_shift
from hvx.explain.fused.ops import Add, Affine, AveragePool, Concatenate, GenericOp, MaxPool, Op, ReLU
from hvx.explain.guided import is_relu

_IDENTITIES = (nn.Dropout, nn.Dropout2d, nn.Identity)
"""Modules that do nothing in evaluation mode."""
_SUMS = (operator.add, operator.iadd, torch.add)

_POOLS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    functional.max_pool2d: (
        nn.MaxPool2d,
        ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    ),
    functional.avg_pool2d: (
        nn.AvgPool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
}
"""Functions → the modules that do the same, and their options' names in the functions' order."""
_ANY_SIZE = (256, 256)
"""Size of an image for finding the shapes of the nodes' outputs."""

Value = fx.Node
"""A step's output is identified by the node of the traced graph that computes it."""


@dataclass(frozen=True)
class Step:
    """One use of an op or a convolution.

    Attributes:
        op: the operation; a convolution adds its second input, if there is one, to its result.
        inputs: the values it reads.
        output: the value it computes.
        guided: it ends with a ReLU, whose ``vjp`` follows the guided rule.
    """

    op: Op | Convolution
    inputs: tuple[Value, ...]
    output: Value
    guided: bool = False


def read_steps(
    network: fx.GraphModule, dtype: torch.dtype | None, packs: bool
) -> tuple[Value, list[Step], Value]:
    """The image, the steps in order, and the features of a network cut by ``cut_network``.

    Args:
        network: traced, in evaluation mode; its weights are read, not changed.
        dtype: of the steps' weights; the network's own if None.
        packs: convert convolution weights to oneDNN's layout, if oneDNN is available.
    """
    reader = _Reader(network, dtype, packs)
    return reader.image, _merge_steps(reader.steps, reader.features), reader.features


class _Reader:
    """Reads node by node; nodes that do nothing, or do not compute a tensor, add no step."""

    def __init__(self, network: fx.GraphModule, dtype: torch.dtype | None, packs: bool) -> None:
        self._modules = dict(network.named_modules())
        self._network, self._dtype, self._packs = network, dtype, packs
        self._aliases: dict[fx.Node, Value] = {}
        """Node → the value that it equals."""
        self._lazy: set[fx.Node] = set()
        """Nodes that are not feature maps (sizes, tuples); each user computes them again."""
        self._propagated = False
        self.steps: list[Step] = []
        (self.image,) = (node for node in network.graph.nodes if node.op == "placeholder")
        (output,) = (node for node in network.graph.nodes if node.op == "output")
        named: Any = output.args[0]
        for node in network.graph.nodes:
            if node.op not in ("placeholder", "output"):
                self._read(node)
        self.features = self._value(named["features"])

    def _value(self, node: fx.Node) -> Value:
        return self._aliases.get(node, node)

    def _read(self, node: fx.Node) -> None:
        if self._is_identity(node) or self._fold_norm(node):
            self._aliases[node] = self._value(node.all_input_nodes[0])
        elif is_relu(node, self._modules):
            self._add(ReLU(), [node.args[0] if node.args else node.kwargs["input"]], node, guided=True)
        else:
            known = self._module(node) if node.op == "call_module" else self._function(node)
            op, inputs = known or self._other(node)
            if op is not None:
                self._add(op, inputs, node)

    def _add(self, op: Op | Convolution, inputs: Sequence[Any], node: fx.Node, guided: bool = False) -> None:
        self.steps.append(Step(op, tuple(self._value(x) for x in inputs), node, guided))

    def _is_identity(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self._modules[str(node.target)], _IDENTITIES)
        return node.op == "call_function" and node.target in (functional.dropout, functional.dropout2d)

    def _fold_norm(self, node: fx.Node) -> bool:
        """If a node is a BatchNorm, fold it into the convolution that only it reads."""
        norm = self._modules.get(str(node.target)) if node.op == "call_module" else None
        if norm is None or not _is_frozen_norm(norm) or len(node.all_input_nodes[0].users) > 1:
            return False
        source = node.all_input_nodes[0]
        for index, step in enumerate(self.steps):
            module = self._modules.get(str(source.target))
            if step.output is source and isinstance(step.op, Convolution) and isinstance(module, nn.Conv2d):
                folded = Convolution.of(module, self._dtype, self._packs, norm)
                self.steps[index] = replace(step, op=folded)
                return True
        return False

    def _module(self, node: fx.Node) -> tuple[Op | Convolution, Sequence[Any]] | None:
        op = self._op_of(self._modules[str(node.target)])
        return (op, node.args) if op else None

    def _op_of(self, module: nn.Module) -> Op | Convolution | None:
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and isinstance(module.padding, tuple):
            return Convolution.of(module, self._dtype, self._packs)
        if _is_frozen_norm(module):
            return Affine(
                *(x.to(self._dtype or x.dtype).view(1, -1, 1, 1) for x in batchnorm_scale_shift(module))
            )
        if isinstance(module, nn.MaxPool2d) and not module.return_indices:
            return MaxPool(
                module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
            )
        if isinstance(module, nn.AvgPool2d):
            return AveragePool(
                module.kernel_size, module.stride, module.padding, module.ceil_mode,
                module.count_include_pad, module.divisor_override,
            )  # fmt: skip
        return None

    def _function(self, node: fx.Node) -> tuple[Op | Convolution, Sequence[Any]] | None:
        if node.op != "call_function":
            return None
        args: tuple[Any, ...] = node.args
        if node.target in _SUMS and len(node.all_input_nodes) == len(args) == 2 and not node.kwargs:
            shapes = {self._shape(x) for x in args}
            return (Add(), args) if len(shapes) == 1 and None not in shapes else None
        if node.target in _POOLS and args:
            kind, names = _POOLS[node.target]
            op = self._op_of(kind(**dict(zip(names, args[1:], strict=False)) | dict(node.kwargs)))
            return (op, args[:1]) if op else None
        if node.target is torch.cat and isinstance(args[0], (list, tuple)):
            dim = args[1] if len(args) > 1 else node.kwargs.get("dim", 0)
            return (Concatenate(), args[0]) if dim == 1 and not self._lazy & set(args[0]) else None
        return None

    def _other(self, node: fx.Node) -> tuple[Op | None, Sequence[Value]]:
        """A node, with the lazy nodes before it, as a function of feature maps."""
        if self._shape(node) is None:
            self._lazy.add(node)
            return None, ()
        inputs: list[Value] = []
        function = self._as_function(node, inputs)
        return GenericOp(lambda *tensors: function(dict(zip(inputs, tensors, strict=True)))), inputs

    def _as_function(self, node: fx.Node, inputs: list[Value]) -> Callable[[dict[Value, Tensor]], Any]:
        """A function that computes a node from the values of ``inputs``; missing inputs are added there."""

        def argument(x: fx.Node) -> Callable[[dict[Value, Tensor]], Any]:
            if x in self._lazy:
                return self._as_function(x, inputs)
            value = self._value(x)
            if value not in inputs:
                inputs.append(value)
            return lambda tensors: tensors[value]

        parts = {x: argument(x) for x in node.all_input_nodes}
        interpreter = fx.Interpreter(self._network)
        in_place = _is_in_place(node)

        def compute(tensors: dict[Value, Tensor]) -> Any:
            operands = {x: part(tensors) for x, part in parts.items()}
            if in_place:  # do not change tensors that others use or that are saved
                operands = {x: y.clone() if isinstance(y, Tensor) else y for x, y in operands.items()}
            arguments = fx.node.map_arg((node.args, node.kwargs), lambda x: operands[x])
            return getattr(interpreter, node.op)(node.target, *arguments)

        return compute

    def _shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """Shape (B, M, H, W) of a node's output for an image; None if the output is not such a tensor."""
        if not self._propagated:
            self._propagated = True
            mode = FakeTensorMode(allow_non_fake_inputs=True)
            weight = next(self._network.parameters())
            image = torch.empty(1, 3, *_ANY_SIZE, dtype=weight.dtype, device=weight.device)
            FakeTensorProp(self._network, mode).propagate(image)
        value = node.meta.get("val")  # torch 2.11 sets none if a node returns a tuple
        return tuple(value.shape) if isinstance(value, Tensor) and value.ndim == 4 else None


def _is_in_place(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or node.target in (operator.iadd, operator.imul, operator.isub)


def _is_frozen_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    return type(module) is nn.BatchNorm2d and module.running_var is not None and not module.training


def _merge_steps(steps: list[Step], features: Value) -> list[Step]:
    """Merge sums and ReLUs into the convolution before them, if nothing else reads its output."""
    users: dict[Value, int] = {features: 1}
    for step in steps:
        for value in step.inputs:
            users[value] = users.get(value, 0) + 1
    merged: list[Step] = []
    for step in steps:
        joined = _merge_step(step, merged, users)
        if joined is None:
            merged.append(step)
        else:
            index, whole = joined
            del merged[index]
            merged.append(whole)
    return merged


def _merge_step(step: Step, merged: list[Step], users: dict[Value, int]) -> tuple[int, Step] | None:
    """The index of the convolution that can include a sum or a ReLU, and the merged step."""
    if not isinstance(step.op, (Add, ReLU)) or len(set(step.inputs)) < len(step.inputs):
        return None
    for index in range(len(merged) - 1, -1, -1):
        previous = merged[index]
        alone = users[previous.output] == 1 and isinstance(previous.op, Convolution) and not previous.guided
        if previous.output not in step.inputs or not alone:
            continue
        if isinstance(step.op, ReLU):
            return index, replace(previous, output=step.output, guided=True)
        if len(previous.inputs) == 1:
            (other,) = (value for value in step.inputs if value is not previous.output)
            return index, replace(previous, inputs=(*previous.inputs, other), output=step.output)
    return None
