"""A convolution of the fused engine and its transpose: against PyTorch's own in float64, of any kind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from hvx.explain.fused import convolution
from hvx.explain.fused.convolution import Convolution

SIZES = st.tuples(st.integers(7, 13), st.integers(7, 13))


@st.composite
def kinds(draw: st.DrawFn) -> nn.Conv2d:
    groups = draw(st.sampled_from([1, 1, 2]))
    channels, filters = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 20))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = (draw(st.integers(0, kernel[0])), draw(st.integers(0, kernel[1])))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 3), (2, 1)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2)]))
    torch.manual_seed(draw(st.integers(0, 9)))
    bias = draw(st.booleans())
    return nn.Conv2d(channels, filters, kernel, stride, padding, dilation, groups, bias).double()


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _expected(module: nn.Conv2d, x: Tensor, added: Tensor | None, relu: bool) -> Tensor:
    y: Tensor = module(x)
    y = y if added is None else y + added
    return y.clamp(min=0) if relu else y


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@settings(deadline=None, max_examples=60)
@given(kinds(), SIZES, st.booleans(), st.booleans(), st.booleans(), st.booleans())
@example(nn.Conv2d(1, 1, (2, 1), 2, (2, 0)).double(), (7, 7), False, False, False, True)  # oneDNN rejects it
@example(nn.Conv2d(1, 1, (1, 3)).double(), (7, 7), True, True, True, True)  # of torch 2.11
# Few channels and a stride, but no phases of the image: several groups, or taps apart along one axis.
@example(nn.Conv2d(4, 6, 3, 2, 1, groups=2).double(), (9, 8), False, False, False, True)
@example(nn.Conv2d(3, 6, 3, 2, 1, dilation=(1, 2)).double(), (9, 8), False, False, False, True)
@torch.no_grad()
def test_a_convolution_and_its_transpose_with_what_surrounds_them(
    dtype: torch.dtype,
    tolerance: float,
    module: nn.Conv2d,
    size: tuple[int, int],
    adds: bool,
    overwrite: bool,
    relu: bool,
    packs: bool,
) -> None:
    fused = Convolution.of(module, dtype, packs)
    assert not (fused.packs and not packs)
    x = _random(2, module.in_channels, *size)
    y = module(x)
    added = torch.randn_like(y) if adds else None
    other = None if added is None else added.to(dtype, memory_format=torch.channels_last)
    found = fused(x.to(dtype, memory_format=torch.channels_last), other, overwrite, relu)
    torch.testing.assert_close(
        found.double(), _expected(module, x, added, relu), rtol=tolerance, atol=10 * tolerance
    )

    g, into = torch.randn_like(y), torch.randn_like(x) if adds else None
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        pulled = torch.autograd.grad(module(leaf), leaf, g)[0]
    expected = pulled if into is None else pulled + into
    expected = expected.clamp(min=0) if relu else expected
    there = None if into is None else into.to(dtype, memory_format=torch.channels_last)
    given_g = g.to(dtype, memory_format=torch.channels_last)
    before = given_g.clone()
    back = fused.transposed(given_g, size, there, overwrite, relu)
    assert back.shape == x.shape
    torch.testing.assert_close(back.double(), expected, rtol=tolerance, atol=30 * tolerance)
    assert torch.equal(given_g, before)


@pytest.mark.parametrize("size", [(7, 7), (8, 7), (7, 8), (13, 9)])
@torch.no_grad()
def test_a_padding_wider_than_the_kernel_reaches_back(size: tuple[int, int]) -> None:
    """Its phases have no taps in front: the padding of the convolution that makes them is 0, not less."""
    torch.manual_seed(0)
    for channels in (1, 3):
        module = nn.Conv2d(channels, 1, (2, 1), stride=2, padding=(2, 0))
        x = torch.randn(2, channels, *size)
        g = torch.randn_like(module(x))
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            expected = torch.autograd.grad(module(leaf), leaf, g)[0]
        for packs in (True, False):
            found = Convolution.of(module, None, packs).transposed(g, size)
            torch.testing.assert_close(found, expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("owner", "function", "error"),
    [
        # torch 2.11 with one channel and a sum.
        (convolution, "convolve", "could not create a primitive descriptor for the convolution"),
        # bfloat16 on a processor without AVX-512.
        (
            torch.ops.aten,
            "mkldnn_reorder_conv2d_weight",
            "mkldnn_reorder_conv2d_weight: bf16 path needs the cpu support avx_ne_convert or avx512bw",
        ),
    ],
)
def test_a_convolution_that_onednn_has_no_kernel_for_is_computed_without_it(
    monkeypatch: pytest.MonkeyPatch, owner: object, function: str, error: str
) -> None:
    """Found out only when it is called."""

    def refuses(*args: object) -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(owner, function, refuses)
    torch.manual_seed(0)
    for module in (nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 3, stride=2), nn.Conv2d(8, 5, 3, stride=2)):
        x = torch.randn(2, module.in_channels, 8, 8)
        y = module(x)
        fused = Convolution.of(module, None, packs=True)
        torch.testing.assert_close(fused(x, torch.ones_like(y), True, True), (y + 1).clamp(min=0))
        assert not fused.packs
        fused = Convolution.of(module, None, packs=True)
        g = torch.randn_like(y)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            expected = torch.autograd.grad(module(leaf), leaf, g)[0]
        torch.testing.assert_close(fused.transposed(g, (8, 8)), expected)


@torch.no_grad()
def test_other_errors_of_a_kernel_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(convolution, "convolve", fails)
    fused = Convolution.of(nn.Conv2d(3, 5, 3), None, packs=True)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        fused(torch.randn(1, 3, 8, 8))
    assert fused.packs


@torch.no_grad()
def test_what_may_not_be_overwritten_is_not() -> None:
    module = nn.Conv2d(3, 3, 3, padding=1)
    fused = Convolution.of(module, None, packs=True)
    x, other = (torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last) for _ in range(2))
    kept = x.clone(), other.clone()
    fused(x, other, overwrite=False, relu=True)
    fused.transposed(x, (8, 8), other, overwrite=False, relu=True)
    assert torch.equal(x, kept[0]) and torch.equal(other, kept[1])


@torch.no_grad()
def test_a_batchnorm_is_folded_in() -> None:
    torch.manual_seed(0)
    module, norm = nn.Conv2d(3, 5, 3, stride=2).double(), nn.BatchNorm2d(5).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    x = _random(2, 3, 9, 9)
    found = Convolution.of(module, None, True, norm)(x)
    torch.testing.assert_close(found, norm(module(x)), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_one_packing_serves_batches_of_any_size() -> None:
    module = nn.Conv2d(16, 32, 3, padding=1)
    fused = Convolution.of(module, None, packs=True)
    for count, size in ((1, 8), (5, 8), (2, 14)):
        x = torch.randn(count, 16, size, size)
        torch.testing.assert_close(fused(x), functional.conv2d(x, module.weight, module.bias, padding=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_plain_weights_are_dropped_once_both_passes_have_packed_ones(dtype: torch.dtype) -> None:
    """They are the same again when something asks for them."""
    for module in (
        nn.Conv2d(5, 7, 3, padding=1),
        nn.Conv2d(5, 7, 1),
        nn.Conv2d(3, 8, 7, stride=2, padding=3),
    ):
        module = module.to(dtype)
        fused = Convolution.of(module, None, packs=True)
        x = torch.randn(1, module.in_channels, 9, 9).to(dtype)
        y = fused(x)
        assert fused._weight is not None
        fused.transposed(y, (9, 9))
        assert fused._weight is None
        assert torch.equal(fused.weight, module.weight)


@torch.no_grad()
def test_weights_that_were_dropped_serve_the_way_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Conv2d(5, 7, 3, padding=1)
    fused = Convolution.of(module, None, packs=True)
    x = torch.randn(1, 5, 9, 9)
    expected, pulled = fused(x), fused.transposed(fused(x), (9, 9))

    def refuses(*args: object) -> None:
        raise RuntimeError("could not create a primitive descriptor for the convolution")

    monkeypatch.setattr(convolution, "convolve", refuses)
    torch.testing.assert_close(fused(x), expected)
    assert not fused.packs
    torch.testing.assert_close(fused.transposed(expected, (9, 9)), pulled)
