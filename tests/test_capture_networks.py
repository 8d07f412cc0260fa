"""Networks without ReLU and features of any layout: the rule, SmoothGrad, modules as image, patch tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_capture import JOINT, Small, by_hand, check, inputs, leaf, small_by_hand
from torch import Tensor, nn

from hvx.capture.forward import forward_pass
from hvx.capture.products import explain_product, explain_products
from hvx.capture.result import ProductExplanation
from hvx.capture.smooth import SmoothGrad
from hvx.errors import HvxError

PATCHES = 4


class Patches(Small):
    """A ViT in small: a class token and patch tokens through GELU and LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, JOINT, 3, stride=3), nn.LayerNorm(JOINT)
        self.encoder = nn.Sequential(nn.Linear(JOINT, JOINT), nn.GELU())
        self.first = nn.Parameter(torch.randn(1, 1, JOINT))
        self.double()

    def visual(self, image: Tensor) -> Tensor:
        patches = self.embed(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(image), -1, -1), patches], 1)
        return torch.tanh(self.encoder(self.norm(tokens)).square().mean(1))


def explained(**options: Any) -> ProductExplanation:
    image, ids = inputs()
    return explain_product(Patches(), (image, ids), **{"image": image, "words": ids} | options)


def test_guided_backpropagation_is_refused_without_relu_and_the_gradient_is_the_models() -> None:
    with pytest.raises(HvxError, match="has GELU"):
        explained()
    found = explained(rule="gradient")
    (image, ids), model = inputs(), Patches()
    x, words = leaf(image), leaf(model.table(ids))
    check(found, *by_hand(model.visual(x), model.textual(words), x, words))
    assert (found.rule, found.relus) == ("gradient", 0)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(HvxError, match="rule: 'guidedd' given; expected 'guided' or 'gradient'"):
        explained(rule="guidedd")


def test_the_older_name_of_the_rule_is_understood_with_a_warning() -> None:
    (image, ids), model = inputs(), Small()
    arguments = {"image": image, "words": ids}
    for guided, rule in ((True, "guided"), (False, "gradient")):
        with pytest.warns(DeprecationWarning, match="guided= is now rule="):
            found = explain_product(model, (image, ids), guided=guided, **arguments)  # type: ignore[arg-type]
        with pytest.warns(DeprecationWarning, match="guided= is now rule="):
            (one,) = explain_products(model, (image, ids), guided=guided, **arguments)  # type: ignore[arg-type]
        assert found.rule == one.rule == rule
    with pytest.raises(HvxError, match="rule is given, too"):
        explain_product(model, (image, ids), guided=True, rule="guided", **arguments)  # type: ignore[arg-type]


# SmoothGrad


def test_smoothgrad_is_the_mean_of_equation_2_over_noisy_images() -> None:
    """Against a loop that draws the noise itself."""
    (image, ids), model = inputs(), Patches()
    image = image * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1, 1)  # each has a range of its own
    smooth = SmoothGrad(samples=3, noise=0.2, seed=7)
    before = torch.get_rng_state()
    found = explain_product(model, (image, ids), image=image, words=ids, rule="gradient", smooth=smooth)
    assert torch.equal(torch.get_rng_state(), before)
    span = image.amax((1, 2, 3), keepdim=True) - image.amin((1, 2, 3), keepdim=True)
    total = torch.zeros_like(image)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for _ in range(3):
            noisy = image + span * torch.normal(0, torch.full(image.shape, 0.2))
            total += explain_product(
                model, (noisy, ids), image=noisy, words=ids, rule="gradient"
            ).image_gradient
    torch.testing.assert_close(found.image_gradient, total / 3, rtol=0, atol=1e-12)
    plain = explain_product(model, (image, ids), image=image, words=ids, rule="gradient")
    assert torch.equal(found.word_gradient, plain.word_gradient)  # the words carry no noise
    assert found.heatmap is not None and not torch.allclose(found.heatmap, plain.heatmap)  # type: ignore[arg-type]


