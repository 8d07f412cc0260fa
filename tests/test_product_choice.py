"""Which product ``explain_product`` takes for the joint: what a reader of the model would name, or none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_capture import JOINT, WIDTH, Small, by_hand, check, inputs, leaf, small_by_hand
from torch import Tensor, nn

from hvx.capture.equations import ProductExplanation
from hvx.capture.factors import Form, rows_axis
from hvx.capture.products import explain_product, explain_products, find_products
from hvx.errors import HvxError


class Joined(Small):
    """``Small`` with a given forward: a function of the model, V, Q and the word embeddings."""

    def __init__(self, rest: Callable[..., Tensor]) -> None:
        super().__init__()
        self.rest = rest
        self.cell, self.gru = nn.GRUCell(JOINT, JOINT), nn.GRU(WIDTH, JOINT, batch_first=True)
        self.lstm_cell, self.lstm = nn.LSTMCell(JOINT, JOINT), nn.LSTM(WIDTH, JOINT, batch_first=True)
        self.rnn = nn.RNN(WIDTH, JOINT, batch_first=True, nonlinearity="relu")
        self.mask, self.gate = nn.Linear(JOINT, 4), nn.Linear(JOINT, JOINT)
        self.attention = nn.MultiheadAttention(JOINT, 1, batch_first=True)
        self.visuals = nn.ModuleList(nn.Linear(JOINT, JOINT) for _ in range(3))
        self.textuals = nn.ModuleList(nn.Linear(JOINT, JOINT) for _ in range(3))
        self.double()

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        words = self.table(ids)
        return self.rest(self, self.visual(image), self.textual(words), words)


def explained(rest: Callable[..., Tensor] | nn.Module, **options: Any) -> ProductExplanation:
    model, (image, ids) = rest if isinstance(rest, nn.Module) else Joined(rest), inputs()
    return explain_product(model, (image, ids), image=image, words=ids, **options)


def listed(rest: Callable[..., Tensor]) -> list[tuple[Form, tuple[int, ...]]]:
    image, ids = inputs()
    found = find_products(Joined(rest), (image, ids), image=image, words=ids)
    return [(each.form, each.shape) for each in found]


def refusal(rest: Callable[..., Tensor] | nn.Module, **options: Any) -> str:
    with pytest.raises(HvxError) as caught:
        explained(rest, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_small(found: ProductExplanation) -> None:
    """The joint is v * q."""
    check(found, *small_by_hand(Joined(torch.add), *inputs()))


def test_of_many_products_six_are_named_and_the_others_counted() -> None:
    said = refusal(lambda m, v, q, w: sum(v * q for _ in range(9)), product=40)  # type: ignore[arg-type, return-value]
    assert said.startswith("product 40: there are 9: ") and said.endswith("; and 3 more")
    assert said.count("joint") == 6


# Layers of PyTorch


LAYERS: dict[str, Callable[..., Tensor]] = {
    "GRUCell": lambda m, v, q, w: m.cell(v * q, q),
    "GRUCell of V and Q": lambda m, v, q, w: m.cell(q, v) + v * q,
    "LSTMCell": lambda m, v, q, w: m.lstm_cell(q, (v, v))[0] + v * q,
    "GRU": lambda m, v, q, w: m.gru(w, v[None])[1][0] + v * q,
    "LSTM": lambda m, v, q, w: m.lstm(w, (v[None], v[None]))[1][0][0] + v * q,
    "RNN": lambda m, v, q, w: m.rnn(w, v[None])[1][0] + v * q,
    "function": lambda m, v, q, w: torch.gru_cell(q, v, *m.cell.parameters()) + v * q,
    "attention": lambda m, v, q, w: m.attention(v[:, None], q[:, None], q[:, None])[0][:, 0] + v * q,
    "attention as a function": lambda m, v, q, w: (
        nn.functional.scaled_dot_product_attention(v[:, None], q[:, None], q[:, None])[:, 0] + v * q
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_products_inside_pytorchs_own_layers_are_not_the_models(layer: str) -> None:
    found = explained(LAYERS[layer])
    check_small(found)
    assert [each.form for each in found.products] == [Form.JOINT]


def test_a_model_whose_only_products_are_a_layers_gates_is_refused() -> None:
    line = refusal(lambda m, v, q, w: m.gru(w, v[None])[1][0])
    assert "no element-wise product" in line and "1 products seen;" in line  # the embeddings' steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [*LAYERS])
def test_the_list_of_products_does_not_depend_on_the_dtype(layer: str, dtype: torch.dtype) -> None:
    image, ids = inputs()
    model = Joined(LAYERS[layer])
    expected = find_products(model, (image, ids), image=image, words=ids)
    image = image.to(dtype)
    model.to(dtype).textual = lambda words: torch.tanh(model.to_textual(words.sum(1)))  # type: ignore[method-assign]
    assert find_products(model, (image, ids), image=image, words=ids) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("layer", LAYERS)
def test_the_list_of_products_does_not_depend_on_the_device(layer: str) -> None:
    image, ids = inputs()
    model = Joined(LAYERS[layer])
    model.textual = lambda words: torch.tanh(model.to_textual(words.sum(1)))  # type: ignore[method-assign]
    expected = find_products(model, (image, ids), image=image, words=ids)
    model, image, ids = model.cuda(), image.cuda(), ids.cuda()
    assert find_products(model, (image, ids), image=image, words=ids) == expected


def test_a_layer_that_takes_its_inputs_product_is_a_joint() -> None:
    found = explained(lambda m, v, q, w: nn.CosineSimilarity()(v, q))
    assert found.chosen is not None and (found.chosen.form, found.chosen.operation) == (Form.JOINT, "mul")


def test_a_product_in_a_users_hook_on_a_layer_is_the_models() -> None:
    class Hooked(Joined):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            q = self.textual(self.table(ids))
            handle = self.gate.register_forward_hook(lambda module, args, out: args[0] * q)
            out: Tensor = self.gate(self.visual(image))
            handle.remove()
            return out

    check_small(explained(Hooked(torch.add)))


# Factors that scale


WEIGHTED: dict[str, Callable[..., Tensor]] = {
    "a number for each question": lambda m, v, q, w: torch.sigmoid(m.mask(q)[:, :1]) * (v * q),
    "without a sigmoid": lambda m, v, q, w: m.mask(q)[:, :1] * (v * q),
    "expanded": lambda m, v, q, w: m.mask(q)[:, :1].expand(-1, JOINT) * (v * q),
    "repeated": lambda m, v, q, w: (v * q) * m.mask(q)[:, :1].repeat(1, JOINT),
    "a number for all questions": lambda m, v, q, w: m.mask(q).sum() * (v * q),
    "a number of the image": lambda m, v, q, w: (v * q) * v.mean(1, keepdim=True),
}


@pytest.mark.parametrize("how", WEIGHTED)
def test_a_factor_that_is_one_number_along_the_vector_is_no_joint(how: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explained(WEIGHTED[how])
    check_small(found)
    assert [each.form for each in found.products] == [Form.JOINT, Form.WEIGHTED]
    assert not found.products[1].joint


def test_two_numbers_for_each_question_are_no_joint() -> None:
    line = refusal(lambda m, v, q, w: v[:, :1] * q[:, :1])
    assert (
        "no product of image and words is one vector for each question; choose by product=: 0: mul (3, 1)"
        in line
    )


def test_a_saturated_vector_is_still_a_joint() -> None:
    """Equal entries that no layer copied."""
    assert listed(lambda m, v, q, w: v * torch.tanh(q * 1e9).abs()) == [(Form.JOINT, (3, JOINT))]


@pytest.mark.parametrize(
    "weigh",
    [
        lambda v, weight: weight * v,
        lambda v, weight: weight.expand_as(v) * v,
        lambda v, weight: v * weight.repeat(1, 1, JOINT),
    ],
)
def test_attention_over_a_single_region_is_no_joint(weigh: Callable[[Tensor, Tensor], Tensor]) -> None:
    def rest(m: Joined, v: Tensor, q: Tensor, w: Tensor) -> Tensor:
        weight = torch.softmax(m.mask(torch.tanh(v + q))[:, None, :1], 1)
        return m.answer(q + weigh(v[:, None], weight).sum(1))

    assert listed(rest) == [(Form.WEIGHTED, (3, 1, JOINT))]
    assert "one number times a vector" in refusal(rest)


# Gates, and products between which the user has to choose


GATES: dict[str, Callable[..., Tensor]] = {
    "answer mask": lambda m, v, q, w: m.answer(v * q) * torch.sigmoid(m.mask(q)),
    "gate first": lambda m, v, q, w: m.answer(v * q) * (1 - torch.sigmoid(m.mask(q))),
    "softmax": lambda m, v, q, w: m.answer(v * q) * torch.softmax(m.mask(q), 1),
    "of the image": lambda m, v, q, w: torch.sigmoid(m.mask(v)) * m.answer(v * q),
}


@pytest.mark.parametrize("how", GATES)
def test_a_gate_is_set_aside_with_a_warning_that_names_it(how: str) -> None:
    with pytest.warns(UserWarning, match="^explained: 0") as caught:
        found = explained(GATES[how])
    check_small(found)
    assert [each.form for each in found.products] == [Form.JOINT, Form.GATE]
    first, second = found.products
    assert [str(each.message) for each in caught] == [
        f"explained: {first}; product= chooses another: {second}"
    ]
    assert caught[0].filename == __file__


def test_a_gate_alone_is_explained() -> None:
    found = explained(lambda m, v, q, w: v * torch.sigmoid(q))
    assert found.chosen is not None and (found.chosen.form, found.chosen.joint) == (Form.GATE, True)


def test_products_of_several_lines_of_which_each_could_be_the_joint_are_asked_for() -> None:
    def rest(m: Joined, v: Tensor, q: Tensor, w: Tensor) -> Tensor:
        one = torch.tanh(m.gate(v * q))
        return one * q

    line = refusal(rest)
    assert line.startswith(
        "2 products of image and words could be the joint; choose by product=, a name or a number: 0"
    )
    assert "; 1: mul (3, 5)" in line
    check_small(explained(rest, product=0))


def test_both_factors_of_image_and_words_are_listed_and_v_is_asked_for() -> None:
    class Crossed(Joined):
        def sides(self, v: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
            return torch.tanh(v + self.gate(q)), torch.tanh(q + self.gate(v))

        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            v = self.visual(image)
            q = self.textual(self.table(ids))
            one, other = self.sides(v, q)
            return other * one

    model, (image, ids) = Crossed(torch.add), inputs()
    line = refusal(model)
    assert line.startswith("both factors of the joint depend on image and words; say which is V by visual=")
    (product,) = find_products(model, (image, ids), image=image, words=ids)
    assert (product.form, product.joint, product.visual) == (Form.MIXED, False, "image and words")
    assert product.name in line and "say which factor is V by visual=" in refusal(model, product=0)
    first = Crossed.forward.__code__.co_firstlineno
    for visual in ("to_visual", "cnn", f"test_product_choice.py:{first + 1}"):
        x, embeddings = leaf(image), leaf(model.table(ids))
        one, other = model.sides(model.visual(x), model.textual(embeddings))
        check(explained(model, visual=visual, rule="gradient"), *by_hand(one, other, x, embeddings))
        assert explained(model, visual=visual, product=product.name).chosen is not None
    x, embeddings = leaf(image), leaf(model.table(ids))
    one, other = model.sides(model.visual(x), model.textual(embeddings))
    check(explained(model, visual="to_textual", rule="gradient"), *by_hand(other, one, x, embeddings))
    assert "no module of that path, and no such line" in refusal(model, visual="nowhere")
    assert "as near to one factor" in refusal(model, visual="gate")


# Several products that are one joint


def _sum(m: Joined, v: Tensor, q: Tensor, w: Tensor) -> Tensor:
    return m.answer(sum(a(v) * b(q) for a, b in zip(m.visuals, m.textuals, strict=True)))


def _stacked(m: Joined, v: Tensor, q: Tensor, w: Tensor) -> Tensor:
    parts = [b(q) * a(v) for a, b in zip(m.visuals, m.textuals, strict=True)]
    return m.answer(torch.tanh(torch.stack(parts, 1).sum(1).view(3, JOINT)))


def _normalized_parts(m: Joined, v: Tensor, q: Tensor, w: Tensor) -> Tensor:
    parts = [
        nn.functional.normalize(torch.relu(a(v) * b(q))) for a, b in zip(m.visuals, m.textuals, strict=True)
    ]
    return torch.cat(parts, 1)


def _lines(m: Joined, v: Tensor, q: Tensor, w: Tensor) -> Tensor:
    one = m.visuals[0](v) * m.textuals[0](q)
    two = m.visuals[1](v) * m.textuals[1](q)
    return m.answer(one + two + m.visuals[2](v) * m.textuals[2](q) + q)


@pytest.mark.parametrize("rest", [_sum, _stacked, _normalized_parts, _lines])
def test_parallel_products_of_one_sum_or_concatenation_are_one_joint(rest: Callable[..., Tensor]) -> None:
    found = explained(rest, rule="gradient")
    model, (image, ids) = Joined(rest), inputs()
    x, embeddings = leaf(image), leaf(model.table(ids))
    v, q = model.visual(x), model.textual(embeddings)
    visual = torch.cat([each(v) for each in model.visuals], 1)
    textual = torch.cat([each(q) for each in model.textuals], 1)
    check(found, *by_hand(visual, textual, x, embeddings))
    torch.testing.assert_close(found.visual, visual.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.textual, textual.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.product, (visual * textual).detach(), rtol=0, atol=1e-12)
    assert [each.number for each in found.joined] == [0, 1, 2] and found.chosen == found.joined[-1]
    parts = explain_products(model, (image, ids), image=image, words=ids, rule="gradient")
    assert [len(each.joined) for each in parts] == [1, 1, 1]
    total = sum(each.image_gradient for each in parts)
    assert (found.image_gradient - total).abs().max() <= 1e-9 * found.image_gradient.abs().max()
    one = explained(rest, product=1, rule="gradient")
    assert torch.equal(one.image_gradient, parts[1].image_gradient) and one.joined == [one.chosen]


def test_joined_products_are_guided_together() -> None:
    found = explained(_sum)
    model, (image, ids) = Joined(_sum), inputs()

    class Wide(Small):
        def visual(self, image: Tensor) -> Tensor:
            v = model.visual(image)
            return torch.cat([each(v) for each in model.visuals], 1)

        def textual(self, embeddings: Tensor) -> Tensor:
            q = model.textual(embeddings)
            return torch.cat([each(q) for each in model.textuals], 1)

        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return self.visual(image) * self.textual(model.table(ids))

    wide = explain_product(Wide(), (image, ids), image=image, words=ids)
    torch.testing.assert_close(found.image_gradient, wide.image_gradient, rtol=0, atol=1e-12)
    assert (found.relus, wide.relus) == (2, 2)


def test_products_whose_results_do_not_meet_are_no_single_joint() -> None:
    def rest(m: Joined, v: Tensor, q: Tensor, w: Tensor) -> Any:
        return [m.visuals[0](v) * q, m.visuals[1](v) * q]

    assert refusal(rest).startswith("2 products of image and words could be the joint")


# Shapes


@pytest.mark.parametrize(
    ("shape", "questions", "axis"),
    [
        ((3, 5), 3, 0), ((4, 5), 3, None), ((1, 3, 5), 3, 1), ((1, 1, 3, 5), 3, 2), ((1, 1, 5), 1, 0),
        ((1, 4, 5), 1, 0), ((2, 3, 5), 3, None), ((3,), 3, None), ((1, 3), 3, None), ((), 3, None),
    ],
)  # fmt: skip
def test_the_axis_of_the_questions(shape: tuple[int, ...], questions: int, axis: int | None) -> None:
    assert rows_axis(shape, questions) == axis


VECTORS: dict[str, Callable[..., Tensor]] = {
    "state of an RNN": lambda m, v, q, w: q[None] * v,
    "state on the right": lambda m, v, q, w: v[None] * q[None],
    "cells of one": lambda m, v, q, w: v[:, :, None, None] * q[:, :, None, None],
    "in a row": lambda m, v, q, w: v[:, None] * q[:, None],
}


@pytest.mark.parametrize("how", VECTORS)
def test_one_vector_for_each_question_in_any_layout_is_the_joint(how: str) -> None:
    found = explained(VECTORS[how])
    check_small(found)
    assert found.visual.shape == found.textual.shape == found.product.shape == (3, JOINT)


def _wide(m: Joined, v: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2 d) each."""
    return torch.cat([m.visuals[0](v), m.visuals[1](v)], 1), torch.cat(
        [m.textuals[0](q), m.textuals[1](q)], 1
    )


