"""The steps of a network run forward once per image and backward once per question.

What a step's output and its cotangent may do with memory is settled once, ahead of all runs, by going through
the steps as both passes will: who reads a tensor last may write over it, who holds a cotangent alone may
change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from hvx.errors import HvxError
from hvx.explain.guided import guided
from hvx.explain.lean.convolution import Convolution
from hvx.explain.lean.rules import Kept, Other
from hvx.explain.lean.steps import Step, Value, read_steps

_APART = {False: 1e-2, True: 1e-1}
"""Relative difference that rounding explains, of a ReLU's sign here and there; True: in bfloat16."""
_AT_WORK = 5
"""Tensors as large as the largest that a pass holds at once."""


@dataclass
class _Forward:
    """How a step runs forward: whether it may write over the tensor that it adds; what is not read again."""

    step: Step
    overwrites: bool
    last_read: list[Value]


@dataclass
class _Turn:
    """How a cotangent takes its turn at a step.

    Attributes:
        clamped: its negative values are zero already.
        owned: nobody else holds it.
        into: of each input, whether there is a cotangent there already, to which this one is added.
        overwrites: of each input, whether the sum may take that one's place.
        clamps: of each input, whether negative values are to become zero on the way.
    """

    clamped: bool = False
    owned: bool = False
    into: list[bool] = field(default_factory=list)
    overwrites: list[bool] = field(default_factory=list)
    clamps: list[bool] = field(default_factory=list)


class LeanNetwork:
    """Guided backpropagation through a frozen network: the same as ``GuidedPullback``, for less.

    BatchNorm is folded into convolutions, weights have no gradients, and of each ReLU a mask of booleans is
    kept in place of activations.

    Args:
        network: a network cut by ``cut_network``, on its device. Its weights are copied.
        dtype: of the numbers computed with; none: the network's own.
        compiled: have PyTorch compile both passes, for each size of batch anew. oneDNN's fused convolutions
            are then left to its compiler.

    Raises:
        HvxError: as ``guided``.
    """

    def __init__(
        self, network: fx.GraphModule, dtype: torch.dtype | None = None, compiled: bool = False
    ) -> None:
        guided(network)  # refuses what the guided rule does not speak of
        self._dtype = dtype
        self._image, steps, self._features = read_steps(network, dtype, packs=not compiled)
        self.steps = [step for step in steps if step.output in _needed(steps, self._features)]
        self._forwards = _plan_forward(self.steps, self._image, self._features)
        self._turns = _plan_pull(self.steps, self._features)
        self._eager = (self.forward, self.pull) if compiled else None
        self._checked: set[torch.Size] = set()
        if compiled:
            self.forward = torch.compile(self.forward, dynamic=False)  # type: ignore[method-assign]
            self.pull = torch.compile(self.pull, dynamic=False)  # type: ignore[method-assign]

    def __call__(self, images: Tensor) -> LeanPullback:
        """The features of normalized images (B, C, H, W), from which cotangents can be pulled back.

        Raises:
            HvxError: compiled, the network computes something else than it does uncompiled.
        """
        if self._eager is not None and images.shape not in self._checked:
            self._check_compiled(images, *self._eager)
            self._checked.add(images.shape)
        return LeanPullback(self, images)

    @torch.no_grad()
    def _check_compiled(self, images: Tensor, forward: Any, pull: Any) -> None:
        """Compare both compiled passes with the uncompiled ones, on the first images of each shape.

        PyTorch 2.11 compiles some networks to other numbers without an error.
        """
        features, kept = forward(images)
        cotangent = torch.ones_like(features)
        expected = features, pull(cotangent, kept)
        features, kept = self.forward(images)
        for found, wanted in zip((features, self.pull(cotangent, kept)), expected, strict=True):
            apart = (found.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-30)
            if not apart <= _APART[wanted.dtype == torch.bfloat16]:
                raise HvxError(
                    f"explain.compile: PyTorch {torch.__version__} compiles this network to other numbers "
                    f"(relative difference {float(apart):.2g}); set explain.compile to false"
                )

    def forward(
        self, images: Tensor, recorded: Sequence[Tensor] = ()
    ) -> tuple[Tensor, list[tuple[Tensor | None, Kept]]]:
        """Features (B, M, S, S), and of each step the mask of its ReLU with what else it keeps.

        Args:
            images: (B, C, H, W).
            recorded: what the ReLUs put out, in order, where that is known: it is not computed again.
        """
        known = iter(recorded)
        values = {self._image: images.to(self._dtype or images.dtype, memory_format=torch.channels_last)}
        kept: list[tuple[Tensor | None, Kept]] = []
        for run in self._forwards:
            inputs = [values[value] for value in run.step.inputs]
            if recorded and run.step.guided:
                output = next(known).contiguous(memory_format=torch.channels_last)
                own: Kept = (inputs[0].shape[2:],) if isinstance(run.step.rule, Convolution) else ()
            else:
                output, own = _forward(run, inputs)
            kept.append((output > 0 if run.step.guided else None, own))
            values[run.step.output] = output
            del inputs, output
            for value in run.last_read:
                del values[value]
        return values[self._features], kept

    def memory(self, images: Tensor) -> int:
        """Bytes that the passes over some images take, about: what is kept, and what is at work at once."""
        with torch.no_grad():
            features, kept = self.forward(images)
        tensors = [tensor for mask, own in kept for tensor in (mask, *own) if isinstance(tensor, Tensor)]
        largest = max(tensor.numel() for tensor in tensors) * features.element_size()
        return sum(tensor.nbytes for tensor in tensors) + _AT_WORK * largest + features.nbytes + images.nbytes

    def pull(self, cotangent: Tensor, kept: list[tuple[Tensor | None, Kept]]) -> Tensor:
        """Cotangent at the features (B, M, S, S) → gradient at the images (B, C, H, W)."""
        given = cotangent.to(self._dtype or cotangent.dtype, memory_format=torch.channels_last)
        held: dict[Value, Tensor] = {self._features: given}
        for step, turn, (mask, own) in zip(
            reversed(self.steps), reversed(self._turns), reversed(kept), strict=True
        ):
            g = held.pop(step.output)
            if mask is not None:
                g = _guide(g, mask, turn)
            _hand_on(step, turn, g, own, held)
            del g
        return held[self._image]


