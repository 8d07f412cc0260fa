"""The fused engine: equal to the plain one and to captum, on every family of networks it is made for."""

from __future__ import annotations

import gc
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import GuidedBackprop
from test_guided import _last, _Score
from torch import Tensor, fx, nn
from torch.nn import functional

from hvx.config import BackboneConfig
from hvx.errors import HvxError
from hvx.explain.fused import FusedGuidedBackbone
from hvx.explain.fused.convolution import Convolution
from hvx.explain.fused.masks import PackedMask
from hvx.explain.fused.ops import Add, Affine, AveragePool, Concatenate, GenericOp, MaxPool, ReLU
from hvx.explain.guided import GuidedVJP, guided
from hvx.models.backbone import Backbone, build_backbone, cut_network

FAMILIES = [
    ("resnet10", "layer4"), ("resnet50", "layer4"), ("resnet50", "layer2.3.add"),
    ("resnext50_32x4d", "layer2"),
    ("vgg11", "features.20"), ("vgg11_bn", "features.28"), ("alexnet", "features.12"),
    ("squeezenet1_0", "features.12"), ("googlenet", "inception5b.cat"), ("densenet121", "relu"),
    ("inception_v3", "Mixed_7c.cat_2"), ("mnasnet0_5", "layers.16"), ("shufflenet_v2_x0_5", "conv5.2"),
    ("regnet_x_400mf", "trunk_output.block4.block4-11.activation"),
]  # fmt: skip


def _backbone(architecture: str, node: str) -> Backbone:
    """A network with statistics that a BatchNorm folded wrongly would show in."""
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(architecture=architecture, node=node)).double()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return backbone


def _apart(found: Tensor, expected: Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("architecture", "node"), FAMILIES)
def test_equals_the_plain_engine(architecture: str, node: str) -> None:
    backbone = _backbone(architecture, node)
    size = (97, 101) if architecture == "inception_v3" else (65, 69)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    plain = GuidedVJP(guided(backbone.network), images)
    network = FusedGuidedBackbone(backbone.network)
    # ShuffleNet moves channels about in ways that no rule is for; these two normalize the image themselves.
    unknown = any(isinstance(step.op, GenericOp) for step in network.steps)
    assert unknown == architecture.startswith(("shufflenet", "googlenet", "inception"))
    fused = network(images)
    assert _apart(fused.features, plain.features) <= 1e-12
    for _ in range(2):  # the second pull finds all that the first one used as it was
        cotangent = torch.randn_like(plain.features)
        given = cotangent.clone()
        found = fused.vjp(given)
        assert _apart(found, plain.vjp(cotangent)) <= 1e-9
        assert torch.equal(given, cotangent)
    assert _apart(fused.vjp(cotangent[:1]), found[:1]) <= 1e-12


@pytest.mark.parametrize(
    ("architecture", "node"), [("squeezenet1_0", "features.12"), ("vgg11_bn", "features.28")]
)
def test_equals_captum_where_all_relus_are_modules(architecture: str, node: str) -> None:
    backbone = _backbone(architecture, node)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    fused = FusedGuidedBackbone(backbone.network)(images)
    cotangent = torch.randn_like(fused.features)
    expected = GuidedBackprop(_Score(backbone.network, cotangent)).attribute(images, target=0)
    assert _apart(fused.vjp(cotangent), expected) <= 1e-9


@pytest.mark.parametrize(
    ("architecture", "node"),
    [("googlenet", "inception5b.cat"), ("densenet121", "relu"), ("inception_v3", "Mixed_7c.cat_2")],
)
def test_captum_overlooks_functional_relus(architecture: str, node: str) -> None:
    """What the docs say of it; if this fails, captum has learned, and the docs are to be changed."""
    backbone = _backbone(architecture, node)
    images = torch.randn(1, 3, 97, 97, dtype=torch.float64)
    fused = FusedGuidedBackbone(backbone.network)(images)
    cotangent = torch.randn_like(fused.features)
    theirs = GuidedBackprop(_Score(backbone.network, cotangent)).attribute(images, target=0)
    assert _apart(theirs, fused.vjp(cotangent)) > 0.1


