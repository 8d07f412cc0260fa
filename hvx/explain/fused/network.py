"""The steps of a network, run forward once per image and backward once per question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from hvx.errors import HvxError
from hvx.explain.fused.convolution import Convolution
from hvx.explain.fused.graph import Step, Value, read_steps
from hvx.explain.fused.masks import PackedMask
from hvx.explain.fused.ops import GenericOp, SavedTensors
from hvx.explain.fused.parallel import map_parallel
from hvx.explain.fused.plan import BackwardPlan, ForwardPlan, needed_values, plan_backward, plan_forward
from hvx.explain.guided import guided

_LARGE = 160**2
"""Pixels of an image from which on few images pass together: for smaller ones calling the operations takes
longer than waiting for the other threads (docs/engine.md)."""
_TOLERANCE = {False: 1e-2, True: 1e-1}
"""Largest relative difference that rounding explains, including some flipped ReLUs; True: in bfloat16."""
_IN_USE = 5
"""Number of tensors in use at once in a pass, each counted as large as the largest."""

Saved = tuple["Tensor | PackedMask | None", SavedTensors]
"""What a step saves: the mask of its ReLU, and its other values."""


class FusedGuidedBackbone:
    """Guided backpropagation through a frozen network: the same as ``GuidedVJP``, but faster.

    BatchNorm is folded into convolutions, weights have no gradients, and a mask of each ReLU is saved instead
    of activations: on the CPU a bit for each value, elsewhere and in compiled passes a byte.

    Args:
        network: a network cut by ``cut_network``, on its device. Its weights are copied.
        dtype: of the computation; the network's own if None.
        compiled: let PyTorch compile both passes, again for each batch size. The compiler then replaces
            oneDNN's fused convolutions.

    Raises:
        HvxError: as ``guided``.
    """

    def __init__(
        self, network: fx.GraphModule, dtype: torch.dtype | None = None, compiled: bool = False
    ) -> None:
        guided(network)  # refuses activations that the guided rule does not define
        self._dtype = dtype
        self._image, steps, self._features = read_steps(network, dtype, packs=not compiled)
        self.steps = [step for step in steps if step.output in needed_values(steps, self._features)]
        self._forwards = plan_forward(self.steps, self._image, self._features)
        self._backwards = {
            guides: plan_backward(self.steps, self._features, guides) for guides in (True, False)
        }
        self._eager = (self.forward, self.vjp) if compiled else None
        self._checked: set[torch.Size] = set()
        if compiled:
            self.forward = torch.compile(self.forward, dynamic=False)  # type: ignore[method-assign]
            self.vjp = torch.compile(self.vjp, dynamic=False)  # type: ignore[method-assign]

    def __call__(self, images: Tensor) -> FusedGuidedVJP:
        """The features of normalized images (B, C, H, W), from which cotangents can be pulled back.

        Raises:
            HvxError: the compiled network computes other values than the uncompiled one.
        """
        if self._eager is not None and images.shape not in self._checked:
            self._check_compiled(images, *self._eager)
            self._checked.add(images.shape)
        return FusedGuidedVJP(self, images)

    def features(self, images: Tensor) -> Tensor:
        """The features (B, M, S, S) alone of normalized images (B, C, H, W)."""
        features = map_parallel(lambda part: self.forward(images[part], saves=False)[0], self.parts(images))
        return _joined(features).to(images.dtype)

    @torch.no_grad()
    def _check_compiled(self, images: Tensor, forward: Any, vjp: Any) -> None:
        """Compare both compiled passes with the uncompiled ones, on the first images of each shape.

        PyTorch 2.11 compiles some networks to code with other results, without an error.
        """
        features, saved = forward(images)
        cotangent = torch.ones_like(features)
        expected = features, vjp(cotangent, saved)
        features, saved = self.forward(images)
        for compiled, eager in zip((features, self.vjp(cotangent, saved)), expected, strict=True):
            difference = (compiled.double() - eager.double()).norm() / eager.double().norm().clamp(min=1e-30)
            if not difference <= _TOLERANCE[eager.dtype == torch.bfloat16]:
                raise HvxError(
                    f"explain.compile: PyTorch {torch.__version__} compiles this network to other numbers "
                    f"(relative difference {float(difference):.2g}); set explain.compile to false"
                )

    def forward(
        self, images: Tensor, recorded: Sequence[Tensor] = (), saves: bool = True
    ) -> tuple[Tensor, list[Saved]]:
        """Features (B, M, S, S), and for each step the mask of its ReLU and its other saved values.

        Args:
            images: (B, C, H, W).
            recorded: the ReLUs' outputs in order, if known; they are not computed again.
            saves: whether to save what the backward pass needs.
        """
        recorded_outputs = iter(recorded)
        values = {self._image: images.to(self._dtype or images.dtype, memory_format=torch.channels_last)}
        saved: list[Saved] = []
        for run in self._forwards:
            inputs = [values[value] for value in run.step.inputs]
            if recorded and run.step.guided:
                output = next(recorded_outputs).contiguous(memory_format=torch.channels_last)
                extra: SavedTensors = (inputs[0].shape[2:],) if isinstance(run.step.op, Convolution) else ()
            else:
                output, extra = _forward(run, inputs)
            if saves:
                saved.append((self._mask(output) if run.step.guided else None, extra))
            values[run.step.output] = output
            del inputs, output
            for value in run.last_read:
                del values[value]
        return values[self._features], saved

    def parts(self, images: Tensor) -> list[slice]:
        """The images that pass together: all, or of large images few, in parallel with others.

        An operation of unknown kind may depend on the whole batch, or not be safe to run in several threads.
        """
        threads, count = torch.get_num_threads(), len(images)
        large = count > 0 and images[0, 0].numel() >= _LARGE
        if images.device.type != "cpu" or self._eager is not None or threads == 1 or not large:
            return [slice(None)]
        if any(isinstance(step.op, GenericOp) for step in self.steps):
            return [slice(None)]
        # Winograd's algorithm (float32) reads large weights: half as often for two images, while every thread
        # has two.
        in_pairs = (self._dtype or images.dtype) == torch.float32
        pairs = count // (2 * threads) * (2 * threads) if in_pairs else 0
        starts = [*range(0, pairs, 2), *range(pairs, count)]
        return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]

    def _mask(self, output: Tensor) -> Tensor | PackedMask:
        """Where a ReLU's output is positive."""
        if self._eager is None and output.device.type == "cpu":
            return PackedMask.of_positive(output)
        return output > 0

    def memory(self, images: Tensor) -> int:
        """Approximate bytes of the passes over some images: saved tensors and those in use at one time."""
        with torch.no_grad():
            features, saved = self.forward(images)
        tensors = [
            tensor
            for mask, extra in saved
            for tensor in (mask, *extra)
            if isinstance(tensor, (Tensor, PackedMask))
        ]
        largest = max(tensor.numel() for tensor in tensors) * features.element_size()
        return sum(tensor.nbytes for tensor in tensors) + _IN_USE * largest + features.nbytes + images.nbytes

    def vjp(self, cotangent: Tensor, saved: list[Saved], guides: bool = True) -> Tensor:
        """Cotangent at the features (B, M, S, S) → gradient at the images (B, C, H, W).

        ``guides``: by the guided rule; else the plain gradient.
        """
        start = cotangent.to(self._dtype or cotangent.dtype, memory_format=torch.channels_last)
        cotangents: dict[Value, Tensor] = {self._features: start}
        for step, plan, (mask, extra) in zip(
            reversed(self.steps), reversed(self._backwards[guides]), reversed(saved), strict=True
        ):
            g = cotangents.pop(step.output)
            if mask is not None:
                g = _guide(g, mask, plan)
            _propagate(step, plan, g, extra, cotangents)
            del g
        return cotangents[self._image]