def test_smoothgrad_of_several_questions_on_one_image_and_of_guided_networks() -> None:
    (image, ids), model = inputs(), Small()
    one, smooth = image[:1].clone(), SmoothGrad(samples=2, seed=1)
    found = explain_product(model, (one, ids), image=one, words=ids, smooth=smooth)
    assert found.rule == "guided" and found.image_gradient.shape == (3, *one.shape[1:])
    for question in range(3):
        own = ids[question : question + 1].clone()
        alone = explain_product(model, (one, own), image=one, words=own, smooth=smooth)
        torch.testing.assert_close(
            found.image_gradient[question], alone.image_gradient[0], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples=0; expected 1 or more"),
        ({"noise": 0}, "noise=0; expected a share"),
        ({"noise": float("nan")}, "noise=nan; expected a share"),
    ],
)
def test_noise_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HvxError, match=message):
        SmoothGrad(**options)


def test_noise_needs_an_image_among_the_inputs() -> None:
    with pytest.raises(HvxError, match="pass as image one of their tensors"):
        explained(image="encoder", smooth=SmoothGrad())


# What a module puts out, and patch tokens


def at_tokens() -> tuple[Tensor, Tensor]:
    """Eq. 2 at the encoder's output (N, K, E), and the tokens, by hand."""
    (image, ids), model = inputs(), Patches()
    patches = model.embed(image).flatten(2).transpose(1, 2)
    tokens = leaf(model.encoder(model.norm(torch.cat([model.first.expand(3, -1, -1), patches], 1))))
    v, q = torch.tanh(tokens.square().mean(1)), model.textual(model.table(ids))
    return torch.autograd.grad(v, tokens, (v - v * q).detach())[0], tokens


@pytest.mark.parametrize("how", ["path", "module"])
def test_equation_2_is_taken_at_what_a_module_puts_out(how: str) -> None:
    (image, ids), model = inputs(), Patches()
    module = "encoder" if how == "path" else model.encoder
    found = explain_product(model, (image, ids), image=module, words=ids)
    torch.testing.assert_close(found.image_gradient, at_tokens()[0], rtol=0, atol=1e-12)
    assert found.rule == "gradient" and found.heatmap is None and found.image is None


@pytest.mark.parametrize(
    "reshape",
    [
        (PATCHES, PATCHES),
        lambda g: g[:, 1:].reshape(3, PATCHES, PATCHES, JOINT).permute(0, 3, 1, 2),
    ],
)
def test_patch_tokens_become_a_map(reshape: Any) -> None:
    found = explained(image="encoder", reshape=reshape)
    gradient = at_tokens()[0]
    assert found.image_map is not None and found.heatmap is not None
    for y in range(PATCHES):
        for x in range(PATCHES):
            token = gradient[:, 1 + PATCHES * y + x]  # the class token is the first
            torch.testing.assert_close(found.image_map[:, :, y, x], token, rtol=0, atol=1e-12)
    assert found.heatmap.shape == (3, PATCHES, PATCHES)


@pytest.mark.parametrize(
    ("reshape", "message"),
    [
        ((5, 5), r"\(5, 5\) given for a gradient \(3, 17, 5\); it must be \(N, K, E\), K at least 25"),
        (lambda g: g, r"made \(3, 17, 5\) of \(3, 17, 5\); expected \(N, C, H, W\)"),
        (lambda g: g.numpy(), "made ndarray"),
        (lambda g: g[:1, :, :, None], r"expected \(N, C, H, W\)"),
    ],
)
def test_a_reshape_that_makes_no_map_is_refused(reshape: Any, message: str) -> None:
    with pytest.raises(HvxError, match=message):
        explained(image="encoder", reshape=reshape)


def test_guided_from_a_module_on_is_guided_behind_it_only() -> None:
    (image, ids), model = inputs(), Small()
    with pytest.raises(HvxError, match="no ReLU"):
        explain_product(model, (image, ids), image="cnn", words=ids, rule="guided")
    model.cnn[0].register_forward_hook(lambda module, args, out: None)
    found = explain_product(model, (image, ids), image=model.cnn[0], words=ids, rule="guided")
    assert found.relus == 2