ROUNDED = [
    ("resnet10", "layer4"), ("resnet50", "layer2.1.add"), ("vgg11", "features.15"),
    ("vgg11_bn", "features.14"), ("squeezenet1_0", "features.12"),
    ("densenet121", "features.denseblock1.cat"), ("inception_v3", "Mixed_5b.cat"),
    ("mnasnet0_5", "layers.8"), ("shufflenet_v2_x0_5", "stage2"), ("regnet_x_400mf", "trunk_output.block1"),
]  # fmt: skip
PRECISIONS = {torch.float32: (1e-7, 1e-5, 1e-4), torch.bfloat16: (1e-3, 0.03, 0.15)}
"""Of each precision, the least and the largest error of features, and the largest of gradients, relative to
float64. A ReLU whose input lies within rounding of zero passes in one and not in the other: gradients err by
more than features. Rounding to bfloat16's 8 bits errs by 1e-3: less would be another precision."""


@pytest.mark.parametrize(("architecture", "node"), ROUNDED)
def test_in_lower_precision_it_is_the_same_to_rounding(architecture: str, node: str) -> None:
    backbone = _backbone(architecture, node)
    images = torch.randn(2, 3, 64, 72, dtype=torch.float64)
    plain = GuidedVJP(guided(backbone.network), images)
    cotangent = torch.randn_like(plain.features)
    expected = plain.vjp(cotangent)
    for dtype, (least, features, gradient) in PRECISIONS.items():
        network = FusedGuidedBackbone(backbone.network, dtype)
        fused = network(images)
        assert network.forward(images)[0].dtype == dtype
        for step in network.steps:
            if isinstance(step.op, Convolution):
                assert step.op.weight.dtype == step.op.bias.dtype == dtype
        # What is given back has the numbers of what was given.
        found = fused.vjp(cotangent)
        assert fused.features.dtype == found.dtype == torch.float64
        assert least / 10 <= _apart(fused.features, plain.features) <= features
        assert least / 10 <= _apart(found, expected) <= gradient


def test_of_activations_it_keeps_masks_alone() -> None:
    network = FusedGuidedBackbone(_backbone("resnet50", "layer4").network)
    _, kept = network.forward(torch.randn(1, 3, 64, 64, dtype=torch.float64))
    tensors = [tensor for _, extra in kept for tensor in extra if isinstance(tensor, Tensor)]
    assert [tensor.dtype for tensor in tensors] == [torch.int64]  # where the maxima of the pool lay
    masks = [mask for mask, _ in kept if mask is not None]
    assert all(isinstance(mask, PackedMask) for mask in masks)
    values = sum(mask.numel() for mask in masks)
    assert values / 8 <= sum(mask.nbytes for mask in masks) < values / 8 + len(masks)


