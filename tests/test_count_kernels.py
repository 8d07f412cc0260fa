"""The count of CUDA kernels, against a count by hand on a network of two layers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from count_kernels import GPU, cudnn_epilogues, cudnn_epilogues_in_both, everything, rows, separate, table
from count_kernels import count as counted
from kernel_trace import trace

BATCH, SIZE = 2, 8


class _TwoLayers(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride, padding=1), nn.ReLU()
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"features": self.layers(images)}


def _network(stride: int) -> fx.GraphModule:
    return fx.symbolic_trace(_TwoLayers(stride).requires_grad_(False).eval())


IMAGE, FIRST, SECOND = (BATCH * channels * SIZE * SIZE for channels in (3, 8, 16))
"""Values of the image and of each layer, at stride 1."""
WEIGHTS = 8 * 3 * 9, 16 * 8 * 9


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_forward_pass_equals_a_count_by_hand(dtype: torch.dtype, width: int) -> None:
    traced = trace(_network(1), dtype, BATCH, SIZE)["forward"]
    expected = [
        ("_to_copy", IMAGE * (4 + width)),  # to the memory format, and to the type
        ("convolution", (IMAGE + WEIGHTS[0] + FIRST) * width),
        ("bias", (2 * FIRST + 8) * width),
        ("clamp_", 2 * FIRST * width),
        ("gt", FIRST * (width + 1)),  # a byte of the mask for each value
        ("convolution", (FIRST + WEIGHTS[1] + SECOND) * width),
        ("bias", (2 * SECOND + 16) * width),
        ("clamp_", 2 * SECOND * width),
        ("gt", SECOND * (width + 1)),
    ]
    if dtype == torch.bfloat16:
        expected.append(("_to_copy", SECOND * (width + 4)))
    assert [kernel.name for kernel in traced.kernels] == [name for name, _ in expected]
    assert counted(traced).bytes == [size for _, size in expected]
    flops = [2 * SIZE * SIZE * BATCH * weights for weights in WEIGHTS]
    assert [size for size in counted(traced).flops if size] == flops


def test_backward_pass_equals_a_count_by_hand() -> None:
    traced = trace(_network(1), torch.float32, BATCH, SIZE)["backward"]
    expected = [
        ("mul", SECOND * (4 + 1 + 4)),
        ("clamp_", 2 * SECOND * 4),
        ("convolution", (SECOND + WEIGHTS[1] + FIRST) * 4),
        ("clamp_", 2 * FIRST * 4),
        ("mul_", FIRST * (4 + 1 + 4)),
        ("convolution", (FIRST + WEIGHTS[0] + IMAGE) * 4),
    ]
    assert [kernel.name for kernel in traced.kernels] == [name for name, _ in expected]
    assert counted(traced).bytes == [size for _, size in expected]


def test_kernels_are_merged_as_a_count_by_hand() -> None:
    passes = trace(_network(1), torch.float32, BATCH, SIZE)
    forward, backward = passes["forward"], passes["backward"]
    first, second = (IMAGE + WEIGHTS[0] + FIRST + 8) * 4, (FIRST + WEIGHTS[1] + SECOND + 16) * 4
    copy = 2 * IMAGE * 4
    assert counted(forward, cudnn_epilogues).bytes == [copy, first, 5 * FIRST, second, 5 * SECOND]
    # The mask is written by the convolution; its output is read by the next one.
    assert counted(forward, everything).bytes == [copy, first + FIRST, second + SECOND]
    assert counted(backward, cudnn_epilogues).bytes == counted(backward, separate).bytes
    transposed = (SECOND + WEIGHTS[1] + FIRST) * 4
    assert counted(backward, cudnn_epilogues_in_both).bytes == [
        9 * SECOND, 8 * SECOND, transposed, 9 * FIRST, (FIRST + WEIGHTS[0] + IMAGE) * 4,
    ]  # fmt: skip
    assert counted(backward, everything).bytes == [
        9 * SECOND, transposed + FIRST, (FIRST + WEIGHTS[0] + IMAGE) * 4,
    ]  # fmt: skip
    for traced in passes.values():
        for merge in (cudnn_epilogues, cudnn_epilogues_in_both, everything):
            assert sum(counted(traced, merge).flops) == sum(counted(traced).flops)


def test_a_transpose_with_a_stride_has_no_epilogue() -> None:
    backward = trace(_network(2), torch.float32, BATCH, SIZE)["backward"]
    assert len(counted(backward, cudnn_epilogues_in_both)) == len(counted(backward)) == 6


def test_the_rate_is_a_roofline() -> None:
    """Where memory takes all of the time, the rate is bytes over seconds; where arithmetic does, FLOPs."""
    questions = 3
    for gpu, unit in (
        (GPU("", 1e3, {"float32": 1e30}, 0.5, 1.0), "bytes"),
        (GPU("", 1e30, {"float32": 1e3}, 1.0, 0.5), "flops"),
    ):
        first = next(rows(_network(1), gpu, BATCH, SIZE, questions))
        spent = {name: sum(getattr(own, unit)) / 500 for name, own in first.counts.items()}
        seconds = spent["forward"] + questions * (spent["backward"] + spent["scores"])
        assert first.rate == pytest.approx(BATCH * questions / seconds)


def test_the_table_has_a_row_for_each_variant() -> None:
    lines = table(rows(_network(1), GPU(), BATCH, SIZE)).splitlines()
    assert len(lines) == 2 + 3 * 4
    assert lines[2].startswith("| bfloat16: separate kernels | 10 + ")