def _heads(m: Joined, v: Tensor, q: Tensor, w: Tensor) -> Tensor:
    v, q = _wide(m, v, q)
    return torch.tanh(v.view(3, 2, JOINT)) * q.reshape(3, 2, JOINT)


def test_heads_of_one_vector_are_the_joint_and_regions_are_not() -> None:
    found = explained(_heads)
    assert found.chosen is not None and found.chosen.form is Form.JOINT
    assert found.visual.shape == (3, 2 * JOINT)
    model, (image, ids) = Joined(_heads), inputs()
    x, embeddings = leaf(image), leaf(model.table(ids))
    v, q = _wide(model, model.visual(x), model.textual(embeddings))
    check(explained(_heads, rule="gradient"), *by_hand(torch.tanh(v), q, x, embeddings))
    for grid in (
        lambda m, v, q, w: v.view(3, 1, JOINT).expand(3, 2, JOINT) * q[:, None],
        lambda m, v, q, w: _wide(m, v, q)[0].view(3, 2, JOINT) * q[:, None].repeat(1, 2, 1),
        lambda m, v, q, w: torch.stack([v, v.sin()], 1) * _wide(m, v, q)[1].view(3, 2, JOINT),
        lambda m, v, q, w: torch.stack([v, v.sin()], 1) * torch.stack([q, q.sin()], 1),
    ):
        assert listed(grid) == [(Form.LATTICE, (3, 2, JOINT))]