@pytest.mark.parametrize(
    "shape", [(3, 5, 2, 3), (2, 8, 4, 4), (1, 1, 1, 1), (3, 7), (2, 3, 5), (2, 3, 2, 3, 2)]
)
def test_packed_masks_are_unpacked_as_they_were(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.4
    for laid_out in [
        mask,
        *([mask.contiguous(memory_format=torch.channels_last)] if mask.dim() == 4 else []),
    ]:
        packed = PackedMask(laid_out)
        assert torch.equal(packed.unpacked(), mask.to(torch.uint8))
        assert torch.equal(packed[:2].unpacked(), mask[:2].to(torch.uint8))
        assert packed[:1].numel() == mask[:1].numel()
    if mask.dim() == 4:
        assert packed.unpacked().is_contiguous(memory_format=torch.channels_last)


def test_memory_is_freed_between_batches() -> None:
    network = FusedGuidedBackbone(_backbone("resnet10", "layer4").network)

    def work(count: int) -> int:
        pullback = network(torch.randn(count, 3, 64, 64, dtype=torch.float64))
        pullback.vjp(torch.randn_like(pullback.features))
        del pullback
        gc.collect()
        return sum(x.nbytes for x in gc.get_objects() if type(x) is Tensor and x.layout is torch.strided)

    work(1)
    assert work(4) == work(1)


def test_the_estimate_of_memory_grows_with_the_images() -> None:
    network = FusedGuidedBackbone(_backbone("resnet10", "layer4").network)
    one, four = (network.memory(torch.zeros(n, 3, 64, 64, dtype=torch.float64)) for n in (1, 4))
    assert one > 64 * 32 * 32 and four == 4 * one


def test_compiled_it_is_the_same_or_refused() -> None:
    traced = _traced("two convolutions added").float()
    images = torch.randn(2, 3, 32, 32)
    eager = FusedGuidedBackbone(traced)(images)
    cotangent = torch.randn_like(eager.features)
    if torch.__version__ < "2.12":  # compiles it to other numbers
        with pytest.raises(HvxError, match="compiles this network to other numbers"):
            FusedGuidedBackbone(traced, compiled=True)(images)
        return
    compiled = FusedGuidedBackbone(traced, compiled=True)(images)
    assert _apart(compiled.vjp(cotangent), eager.vjp(cotangent)) <= 1e-2


@pytest.mark.parametrize("wrong", ["features", "gradient", None])
def test_a_network_compiled_to_other_numbers_is_refused(
    monkeypatch: pytest.MonkeyPatch, wrong: str | None
) -> None:
    def compiled(function: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        def changed(*args: Any) -> Any:
            result = function(*args)
            if isinstance(result, tuple):
                return (result[0] * (1.02 if wrong == "features" else 1), result[1])
            return result * (1.02 if wrong == "gradient" else 1)

        return changed

    monkeypatch.setattr(torch, "compile", compiled)
    network = FusedGuidedBackbone(_traced("two convolutions added").float(), compiled=True)
    images = torch.randn(2, 3, 32, 32)
    if wrong is None:
        assert network(images).features.shape[0] == 2
        return
    with pytest.raises(HvxError, match=r"explain\.compile: PyTorch .* \(relative difference 0\.02\); set"):
        network(images)


class _Net(nn.Module):
    """A convolution before something that the steps are read from."""

    def __init__(self, body: Callable[[_Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.reflecting = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.same = nn.Conv2d(4, 4, 3, padding="same")
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mean = nn.AvgPool2d(2, 1, count_include_pad=False)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.own = nn.BatchNorm2d(4, track_running_stats=False)
        self.groups = nn.Conv2d(4, 4, 3, groups=2, bias=False)
        self.drop2, self.nothing = nn.Dropout2d(0.5), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, torch.relu(self.one(x))).relu()


BODIES: dict[str, Callable[[_Net, Tensor], Tensor]] = {
    "a value added to itself": lambda net, x: net.two(x + x),
    "a convolution's input added to its output": lambda net, x: net.two(x) + x,
    "a residual block": lambda net, x: net.two(torch.relu(net.two(x))) + x,
    "a block whose end is its features": lambda net, x: torch.relu(net.two(x)),
    "two convolutions added": lambda net, x: net.two(x) + net.reflecting(x),
    "a sum of three": lambda net, x: net.two(x) + x + net.same(x),
    "one convolution twice": lambda net, x: net.two(torch.relu(net.two(x))),
    "a convolution read twice": lambda net, x: (lambda y: torch.relu(y) + net.same(y))(net.two(x)),
    "norm of what others read too": lambda net, x: (lambda y: net.norm(y) + y)(net.two(x)),
    "norm after norm": lambda net, x: net.norm(net.norm(net.two(x))),
    "norm after another padding": lambda net, x: net.norm(net.same(x)),
    "dropout": lambda net, x: functional.dropout(net.drop(net.two(x)), training=False),
    "relu of relu": lambda net, x: torch.relu(torch.relu(net.two(x))),
    "a sum in place": lambda net, x: net.two(x).add_(x),
    "scaled in place": lambda net, x: net.two(x).mul_(0.5) + x,
    "plus a number": lambda net, x: torch.relu(net.two(x) + 0.1),
    "a sum over a broadcast": lambda net, x: net.two(x) + x.mean((2, 3), keepdim=True),
    "chunks and sizes": lambda net, x: (
        torch.cat(net.two(x).view(x.size(0), 4, x.size(2), x.size(3)).chunk(2, 1)[::-1], 1)
    ),
    "side by side": lambda net, x: net.same(torch.cat([x[:, :1], net.two(x)[:, 1:]], dim=1)),
    "pools": lambda net, x: functional.avg_pool2d(functional.max_pool2d(x, 3, stride=1, padding=1), 2),
    "a pool in ceiling mode": lambda net, x: functional.max_pool2d(net.pool(x), 2, ceil_mode=True),
    "average pools": lambda net, x: (
        functional.avg_pool2d(functional.avg_pool2d(net.mean(x), 3, 2, 1, True, False), 2, divisor_override=3)
    ),
    "an average pool that counts its padding": lambda net, x: functional.avg_pool2d(x, 3, 2, 1, False, True),
    "a dilated pool": lambda net, x: functional.max_pool2d(x, 2, 1, 1, 2),
    "a pool that says where": lambda net, x: functional.max_pool2d(x, 2, return_indices=True)[0],
    "rows side by side": lambda net, x: torch.cat([x, net.two(x)], 2),
    "side by side by keyword": lambda net, x: net.same(torch.cat([x[:, :2], x[:, 2:]], dim=1)),
    "a weighted sum": lambda net, x: torch.add(net.two(x), x, alpha=2),
    "a sum by torch": lambda net, x: torch.add(net.two(x), x),
    "a difference in place": lambda net, x: (lambda y: operator.isub(y, x))(net.two(x)),
    "a norm without its own scale": lambda net, x: net.plain(net.two(x)),
    "a norm of a convolution without bias": lambda net, x: net.norm(net.groups(x)),
    "a norm by the batch": lambda net, x: net.own(net.two(x)),
    "nothing": lambda net, x: net.nothing(functional.dropout2d(net.drop2(net.two(x)), training=False)),
    "a branch that leads nowhere": lambda net, x: (lambda y, z: y)(net.two(x), net.same(x)),
    "the image's own relu": lambda net, x: x,
    "a relu in place by position": lambda net, x: net.two(functional.relu(net.two(x), True)),
}  # fmt: skip


def _traced(body: str) -> fx.GraphModule:
    torch.manual_seed(0)
    net = _Net(BODIES[body]).double().eval()
    for norm in (net.norm, net.plain):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return cut_network(BackboneConfig(architecture="test", node=_last(net)), net)


@pytest.mark.parametrize("body", BODIES)
def test_however_a_network_is_put_together_it_equals_the_plain_engine(body: str) -> None:
    traced = _traced(body)
    images = torch.randn(2, 3, 11, 12, dtype=torch.float64)
    plain = GuidedVJP(guided(traced), images)
    fused = FusedGuidedBackbone(traced)(images)
    torch.testing.assert_close(fused.features, plain.features, rtol=1e-12, atol=1e-12)
    for _ in range(2):
        cotangent = torch.randn_like(plain.features)
        assert _apart(fused.vjp(cotangent), plain.vjp(cotangent)) <= 1e-12


STEPS: dict[str, str] = {
    "two convolutions added": "C* O C*",
    "norm of what others read too": "C* C A + R*",
    "norm after norm": "C* C A R*",
    "norm after another padding": "C* O A R*",
    "dropout": "C* C*",
    "relu of relu": "C* C* R* R*",
    "plus a number": "C* C O R* R*",
    "a sum over a broadcast": "C* C O O R*",
    "pools": "C* M P R*",
    "average pools": "C* P P P R*",
    "an average pool that counts its padding": "C* P R*",
    "a dilated pool": "C* M R*",
    "a pool that says where": "C* O R*",
    "rows side by side": "C* C O R*",
    "side by side": "C* O C O | O R*",
    "side by side by keyword": "C* O O | O R*",
    "a weighted sum": "C* C O R*",
    "a sum by torch": "C* C*",
    "a sum of three": "C* C O + R*",
    "a norm without its own scale": "C* C*",
    "a norm of a convolution without bias": "C* C*",
    "a norm by the batch": "C* C O R*",
    "nothing": "C* C*",
    "a branch that leads nowhere": "C* C*",
}
"""Of networks, their steps: Convolution, Affine, + a sum, ReLU, Max pool, average Pool, | a join, GenericOp.
A star marks a ReLU."""


@pytest.mark.parametrize("body", STEPS)
def test_what_has_a_rule_of_its_own_is_computed_by_it(body: str) -> None:
    names = {
        Convolution: "C", Affine: "A", Add: "+", ReLU: "R", MaxPool: "M", AveragePool: "P", Concatenate: "|",
        GenericOp: "O",
    }  # fmt: skip
    network = FusedGuidedBackbone(_traced(body))
    assert " ".join(names[type(s.op)] + "*" * s.guided for s in network.steps) == STEPS[body]


def test_the_memory_of_a_pass_is_what_is_kept_and_what_is_at_work() -> None:
    network = FusedGuidedBackbone(_traced("pools"))
    images = torch.zeros(2, 3, 8, 10, dtype=torch.float64)
    # Masks of 4 × 8 × 10 and 4 × 4 × 5 bits, the maxima's places in 8 bytes each, for 2 images.
    masks, places = 2 * 4 * (8 * 10 + 4 * 5) // 8, 2 * 4 * 8 * 10 * 8
    largest, features = 2 * 4 * 8 * 10 * 8, 2 * 4 * 4 * 5 * 8
    assert network.memory(images) == masks + places + 5 * largest + features + images.nbytes


def test_the_first_images_can_be_pulled_back_alone() -> None:
    traced = _traced("pools")
    images = torch.randn(3, 3, 8, 10, dtype=torch.float64)
    fused, two = FusedGuidedBackbone(traced)(images), FusedGuidedBackbone(traced)(images[:2])
    cotangent = torch.randn_like(fused.features)
    torch.testing.assert_close(fused.vjp(cotangent[:2]), two.vjp(cotangent[:2]), rtol=0, atol=1e-12)
    assert fused.vjp(cotangent[:1]).shape == (1, 3, 8, 10)


PLANS = {
    "a residual block": [
        "Convolution x -> relu*; frees x | clamped, owned; new",
        "Convolution relu -> relu_1*; frees nothing | clamped, owned; added in place and clamped",
        "Convolution relu_1 relu -> relu_2*, in place; frees relu_1 relu | given; new and clamped, new",
    ],
    "a convolution's input added to its output": [
        "Convolution x -> relu*; frees x | owned; new",
        "Convolution relu relu -> relu_1*; frees relu | given; new, added in place",
    ],
    "a sum of three": [
        "Convolution x -> relu*; frees x | owned; new",
        "Convolution relu relu -> add; frees nothing | owned; added in place, added in place",
        "GenericOp relu -> same; frees relu | shared; new",
        "Add add same -> add_1; frees add same | owned; new, new",
        "ReLU add_1 -> relu_1*; frees add_1 | given; new",
    ],
    "a convolution read twice": [
        "Convolution x -> relu*; frees x | clamped, owned; new",
        "Convolution relu -> two; frees relu | owned; new and clamped",
        "ReLU two -> relu_1*; frees nothing | owned; added in place",
        "GenericOp two -> same; frees two | shared; new",
        "Add relu_1 same -> add; frees relu_1 same | owned; new, new",
        "ReLU add -> relu_2*; frees add | given; new",
    ],
    "side by side": [
        "Convolution x -> relu*; frees x | owned; new",
        "GenericOp relu -> getitem; frees nothing | owned; added in place",
        "Convolution relu -> two; frees relu | owned; new",
        "GenericOp two -> getitem_1; frees two | owned; new",
        "Concatenate getitem getitem_1 -> cat; frees getitem getitem_1 | owned; new, new",
        "GenericOp cat -> same; frees cat | owned; new",
        "ReLU same -> relu_1*; frees same | given; new",
    ],
    "a branch that leads nowhere": [
        "Convolution x -> relu*; frees x | clamped, owned; new",
        "Convolution relu -> relu_1*; frees relu | given; new and clamped",
    ],
}
"""Of networks, each step with what its passes do to memory. A star marks a ReLU. The cotangent of the last
step is the caller's ("given"), so it may not be changed."""


def _plan(network: FusedGuidedBackbone) -> list[str]:
    lines = []
    for forward, plan in zip(network._forwards, network._backwards[True], strict=True):
        step = forward.step
        names = " ".join(value.name for value in step.inputs)
        freed = " ".join(value.name for value in forward.last_read) or "nothing"
        place = ", in place" if forward.overwrites else ""
        made = f"{step.output.name}{'*' * step.guided}{place}; frees {freed}"
        last = step.output is network._features
        state = "owned" if plan.owned else "given" if last else "shared"
        sums = []
        for into, overwrites, clamps in zip(plan.into, plan.overwrites, plan.clamps, strict=True):
            place = "in place" if overwrites else "to a copy"
            sums.append((f"added {place}" if into else "new") + " and clamped" * clamps)
        plans = f"{'clamped, ' * plan.clamped}{state}; {', '.join(sums)}"
        lines.append(f"{type(step.op).__name__} {names} -> {made} | {plans}")
    return lines


@pytest.mark.parametrize("body", PLANS)
def test_memory_is_reused_where_nobody_else_reads_it(body: str) -> None:
    assert _plan(FusedGuidedBackbone(_traced(body))) == PLANS[body]


def test_what_guided_backpropagation_does_not_speak_of_is_refused() -> None:
    network = build_backbone(BackboneConfig(architecture="efficientnet_b0", node="features.2")).network
    with pytest.raises(HvxError, match="SiLU"):
        FusedGuidedBackbone(network)


def test_the_network_itself_stays_as_it_was() -> None:
    backbone = _backbone("resnet10", "layer2")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    features = backbone(images)
    fused = FusedGuidedBackbone(backbone.network)(images)
    fused.vjp(torch.ones_like(fused.features))
    assert torch.equal(backbone(images), features)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_cpu() -> None:
    backbone = _backbone("resnet50", "layer4")
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    here = FusedGuidedBackbone(backbone.network)(images)
    cotangent = torch.randn_like(here.features)
    expected = here.vjp(cotangent)
    backbone.cuda()
    there = FusedGuidedBackbone(backbone.network)(images.cuda())
    assert _apart(there.vjp(cotangent.cuda()).cpu(), expected) <= 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("resnet18", "layer3"),
        ("vgg11_bn", "features.28"),
        ("densenet121", "relu"),
        ("googlenet", "inception4a.cat"),
    ],
)
def test_plain_gradients_are_autograds_from_the_same_forward_pass(
    name: str, node: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    cut = build_backbone(BackboneConfig(architecture=name, node=node)).network.to(dtype)
    images = torch.randn(3, 3, 64, 64, dtype=dtype)
    vjp = FusedGuidedBackbone(cut)(images)
    cotangent = torch.randn_like(vjp.features)
    leaf = images.clone().requires_grad_()
    features = cut(leaf)["features"]
    expected = torch.autograd.grad(features, leaf, cotangent)[0]
    tolerance = 1e-10 if dtype == torch.float64 else 1e-2  # in float32 some ReLUs flip
    for found, wanted in (
        (vjp.vjp(cotangent, guides=False), expected),
        (vjp.vjp(cotangent[:2], guides=False), expected[:2]),
        (FusedGuidedBackbone(cut).features(images), features.detach()),
    ):
        assert float((found - wanted).norm() / wanted.norm()) < tolerance
    guided_before = vjp.vjp(cotangent)
    assert float((guided_before - expected).norm() / expected.norm()) > 0.1
    assert torch.equal(vjp.vjp(cotangent), guided_before)  # neither pass changes what the other reads
