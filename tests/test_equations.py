"""Eqs 2-11 computed a second, slow way in float64: numpy loops, and derivatives by complex steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from slow_heads import TOLERANCE, SlowHead, agree, derivative

from hvx.config import ModelConfig
from hvx.explain.hadamard import head_gradients
from hvx.explain.scores import NEGLIGIBLE, heat_map, standardized, token_saliency, token_z
from hvx.models.mlb import MLB

CHANNELS, LATTICE, WORDS, ANSWERS = 3, (2, 3), 6, 4
LENGTHS = [4, 2]
ROWS = [[1, 3, 2, 6], [5, 4, 0, 0]]
IMAGES = [1, 0]

FORMS: dict[str, dict[str, Any]] = {
    "paper": {"form": "paper", "glimpses": 2},
    "torch7": {"form": "torch7", "glimpses": 2},
    "vqa-pytorch": {"form": "vqa-pytorch", "glimpses": 3},
    "one glimpse, sigmoid": {"form": "torch7", "glimpses": 1, "attention_product_activation": "sigmoid"},
    "no attention": {"form": "vqa-pytorch", "glimpses": 0},
    **{
        f"{kind} in each place": {
            "form": form,
            **{f"{place}_activation": kind for place in ("visual", "textual", "product")},
            **{f"attention_{place}_activation": kind for place in ("visual", "textual", "product")},
        }
        for form, kind in (("paper", "relu"), ("torch7", "sigmoid"), ("paper", "tanh"), ("torch7", "none"))
    },
}


def _model(form: str) -> MLB:
    torch.manual_seed(3)
    options = FORMS[form]
    encoder = {**({"candidate": "reset_after"} if form == "vqa-pytorch" else {}), "embedding": 3, "hidden": 4}
    config = ModelConfig.model_validate({**options, "encoder": encoder, "joint": 3})
    model = MLB(config, CHANNELS, WORDS, ANSWERS).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    features = torch.randn(2, CHANNELS, *LATTICE, dtype=torch.float64)
    return features, torch.tensor(IMAGES), torch.tensor(ROWS), torch.tensor(LENGTHS)


class SlowMLB(SlowHead):
    """Eqs 4-8 for one question on one image, written out cell by cell."""

    def attention(self, q: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Eq. 4: (G, S²)."""
        c = self.config
        textual = self.activate(c.attention_textual_activation, self.linear("attention_textual", q))
        logits = []
        for cell in cells:
            visual = self.activate(c.attention_visual_activation, self.linear("attention_visual", cell))
            joint = self.activate(c.attention_product_activation, textual * visual)
            logits.append(self.linear("attention_output", joint))
        exponentials = np.exp(np.array(logits).T)
        return exponentials / exponentials.sum(1, keepdims=True)

    def visual(self, features: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Eqs 5 and 6: V."""
        cells = features.reshape(features.shape[0], -1).T
        if not self.config.glimpses:
            return self.activate(
                self.config.visual_activation, self.linear("visual.0", sum(cells) / len(cells))
            )
        attention = self.attention(q, cells)
        glimpses = [sum(a * cell for a, cell in zip(row, cells, strict=True)) for row in attention]
        if self.config.visual_projection == "joint":
            projected = self.linear("visual.0", np.concatenate(glimpses))
        else:
            projected = np.concatenate([self.linear(f"visual.{g}", v) for g, v in enumerate(glimpses)])
        return self.activate(self.config.visual_activation, projected)

    def textual(self, q: np.ndarray) -> np.ndarray:
        """Eq. 6: Q."""
        return self.activate(self.config.textual_activation, self.linear("textual", q))

    def logits(self, product: np.ndarray) -> np.ndarray:
        """Eq. 7, before the softmax."""
        return self.linear("classifier", self.activate(self.config.product_activation, product))


@pytest.mark.parametrize("form", FORMS)
def test_head_agrees_with_equations_2_to_7_by_complex_steps(form: str) -> None:
    model = _model(form)
    slow = SlowMLB(model)
    features, images, rows, lengths = _inputs()
    found = head_gradients(model, features, images, rows, lengths)
    for n, (image, length) in enumerate(zip(IMAGES, LENGTHS, strict=True)):
        words = slow.p["encoder.table.weight"][ROWS[n][:length]]
        own = features[image].numpy()
        q = slow.question(words)
        visual, textual = slow.visual(own, q), slow.textual(q)
        product = textual * visual
        for name, value in {"visual": visual, "textual": textual, "product": product}.items():
            agree(getattr(found.joint, name)[n], value)
        if model.config.glimpses:
            assert found.joint.attention is not None
            attention = slow.attention(q, own.reshape(CHANNELS, -1).T)
            agree(found.joint.attention[n].flatten(1), attention)
        else:
            assert found.joint.attention is None
        agree(found.joint.logits[n], slow.logits(product))
        to_features = derivative(lambda x, q=q: slow.visual(x, q), own, visual - product)
        to_words = derivative(lambda x: slow.textual(slow.question(x)), words, textual - product)
        agree(found.features[0][n], to_features)
        agree(found.embeddings[n, :length], to_words)
        assert (found.embeddings[n, length:] == 0).all()


def test_f_held_constant_is_not_the_gradient_of_the_squared_difference() -> None:
    """Letting F move with V gives another gradient: the paper's choice is pinned, not incidental."""
    model = _model("paper")
    features, images, rows, lengths = _inputs()
    found = head_gradients(model, features, images, rows, lengths)
    own = features[images].requires_grad_()
    joint = model(own, model.image_terms(own), torch.arange(2), model.encoder.embed(rows), lengths)
    free = torch.autograd.grad(0.5 * (joint.visual - joint.product).square().sum(), own)[0]
    assert (free - found.features[0]).abs().max() > 1e-3


def _gradients() -> torch.Tensor:
    return torch.randn(3, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def test_equation_9_standardizes_each_channel_of_each_question() -> None:
    gradient = _gradients()
    found = standardized(gradient).numpy()
    for n, c in np.ndindex(3, 3):
        values = [float(v) for v in gradient[n, c].flatten()]
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
        expected = np.array([(v - mean) / deviation for v in values]).reshape(4, 5)
        np.testing.assert_allclose(found[n, c], expected, atol=TOLERANCE, rtol=0)


def test_equation_9_lets_a_weak_channel_count_as_much_as_a_strong_one() -> None:
    """One mean and deviation for all channels would leave the weak ones near zero."""
    gradient = _gradients()
    scales = torch.tensor([1.0, 1e6, 1e-6], dtype=torch.float64).view(1, 3, 1, 1)
    shifts = torch.tensor([0.0, 3e6, -2e-6], dtype=torch.float64).view(1, 3, 1, 1)
    found = standardized(gradient * scales + shifts)
    torch.testing.assert_close(found, standardized(gradient), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(found.mean((2, 3)), torch.zeros(3, 3).double(), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(found.std((2, 3)), torch.ones(3, 3).double(), rtol=0, atol=TOLERANCE)
    # A channel of equal values beside others is 0, and they stay what they are.
    gradient[1, 2] = 5
    other = standardized(gradient)
    assert (other[1, 2] == 0).all()
    torch.testing.assert_close(other[1, :2], found[1, :2], rtol=0, atol=TOLERANCE)


def test_equation_9_of_each_question_is_what_it_is_alone() -> None:
    gradient = _gradients() * torch.tensor([1.0, 1e9, 1e-9], dtype=torch.float64).view(3, 1, 1, 1)
    alone = torch.cat([standardized(one) for one in gradient.split(1)])
    torch.testing.assert_close(standardized(gradient), alone, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_equal_saliencies_are_told_apart_down_to_rounding(dtype: torch.dtype) -> None:
    """Saliencies 1, 1 and 1 + δ have a deviation of δ / √3: above 16 units of rounding they score."""
    eps = torch.finfo(dtype).eps
    assert NEGLIGIBLE == 16
    lengths = torch.tensor([3])
    above = torch.tensor([[1.0, 1.0, 1.0 + 64 * eps]], dtype=dtype)
    score = 3**-0.5
    torch.testing.assert_close(
        token_z(above, lengths), torch.tensor([[-score, -score, 2 * score]], dtype=dtype), rtol=0, atol=0.02
    )
    below = torch.tensor([[1.0, 1.0, 1.0 + 16 * eps]], dtype=dtype)
    assert (token_z(below, lengths) == 0).all()


def test_the_bound_of_what_is_rounding_is_in_it() -> None:
    """The deviation of 1 − δ and 1 is δ / √2."""
    eps = torch.finfo(torch.float64).eps
    for units, flat in ((22, True), (23, False)):  # 22 / √2 = 15.6, 23 / √2 = 16.3
        z = token_z(torch.tensor([[1 - units * eps, 1.0]], dtype=torch.float64), torch.tensor([2]))
        assert bool((z == 0).all()) == flat


def test_the_zero_gradient_scores_zero_beside_others() -> None:
    gradient = _gradients()
    gradient[1] = 0
    found = standardized(gradient)
    assert (found[1] == 0).all() and found[0].any() and found[2].any()
    z = token_z(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), torch.tensor([3, 3]))
    assert (z[0] == 0).all()
    torch.testing.assert_close(z[1], torch.tensor([-1.0, 0.0, 1.0]))


def test_heat_map_sums_magnitudes_over_channels() -> None:
    gradient = _gradients()
    found = heat_map(standardized(gradient)).numpy()
    expected = sum(np.abs(standardized(gradient).numpy()[:, c]) for c in range(3))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_equation_10_sums_magnitudes_over_the_embedding() -> None:
    gradient = torch.randn(2, 4, 6, dtype=torch.float64)
    found = token_saliency(gradient).numpy()
    for n, t in np.ndindex(2, 4):
        assert abs(found[n, t] - sum(abs(float(v)) for v in gradient[n, t])) < TOLERANCE


def test_equation_11_is_the_z_score_with_n_minus_1_over_own_tokens() -> None:
    saliency = torch.rand(4, 7, dtype=torch.float64)
    lengths = [7, 4, 2, 3]
    found = token_z(saliency, torch.tensor(lengths)).numpy()
    for n, length in enumerate(lengths):
        values = [float(v) for v in saliency[n, :length]]
        mean = sum(values) / length
        deviation = (sum((v - mean) ** 2 for v in values) / (length - 1)) ** 0.5
        np.testing.assert_allclose(
            found[n, :length], [(v - mean) / deviation for v in values], atol=TOLERANCE, rtol=0
        )
        assert np.isnan(found[n, length:]).all()


@pytest.mark.parametrize("scale", [1e-35, 1e-12, 1.0, 1e30])
def test_scores_do_not_depend_on_the_gradients_scale(scale: float) -> None:
    gradient = _gradients().float()
    torch.testing.assert_close(standardized(gradient * scale), standardized(gradient), rtol=1e-4, atol=1e-4)
    saliency, lengths = torch.tensor([[1.0, 2.0, 5.0, 3.0]]), torch.tensor([4])
    torch.testing.assert_close(token_z(saliency * scale, lengths), token_z(saliency, lengths))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -7.3e-9, 3.3e20])
def test_equal_gradients_score_zero_never_nan(value: float) -> None:
    assert (standardized(torch.full((2, 3, 5, 7), value)) == 0).all()
    assert (token_z(torch.full((1, 11), abs(value)), torch.tensor([11])) == 0).all()


def test_questions_of_one_token_and_of_none_score_zero_and_nan() -> None:
    z = token_z(torch.tensor([[3.0, 9.0], [3.0, 9.0]]), torch.tensor([1, 0]))
    assert z[0, 0] == 0
    assert z[0, 1:].isnan().all()
    assert z[1].isnan().all()


def test_padding_does_not_change_a_question() -> None:
    """A question explained beside a longer one is what it is alone."""
    model = _model("vqa-pytorch")
    features, images, rows, lengths = _inputs()
    together = head_gradients(model, features, images, rows, lengths)
    alone = head_gradients(model, features, images[1:], rows[1:, :2], lengths[1:])
    torch.testing.assert_close(together.features[0][1], alone.features[0][0], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(together.embeddings[1, :2], alone.embeddings[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_of_values_equal_but_for_rounding_have_no_sign(dtype: torch.dtype) -> None:
    """Figures and tables would print -0 as a negative number."""
    below = 1 - torch.finfo(dtype).eps
    z = token_z(torch.tensor([[1, below, 1]], dtype=dtype), torch.tensor([3]))
    assert z.tolist() == [[0, 0, 0]] and not z.signbit().any()
    gradient = standardized(torch.tensor([1, below, 1, 1], dtype=dtype).view(1, 1, 2, 2))
    assert not gradient.any() and not gradient.signbit().any()