def test_a_frozen_cnn_under_no_grad_can_be_the_image() -> None:
    class Frozen(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            for parameter in self.cnn.parameters():
                parameter.requires_grad_(False)
            return super().forward(image, ids)

    (image, ids), model = inputs(), Frozen()
    found = explain_product(model, (image, ids), image="cnn", words=ids)
    assert found.image_gradient.shape == model.cnn(image).shape
    assert float(found.image_gradient.abs().sum()) > 0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("cnnn", r"image: the model has no module 'cnnn' \(did you mean 'cnn'\?\)"),
        ("answer2", "image: the forward does not call Linear"),
        ("to_twice", "image: Identity is called more than once"),
        ("to_pair", "image: Pair puts out tuple; expected one tensor"),
    ],
)
def test_a_module_that_gives_no_image_is_named(image: str, message: str) -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class Odd(Small):
        def __init__(self) -> None:
            super().__init__()
            self.answer2, self.to_twice, self.to_pair = nn.Linear(2, 2), nn.Identity(), Pair()

        def visual(self, x: Tensor) -> Tensor:
            return super().visual(self.to_pair(self.to_twice(self.to_twice(x)))[0])

    pixels, ids = inputs()
    with pytest.raises(HvxError, match=message):
        explain_product(Odd(), (pixels, ids), image=image, words=ids)


def test_with_a_module_as_image_the_words_must_say_how_many_questions_there_are() -> None:
    with pytest.raises(HvxError, match="with image a module, they give N"):
        explained(image="encoder", words="table")


# One forward pass


def test_a_forward_pass_is_explained_as_often_as_one_likes() -> None:
    (image, ids), model = inputs(), Small()
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    with forward_pass(model, (image, ids), image=image, words=ids) as forward:
        first, plain = forward.explain(), forward.explain(product=0, rule="gradient")
        (each,) = forward.explain_each()
        assert [product.name for product in forward.products] == [first.chosen.name]  # type: ignore[union-attr]
    assert calls == [1]
    check(first, *small_by_hand(model, image, ids))
    assert torch.equal(each.image_gradient, first.image_gradient)
    by_itself = explain_product(model, (image, ids), image=image, words=ids, rule="gradient")
    assert torch.equal(plain.image_gradient, by_itself.image_gradient)
    assert torch.equal(forward.output, first.output)
    with pytest.raises(HvxError, match="the forward pass is over"):
        forward.explain()


class Telling(Small):
    """Returns V, whose memory the recorded factor shares."""

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        v = self.visual(image)
        self.answer(v * self.textual(self.table(ids)))
        return v


def test_an_output_that_is_a_factor_is_the_callers_to_write_to_afterwards() -> None:
    (image, ids), model = inputs(), Telling()
    found = explain_product(model, (image, ids), image=image, words=ids)
    before = found.visual.clone()
    found.output.zero_()
    assert torch.equal(found.visual, before) and before.all()


def test_a_factor_that_is_written_to_between_forward_and_explanation_is_an_error() -> None:
    (image, ids), model = inputs(), Telling()
    with forward_pass(model, (image, ids), image=image, words=ids) as forward:
        forward.output.zero_()
        with pytest.raises(HvxError, match="was written to after the forward"):
            forward.explain()


def test_keywords_may_stand_besides_arguments() -> None:
    (image, ids), model = inputs(), Small()
    for arguments, kwargs in (((image,), {"ids": ids}), ((), {"image": image, "ids": ids})):
        found = explain_product(model, arguments, kwargs=kwargs, image=image, words=ids)
        check(found, *small_by_hand(model, image, ids))
    with pytest.raises(HvxError, match="inputs is a mapping of keywords already"):
        explain_product(model, {"image": image}, kwargs={"ids": ids}, image=image, words=ids)
    with pytest.raises(HvxError, match="kwargs: list given"):
        explain_product(model, (image,), kwargs=[ids], image=image, words=ids)  # type: ignore[arg-type]
    with pytest.raises(HvxError, match="words: not among the inputs"):
        explain_product(model, (image,), kwargs={"ids": ids.clone()}, image=image, words=ids)


def test_an_image_that_the_model_writes_to_is_as_it_was() -> None:
    class Normalizing(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            image -= 0.5
            return super().forward(image, ids)

    (image, ids), model = inputs(), Normalizing()
    before = image.clone()
    found = explain_product(model, (image, ids), image=image, words=ids)
    assert torch.equal(image, before)
    check(found, *small_by_hand(Small(), before - 0.5, ids))


def test_an_image_made_in_inference_mode_is_taken() -> None:
    with torch.inference_mode():
        image = inputs()[0] * 1
    ids = inputs()[1]
    check(
        explain_product(Small(), (image, ids), image=image, words=ids),
        *small_by_hand(Small(), image.clone(), ids),
    )
