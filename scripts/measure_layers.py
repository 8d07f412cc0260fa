"""Where the CPU engine spends its time in ResNet-152: by kind of layer, of both passes.

python scripts/measure_layers.py --dtype bfloat16

Each operation of the engine is timed inside whole passes, a forward pass and five backward ones on a batch,
so caches are as full as in use. Images do not pass in parallel here: all threads share each operation. Shares
are of PyTorch's rate of matrix products, measured in the same turns.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import click
import torch
from benchmark import matrix_rate
from torch import Tensor

from hvx.config import ModelConfig
from hvx.explain.fused import FusedGuidedBackbone, network
from hvx.explain.fused.convolution import Convolution
from hvx.explain.fused.ops import MaxPool
from hvx.models.backbone import build_backbone

ROUNDS = 5
Key = tuple[str, str]
"""The pass and the kind of layer."""


class Stopwatch:
    """Seconds and FLOPs of each kind of layer, turn by turn."""

    def __init__(self) -> None:
        self.seconds: list[dict[Key, float]] = []
        self.flops: dict[Key, int] = {}
        self.calls: dict[Key, int] = {}

    def start_turn(self) -> None:
        self.seconds.append(defaultdict(float))
        self.flops, self.calls = defaultdict(int), defaultdict(int)

    def wrap(self, owner: Any, name: str, key: Callable[..., tuple[Key, int]]) -> None:
        """Replace a function by one that is timed; ``key`` gives its kind and FLOPs from its arguments."""
        function = getattr(owner, name)

        def timed(*given: Any) -> Any:
            start = time.perf_counter()
            result = function(*given)
            spent = time.perf_counter() - start
            kind, flops = key(*given)
            self.seconds[-1][kind] += spent
            self.flops[kind] += flops
            self.calls[kind] += 1
            return result

        setattr(owner, name, timed)


def describe(convolution: Convolution, side: tuple[int, ...], sums: bool) -> tuple[str, int]:
    """A convolution's kind, and its multiplications and additions for an image.

    Args:
        side: height and width of its output.
    """
    kinds, channels, height, width = convolution.weight.shape
    step = f" / {convolution.options.stride[0]}" if convolution.options.stride[0] > 1 else ""
    text = f"{height}×{width}{step}, {channels}→{kinds} at {side[0]}×{side[1]}" + (", sum" if sums else "")
    return text, 2 * convolution.weight.numel() * side[0] * side[1]


def watch(stopwatch: Stopwatch) -> None:
    def forward(c: Convolution, x: Tensor, other: Tensor | None = None, *_: Any) -> tuple[Key, int]:
        side = tuple(-(-length // step) for length, step in zip(x.shape[2:], c.options.stride, strict=True))
        text, flops = describe(c, side, other is not None)
        return ("forward", text), flops * len(x)

    def backward(
        c: Convolution, g: Tensor, size: Any, into: Tensor | None = None, *_: Any
    ) -> tuple[Key, int]:
        text, flops = describe(c, tuple(g.shape[2:]), into is not None)
        return ("backward", text), flops * len(g)

    stopwatch.wrap(Convolution, "__call__", forward)
    stopwatch.wrap(Convolution, "transposed", backward)
    stopwatch.wrap(FusedGuidedBackbone, "_mask", lambda *_: (("forward", "masks"), 0))
    stopwatch.wrap(network, "_guide", lambda *_: (("backward", "masks"), 0))
    stopwatch.wrap(MaxPool, "forward", lambda *_: (("forward", "max pool"), 0))
    stopwatch.wrap(MaxPool, "vjp", lambda *_: (("backward", "max pool"), 0))


@click.command()
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16", show_default=True)
@click.option("--images", default=4, show_default=True, help="In the batch.")
@click.option("--turns", default=5, show_default=True, help="Medians of so many.")
def main(dtype: str, images: int, turns: int) -> None:
    """Print a table of the time by kind of layer."""
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    engine = FusedGuidedBackbone(build_backbone(ModelConfig().backbone).network, kind)
    batch = torch.randn(images, 3, 448, 448)
    stopwatch = Stopwatch()
    rates: list[float] = []
    totals: list[float] = []
    watch(stopwatch)
    for turn in range(turns + 1):
        stopwatch.start_turn()
        start = time.perf_counter()
        with torch.no_grad():
            features, saved = engine.forward(batch)
            for _ in range(ROUNDS):
                engine.vjp(torch.randn_like(features), saved)
        totals.append(time.perf_counter() - start)
        rates.append(matrix_rate(torch.device("cpu"), kind))
        if not turn:  # warms up
            for measured in (stopwatch.seconds, rates, totals):
                measured.clear()
    rate, total = statistics.median(rates), statistics.median(totals)
    times = {key: statistics.median(turn[key] for turn in stopwatch.seconds) for key in stopwatch.flops}
    print(f"{dtype}, {images} images, a forward pass and {ROUNDS} backward: {total:.3f} s, ", end="")
    print(f"share {sum(stopwatch.flops.values()) / total / rate:.3f} of {rate / 1e9:.0f} GFLOP/s\n")
    print("| pass | layer | calls | seconds | of the time | share of the matrix rate |")
    print("|---|---|---|---|---|---|")
    for key in sorted(times, key=lambda key: (key[0] != "forward", -times[key])):
        share = f"{stopwatch.flops[key] / times[key] / rate:.2f}" if stopwatch.flops[key] else ""
        print(f"| {key[0]} | {key[1]} | {stopwatch.calls[key]} | {times[key]:.3f}", end=" ")
        print(f"| {times[key] / total:.1%} | {share} |")
    rest = total - sum(times.values())
    print(f"| both | everything else | | {rest:.3f} | {rest / total:.1%} | |")


if __name__ == "__main__":
    main()
