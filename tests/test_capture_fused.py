"""Several questions on one image: the fast engine gives what the graph gives, or stays away."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from test_capture import JOINT, Small, check, inputs, small_by_hand
from torch import Tensor, nn

from hvx.capture import fused
from hvx.capture.products import explain_product
from hvx.capture.result import ProductExplanation

QUESTIONS = 4


def explained(model: nn.Module, count: int = QUESTIONS, **options: Any) -> ProductExplanation:
    image, ids = inputs(count)
    one = image[:1].clone()
    return explain_product(model, (one, ids), image=one, words=ids, **options)


def one_by_one(model: nn.Module, **options: Any) -> Tensor:
    """Eq. 2 of each question, by the graph of a forward of its own."""
    image, ids = inputs(QUESTIONS)
    one = image[:1].clone()
    rows = [
        explain_product(model, (one, own), image=one, words=own, **options).image_gradient
        for own in (ids[n : n + 1].clone() for n in range(QUESTIONS))
    ]
    return torch.cat(rows)


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each cotangent that the engine pulls back."""
    calls: list[int] = []
    vjp = fused.FusedGuidedVJP.vjp

    def note(self: fused.FusedGuidedVJP, cotangent: Tensor) -> Tensor:
        calls.append(len(cotangent))
        return vjp(self, cotangent)

    monkeypatch.setattr(fused.FusedGuidedVJP, "vjp", note)
    return calls


class Residual(Small):
    """With BatchNorm, pooling, a ReLU in place, a sum and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = Branches()
        self.double().eval()


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.third = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(12, 6, 1)
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU(inplace=True)
        nn.init.uniform_(self.norm.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.first(image))))
        y = torch.relu(self.second(x) + x)
        return self.relu(self.third(torch.cat([x, y], 1)))


class Resnet(Small):
    def __init__(self) -> None:
        super().__init__()
        network = torchvision.models.resnet18(num_classes=2)
        self.cnn = nn.Sequential(*list(network.children())[:-4])
        self.to_visual = nn.Linear(128, JOINT)
        self.double().eval()


@pytest.mark.parametrize("make", [Small, Residual, Resnet])
def test_the_engine_gives_what_the_graph_gives(make: Callable[[], Small], pulls: list[int]) -> None:
    model = make()
    expected = one_by_one(model)
    assert pulls == []
    found = explained(model)
    assert pulls == [1] * QUESTIONS
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.image_gradient, expected, rtol=0, atol=1e-9 * scale)
    assert scale > 0


def test_both_equations_of_the_engine_are_those_by_hand(pulls: list[int]) -> None:
    (image, ids), model = inputs(QUESTIONS), Small()
    check(explained(model), *small_by_hand(model, image[:1].expand(QUESTIONS, -1, -1, -1), ids))
    assert len(pulls) == QUESTIONS


CHANGES: dict[str, Callable[[Tensor], object]] = {  # by .data: no version of the parameter tells of it
    "another sign": lambda weight: weight.mul_(-1),
    "another order of filters": lambda weight: weight.copy_(weight.flip(0)),
    "another scale": lambda weight: weight.mul_(1.5),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_network_is_traced_once_and_again_when_its_weights_are_others(
    how: str, pulls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[nn.Module] = []
    traced = fused._traced
    monkeypatch.setattr(fused, "_traced", lambda module: made.append(module) or traced(module))  # type: ignore[func-returns-value]
    model = Residual()
    first = explained(model).image_gradient
    assert torch.equal(explained(model).image_gradient, first)
    assert len(made) == 1
    CHANGES[how](model.cnn.second.weight.data)
    found = explained(model).image_gradient
    torch.testing.assert_close(found, one_by_one(model), rtol=0, atol=1e-12)
    assert len(made) == 2 and not torch.allclose(found, first)
    assert len(pulls) == 3 * QUESTIONS


# Where the engine stays away


class Detached(Branches):
    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.first(image))
        return torch.relu(self.second(x) + x.detach())


class WithoutGradient(Branches):
    """Traces as if the inner ReLU had a gradient."""

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        with torch.no_grad():
            y = torch.relu(self.second(x))
        return torch.relu(self.second(x) + y)


class Branching(Branches):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) if image.sum() < 1e9 else torch.relu(self.first(image))


class Counting(Branches):
    """Each call is another function."""

    calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        return torch.relu(self.first(image) * (1.0 if self.calls % 2 else 0.5))


def _hooked(model: Small) -> None:
    """A hook that no trace sees."""
    model.cnn.second.register_full_backward_hook(lambda module, into, out: (into[0] * 2,))


class Around(Small):
    def visual(self, image: Tensor) -> Tensor:
        return torch.tanh(super().visual(image) + image.mean((1, 2, 3))[:, None])


AWAY: dict[str, tuple[type[Small], type[nn.Module] | None]] = {
    "detach": (Small, Detached),
    "no_grad": (Small, WithoutGradient),
    "a branch on values": (Small, Branching),
    "another function each time": (Small, Counting),
    "image around the features": (Around, None),
}


@pytest.mark.parametrize("how", AWAY)
def test_where_the_engine_would_compute_something_else_the_graph_is_used(how: str, pulls: list[int]) -> None:
    make, cnn = AWAY[how]
    model = make()
    if cnn is not None:
        torch.manual_seed(3)
        model.cnn = cnn()
        model.double().eval()
    expected = one_by_one(model)
    if how == "another function each time":
        model.cnn.calls = 0
        expected = _as_batch(model)
        model.cnn.calls = 0
    found = explained(model).image_gradient
    assert pulls == []
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def _as_batch(model: nn.Module) -> Tensor:
    """Eq. 2 with the image repeated for each question."""
    image, ids = inputs(QUESTIONS)
    repeated = image[:1].repeat(QUESTIONS, 1, 1, 1)
    return explain_product(model, (repeated, ids), image=repeated, words=ids).image_gradient


def test_hooks_on_the_networks_parts_keep_the_engine_away(pulls: list[int]) -> None:
    model, other = Residual(), Residual()
    _hooked(other)
    one, two = (explained(each, other_activations=True).image_gradient for each in (model, other))
    assert len(pulls) == QUESTIONS  # of the first alone
    assert not torch.allclose(one, two)
    torch.testing.assert_close(two, one_by_one(other, other_activations=True), rtol=0, atol=1e-12)


def test_for_few_questions_and_for_the_plain_gradient_the_graph_is_used(pulls: list[int]) -> None:
    explained(Small(), count=fused.WORTH - 1)
    found = explained(Small(), rule="gradient")
    assert pulls == []
    torch.testing.assert_close(found.image_gradient, one_by_one(Small(), rule="gradient"), rtol=0, atol=1e-12)


def test_an_engine_is_not_kept_beyond_its_module() -> None:
    model = Residual()
    explained(model)
    module = weakref.ref(model.cnn)
    assert module() in fused._TRACED
    del model
    gc.collect()
    assert module() is None
