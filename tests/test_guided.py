"""Guided backpropagation: against captum where it is right, against written-out loops everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import GuidedBackprop
from torch import Tensor, fx, nn
from torch.nn import functional

from hvx.config import BackboneConfig
from hvx.errors import HvxError
from hvx.explain.guided import GuidedVJP, guided
from hvx.models.backbone import build_backbone, cut_network


class _Score(nn.Module):
    """Σ cotangent · features, so that captum differentiates what a pullback does."""

    def __init__(self, network: nn.Module, cotangent: Tensor) -> None:
        super().__init__()
        self.network, self.cotangent = network, cotangent

    def forward(self, x: Tensor) -> Tensor:
        features = self.network(x)
        features = features["features"] if isinstance(features, dict) else features
        return (features * self.cotangent).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("architecture", "node"), [("squeezenet1_0", "features.7"), ("vgg11_bn", "features.18")]
)
def test_agrees_with_captum_on_networks_whose_relus_are_modules(architecture: str, node: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(architecture=architecture, node=node)).double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    pullback = GuidedVJP(guided(backbone.network), images)
    cotangent = torch.randn_like(pullback.features)
    expected = GuidedBackprop(_Score(backbone.network, cotangent)).attribute(images, target=0)
    found = pullback.vjp(cotangent)
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_differs_from_the_plain_gradient() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(architecture="resnet10", node="layer2")).double()
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    pullback = GuidedVJP(guided(backbone.network), images)
    cotangent = torch.randn_like(pullback.features)
    plain_images = images.clone().requires_grad_()
    plain = torch.autograd.grad(backbone(plain_images), plain_images, cotangent)[0]
    assert (pullback.vjp(cotangent) - plain).abs().max() > 0.1 * plain.abs().max()
    torch.testing.assert_close(pullback.features, backbone(images), rtol=0, atol=0)


class _Functional(nn.Module):
    """Two convolutions whose ReLUs are functions or methods, in place or not."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one = nn.Conv2d(2, 3, 3, padding=1)
        self.two = nn.Conv2d(3, 2, 3, padding=1)
        self.module = nn.ReLU(inplace=True)

    def _relu(self, x: Tensor) -> Tensor:
        if self.kind == "functional":
            return functional.relu(x)
        if self.kind == "functional inplace":
            return functional.relu(x, inplace=True)
        if self.kind == "torch":
            return torch.relu(x)
        if self.kind == "method":
            return x.relu()
        if self.kind == "method inplace":
            return x.relu_()
        if self.kind == "keyword":
            return functional.relu(input=x)
        return self.module(x)

    def forward(self, x: Tensor) -> Tensor:
        return self._relu(self.two(self._relu(self.one(x))))


def _convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """3×3, padding 1, written out: (C, H, W) → (K, H, W)."""
    out = np.zeros((len(weight), *x.shape[1:]))
    for k, i, j in np.ndindex(*out.shape):
        out[k, i, j] = bias[k]
        for c, u, v in np.ndindex(x.shape[0], 3, 3):
            y, z = i + u - 1, j + v - 1
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                out[k, i, j] += weight[k, c, u, v] * x[c, y, z]
    return out


