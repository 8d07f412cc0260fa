"""Images in parallel on the CPU, and the masks' products."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from hvx.explain.fused import FusedGuidedBackbone, network
from hvx.explain.fused.masks import PackedMask
from hvx.explain.fused.parallel import map_parallel


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("items", "threads"),
    [
        (0, []),
        (1, [4]),
        (2, [2] * 2),
        (3, [2, 2, 4]),
        (4, [1] * 4),
        (5, [1] * 4 + [4]),
        (7, [1] * 4 + [2, 2, 4]),
    ],
)
def test_threads_are_shared_out_among_the_items(items: int, threads: list[int]) -> None:
    def work(item: int) -> tuple[int, int, bool]:
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    with torch.enable_grad():
        assert map_parallel(work, range(items)) == [(n, count, False) for n, count in enumerate(threads)]
        assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 4  # the caller's own are as before


@pytest.mark.usefixtures("four_threads")
def test_items_run_at_the_same_time() -> None:
    meeting = threading.Barrier(4)
    map_parallel(lambda item: meeting.wait(30), range(4))  # raises if one waits in vain


@pytest.mark.usefixtures("four_threads")
def test_an_error_in_a_thread_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        map_parallel(lambda item: 1 // item, range(4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_mask_is_where_values_are_positive_and_sets_the_others_to_zero(
    dtype: torch.dtype, overwrite: bool
) -> None:
    values = torch.tensor([1.0, 0.0, -0.0, -2.0, 1e-7, 3.0]).view(1, 3, 1, 2).to(dtype)
    values = values.contiguous(memory_format=torch.channels_last)
    g = torch.tensor([5.0, 6.0, -7.0, 8.0, -9.0, 1.0]).view(1, 3, 1, 2).to(dtype)
    g = g.contiguous(memory_format=torch.channels_last)
    before, mask = g.clone(), PackedMask.of_positive(values)
    found: Tensor = mask.multiply(g, overwrite)
    assert torch.equal(found, before * (values > 0))
    assert torch.equal(g, found if overwrite else before)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("count", "sizes"),
    [(3, [1] * 3), (7, [1] * 7), (8, [2] * 4), (11, [2] * 4 + [1] * 3), (17, [2] * 8 + [1])],
)
def test_large_images_pass_in_parts_and_give_the_same(
    monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int]
) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    engine = FusedGuidedBackbone(create_feature_extractor(layers, {"2": "features"}))
    images = torch.randn(count, 3, 12, 14, generator=torch.Generator().manual_seed(0))
    cotangent = torch.randn(count, 4, 10, 12, generator=torch.Generator().manual_seed(1))
    results = []
    for large, expected in ((12 * 14, sizes), (12 * 14 + 1, [count])):
        monkeypatch.setattr(network, "_LARGE", large)
        assert [len(images[part]) for part in engine.parts(images)] == expected
        passed = engine(images)
        pulled = [passed.vjp(cotangent[:first]) for first in {count, count - 1, count // 2, 1}]
        results.append((passed.features, *pulled, *passed.masks))
    for in_parts, whole in zip(*results, strict=True):
        torch.testing.assert_close(in_parts, whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(network, "_LARGE", 0)
    for dtype in (torch.bfloat16, torch.float64):
        other = FusedGuidedBackbone(create_feature_extractor(layers, {"2": "features"}), dtype)
        assert [len(images[part]) for part in other.parts(images)] == [1] * count
    torch.set_num_threads(1)
    assert engine.parts(images) == [slice(None)]
