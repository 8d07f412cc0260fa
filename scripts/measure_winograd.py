"""Winograd's algorithm against direct convolutions, in whole passes of the fused engine on the CPU.

python scripts/measure_winograd.py

Both alternate in one process: a forward pass of a batch and a backward pass for each of five questions, by
ResNet-152 with random weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from unittest import mock

import click
import torch
from torch import Tensor
from torchvision.models import resnet152

from hvx.config import BackboneConfig
from hvx.explain.fused import FusedGuidedBackbone, convolution
from hvx.models.backbone import cut_network

QUESTIONS = 5


def passes(engine: FusedGuidedBackbone, images: Tensor) -> tuple[float, Tensor, Tensor]:
    """Seconds, the features, and the gradient for the last question."""
    start = time.perf_counter()
    vjp = engine(images)
    cotangent = torch.randn(vjp.features.shape, generator=torch.Generator().manual_seed(1))
    for _ in range(QUESTIONS):
        gradient = vjp.vjp(cotangent)
    return time.perf_counter() - start, vjp.features, gradient


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@click.command()
@click.option("--turns", default=7, show_default=True)
@click.option("--images", default=4, show_default=True, help="In a batch.")
@click.option("--side", default=448, show_default=True, help="Pixels along a side of an image.")
def main(turns: int, images: int, side: int) -> None:
    """Print the seconds of both, the gain, and how far the results are apart."""
    torch.manual_seed(0)
    engine = FusedGuidedBackbone(cut_network(BackboneConfig(), resnet152().eval()))
    batch = torch.randn(images, 3, side, side)

    def direct() -> tuple[float, Tensor, Tensor]:
        with mock.patch.object(convolution, "winograd_pays", return_value=False):
            return passes(engine, batch)

    def winograd() -> tuple[float, Tensor, Tensor]:
        return passes(engine, batch)

    ways: dict[str, Callable[[], tuple[float, Tensor, Tensor]]] = {"direct": direct, "Winograd": winograd}
    (_, *expected), (_, *found) = (way() for way in ways.values())  # packs the weights
    apart = [relative(a, b) for a, b in zip(found, expected, strict=True)]
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            spent[name].append(way()[0])
    gains = [direct / winograd for direct, winograd in zip(spent["direct"], spent["Winograd"], strict=True)]
    for name, own in spent.items():
        click.echo(f"{name}: {statistics.median(own):.2f} s ({min(own):.2f} to {max(own):.2f})")
    click.echo(f"gain: {statistics.median(gains):.3f} ({min(gains):.3f} to {max(gains):.3f})")
    click.echo(f"relative difference: features {apart[0]:.1e}, gradient {apart[1]:.1e}")


if __name__ == "__main__":
    main()