class LeanPullback:
    """Features of a batch of images, and cotangents at the features pulled back to the images.

    Args:
        network: what they are features of.
        images: normalized images (B, C, H, W).
        recorded: see ``LeanNetwork.forward``.
    """

    def __init__(self, network: LeanNetwork, images: Tensor, recorded: Sequence[Tensor] = ()) -> None:
        self._network = network
        with torch.no_grad():
            features, self._kept = network.forward(images, recorded)
        self.features = features.to(images.dtype)

    @property
    def masks(self) -> list[Tensor]:
        """Where each ReLU's output is positive, in order."""
        return [mask for mask, _ in self._kept if mask is not None]

    def pull(self, cotangent: Tensor) -> Tensor:
        """Cotangent at the features of the first n images (n, M, S, S) → gradient at them (n, C, H, W)."""
        count = len(cotangent)
        with torch.no_grad():
            pulled = self._network.pull(cotangent, [_first(kept, count) for kept in self._kept])
        return pulled.to(cotangent.dtype)


def _first(kept: tuple[Tensor | None, Kept], count: int) -> tuple[Tensor | None, Kept]:
    """Of what a step kept, that of the first images."""
    mask, own = kept
    cut = tuple(x[:count] if isinstance(x, Tensor) else x for x in own)
    return None if mask is None else mask[:count], cut


def _forward(run: _Forward, inputs: list[Tensor]) -> tuple[Tensor, Kept]:
    step = run.step
    if isinstance(step.rule, Convolution):
        x, *added = inputs
        output = step.rule(x, added[0] if added else None, run.overwrites, step.guided)
        return output, (x.shape[2:],)
    return step.rule.forward(*inputs)