class FusedGuidedVJP:
    """Features of a batch of images, and the VJP from the features to the images.

    Args:
        network: computes the features.
        images: normalized images (B, C, H, W).
        recorded: see ``FusedGuidedBackbone.forward``.
    """

    def __init__(self, network: FusedGuidedBackbone, images: Tensor, recorded: Sequence[Tensor] = ()) -> None:
        self._network = network
        self._parts = network.parts(images)
        forward = map_parallel(
            lambda part: network.forward(images[part], [output[part] for output in recorded]), self._parts
        )
        self._saved = [saved for _, saved in forward]
        """Of each part."""
        self.features = _joined([features for features, _ in forward]).to(images.dtype)

    @property
    def masks(self) -> list[Tensor]:
        """Where each ReLU's output is positive, in order."""
        masks_of_parts = [[mask for mask, _ in saved if mask is not None] for saved in self._saved]
        return [
            _joined([m.unpacked().bool() if isinstance(m, PackedMask) else m for m in masks])
            for masks in zip(*masks_of_parts, strict=True)
        ]

    def vjp(self, cotangent: Tensor, guides: bool = True) -> Tensor:
        """Cotangent at the features of the first n images (n, M, S, S) → gradient at them (n, C, H, W).

        ``guides``: by the guided rule; else the plain gradient.
        """
        parts = [(cotangent[rows], saved) for rows, saved in zip(self._parts, self._saved, strict=True)]
        parts = [(part, [_first(step, len(part)) for step in saved]) for part, saved in parts if len(part)]
        return _joined(map_parallel(lambda part: self._network.vjp(*part, guides), parts)).to(cotangent.dtype)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _first(saved: Saved, count: int) -> Saved:
    """A step's saved values of the first images."""
    mask, extra = saved
    rows = tuple(x[:count] if isinstance(x, Tensor) else x for x in extra)
    return None if mask is None else mask[:count], rows


