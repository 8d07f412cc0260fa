"""What a model of one's own takes, and how it is called; advice that works; the model left as it was."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_capture import WORDS, Small, check, inputs, small_by_hand
from torch import Tensor, nn
from torch.nn import functional

from hvx.capture.equations import explain_joint
from hvx.capture.inputs import rebuilt
from hvx.capture.products import explain_product
from hvx.errors import HvxError


@dataclass
class Batch:
    image: Tensor
    ids: Tensor
    name: str = "batch"


@dataclass(frozen=True, slots=True)
class Frozen:
    image: Tensor
    ids: list[Tensor]


class Own:
    def __init__(self, image: Tensor, ids: Tensor) -> None:
        self.image, self.ids, self.me = image, {"ids": ids}, self


class Opened(Small):
    """Takes one batch, opened by a function."""

    def __init__(self, opened: Callable[[Any], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.opened = opened

    def forward(self, batch: Any) -> Tensor:
        return super().forward(*self.opened(batch))


BATCHES: dict[str, tuple[Callable[..., Any], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "dataclass": (Batch, lambda b: (b.image, b.ids)),
    "frozen dataclass with slots": (lambda i, w: Frozen(i, [w]), lambda b: (b.image, b.ids[0])),
    "namespace": (lambda i, w: SimpleNamespace(image=i, ids=w), lambda b: (b.image, b.ids)),
    "object that holds itself": (Own, lambda b: (b.image, b.ids["ids"])),
    "UserDict": (lambda i, w: UserDict(image=i, ids=w), lambda b: (b["image"], b["ids"])),
    "OrderedDict in a tuple": (lambda i, w: (OrderedDict(image=i), w), lambda b: (b[0]["image"], b[1])),
    "list": (lambda i, w: [i, [w]], lambda b: (b[0], b[1][0])),
}


@pytest.mark.parametrize("how", BATCHES)
def test_batches_of_any_class_are_taken_and_left_as_they_were(how: str) -> None:
    make, opened = BATCHES[how]
    model, (image, ids) = Opened(opened), inputs()
    batch = make(image, ids)
    check(explain_product(model, [batch], image=image, words=ids), *small_by_hand(model, image, ids))
    assert opened(batch)[0] is image and opened(batch)[1] is ids


def test_only_what_changes_is_copied() -> None:
    one, other = torch.zeros(1), torch.ones(1)
    batch, untouched = Batch(one, one), SimpleNamespace(x=1)
    changed = rebuilt({"a": batch, "b": untouched, "c": (1, "x")}, lambda v: other if v is one else v)
    assert changed["a"].image is other and changed["a"].ids is other and changed["a"].name == "batch"
    assert batch.image is one and changed["b"] is untouched and changed["c"] == (1, "x")


def test_a_method_of_a_model_is_called() -> None:
    class Two(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            raise NotImplementedError

        def answers(self, image: Tensor, ids: Tensor) -> Tensor:
            return self.visual(image) * self.textual(self.table(ids))

    model, (image, ids) = Two(), inputs()
    check(
        explain_product(model.answers, (image, ids), image=image, words=ids),
        *small_by_hand(model, image, ids),
    )


def _explain(**changed: Any) -> None:
    image, ids = inputs()
    options = {"model": Small(), "inputs": (image, ids), "image": image, "words": ids} | changed
    if "given" in options:
        options[options.pop("name")] = options["given"]
        options["inputs"] = (options["image"], options["words"])
        del options["given"]
    explain_product(options.pop("model"), options.pop("inputs"), **options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"model": lambda image, ids: image},
            "model: function given; pass a torch.nn.Module or a method of one",
        ),
        ({"model": Batch}, "model: type given; pass a torch.nn.Module or a method of one"),
        ({"inputs": "text"}, "inputs: str given; pass a sequence of arguments or a mapping"),
        ({"inputs": 3}, "inputs: int given; pass a sequence of arguments or a mapping"),
        (
            {"name": "image", "given": [torch.zeros(3, 4, 4)]},
            "image: list given; pass one tensor (N, C, H, W)",
        ),
        (
            {"name": "image", "given": torch.zeros(3, 3, 12, 12, dtype=torch.uint8)},
            "image: torch.uint8 given; integers have no gradient: put image.float() among the inputs",
        ),
        ({"name": "image", "given": torch.zeros(3)}, "image: (3,) given; pass a batch (N, C, H, W)"),
        (
            {"name": "words", "given": torch.ones(12, dtype=torch.long)},
            "words: ids (12,) given; they must be (N, T): pass padded ids, and pack them inside the model",
        ),
        (
            {"name": "words", "given": torch.ones(3, 2, 4, dtype=torch.long)},
            "words: ids (3, 2, 4) given; they must be (N, T): of several rounds of questions, pass one round",
        ),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(HvxError) as caught:
        _explain(**changed)
    assert str(caught.value).startswith(message)


def test_the_module_named_for_packed_words_is_refused() -> None:
    class Packed(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return self.visual(image) * self.textual(self.table(ids.flatten()).view(3, 4, -1))

    image, ids = inputs()
    with pytest.raises(HvxError, match=r"words: embeddings of 12 rows found for 3 questions; name a module"):
        explain_product(Packed(), (image, ids), image=image, words="table")


def test_a_uint8_image_that_a_model_normalizes_is_explained_as_floats() -> None:
    class Pixels(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return super().forward(image.double() / 255, ids)

    model, (image, ids) = Pixels(), inputs()
    pixels = (image.clamp(0, 1) * 255).to(torch.uint8)
    floats = pixels.float()
    found = explain_product(model, (floats, ids), image=floats, words=ids)
    expected = small_by_hand(model, pixels.double() / 255, ids)[0] / 255
    assert (found.image_gradient - expected).abs().max() <= 1e-5 * expected.abs().max()


# Advice


def _switched(switch: Any, inplace: bool) -> Small:
    class Switched(Small):
        @switch()
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return super().forward(image, ids)

    model = Switched()
    model.cnn[1].inplace = inplace
    return model


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize(
    ("inplace", "message"),
    [
        (False, "'cnn.0' ran under torch.inference_mode(); write torch.no_grad() there, and pass "),
        (
            True,
            "'cnn.1' writes to a tensor under torch.inference_mode(), so that no graph can be kept; write ",
        ),
    ],
)
def test_inference_mode_is_named_and_what_is_advised_works(
    through: bool, inplace: bool, message: str
) -> None:
    image, ids = inputs()
    options: dict[str, Any] = {"image": image, "words": ids}
    with pytest.raises(HvxError) as caught:
        explain_product(
            _switched(torch.inference_mode, inplace), (image, ids), through_no_grad=through, **options
        )
    assert message in str(caught.value)
    assert str(caught.value).endswith("write torch.no_grad() there, and pass through_no_grad=True")
    model = _switched(torch.no_grad, inplace)
    with pytest.raises(HvxError, match=r"ran under torch.no_grad\(\); pass through_no_grad=True"):
        explain_product(model, (image, ids), **options)
    found = explain_product(model, (image, ids), through_no_grad=True, **options)
    check(found, *small_by_hand(model, image, ids))


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.GELU(), "GELU"), (nn.SiLU(), "SiLU"), (nn.ReLU6(), "ReLU6"), (nn.Hardtanh(0, 5), "Hardtanh"),
        (nn.Hardtanh(-1, 6), "Hardtanh"), (nn.LeakyReLU(), "LeakyReLU"), (nn.Mish(), "Mish"),
    ],
)  # fmt: skip
def test_a_network_without_relu_is_told_to_take_the_plain_gradient_only(
    activation: nn.Module, name: str
) -> None:
    model, (image, ids) = Small(), inputs()
    model.cnn[1] = model.cnn[3] = activation
    with pytest.raises(HvxError) as caught:
        explain_product(model, (image, ids), image=image, words=ids)
    assert str(caught.value) == (
        f"guided backpropagation is defined for ReLU; the image's network has {name}: pass rule='gradient' "
        "for the plain gradient"
    )
    assert explain_product(model, (image, ids), image=image, words=ids, rule="gradient").relus == 0


@pytest.mark.parametrize(
    ("activation", "unguided"),
    [
        (lambda x: x * (x > 0), {"Mul by a mask": 2}),
        (lambda x: (x > 0) * x, {"Mul by a mask": 2}),
        (functional.softsign, {"Abs": 2}),
        (lambda x: x.minimum(x * 0 + 1), {"Minimum": 2}),
        (lambda x: x * (1 + torch.erf(x)), {"Erf": 2}),
        (lambda x: x * 2, {}),
    ],
)
def test_activations_written_by_arithmetic_are_counted(
    activation: Callable[[Tensor], Tensor], unguided: dict[str, int]
) -> None:
    class Activated(Small):
        def visual(self, image: Tensor) -> Tensor:
            first, second = self.cnn[0], self.cnn[2]
            cells = torch.relu(activation(second(activation(first(image)))))
            return self.to_visual(cells.mean((2, 3)))

    image, ids = inputs()
    found = explain_product(Activated(), (image, ids), image=image, words=ids)
    assert (found.relus, found.unguided) == (1, unguided)


class Dual(Small):
    def forward(self, image: Tensor, ids: Tensor) -> Any:
        return {"image": self.visual(image), "text": self.textual(self.table(ids))}


def test_a_dual_encoder_that_returns_its_embeddings_is_told_of_explain_joint() -> None:
    model, (image, ids) = Dual(), inputs()
    with pytest.raises(HvxError) as caught:
        explain_product(model, (image, ids), image=image, words=ids)
    assert str(caught.value) == (
        "Dual takes no product of image and words, and returns an embedding of each; for a dual encoder pass "
        "its two embeddings, a row each, to hvx.explain_joint"
    )
    x, embeddings = image.clone().requires_grad_(), model.table(ids).detach().requires_grad_()
    found = explain_joint(model.visual(x), model.textual(embeddings), image=x, embeddings=embeddings)
    check(found, *small_by_hand(model, image, ids))


# Features


class Pooling(Small):
    def forward(self, features: Tensor, ids: Tensor) -> Tensor:
        pooled = torch.relu(features).flatten(2).sum(2)
        return pooled.repeat(1, 2)[:, :5] * self.textual(self.table(ids))


@pytest.mark.parametrize(
    ("shape", "guided"),
    [
        ((3, 4, 5, 5), True), ((3, 3, 5, 5), True), ((3, 5, 5, 5), False), ((3, 4, 5), False),
        ((3, 4, 5, 5, 2), False),
    ],
)  # fmt: skip
def test_features_have_the_plain_gradient_and_pixels_the_guided_one(
    shape: tuple[int, ...], guided: bool
) -> None:
    features, ids = torch.rand(shape, dtype=torch.float64), inputs()[1]
    for asked, relus in ((None, int(guided)), ("guided", 1), ("gradient", 0)):
        found = explain_product(Pooling(), (features, ids), image=features, words=ids, rule=asked)
        assert (found.relus, found.rule) == (relus, "guided" if relus else "gradient")


# Left as it was


class Logging(Small):
    """Keeps what it computes in its own containers, and writes to its tables."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = ["first"]
        self.by_name: dict[str, Any] = {"inner": [1], "old": 1}
        self.seen = {1}
        self.table = nn.Embedding(WORDS, 6, max_norm=0.5).double()

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        v, q = self.visual(image), self.textual(self.table(ids))
        self.log.append(v * 1)
        self.by_name["inner"].append(q)
        self.by_name.pop("old")
        self.seen.add(2)
        with torch.no_grad():
            self.answer.weight.mul_(2)
            self.to_visual.bias.data[1:] += 1
        return self.answer(v * q)


def test_containers_and_parameters_that_a_forward_writes_to_are_restored() -> None:
    model, (image, ids) = Logging(), inputs()
    log, by_name, inner, seen = model.log, model.by_name, model.by_name["inner"], model.seen
    before = {name: (id(each), each.detach().clone()) for name, each in model.named_parameters()}
    explain_product(model, (image, ids), image=image, words=ids)
    assert model.log is log and log == ["first"]
    assert model.by_name is by_name and by_name == {"inner": [1], "old": 1} and by_name["inner"] is inner
    assert model.seen is seen and seen == {1}
    for name, each in model.named_parameters():
        assert id(each) == before[name][0] and torch.equal(each, before[name][1])
    model(image, ids)
    assert not torch.equal(model.table.weight, before["table.weight"][1])