def _guide(g: Tensor, mask: Tensor, turn: _Turn) -> Tensor:
    """The guided rule: g where the ReLU's input and g are positive."""
    # PyTorch multiplies by bytes several times as fast as by booleans; its compiler (2.11) has no such view.
    mask = mask if torch.compiler.is_compiling() else mask.view(torch.uint8)
    g = g.mul_(mask) if turn.owned else g * mask
    return g if turn.clamped else g.clamp_(min=0)


def _hand_on(step: Step, turn: _Turn, g: Tensor, kept: Kept, held: dict[Value, Tensor]) -> None:
    """Give each input of a step its cotangent."""
    if isinstance(step.rule, Convolution):
        x = step.inputs[0]
        pulled = step.rule.transposed(g, kept[0], held.get(x), turn.overwrites[0], turn.clamps[0])
        # The sum passes the cotangent on as it is, to be changed in place only once nobody else reads it.
        held[x], passed = pulled, [(1, g)] if len(step.inputs) > 1 else []
    elif step.rule.passes:
        passed = [(place, g) for place in range(len(step.inputs))]
    else:
        passed = list(enumerate(step.rule.pull(g, kept)))
    for place, own in passed:
        value = step.inputs[place]
        if not turn.into[place]:
            held[value] = own
        elif turn.overwrites[place]:
            held[value].add_(own)
        else:
            held[value] = held[value] + own


def _needed(steps: list[Step], features: Value) -> set[Value]:
    """The values that the features are made of."""
    needed = {features}
    for step in reversed(steps):
        if step.output in needed:
            needed.update(step.inputs)
    return needed


def _plan_forward(steps: list[Step], image: Value, features: Value) -> list[_Forward]:
    last = {value: place for place, step in enumerate(steps) for value in step.inputs}
    # What a rule of unknown kind reads it keeps, and what it makes may lie in the same memory.
    fixed = {image, features}
    for step in steps:
        if isinstance(step.rule, Other):
            fixed.update(step.inputs, [step.output])
    plan = []
    for place, step in enumerate(steps):
        ends = [v for v in dict.fromkeys(step.inputs) if last[v] == place and v is not features]
        *_, added = step.inputs
        sums = isinstance(step.rule, Convolution) and len(step.inputs) > 1
        overwrites = sums and added in ends and added not in fixed and added is not step.inputs[0]
        plan.append(_Forward(step, overwrites, ends))
    return plan


def _plan_pull(steps: list[Step], features: Value) -> list[_Turn]:
    """Follow the cotangents through the steps, last to first: who holds which memory at each turn."""
    given = object()
    memory: dict[Value, Any] = {features: given}
    holders: Counter[Any] = Counter({given: 2})  # of the cotangent that was given, its giver is another
    clamped: set[Value] = set()
    guided_values = {step.output for step in steps if step.guided}
    first_use = {value: place for place, step in reversed(list(enumerate(steps))) for value in step.inputs}
    turns = []
    for place in range(len(steps) - 1, -1, -1):
        step, turn = steps[place], _Turn()
        own = memory.pop(step.output)
        turn.owned, turn.clamped = holders[own] == 1, step.output in clamped
        holders[own] -= 1
        if step.guided and not turn.owned:
            own = object()
        convolves = isinstance(step.rule, Convolution)
        for n, value in enumerate(step.inputs):
            passes = n > 0 if convolves else step.rule.passes  # type: ignore[union-attr]
            there = memory.get(value)
            turn.into.append(there is not None)
            turn.overwrites.append(there is not None and holders[there] == 1)
            clamps = convolves and value in guided_values and first_use[value] == place
            clamps = clamps and n == 0 and value not in step.inputs[1:]
            turn.clamps.append(clamps)
            if clamps:
                clamped.add(value)
            if there is not None:
                if turn.overwrites[-1]:
                    continue
                holders[there] -= 1
            memory[value] = own if passes and there is None else object()
            holders[memory[value]] += 1
        turns.append(turn)
    return turns[::-1]
