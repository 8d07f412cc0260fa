"""cuDNN's fused convolutions: used where they work, replaced where not. A reference stands for cuDNN here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fused_engine import _apart, _backbone
from torch import Tensor
from torch.nn import functional

from hvx.explain.fused import FusedGuidedBackbone, convolution

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from count_kernels import cudnn_epilogues_in_both
from kernel_trace import trace


class _CuDNN:
    """The two operations, by PyTorch's own; ``fault`` spoils them."""

    def __init__(self, fault: str = "") -> None:
        self.fault, self.shapes = fault, list[torch.Size]()

    def relu(self, x: Tensor, weight: Tensor, bias: Tensor, *options: Any) -> Tensor:
        return self._finished(functional.conv2d(x, weight, bias, *options))

    def add_relu(
        self, x: Tensor, weight: Tensor, other: Tensor, alpha: float, bias: Tensor, *options: Any
    ) -> Tensor:
        return self._finished(functional.conv2d(x, weight, bias, *options) + alpha * other)

    def _finished(self, y: Tensor) -> Tensor:
        if self.fault == "no kernel":
            raise RuntimeError("FIND was unable to find an engine to execute this computation")
        if self.fault == "no memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.shapes.append(y.shape)
        if self.fault == "drops NaN":
            y = y.nan_to_num()
        return y.clamp(min=0) * (1.01 if self.fault == "wrong" else 1)


def _engine(monkeypatch: pytest.MonkeyPatch, cudnn: _CuDNN | None, dtype: torch.dtype) -> FusedGuidedBackbone:
    monkeypatch.setattr(convolution, "has_fused_convolutions", lambda weight: False)
    if cudnn is not None:
        monkeypatch.setattr(convolution, "has_epilogues", lambda weight: True)
        monkeypatch.setattr(torch, "cudnn_convolution_relu", cudnn.relu)
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", cudnn.add_relu)
    return FusedGuidedBackbone(_backbone("resnet50", "layer2").network, dtype)


def _passes(engine: FusedGuidedBackbone) -> tuple[Tensor, Tensor]:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    pullback = engine(images)
    cotangent = torch.randn(pullback.features.shape, generator=torch.Generator().manual_seed(4))
    return pullback.features, pullback.vjp(cotangent)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.15)])
def test_fused_passes_equal_separate_ones(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float
) -> None:
    expected = _passes(_engine(monkeypatch, None, dtype))
    cudnn = _CuDNN()
    for found, own in zip(_passes(_engine(monkeypatch, cudnn, dtype)), expected, strict=True):
        assert _apart(found, own) <= tolerance
    assert cudnn.shapes


def test_as_many_convolutions_are_fused_as_the_count_says(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = trace(_backbone("resnet50", "layer2").network, torch.float32, 2, 64)
    cudnn = _CuDNN()
    engine = _engine(monkeypatch, cudnn, torch.float32)
    _passes(engine)  # compares each use with separate passes
    cudnn.shapes.clear()
    _passes(engine)
    groups = [
        group for name in ("forward", "backward") for group in cudnn_epilogues_in_both(passes[name].kernels)
    ]
    fused = [group for group in groups if len(group) > 1]
    assert len(cudnn.shapes) == len(fused) > 30
    assert sum(shape.numel() * 4 for shape in cudnn.shapes) == sum(
        sum(group[0].writes.values()) for group in fused
    )


@pytest.mark.parametrize("fault", ["no kernel", "wrong", "drops NaN"])
def test_what_does_not_work_is_not_used(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    expected = _passes(_engine(monkeypatch, None, torch.float32))
    cudnn = _CuDNN(fault)
    engine = _engine(monkeypatch, cudnn, torch.float32)
    for found, own in zip(_passes(engine), expected, strict=True):
        assert torch.equal(found, own)
    cudnn.shapes.clear()
    _passes(engine)
    assert not cudnn.shapes  # nor tried again


def test_a_kernel_that_fails_later_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _passes(_engine(monkeypatch, None, torch.float32))
    cudnn = _CuDNN()
    engine = _engine(monkeypatch, cudnn, torch.float32)
    _passes(engine)
    cudnn.fault = "no kernel"
    for found, own in zip(_passes(engine), expected, strict=True):
        assert torch.equal(found, own)


def test_lack_of_memory_is_not_taken_for_a_lack_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(monkeypatch, _CuDNN("no memory"), torch.float32)
    with pytest.raises(torch.OutOfMemoryError):
        _passes(engine)


def test_compiled_passes_and_the_cpu_do_not_use_them() -> None:
    network = _backbone("resnet10", "layer4").network
    for engine in (FusedGuidedBackbone(network), FusedGuidedBackbone(network, compiled=True)):
        rules = [step.op for step in engine.steps if isinstance(step.op, convolution.Convolution)]
        assert rules and all(rule._epilogues is None for rule in rules)
