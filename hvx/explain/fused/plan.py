"""How the passes use memory: planned once, by following the steps of both passes.

A tensor's last consumer may overwrite it, and a cotangent with a single holder may be changed in place.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hvx.explain.fused.convolution import Convolution
from hvx.explain.fused.graph import Step, Value
from hvx.explain.fused.ops import GenericOp


@dataclass
class ForwardPlan:
    """How a step runs forward: whether it may overwrite the tensor that it adds; what is read last here."""

    step: Step
    overwrites: bool
    last_read: list[Value]


@dataclass
class BackwardPlan:
    """How a cotangent passes back through a step.

    Attributes:
        clamped: its negative values are zero already, or stay.
        owned: nothing else holds its memory.
        into: of each input, whether it already has a cotangent, to which the new one is added.
        overwrites: of each input, whether the sum may overwrite that cotangent.
        clamps: of each input, whether the step sets negative values to zero.
    """

    clamped: bool = False
    owned: bool = False
    into: list[bool] = field(default_factory=list)
    overwrites: list[bool] = field(default_factory=list)
    clamps: list[bool] = field(default_factory=list)


def needed_values(steps: list[Step], features: Value) -> set[Value]:
    """The values that the features depend on."""
    needed = {features}
    for step in reversed(steps):
        if step.output in needed:
            needed.update(step.inputs)
    return needed


def plan_forward(steps: list[Step], image: Value, features: Value) -> list[ForwardPlan]:
    """For each step, what it may overwrite and what is read last there."""
    last_use = {value: index for index, step in enumerate(steps) for value in step.inputs}
    # An operation of unknown kind saves its inputs, and its output may share their memory.
    fixed = {image, features}
    for step in steps:
        if isinstance(step.op, GenericOp):
            fixed.update(step.inputs, [step.output])
    plan = []
    for index, step in enumerate(steps):
        last_read = [v for v in dict.fromkeys(step.inputs) if last_use[v] == index and v is not features]
        *_, added = step.inputs
        sums = isinstance(step.op, Convolution) and len(step.inputs) > 1
        overwrites = sums and added in last_read and added not in fixed and added is not step.inputs[0]
        plan.append(ForwardPlan(step, overwrites, last_read))
    return plan


def plan_backward(steps: list[Step], features: Value, guides: bool = True) -> list[BackwardPlan]:
    """Follow the cotangents through the steps, last to first: which values hold which memory at each step.

    Args:
        steps: of the network.
        features: its output.
        guides: by the guided rule; else plain gradients, whose negative values stay.
    """
    caller = object()
    memory: dict[Value, Any] = {features: caller}
    holders: Counter[Any] = Counter({caller: 2})  # the caller holds its cotangent too
    clamped: set[Value] = set()
    guided_values = {step.output for step in steps if step.guided}
    first_use = {value: index for index, step in reversed(list(enumerate(steps))) for value in step.inputs}
    plans = []
    for index in range(len(steps) - 1, -1, -1):
        step, plan = steps[index], BackwardPlan()
        memory_id = memory.pop(step.output)
        plan.owned, plan.clamped = holders[memory_id] == 1, step.output in clamped or not guides
        holders[memory_id] -= 1
        if step.guided and not plan.owned:
            memory_id = object()
        convolves = isinstance(step.op, Convolution)
        for position, value in enumerate(step.inputs):
            passes = position > 0 if convolves else step.op.passes  # type: ignore[union-attr]
            existing = memory.get(value)
            plan.into.append(existing is not None)
            plan.overwrites.append(existing is not None and holders[existing] == 1)
            clamps = convolves and value in guided_values and first_use[value] == index
            clamps = clamps and guides and position == 0 and value not in step.inputs[1:]
            plan.clamps.append(clamps)
            if clamps:
                clamped.add(value)
            if existing is not None:
                if plan.overwrites[-1]:
                    continue
                holders[existing] -= 1
            memory[value] = memory_id if passes and existing is None else object()
            holders[memory[value]] += 1
        plans.append(plan)
    return plans[::-1]
