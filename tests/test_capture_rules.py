"""Capture's rules: ReLUs guided, words found, the model left as it was, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from test_capture import JOINT, WIDTH, WORDS, Small, by_hand, check, guided, inputs, leaf, small_by_hand
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hvx.capture.equations import ProductExplanation, explain_joint
from hvx.capture.products import explain_product, explain_products, find_products
from hvx.errors import HvxError


def explained(model: nn.Module, **options: Any) -> ProductExplanation:
    image, ids = inputs()
    return explain_product(model, (image, ids), image=image, words=ids, **options)


def refused(model: nn.Module, *named: str, **options: Any) -> None:
    """One line that holds these words."""
    with pytest.raises(HvxError) as caught:
        explained(model, **options)
    line = str(caught.value)
    assert "\n" not in line
    for name in named:
        assert name in line


class Activated(Small):
    """``Small`` whose two ReLUs are written in a given way."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation

    def visual(self, image: Tensor) -> Tensor:
        first, second = self.cnn[0], self.cnn[2]
        features = self.activation(second(self.activation(first(image))))
        return torch.tanh(self.to_visual(features.mean((2, 3))))


def _discarding(x: Tensor) -> Tensor:
    nn.ReLU(inplace=True)(x)
    return x


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "in place, its result unused": _discarding,
    "functional": functional.relu,
    "functional in place": lambda x: functional.relu(x, inplace=True),
    "torch.relu_": lambda x: torch.relu_(x),
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "of a slice": lambda x: torch.cat([x[:, :2].relu(), x[:, 2:].relu()], 1),
    "checkpoint": lambda x: checkpoint(torch.relu, x, use_reentrant=False),
    "checkpointed module": lambda x: checkpoint(nn.Sequential(nn.ReLU()), x, use_reentrant=False),
}


@pytest.mark.parametrize("how", RELUS)
def test_every_way_to_write_a_relu_is_guided(how: str) -> None:
    model = Activated(RELUS[how])
    found = explained(model)
    check(found, *small_by_hand(model, *inputs()))
    assert found.relus == (4 if how == "of a slice" else 2)


def test_without_guidance_the_gradient_is_the_plain_one() -> None:
    model, (image, ids) = Small(), inputs()
    found = explained(model, rule="gradient")
    x, embeddings = leaf(image), leaf(model.table(ids))
    check(found, *by_hand(model.visual(x), model.textual(embeddings), x, embeddings))
    assert found.relus == 0
    assert (found.image_gradient - small_by_hand(model, image, ids)[0]).abs().max() > 0


def test_a_gradient_stops_where_a_relus_input_is_exactly_zero() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(WORDS, 4).double()

        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return torch.relu(image) * self.table(ids).sum(1) * 1.0

    image = torch.tensor([[0.0, 2.0, -1.0, 3.0]], dtype=torch.float64)
    ids = torch.tensor([[1, 2]])
    model = Net()
    with torch.no_grad():
        model.table.weight[1:3] = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]).double()
    found = explain_product(model, (image, ids), image=image, words=ids, rule="guided")
    # V − F = V (1 − Q): 0, 2, 0 and 3 · (1 − 2), a negative gradient.
    assert found.image_gradient.tolist() == [[0.0, 2.0, 0.0, 0.0]]