def _back(gradient: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The transpose of ``_convolve``, written out."""
    out = np.zeros((weight.shape[1], *gradient.shape[1:]))
    for k, i, j in np.ndindex(*gradient.shape):
        for c, u, v in np.ndindex(weight.shape[1], 3, 3):
            y, z = i + u - 1, j + v - 1
            if 0 <= y < out.shape[1] and 0 <= z < out.shape[2]:
                out[c, y, z] += weight[k, c, u, v] * gradient[k, i, j]
    return out


def _loop(network: _Functional, x: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    p = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    first = _convolve(x, p["one.weight"], p["one.bias"])
    second = _convolve(np.maximum(first, 0), p["two.weight"], p["two.bias"])
    gradient = np.where((second > 0) & (cotangent > 0), cotangent, 0)
    gradient = _back(gradient, p["two.weight"])
    gradient = np.where((first > 0) & (gradient > 0), gradient, 0)
    return _back(gradient, p["one.weight"])


KINDS = ["functional", "functional inplace", "torch", "method", "method inplace", "keyword", "module"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_write_a_relu_agrees_with_written_out_loops(kind: str) -> None:
    torch.manual_seed(1)
    network = _Functional(kind).double()
    images = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    traced = cut_network(BackboneConfig(architecture="test", node=_last(network)), network)
    pullback = GuidedVJP(guided(traced), images)
    cotangent = torch.randn_like(pullback.features)
    found = pullback.vjp(cotangent).numpy()
    for n in range(2):
        expected = _loop(network, images[n].numpy(), cotangent[n].numpy())
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found[n], expected, atol=1e-9, rtol=0)


def _last(network: nn.Module) -> str:
    return torchvision.models.feature_extraction.get_graph_node_names(network)[1][-1]


def test_one_forward_serves_several_cotangents_and_each_image_its_own() -> None:
    torch.manual_seed(2)
    network = guided(build_backbone(BackboneConfig(architecture="resnet10", node="layer1")).double().network)
    images = torch.randn(3, 3, 24, 24, dtype=torch.float64)
    pullback = GuidedVJP(network, images)
    one, two = torch.randn_like(pullback.features), torch.randn_like(pullback.features)
    together = [pullback.vjp(one), pullback.vjp(two)]
    for cotangent, found in zip((one, two), together, strict=True):
        for n in range(3):
            alone = GuidedVJP(network, images[n : n + 1]).vjp(cotangent[n : n + 1])
            torch.testing.assert_close(found[n : n + 1], alone, rtol=0, atol=1e-12)


def test_gradient_stops_where_the_input_is_exactly_zero() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x)

    pullback = GuidedVJP(guided(_traced(Net())), torch.tensor([[[[0.0, 2.0, -1.0, 3.0]]]]))
    assert pullback.vjp(torch.tensor([[[[1.0, 1.0, 1.0, -1.0]]]])).flatten().tolist() == [0, 1, 0, 0]


def _traced(network: nn.Module) -> fx.GraphModule:
    return cut_network(BackboneConfig(architecture="test", node=_last(network)), network)


def test_the_network_itself_stays_as_it_was() -> None:
    torch.manual_seed(0)
    network = _traced(_Functional("functional").double())
    before = str(network.graph)
    images = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    plain_images = images.clone().requires_grad_()
    first = network(plain_images)["features"]
    cotangent = torch.randn_like(first)
    plain = torch.autograd.grad(first, plain_images, cotangent)[0]
    guided(network)
    again = torch.autograd.grad(network(plain_images)["features"], plain_images, cotangent)[0]
    assert str(network.graph) == before
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("architecture", "node", "activation"),
    [
        ("efficientnet_b0", "features.2", "SiLU"),
        ("mobilenet_v2", "features.3", "ReLU6"),
        ("mobilenet_v3_small", "features.2", "Hardswish"),
        ("convnext_tiny", "features.1", "GELU"),
    ],
)
def test_a_network_with_another_activation_is_refused_by_name(
    architecture: str, node: str, activation: str
) -> None:
    backbone = build_backbone(BackboneConfig(architecture=architecture, node=node))
    with pytest.raises(HvxError, match=activation):
        guided(backbone.network)


MODULES: dict[str, nn.Module] = {
    "ReLU6": nn.ReLU6(), "LeakyReLU": nn.LeakyReLU(), "PReLU": nn.PReLU(), "RReLU": nn.RReLU(),
    "ELU": nn.ELU(), "SELU": nn.SELU(), "CELU": nn.CELU(), "GELU": nn.GELU(), "SiLU": nn.SiLU(),
    "Mish": nn.Mish(), "Hardswish": nn.Hardswish(), "Hardsigmoid": nn.Hardsigmoid(),
    "Hardtanh": nn.Hardtanh(), "Hardshrink": nn.Hardshrink(), "Softplus": nn.Softplus(),
    "Softshrink": nn.Softshrink(), "Softsign": nn.Softsign(), "Sigmoid": nn.Sigmoid(),
    "LogSigmoid": nn.LogSigmoid(), "Tanh": nn.Tanh(), "Tanhshrink": nn.Tanhshrink(),
    "Threshold": nn.Threshold(0, 0), "GLU": nn.GLU(1), "MultiheadAttention": nn.MultiheadAttention(4, 1),
}  # fmt: skip
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": functional.relu6, "leaky_relu": functional.leaky_relu, "leaky_relu_": functional.leaky_relu_,
    "prelu": lambda x: functional.prelu(x, torch.ones(1)), "rrelu": functional.rrelu,
    "elu": functional.elu, "elu_": functional.elu_, "selu": torch.selu, "celu": torch.celu,
    "gelu": functional.gelu, "silu": functional.silu, "mish": functional.mish,
    "hardswish": functional.hardswish, "hardsigmoid": functional.hardsigmoid,
    "hardtanh": functional.hardtanh, "hardshrink": functional.hardshrink, "softplus": functional.softplus,
    "softshrink": functional.softshrink, "softsign": functional.softsign, "sigmoid": torch.sigmoid,
    "log_sigmoid": functional.logsigmoid, "tanh": torch.tanh, "tanhshrink": functional.tanhshrink,
    "threshold": lambda x: functional.threshold(x, 0, 0), "glu": lambda x: functional.glu(x, 1),
    "clamp": lambda x: torch.clamp(x, min=0), "clamp_min": lambda x: torch.clamp_min(x, 0),
    "clamp_max": lambda x: torch.clamp_max(x, 1), "clip": lambda x: torch.clip(x, 0),
}  # fmt: skip
METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda x: x.sigmoid(), "sigmoid_": lambda x: x.sigmoid_(), "tanh": lambda x: x.tanh(),
    "clamp": lambda x: x.clamp(0), "clamp_": lambda x: x.clamp_(0), "clip": lambda x: x.clip(0),
    "clamp_min": lambda x: x.clamp_min(0), "hardshrink": lambda x: x.hardshrink(),
    "prelu": lambda x: x.prelu(torch.ones(1)),
}  # fmt: skip


def _refusal(name: str, network: nn.Module) -> None:
    graph = fx.symbolic_trace(network)
    *_, node, _ = graph.graph.nodes
    with pytest.raises(HvxError) as caught:
        guided(graph)
    assert str(caught.value) == (
        f"backbone: guided backpropagation is defined for ReLU; node '{node.name}' is {name}; "
        "use a network with ReLU throughout"
    )


@pytest.mark.parametrize("name", MODULES)
def test_each_other_activation_is_refused_as_a_module(name: str) -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = MODULES[name]

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(x)
            found: Tensor = self.attention(y, y, y)
            return found

    network = Attending() if name == "MultiheadAttention" else nn.Sequential(nn.ReLU(), MODULES[name])
    _refusal(name, network)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_other_activation_is_refused_as_a_function(name: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return FUNCTIONS[name](torch.relu(x))

    _refusal(name, Net())


@pytest.mark.parametrize("name", METHODS)
def test_each_other_activation_is_refused_as_a_method(name: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return METHODS[name](torch.relu(x))

    _refusal(name, Net())


@pytest.mark.parametrize("inside", [nn.ReLU(), nn.Sigmoid()])
def test_a_block_that_hides_an_activation_is_refused(inside: nn.Module) -> None:
    """A tracer may keep a module whole; what is in it would not be guided."""

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, nn.Sequential) or super().is_leaf_module(m, module_qualified_name)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(2, 2, 1), inside)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.block(torch.relu(x))
            return found

    network = Net()
    with pytest.raises(HvxError, match="node 'block' is a Sequential that was not traced into; use"):
        guided(fx.GraphModule(network, Tracer().trace(network)))


def test_a_network_without_relu_is_refused() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    with pytest.raises(HvxError, match="no ReLU"):
        guided(_traced(Net()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_cpu() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(architecture="resnet10", node="layer2"))
    images = torch.randn(2, 3, 64, 64)
    on_cpu = GuidedVJP(guided(backbone.network), images)
    cotangent = torch.randn_like(on_cpu.features)
    expected = on_cpu.vjp(cotangent)
    backbone.cuda()
    found = GuidedVJP(guided(backbone.network), images.cuda()).vjp(cotangent.cuda()).cpu()
    assert (found - expected).norm() <= 1e-3 * expected.norm()