def _forward(run: ForwardPlan, inputs: list[Tensor]) -> tuple[Tensor, SavedTensors]:
    step = run.step
    if isinstance(step.op, Convolution):
        x, *added = inputs
        output = step.op(x, added[0] if added else None, run.overwrites, step.guided)
        return output, (x.shape[2:],)
    return step.op.forward(*inputs)


def _guide(g: Tensor, mask: Tensor | PackedMask, plan: BackwardPlan) -> Tensor:
    """The guided rule: g where the ReLU's input and g are positive."""
    if isinstance(mask, PackedMask):
        g = mask.multiply(g, plan.owned)
    else:
        # PyTorch multiplies by bytes several times faster than by booleans; its compiler (2.11) lacks this
        # view.
        factors = mask if torch.compiler.is_compiling() else mask.view(torch.uint8)
        g = g.mul_(factors) if plan.owned else g * factors
    return g if plan.clamped else g.clamp_(min=0)


def _propagate(
    step: Step, plan: BackwardPlan, g: Tensor, saved: SavedTensors, cotangents: dict[Value, Tensor]
) -> None:
    """Pass a cotangent back to each input of a step."""
    if isinstance(step.op, Convolution):
        x = step.inputs[0]
        pulled = step.op.transposed(g, saved[0], cotangents.get(x), plan.overwrites[0], plan.clamps[0])
        # The sum passes the cotangent on unchanged; it may be changed in place after its last other reader.
        cotangents[x], outgoing = pulled, [(1, g)] if len(step.inputs) > 1 else []
    elif step.op.passes:
        outgoing = [(index, g) for index in range(len(step.inputs))]
    else:
        outgoing = list(enumerate(step.op.vjp(g, saved)))
    for index, input_cotangent in outgoing:
        value = step.inputs[index]
        if not plan.into[index]:
            cotangents[value] = input_cotangent
        elif plan.overwrites[index]:
            cotangents[value].add_(input_cotangent)
        else:
            cotangents[value] = cotangents[value] + input_cotangent
