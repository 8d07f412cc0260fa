"""Winograd's algorithm for 3×3 convolutions: against PyTorch's direct one in float64."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hvx.explain.fused import convolution, winograd
from hvx.explain.fused.convolution import Convolution
from hvx.explain.fused.onednn import has_fused_convolutions

pytestmark = pytest.mark.skipif(not has_fused_convolutions(torch.zeros(1)), reason="needs oneDNN")

SIZES = [(32, 16), (21, 30), (22, 23), (57, 30)]
CHANNELS = [(128, 128), (128, 144), (160, 128)]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Any call of oneDNN's direct convolution by ``Convolution`` fails."""
    monkeypatch.setattr(convolution, "convolve", None)
    return monkeypatch


def _images(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("channels", "kinds"), CHANNELS)
@pytest.mark.parametrize(
    ("adds", "overwrite", "relu"), [(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)]
)
def test_equals_the_direct_convolution_and_its_transpose(
    size: tuple[int, int], channels: int, kinds: int, adds: bool, overwrite: bool, relu: bool
) -> None:
    module = nn.Conv2d(channels, kinds, 3, padding=1)
    fused = Convolution.of(module, None, packs=True)
    exact = module.weight.double()

    def check(x: Tensor, y: Tensor, transposed: bool) -> None:
        other = torch.randn_like(y).float() if adds else None
        expected = y if other is None else y + other.double()
        expected = expected.clamp(min=0) if relu else expected
        before = x.clone(), None if other is None else other.clone()
        if transposed:
            found = fused.transposed(x, size, other, bool(overwrite), bool(relu))
        else:
            found = fused(x, other, bool(overwrite), bool(relu))
        assert _relative(found, expected) < 5e-6
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(x, before[0])
        if other is not None:
            assert (found is other) == overwrite and torch.equal(other, found if overwrite else before[1])

    x, g = _images(3, channels, *size), _images(3, kinds, *size)
    check(x, functional.conv2d(x.double(), exact, module.bias.double(), padding=1), False)
    check(g, functional.conv_transpose2d(g.double(), exact, padding=1), True)


@pytest.mark.parametrize("size", [(32, 16), (57, 30)])
def test_an_image_gives_the_same_in_any_batch(size: tuple[int, int]) -> None:
    """Blocks of tiles have other sizes, and the products other shapes."""
    fused = Convolution.of(nn.Conv2d(128, 128, 3, padding=1), None, packs=True)
    x = _images(9, 128, *size)
    together = fused(x)
    for images in (slice(0, 1), slice(3, 5), slice(2, 9)):
        torch.testing.assert_close(fused(x[images]), together[images], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "size", "used"),
    [
        (nn.Conv2d(128, 128, 3, padding=1), (13, 29), True),  # 32 tiles
        (nn.Conv2d(128, 128, 3, padding=1), (12, 29), False),  # 24 tiles
        (nn.Conv2d(256, 300, 3, padding=1), (13, 16), True),  # 16 tiles
        (nn.Conv2d(128, 127, 3, padding=1), (32, 32), False),
        (nn.Conv2d(127, 128, 3, padding=1), (32, 32), False),
        (nn.Conv2d(128, 128, 3, padding=1, stride=2), (32, 32), False),
        (nn.Conv2d(128, 128, 3, padding=2, dilation=2), (32, 32), False),
        (nn.Conv2d(256, 256, 3, padding=1, groups=2), (32, 32), False),
        (nn.Conv2d(128, 128, 3, padding=2), (32, 32), False),
        (nn.Conv2d(128, 128, (3, 1), padding=1), (32, 32), False),
        (nn.Conv2d(128, 128, 5, padding=1), (32, 32), False),
        (nn.Conv2d(128, 128, 3, padding=1).bfloat16(), (32, 32), False),
        (nn.Conv2d(128, 128, 3, padding=1).double(), (32, 32), False),
    ],
)
def test_it_is_used_where_it_pays_and_is_exact(
    monkeypatch: pytest.MonkeyPatch, module: nn.Conv2d, size: tuple[int, int], used: bool
) -> None:
    calls = []

    class Counted(winograd.Winograd):
        def __call__(self, *arguments: object, **options: object) -> Tensor:
            calls.append(1)
            return super().__call__(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(convolution, "Winograd", Counted)
    fused = Convolution.of(module, None, packs=True)
    x = _images(2, module.in_channels, *size).to(module.weight.dtype)
    y = fused(x)
    torch.testing.assert_close(y, module(x), rtol=2e-2, atol=2e-2)
    fused.transposed(y, size)
    assert len(calls) == 2 * used


@pytest.mark.parametrize("first", [(32, 16), (8, 8)])
def test_small_and_large_images_in_turn(first: tuple[int, int]) -> None:
    """Each algorithm packs weights of its own, and the plain ones are dropped between them."""
    module = nn.Conv2d(128, 128, 3, padding=1)
    fused = Convolution.of(module, None, packs=True)
    for size in (first, (8, 8), (32, 16), (8, 8)):
        x = _images(1, 128, *size)
        exact = module.weight.double()
        expected = functional.conv2d(x.double(), exact, module.bias.double(), padding=1)
        assert _relative(fused(x), expected) < 5e-6
        assert (
            _relative(fused.transposed(x, size), functional.conv_transpose2d(x.double(), exact, padding=1))
            < 5e-6
        )


def test_values_that_are_not_finite_stay_near_where_they_were() -> None:
    """They spread over their tiles of 4×4, not over the image."""
    fused = Convolution.of(nn.Conv2d(128, 128, 3, padding=1), None, packs=True)
    x = _images(1, 128, 24, 24)
    x[0, 0, 10, 10] = torch.nan
    y = fused(x)
    assert y[0, :, 9:12, 9:12].isnan().all()
    assert y[0, :, :4].isfinite().all() and y[0, :, 16:].isfinite().all()


def test_memory_of_a_call_in_inference_mode_serves_later_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_thread", threading.local())
    fused = Convolution.of(nn.Conv2d(128, 128, 3, padding=1), None, packs=True)
    x = _images(1, 128, 32, 16)
    with torch.inference_mode():
        first = fused(x)
    assert torch.equal(fused(x), first)