def test_regions_in_the_batch_are_explained_for_each_image() -> None:
    class Regions(Joined):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            cells = self.to_visual(self.cnn(image).flatten(2).transpose(1, 2))
            n, k, d = cells.shape
            q = self.textual(self.table(ids))
            joint = cells.reshape(n * k, d) * q[:, None].expand(n, k, d).reshape(n * k, d)
            return joint.view(n, k, d).amax(1)

    model, (image, ids) = Regions(torch.add), inputs()
    assert "choose by product=: 0: mul (192, 5)" in refusal(model)
    found = explained(model, product=0)
    for n in range(3):
        one, word = image[n : n + 1].clone(), ids[n : n + 1].clone()
        single = explain_product(model, (one, word), image=one, words=word, product=0)
        torch.testing.assert_close(found.image_gradient[n : n + 1], single.image_gradient, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.word_gradient[n : n + 1], single.word_gradient, rtol=0, atol=1e-12)


def test_rows_that_belong_to_no_question_are_refused() -> None:
    line = refusal(lambda m, v, q, w: v[:2] * q[:2], product=0)
    assert line.endswith("(2,) rows, 3 questions: which row belongs to which question cannot be told")


def test_several_questions_on_one_image_run_its_cnn_once() -> None:
    model, (image, ids) = Small(), inputs()
    calls: list[int] = []
    model.cnn.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    one = image[:1].clone()
    found = explain_product(model, (one, ids), image=one, words=ids)
    assert calls == [1]
    check(found, *small_by_hand(model, one.expand(3, -1, -1, -1), ids))
    assert found.heatmap is not None and found.heatmap.shape == (3, 12, 12)


