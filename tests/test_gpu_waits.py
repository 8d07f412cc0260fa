"""Where the host waits for a GPU: within the passes never, for a batch of explanations twice.

A wait in the middle of a batch leaves the GPU without work while the host queues more. No GPU is needed: the
simulated one records what would wait.
"""

from __future__ import annotations

import pytest
import torch
from simulated_gpu import DEVICE, move, on_cpu, simulated_gpu
from test_explainer import IMAGES, QUESTIONS, _images, _model
from torch import Tensor

from hvx.explain.explainer import Explainer, Explanations

WAITS = [
    ("read", "encoder._run"),  # the questions' lengths, before the backbone's work is queued
    ("read", "explainer._common"),  # the answers, after all work is queued
]


def _explained(network: str) -> tuple[Explanations, Explanations, list[tuple[str, str]]]:
    """The explanations of a batch on the CPU and on the simulated GPU, and the waits of the latter."""
    model, images = _model(network=network), _images()
    expected = Explainer(model, gradient=True).explain(images, IMAGES, QUESTIONS)
    explainer = Explainer(model, gradient=True)
    with simulated_gpu() as waits:
        move(explainer)
        inputs = images.to(DEVICE)
        waits.clear()
        found = explainer.explain(inputs, IMAGES, QUESTIONS)
    assert isinstance(found, Explanations) and isinstance(expected, Explanations)
    return expected, found, waits


@pytest.mark.parametrize("network", ["mlb", "mrn", "mutan", "mcb"])
def test_a_batch_waits_for_the_gpu_twice(network: str) -> None:
    expected, found, waits = _explained(network)
    assert waits == WAITS
    assert found.answers == expected.answers
    for name, value in vars(expected).items():
        if isinstance(value, Tensor):
            # The engine takes its path for GPUs here: other kernels, other rounding.
            torch.testing.assert_close(
                on_cpu(getattr(found, name)), value, rtol=1e-9, atol=1e-9, equal_nan=True
            )


def test_the_passes_never_wait() -> None:
    explainer = Explainer(_model(), dtype=torch.float32)
    with simulated_gpu() as waits:
        move(explainer)
        inputs = _images().to(DEVICE)
        waits.clear()
        pullback = explainer._network(inputs)
        pullback.vjp(torch.ones_like(pullback.features))
        pullback.vjp(torch.ones_like(pullback.features[:2]))
    assert waits == []


def test_images_are_put_in_order_without_a_wait() -> None:
    """The images with the most questions come first: here the last one."""
    explainer = Explainer(_model())
    with simulated_gpu() as waits:
        move(explainer)
        inputs = _images().to(DEVICE)
        waits.clear()
        explainer.explain(inputs, [2, 2, 1, 0], QUESTIONS[:4])
    assert waits == WAITS


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("read", lambda x: x.sum().item()),
        ("read", lambda x: x.tolist()),
        ("read", lambda x: x.cpu()),
        ("read", lambda x: bool((x > 0).all())),
        ("read", lambda x: x[x > 0]),
        ("read", lambda x: x.nonzero()),
        ("copy", lambda x: torch.ones(3).to(x.device)),
        ("copy", lambda x: torch.tensor([1, 2], device=x.device)),
        ("copy", lambda x: x[[0, 1]]),
        ("copy", lambda x: x[torch.tensor([0, 1])]),
    ],
)  # fmt: skip
def test_the_simulated_gpu_records_what_waits(kind: str, action: object) -> None:
    with simulated_gpu() as waits:
        x = torch.randn(4, 3).to(DEVICE)
        waits.clear()
        action(x)  # type: ignore[operator]
        torch.ones(3).to(DEVICE, non_blocking=True)
        (x * 2 + torch.zeros(3, device=DEVICE)).sum(1).relu_()
    assert waits == [(kind, "outside of hvx")]