class ReLUAfterFusion(Small):
    """Its visual vector passes a ReLU that sees the words too; so does its question a ReLU of its own."""

    def fused(self, image: Tensor, words: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
        first, second = self.cnn[0], self.cnn[2]
        pooled = relu(second(relu(first(image)))).mean((2, 3))
        return torch.relu(self.to_visual(pooled + words))

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        words = torch.relu(self.table(ids)).sum(1)
        return self.fused(image, words, torch.relu) * torch.tanh(self.to_textual(words))


def test_a_relu_behind_a_fusion_with_the_words_keeps_its_true_gradient() -> None:
    model, (image, ids) = ReLUAfterFusion(), inputs()
    x, embeddings = leaf(image), leaf(model.table(ids))
    words = torch.relu(embeddings).sum(1)
    visual = model.fused(x, words.detach(), guided)
    found = explained(model)
    check(found, *by_hand(visual, torch.tanh(model.to_textual(words)), x, embeddings))
    assert found.relus == 2


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g * 2


@pytest.mark.parametrize(
    ("activation", "named"),
    [
        (functional.gelu, "GELU"),
        (functional.silu, "SiLU"),
        (functional.relu6, "ReLU6"),
        (lambda x: functional.leaky_relu(x, 0.1), "LeakyReLU"),
        (functional.elu, "ELU, SELU or CELU"),
        (torch.tanh, "Tanh"),
        (torch.sigmoid, "Sigmoid"),
        (lambda x: x.clamp(min=0), "clamp(min=0)"),
        (_Own.apply, "_Own"),
    ],
)
def test_another_activation_of_the_images_network_is_refused_by_name_or_let_through(
    activation: Callable[[Tensor], Tensor], named: str
) -> None:
    model = Activated(lambda x: torch.relu(activation(x)))
    refused(model, named, "other_activations=True")
    found = explained(model, other_activations=True)
    assert found.relus == 2
    image, ids = inputs()
    x, embeddings = leaf(image), leaf(model.table(ids))
    by_rule = Activated(lambda x: guided(activation(x)))
    expected = by_hand(by_rule.visual(x), model.textual(embeddings), x, embeddings)
    check(found, *expected)


def test_a_relu_that_cannot_be_told_from_other_code_is_reported() -> None:
    model = Activated(lambda x: torch.relu(torch.where(x > 0, x, 0)))
    assert explained(model).unguided == {"Where": 2, "Tanh": 1}


def test_a_network_without_relu_is_refused() -> None:
    refused(Activated(lambda x: x), "no ReLU", "rule='gradient'")


def test_a_norm_guarded_by_a_small_number_is_no_activation() -> None:
    class Normed(Small):
        def visual(self, image: Tensor) -> Tensor:
            return functional.normalize(self.cnn(image).mean((2, 3)), dim=1) @ self.to_visual.weight.T

    assert explained(Normed()).relus == 2


def test_a_reentrant_checkpoint_is_refused_with_what_to_change() -> None:
    refused(Activated(lambda x: checkpoint(torch.relu, x, use_reentrant=True)), "use_reentrant")


def _transposed(model: Small, ids: Tensor) -> Tensor:
    return model.table(ids.t().contiguous()).transpose(0, 1)


def _by_steps(model: Small, ids: Tensor) -> Tensor:
    return torch.stack([model.table(ids[:, step]) for step in range(ids.shape[1])], 1)


def _sorted(model: Small, ids: Tensor) -> Tensor:
    order = ids.sum(1).argsort(descending=True)
    return model.table(ids[order].clamp(min=0))[order.argsort()]


def _packed(model: Small, ids: Tensor) -> Tensor:
    lengths = torch.full((len(ids),), ids.shape[1])
    packed = nn.utils.rnn.pack_padded_sequence(ids, lengths, batch_first=True, enforce_sorted=False)
    words = nn.utils.rnn.PackedSequence(model.table(packed.data), *packed[1:])
    return nn.utils.rnn.pad_packed_sequence(words, batch_first=True)[0]


def _in_a_buffer(model: Small, ids: Tensor) -> Tensor:
    buffer = torch.zeros(len(ids), ids.shape[1] + 2, dtype=torch.int32)
    buffer[:, 1:-1] = ids
    return model.table(buffer)[:, 1:-1]


def _padded(model: Small, ids: Tensor) -> Tensor:
    return model.table(functional.pad(ids, (2, 1), value=3).flip(1))[:, 1:-2].flip(1)


def _one_a_question(model: Small, ids: Tensor) -> Tensor:
    return torch.stack([model.table(row) for row in ids])


def _by_keyword(model: Small, ids: Tensor) -> Tensor:
    return functional.embedding(input=ids + 0, weight=model.table.weight)


def _written_over(model: Small, ids: Tensor) -> Tensor:
    words = model.table(ids)
    words *= 1.0
    return words


def _both_by_keyword(model: Small, ids: Tensor) -> Tensor:
    return functional.embedding(input=ids, weight=model.table.weight)


def _by_torchs_own(model: Small, ids: Tensor) -> Tensor:
    return torch.embedding(weight=model.table.weight, indices=ids)


LOOKUPS = [
    _transposed, _by_steps, _sorted, _packed, _in_a_buffer, _padded, _one_a_question, _by_keyword,
    _written_over, _both_by_keyword, _by_torchs_own,
]  # fmt: skip


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("look_up", LOOKUPS, ids=lambda f: f.__name__)
def test_gradients_find_their_token_however_the_ids_are_moved(
    look_up: Callable[[Small, Tensor], Tensor], frozen: bool
) -> None:
    class Moving(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return self.visual(image) * self.textual(look_up(self, ids))

    model = Moving()
    model.requires_grad_(not frozen)
    check(explained(model), *small_by_hand(model, *inputs()))


def test_ids_that_a_model_takes_time_first() -> None:
    class TimeFirst(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return self.visual(image) * self.textual(self.table(ids).transpose(0, 1))

    model, (image, ids) = TimeFirst(), inputs()
    turned = ids.t().contiguous()
    check(
        explain_product(model, (image, turned), image=image, words=turned), *small_by_hand(model, image, ids)
    )


def test_other_look_ups_are_not_words() -> None:
    """Places in the question, and a table of answers, have embeddings too."""

    class Places(Small):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Embedding(9, WIDTH).double()

        def embedded(self, words: Tensor) -> Tensor:
            shown = (torch.ones(3, 4, dtype=torch.long).cumsum(1) != 0).long().cumsum(1)
            return words + self.places(torch.arange(4)) + self.places(shown)

        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return self.visual(image) * self.textual(self.embedded(self.table(ids)))

    model, (image, ids) = Places(), inputs()
    x, embeddings = leaf(image), leaf(model.table(ids))
    first, _, second, _ = model.cnn
    visual = torch.tanh(model.to_visual(guided(second(guided(first(x)))).mean((2, 3))))
    check(explained(model), *by_hand(visual, model.textual(model.embedded(embeddings)), x, embeddings))


class OneHot(Small):
    """Words without an embedding table."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WORDS, WIDTH, bias=False).double()
        with torch.no_grad():
            self.project.weight.copy_(self.table.weight.t())

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        words = self.project(functional.one_hot(ids, WORDS).double())
        return self.visual(image) * self.textual(words)


class Cells(OneHot):
    """As ``OneHot``, a token at a time."""

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        hot = functional.one_hot(ids, WORDS).double()
        words = torch.stack([self.project(hot[:, step]) for step in range(ids.shape[1])], 1)
        return self.visual(image) * self.textual(words)


@pytest.mark.parametrize("kind", [OneHot, Cells])
@pytest.mark.parametrize("frozen", [False, True])
def test_words_that_are_no_look_ups_are_asked_for_and_taken_from_the_module_named(
    kind: type[OneHot], frozen: bool
) -> None:
    model, (image, ids) = kind(), inputs()
    model.requires_grad_(not frozen)
    refused(model, "words:", "nn.Embedding", "pass as words the module")
    expected = small_by_hand(model, image, ids)
    for words in ("project", model.project):
        check(explain_product(model, (image, ids), image=image, words=words), *expected)


def test_embeddings_among_the_inputs() -> None:
    class Given(Small):
        def forward(self, image: Tensor, words: Tensor) -> Tensor:
            return self.visual(image) * self.textual(words)

    model, (image, ids) = Given(), inputs()
    embeddings = model.table(ids).detach()
    found = explain_product(model, (image, embeddings), image=image, words=embeddings)
    check(found, *small_by_hand(model, image, ids))
    assert found.z is not None


def test_one_vector_for_each_question_has_a_gradient_and_no_tokens() -> None:
    class Sentence(Small):
        def forward(self, image: Tensor, sentence: Tensor) -> Tensor:
            return self.visual(image) * torch.tanh(self.to_textual(sentence))

    image, sentence = inputs()[0], torch.randn(3, WIDTH, dtype=torch.float64)
    found = explain_product(Sentence(), (image, sentence), image=image, words=sentence)
    assert found.word_gradient.shape == (3, WIDTH) and found.z is None and found.heatmap is not None


class Frozen(Small):
    """A CNN that its author ran without gradients."""

    def visual(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.cnn(image)
        return torch.tanh(self.to_visual(features.mean((2, 3))))


def test_a_forward_under_no_grad_is_named_and_can_be_seen_through() -> None:
    model = Frozen()
    refused(model, "test_capture.py", "leads from it to the image", "no_grad", "through_no_grad=True")
    check(explained(model, through_no_grad=True), *small_by_hand(model, *inputs()))

    class Whole(Small):
        @torch.no_grad()
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return super().forward(image, ids)

    refused(Whole(), "image or the words", "no_grad", "through_no_grad=True")
    check(explained(Whole(), through_no_grad=True), *small_by_hand(Whole(), *inputs()))


def test_no_grad_around_the_call_does_not_matter() -> None:
    model = Small()
    with torch.no_grad():
        check(explained(model), *small_by_hand(model, *inputs()))
    with torch.inference_mode():
        found = explained(model)
    check(found, *small_by_hand(model, *inputs()))


def test_a_detached_image_is_named() -> None:
    class Detached(Small):
        def visual(self, image: Tensor) -> Tensor:
            return super().visual(image).detach()

    refused(Detached(), "leads from it to the image", "detach", "pass the features after it as image")


def test_a_joint_cut_behind_an_attention_is_named_rather_than_the_attention() -> None:
    class Attending(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            cells, words = self.cnn(image), self.table(ids).sum(1)
            alpha = (cells * words[:, :, None, None]).sum(1, keepdim=True).flatten(2).softmax(2)
            pooled = (alpha * cells.flatten(2)).sum(2).detach()
            return torch.tanh(self.to_visual(pooled)) * torch.tanh(self.to_textual(words))

    refused(Attending(), "leads from it to the image", "detach")
    assert explained(Attending(), product=0).product.shape == (3, 6, 8, 8)


@pytest.mark.parametrize(
    ("join", "named"),
    [
        (torch.add, ["no element-wise product", "Small", "products seen", "Hadamard product"]),
        (lambda v, q: (v + q) * torch.sigmoid(v - q), ["1 of factors that both depend on image and words"]),
        (lambda v, q: v @ q.t(), ["as matrices", "hvx.explain_joint"]),
        (
            lambda v, q: v[:, None] * q[:, :, None],
            ["one vector for each question", "over a grid", "0: mul"],
        ),
    ],
)
def test_a_model_without_a_joint_product_is_told_what_was_seen(
    join: Callable[[Tensor, Tensor], Tensor], named: list[str]
) -> None:
    class Joined(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return join(self.visual(image), self.textual(self.table(ids)))

    Joined.__name__ = "Small"
    refused(Joined(), *named)
    image, ids = inputs()
    if "over a grid" not in named:
        with pytest.raises(HvxError, match=re.escape(named[0])):
            find_products(Joined(), (image, ids), image=image, words=ids)


class Twice(nn.Module):
    """Two products in one module, one in another."""

    def __init__(self) -> None:
        super().__init__()
        self.small = Small()
        self.fusion = Fusion()

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        v, q = self.small.visual(image), self.small.textual(self.small.table(ids))
        return self.fusion(v, q) + v * q


class Fusion(nn.Module):
    def forward(self, v: Tensor, q: Tensor) -> Tensor:
        return v * q + v.sin() * q


def test_a_choice_is_a_number_a_name_or_a_place_where_one_joint_is_computed() -> None:
    model = Twice()
    line = explained(model).products[0].line
    last = explained(model).products[2].name
    for product, joined in (
        (None, [0, 1, 2]), (0, [0]), (-1, [2]), (2, [2]), ("", [2]), ("fusion", [0, 1]), (line, [0, 1]),
        (f"fusion:{line}#1", [0]), (f"fusion:{line}#2", [1]), (last, [2]),
    ):  # fmt: skip
        found = explained(model, product=product)
        assert [each.number for each in found.joined] == joined
        assert found.chosen == found.joined[-1]
    for product, named in (
        (3, "product 3: there are 3: 0: mul"),
        (-4, "product -4: there are 3: 0: mul"),
        ("small", "product 'small': there is none: 0: mul"),
    ):
        refused(model, *(named, "'fusion'"), product=product)


def test_tensors_that_the_inputs_do_not_hold_are_refused() -> None:
    model, (image, ids) = Small(), inputs()
    for wrong, named in (
        ({"image": image.clone(), "words": ids}, "image: not among the inputs"),
        ({"image": image, "words": ids.clone()}, "words: not among the inputs"),
        ({"image": ids, "words": ids}, "image: torch.int64"),
        ({"image": image, "words": "tabel"}, "no module 'tabel' (did you mean 'table'?)"),
        ({"image": image, "words": nn.Linear(1, 1)}, "no module of the model"),
        ({"image": image, "words": "answer"}, "no element-wise product of image and words"),
        ({"image": image, "words": "cnn"}, "Sequential puts out (3, 6, 8, 8)"),
        ({"image": image, "words": ids, "mask": ids[:2] > 0}, "mask: (2, 4)"),
    ):
        with pytest.raises(HvxError) as caught:
            explain_product(model, (image, ids), **wrong)
        assert named in str(caught.value)
    with pytest.raises(HvxError, match="inputs: Tensor given"):
        explain_product(model, image, image=image, words=ids)  # type: ignore[arg-type]


class Busy(Small):
    """A model whose forward writes wherever a forward can write."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3).double()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), requires_grad=True))
        self.register_buffer("average", torch.zeros(6, dtype=torch.float64))
        self.drop = nn.Dropout(0.5)

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            self.seen += 1
        image = self.norm(image)
        self.last = self.cnn(image)
        self.average = self.average + self.last.detach().mean((0, 2, 3))
        image.sub_(torch.rand(()))
        v = self.drop(self.visual(image))
        return v * self.textual(functional.dropout(self.table(ids), 0.1))


def _state(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {
            name: (id(t), t.clone()) for name, t in (*model.named_parameters(), *model.named_buffers())
        },
        "flags": [(m.training, sorted(vars(m))) for m in model.modules()],
        "requires": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad for p in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "chance": torch.get_rng_state(),
    }


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model, (image, ids) = Busy(), inputs()
    model.train()
    model.cnn.eval()
    model.table.requires_grad_(False)
    model.to_visual.weight.grad = torch.ones_like(model.to_visual.weight)
    before, image_before = _state(model), image.clone()
    if fails:
        with pytest.raises(HvxError):
            explain_products(model, (image, ids), image=image, words=ids, products=["nowhere"])
    else:
        explain_products(model, (image, ids), image=image, words=ids)
    after = _state(model)
    for name in ("flags", "requires", "hooks"):
        assert before[name] == after[name]
    assert all(a is b for a, b in zip(before["grads"], after["grads"], strict=True))
    assert torch.equal(model.to_visual.weight.grad, torch.ones_like(model.to_visual.weight))
    for name, (identity, values) in before["tensors"].items():
        assert after["tensors"][name][0] == identity and torch.equal(after["tensors"][name][1], values)
    assert torch.equal(before["chance"], after["chance"])
    assert torch.equal(image, image_before) and not image.requires_grad and image.grad is None
    assert torch.is_grad_enabled()


def test_a_model_in_training_is_explained_as_it_answers() -> None:
    """In evaluation mode: without dropout."""
    model = Small()
    model.cnn.append(nn.Dropout(0.5))
    expected = small_by_hand(model, *inputs())
    check(explained(model.train()), *expected)
    assert model.training and model.cnn[-1].training


def test_threads_explain_each_their_own() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(explained, [Small() for _ in range(4)]))
    for each in found:
        check(each, *small_by_hand(Small(), *inputs()))


def test_a_models_own_error_is_its_users_to_see() -> None:
    class Broken(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            raise KeyError("own")

    model = Broken()
    with pytest.raises(KeyError, match="own"):
        explained(model.train())
    assert model.training


def test_factors_at_hand_give_what_capture_finds() -> None:
    model, (image, ids) = Small(), inputs()
    x, embeddings = leaf(image), leaf(model.table(ids))
    found = explain_joint(model.visual(x), model.textual(embeddings), image=x, embeddings=embeddings)
    check(found, *small_by_hand(model, image, ids))
    assert found.chosen is None and found.products == [] and found.relus == 2
    assert found.z is not None and x.grad is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v, q, x, e: (v[:1], q, x, e), "visual is (1, 5), textual (3, 5)"),
        (lambda v, q, x, e: (v, q, x.detach(), e), "image: has no gradient"),
        (lambda v, q, x, e: (v, q, x, e.detach()), "embeddings: has no gradient"),
        (lambda v, q, x, e: (q, v, x, e), "visual: no gradient leads from it to image"),
        (lambda v, q, x, e: (v, v, x, e), "textual: no gradient leads from it to embeddings"),
        (lambda v, q, x, e: (v.detach(), q, x, e), "visual: no gradient leads"),
    ],
)
def test_factors_that_do_not_belong_together_are_refused(change: Any, named: str) -> None:
    model, (image, ids) = Small(), inputs()
    x, e = leaf(image), leaf(model.table(ids))
    v, q, x, e = change(model.visual(x), model.textual(e), x, e)
    with pytest.raises(HvxError) as caught:
        explain_joint(v, q, image=x, embeddings=e)
    assert named in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_an_lstm_on_a_gpu_in_evaluation_mode() -> None:
    class Recurrent(Small):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(WIDTH, JOINT, batch_first=True).double()

        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            return self.visual(image) * self.lstm(self.table(ids))[0][:, -1]

    model, (image, ids) = Recurrent(), inputs()
    expected = explained(model)
    model, image, ids = model.cuda(), image.cuda(), ids.cuda()
    found = explain_product(model, (image, ids), image=image, words=ids)
    torch.testing.assert_close(found.image_gradient.cpu(), expected.image_gradient, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.word_gradient.cpu(), expected.word_gradient, rtol=0, atol=1e-6)