def test_questions_on_one_image_need_a_row_each() -> None:
    image, ids = inputs()
    one = image[:1].clone()
    doubled = Joined(lambda m, v, q, w: v.repeat(6, 1) * q.repeat(2, 1))
    with pytest.raises(HvxError, match="has no row for each of the 3 questions on 1 image"):
        explain_product(doubled, (one, ids), image=one, words=ids, product=0)
    model = Joined(lambda m, v, q, w: v[:, None] * q.view(1, 3, JOINT))
    found = explain_product(model, (one, ids), image=one, words=ids)
    check(found, *small_by_hand(model, one.expand(3, -1, -1, -1), ids))


# Nothing to see


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (
            lambda m, v, q, w: v * (q * 0 + 1),
            "Eq. 2 of all questions is 0 everywhere: it says nothing about the image",
        ),
        (
            lambda m, v, q, w: (v * 0 + 1) * q,
            "Eq. 3 of all questions is 0 everywhere: it says nothing about the words",
        ),
        (
            lambda m, v, q, w: v * torch.where(torch.tensor([[0], [1], [0]]).bool(), q * 0 + 1, q),
            "Eq. 2 of questions [1] is 0 everywhere: it says nothing about the image",
        ),
        (lambda m, v, q, w: v * (q / 0), "Eq. 2 of all questions is NaN or infinite"),
    ],
)
def test_equations_that_are_zero_or_not_finite_are_warned_of(
    join: Callable[..., Tensor], message: str
) -> None:
    with pytest.warns(UserWarning, match=r"^Eq\. ") as caught:
        explained(join)
    assert message in [str(each.message) for each in caught]


def test_nothing_is_warned_of_where_both_equations_have_values() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_small(explained(lambda m, v, q, w: v * q))


def test_the_output_is_kept_without_its_graph() -> None:
    found = explained(lambda m, v, q, w: {"logits": m.answer(v * q), "more": (v, [q])})
    assert set(found.output) == {"logits", "more"}
    torch.testing.assert_close(found.output["logits"], Joined(torch.add).answer(found.product).detach())
    assert torch.equal(found.output["more"][0], found.visual) and torch.equal(
        found.output["more"][1][0], found.textual
    )
    assert not found.output["logits"].requires_grad and not found.output["more"][1][0].requires_grad
