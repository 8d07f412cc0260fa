"""``explain_product`` on models of foreign styles: equal to Eqs 2 and 3 written out by hand, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from conftest import Tiny
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from hvx.capture.equations import ProductExplanation
from hvx.capture.products import explain_product, explain_products, find_products
from hvx.data.tokenize import padded
from hvx.explain.explainer import Explainer
from hvx.explain.scores import heat_map, standardized, token_saliency, token_z
from hvx.models.checkpoint import VQAModel, load_checkpoint

TOLERANCE = 1e-9
WORDS, WIDTH, JOINT = 12, 6, 5


class _HandGuided(torch.autograd.Function):
    """The guided rule as its paper states it, of the test's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x > 0, x, torch.zeros_like(x))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return torch.where((x > 0) & (g > 0), g, torch.zeros_like(g))


guided: Callable[[Tensor], Tensor] = _HandGuided.apply


def by_hand(visual: Tensor, textual: Tensor, image: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs 2 and 3 as printed."""
    constant = (visual * textual).detach()
    to_image = torch.autograd.grad(visual, image, visual.detach() - constant, retain_graph=True)[0]
    to_words = torch.autograd.grad(textual, embeddings, textual.detach() - constant)[0]
    return to_image, to_words


def check(found: ProductExplanation, image: Tensor, words: Tensor) -> None:
    assert image.abs().max() > 0 and words.abs().max() > 0
    assert (found.image_gradient - image).abs().max() <= TOLERANCE * image.abs().max()
    assert (found.word_gradient - words).abs().max() <= TOLERANCE * words.abs().max()


def leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def inputs(n: int = 3, tokens: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(n, 3, 12, 12, generator=generator, dtype=torch.float64)
    return image, torch.randint(1, WORDS, (n, tokens), generator=generator)


class Small(nn.Module):
    """A CNN, a bag of words, and a joint that a subclass or an argument writes in its own way."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor] = torch.mul) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.cnn = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3), nn.ReLU())
        self.to_visual = nn.Linear(6, JOINT)
        self.table = nn.Embedding(WORDS, WIDTH)
        self.to_textual = nn.Linear(WIDTH, JOINT)
        self.answer = nn.Linear(JOINT, 4)
        self.join = join
        self.double().eval()

    def visual(self, image: Tensor) -> Tensor:
        return torch.tanh(self.to_visual(self.cnn(image).mean((2, 3))))

    def textual(self, embeddings: Tensor) -> Tensor:
        steps = torch.arange(1, embeddings.shape[1] + 1, dtype=torch.float64)
        return torch.tanh(self.to_textual((embeddings * steps[:, None]).sum(1)))

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        joined = self.join(self.visual(image), self.textual(self.table(ids)))
        return self.answer(joined) if joined.ndim == 2 else joined


def small_by_hand(model: Small, image: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Both gradients of ``Small`` layer by layer, without autograd."""
    first, second = model.cnn[0], model.cnn[2]
    one = functional.conv2d(image, first.weight, first.bias)
    two = functional.conv2d(one.clamp(min=0), second.weight, second.bias)
    v = torch.tanh(model.to_visual(two.clamp(min=0).mean((2, 3))))
    words = model.table(ids)
    steps = torch.arange(1, ids.shape[1] + 1, dtype=torch.float64)
    q = torch.tanh(model.to_textual((words * steps[:, None]).sum(1)))
    f = q * v
    g = ((v - f) * (1 - v**2)) @ model.to_visual.weight
    g = (g / two[0, 0].numel())[:, :, None, None].expand_as(two)
    g = torch.where((two > 0) & (g > 0), g, 0)
    g = conv2d_input(one.shape, second.weight, g)
    g = torch.where((one > 0) & (g > 0), g, 0)
    to_image = conv2d_input(image.shape, first.weight, g)
    h = ((q - f) * (1 - q**2)) @ model.to_textual.weight
    return to_image.detach(), (h[:, None, :] * steps[:, None]).detach()


def _in_place(v: Tensor, q: Tensor) -> Tensor:
    v *= q
    return v


def _other_in_place(v: Tensor, q: Tensor) -> Tensor:
    q.mul_(v)
    return torch.relu_(q)


def _into(v: Tensor, q: Tensor) -> Tensor:
    buffer = torch.empty(0, dtype=torch.float64)
    torch.mul(v, q, out=buffer)
    return buffer


def _both_written_over_later(v: Tensor, q: Tensor) -> Tensor:
    joined = v * q
    v.view(-1)[:5].zero_()
    q.t().add_(1)
    return joined


def _into_a_slice(v: Tensor, q: Tensor) -> Tensor:
    both = torch.zeros(len(v), 2, JOINT, dtype=torch.float64)
    both[:, 0] = v
    both[:, 0] *= q
    return both[:, 0]


JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "torch.mul": torch.mul,
    "operator": lambda v, q: q * v,
    "method": lambda v, q: q.multiply(v),
    "in place": _in_place,
    "the other in place": _other_in_place,
    "both written over later": _both_written_over_later,
    "out=": _into,
    "into a slice": _into_a_slice,
    "einsum": lambda v, q: torch.einsum("bd,bd->bd", q, v),
    "einsum to a sum": lambda v, q: torch.einsum("bd,bd->b", v, q),
    "bmm": lambda v, q: torch.bmm(q.unsqueeze(1), v.unsqueeze(2)).flatten(),
    "matmul": lambda v, q: (v[:, None] @ q[:, :, None]).flatten(),
    "vecdot": lambda v, q: torch.linalg.vecdot(v, q),
    "addcmul": lambda v, q: torch.addcmul(torch.ones_like(v), v, q),
    "addcmul_": lambda v, q: torch.ones_like(v).addcmul_(q, v),
    "views": lambda v, q: (v.view(-1, JOINT, 1, 1) * q[:, :, None, None]).flatten(1),
}


@pytest.mark.parametrize("how", JOINS)
def test_every_way_to_write_the_product_gives_equations_2_and_3(how: str) -> None:
    model = Small(JOINS[how])
    image, ids = inputs()
    found = explain_product(model, (image, ids), image=image, words=ids)
    check(found, *small_by_hand(model, image, ids))
    v, q = model.visual(image), model.textual(model.table(ids))
    for tensor, expected in ((found.visual, v), (found.textual, q), (found.product, v * q)):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-14)
    assert len(found.products) == 1 and found.chosen == found.products[0]
    assert found.relus == 2 and found.unguided == {"Tanh": 1}


def test_the_scores_are_equations_9_to_11() -> None:
    model, (image, ids) = Small(), inputs()
    found = explain_product(model, (image, ids), image=image, words=ids)
    to_image, to_words = small_by_hand(model, image, ids)
    assert found.gradient is not None and found.heatmap is not None and found.z is not None
    torch.testing.assert_close(found.gradient, standardized(to_image), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.heatmap, heat_map(standardized(to_image)), rtol=0, atol=1e-9)
    saliency = token_saliency(to_words)
    torch.testing.assert_close(found.z, token_z(saliency, torch.full((3,), 4)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("where", ["left", "right"])
def test_padding_on_either_side_is_left_out_by_the_mask(where: str) -> None:
    model, (image, ids) = Small(), inputs()
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[1, slice(0, 2) if where == "left" else slice(2, 4)] = False
    found = explain_product(model, (image, ids), image=image, words=ids, mask=keep)
    assert found.z is not None and found.saliency is not None
    assert torch.equal(found.z.isnan(), ~keep)
    own = found.saliency[1][keep[1]]
    torch.testing.assert_close(found.z[1][keep[1]], (own - own.mean()) / own.std(), rtol=0, atol=1e-9)


class RemoteSensing(nn.Module):
    """ResNet features and a skip-thought GRU's vector, fused by ``torch.mul``, tanh and dropout around."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.visual = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
        self.visual.fc = nn.Linear(512, 7)
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.seq2vec = nn.GRU(WIDTH, 9, batch_first=True)
        self.dropoutV = self.dropoutQ = nn.Dropout(0.5)
        self.linear_v, self.linear_q = nn.Linear(7, JOINT), nn.Linear(9, JOINT)
        self.linear_classif1 = nn.Linear(JOINT, 4)

    def forward(self, input_v: Tensor, input_q: Tensor) -> Tensor:
        x_v = self.linear_v(self.dropoutV(self.visual(input_v)))
        x_v = nn.Tanh()(x_v)
        x_q = self.linear_q(self.dropoutQ(self.seq2vec(self.words(input_q))[1][0]))
        x_q = nn.Tanh()(x_q)
        x = nn.Tanh()(torch.mul(x_v, x_q))
        return self.linear_classif1(x)


def test_remote_sensing_vqa_with_a_resnet_and_skip_thoughts() -> None:
    model = RemoteSensing().double()
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    _, ids = inputs(2)
    found = explain_product(model, [image, ids], image=image, words=ids)
    r = model.eval().visual
    x, embeddings = leaf(image), leaf(model.words(ids))

    def block(y: Tensor, b: Any) -> Tensor:
        inner = b.bn2(b.conv2(guided(b.bn1(b.conv1(y)))))
        return guided(inner + (y if b.downsample is None else b.downsample(y)))

    y = r.maxpool(guided(r.bn1(r.conv1(x))))
    for stage in (r.layer1, r.layer2, r.layer3, r.layer4):
        y = block(y, stage[0])
    visual = model.linear_v(r.fc(y.mean((2, 3)))).tanh()
    textual = model.linear_q(model.seq2vec(embeddings)[1][0]).tanh()
    check(found, *by_hand(visual, textual, x, embeddings))
    assert found.relus == 9
    assert found.chosen is not None and (found.chosen.module, found.chosen.visual) == ("", "image")


class UpDown(nn.Module):
    """Bottom-up features with top-down attention: weight-normed, two embedding tables, padded on the left."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        norm = nn.utils.parametrizations.weight_norm
        self.emb, self.glove = nn.Embedding(WORDS, WIDTH), nn.Embedding(WORDS, 4)
        self.glove.weight.requires_grad_(False)
        self.gru = nn.GRU(WIDTH + 4, 8, batch_first=True)
        self.att_v, self.att_q = norm(nn.Linear(7, 6), dim=None), norm(nn.Linear(8, 6), dim=None)
        self.att = norm(nn.Linear(6, 1), dim=None)
        self.q_net = nn.Sequential(norm(nn.Linear(8, JOINT), dim=None), nn.ReLU())
        self.v_net = nn.Sequential(norm(nn.Linear(7, JOINT), dim=None), nn.ReLU())
        self.classifier = nn.Linear(JOINT, 4)

    def question(self, embeddings: Tensor) -> Tensor:
        return self.gru(embeddings)[0][:, -1]

    def attend(self, v: Tensor, q: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
        joint = relu(self.att_v(v)) * self.att_q(q).relu().unsqueeze(1).repeat(1, v.shape[1], 1)
        return (torch.softmax(self.att(joint), 1) * v).sum(1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        v, ids = batch["features"], batch["question"]
        q = self.question(torch.cat([self.emb(ids), self.glove(ids)], 2))
        q_repr, v_repr = self.q_net(q), self.v_net(self.attend(v, q, torch.relu))
        return {"logits": self.classifier(q_repr * v_repr)}


def test_weight_normed_up_down_over_region_features() -> None:
    model = UpDown().double()
    features, ids = torch.randn(3, 6, 7, dtype=torch.float64), inputs()[1]
    batch = {"features": features, "question": ids}
    found = explain_product(model, (batch,), image=features, words=ids, rule="guided")
    x = leaf(features)
    embeddings = leaf(torch.cat([model.emb(ids), model.glove(ids)], 2))
    q = model.question(embeddings)
    # The attention's ReLU on the regions sees the image alone; those after it see the words too.
    visual, textual = model.v_net(model.attend(x, q.detach(), guided)), model.q_net(q)
    to_image, to_words = by_hand(visual, textual, x, embeddings)
    assert found.image_gradient.shape == (3, 6, 7) and found.heatmap is None
    assert (found.image_gradient - to_image).abs().max() <= TOLERANCE * to_image.abs().max()
    assert found.word_gradient.shape == (3, 4, WIDTH + 4)
    torch.testing.assert_close(found.saliency, token_saliency(to_words), rtol=0, atol=1e-9)
    assert found.relus == 1
    *lattices, joint = found.products
    assert [(p.joint, p.shape) for p in lattices] == [(False, (3, 6, 6)), (False, (3, 6, 7))]
    assert joint.joint and (joint.visual, joint.textual) == ("image and words", "words")


class Product(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0] * pair[1]


class InSequence(nn.Module):
    """The product as a module of a Sequential, twice nested."""

    def __init__(self) -> None:
        super().__init__()
        self.small = Small()
        self.head = nn.Sequential(nn.Sequential(nn.Identity(), Product()), nn.Linear(JOINT, 2).double())

    def forward(self, *, photo: Tensor, tokens: Tensor) -> Tensor:
        return self.head((self.small.visual(photo), self.small.textual(self.small.table(tokens))))


@pytest.mark.parametrize("parallel", [False, True])
def test_a_product_in_a_sequential_behind_data_parallel(parallel: bool) -> None:
    own = InSequence()
    model = nn.DataParallel(own) if parallel else own
    image, ids = inputs()
    found = explain_product(model, {"photo": image, "tokens": ids}, image=image, words=ids)
    check(found, *small_by_hand(own.small, image, ids))
    assert found.chosen is not None
    assert found.chosen.module == ("module." if parallel else "") + "head.0.1"
    assert found.chosen.line.startswith("test_capture.py:")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_a_scripted_module() -> None:
    model, (image, ids) = Small(), inputs()
    expected = small_by_hand(model, image, ids)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cnn, self.to_visual = model.cnn, model.to_visual
            self.table, self.to_textual = model.table, model.to_textual

        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            v = torch.tanh(self.to_visual(self.cnn(image).mean(dim=[2, 3])))
            words = self.table(ids)
            steps = torch.arange(1, ids.shape[1] + 1, dtype=torch.float64)
            q = torch.tanh(self.to_textual((words * steps[:, None]).sum(dim=1)))
            return v * q

    scripted = torch.jit.script(Plain())
    for _ in range(3):  # from the third run on, the profiled graph would be fused
        check(explain_product(scripted, (image, ids), image=image, words=ids), *expected)
    scripted(image, ids)


def test_hvx_own_model_explained_from_outside_gives_what_the_explainer_gives(tiny: Tiny) -> None:
    model = load_checkpoint(tiny.root / "model.safetensors")

    class Outside(nn.Module):
        def __init__(self, model: VQAModel) -> None:
            super().__init__()
            self.backbone, self.head = model.backbone, model.head

        def forward(self, images: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
            features = self.backbone(images)
            which = torch.arange(len(images))
            embeddings = self.head.encoder.embed(rows)
            terms = self.head.image_terms(features)
            logits: Tensor = self.head(features, terms, which, embeddings, lengths).logits
            return logits

    questions = ["what color is the star?", "is there a red circle?"]
    images = torch.randn(2, 3, 64, 64)
    expected = Explainer(model, gradient=True).explain(images, [0, 1], questions)
    rows, lengths = map(torch.from_numpy, padded([model.vocabulary.rows(t) for t in expected.tokens]))
    found = explain_product(Outside(model), (images, rows, lengths), image=images, words=rows, mask=rows != 0)
    assert found.chosen is not None and found.chosen.module == "head"
    assert found.heatmap is not None and found.z is not None and expected.gradient is not None
    # In float32, and by norm: a ReLU whose input is rounding alone may fall either way.
    assert (found.heatmap - expected.heatmap).norm() <= 1e-2 * expected.heatmap.norm()
    torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-2, equal_nan=True)


class MRN(nn.Module):
    """Three residual blocks: from the second on, Q depends on the image, and V on the image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.small = Small()
        self.visual = nn.ModuleList(nn.Linear(6, JOINT).double() for _ in range(3))
        self.textual = nn.ModuleList(nn.Linear(n, JOINT).double() for n in (WIDTH, JOINT, JOINT))
        self.shortcut = nn.ModuleList(nn.Linear(n, JOINT).double() for n in (WIDTH, JOINT, JOINT))

    def factors(self, v: Tensor, h: Tensor) -> list[tuple[Tensor, Tensor]]:
        found = []
        for one, two, direct in zip(self.visual, self.textual, self.shortcut, strict=True):
            found.append((torch.tanh(one(v)), torch.tanh(two(h))))
            h = found[-1][0] * found[-1][1] + direct(h)
        return found

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        v = self.small.cnn(image).mean((2, 3))
        return self.factors(v, self.small.table(ids).sum(1))[-1][0]


def test_each_block_of_a_residual_network_from_one_forward() -> None:
    torch.manual_seed(3)
    model, (image, ids) = MRN(), inputs()
    explained = explain_products(model, (image, ids), image=image, words=ids)
    assert [p.chosen.number for p in explained if p.chosen] == [0, 1, 2]
    assert [p.textual for p in explained[0].products] == ["words", "image and words", "image and words"]
    assert {p.visual for p in explained[0].products} == {"image"}
    x, embeddings = leaf(image), leaf(model.small.table(ids))
    first, _, second, _ = model.small.cnn
    factors = model.factors(guided(second(guided(first(x)))).mean((2, 3)), embeddings.sum(1))
    for (visual, textual), found in zip(factors, explained, strict=True):
        constant = (visual * textual).detach()
        to_image = torch.autograd.grad(visual, x, visual.detach() - constant, retain_graph=True)[0]
        to_words = torch.autograd.grad(textual, embeddings, textual.detach() - constant, retain_graph=True)[0]
        check(found, to_image, to_words)
    last = explain_product(model, (image, ids), image=image, words=ids)
    assert torch.equal(last.image_gradient, explained[-1].image_gradient)
    some = explain_products(model, (image, ids), image=image, words=ids, products=[1, -3])
    assert [p.chosen.number for p in some if p.chosen] == [1, 0]


class Gated(Small):
    """Products that are no joint: of a GRU's gates, a mask, a gated tanh within the image, an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRUCell(WIDTH, WIDTH).double()
        self.gate = nn.Linear(6, 6).double()

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        words = self.table(ids) * (ids != 0).unsqueeze(2)
        h = words.new_zeros(len(ids), WIDTH)
        for step in range(ids.shape[1]):
            h = h * torch.sigmoid(h) + self.gru(words[:, step], h)
        cells = self.cnn(image)
        cells = torch.tanh(cells) * torch.sigmoid(self.gate(cells.transpose(1, 3))).transpose(1, 3)
        alpha = torch.softmax((cells * h[:, :, None, None]).sum(1).flatten(1), 1)
        pooled = (cells.flatten(2) * alpha[:, None]).sum(2)
        both = torch.tanh(self.to_visual(pooled)) * torch.tanh(self.to_textual(h))
        return self.answer(both * torch.sigmoid(both)) * 0.5


def test_what_is_no_joint_is_told_from_it() -> None:
    model, (image, ids) = Gated(), inputs()
    found = find_products(model, (image, ids), image=image, words=ids)
    assert [(p.joint, p.visual, p.textual) for p in found] == [
        (False, "image", "words"),
        (False, "image", "image and words"),
        (True, "image and words", "words"),
    ]
    explained = explain_product(model, (image, ids), image=image, words=ids)
    assert explained.chosen == found[-1]


def test_a_product_broadcast_over_a_lattice_adds_up_what_each_cell_sends() -> None:
    """Asked for by number; the gradient is that of ½‖Q − F‖² with Q laid out over the grid."""
    model, (image, ids) = Gated(), inputs()
    found = explain_product(model, (image, ids), image=image, words=ids, product=0, rule="gradient")
    assert found.visual.shape == found.product.shape == (3, 6, 8, 8)
    x, embeddings = leaf(image), leaf(model.table(ids))
    h = embeddings.new_zeros(3, WIDTH)
    for step in range(ids.shape[1]):
        h = h * torch.sigmoid(h) + model.gru(embeddings[:, step], h)
    cells = model.cnn(x)
    cells = torch.tanh(cells) * torch.sigmoid(model.gate(cells.transpose(1, 3))).transpose(1, 3)
    check(found, *by_hand(cells, h[:, :, None, None].expand_as(cells), x, embeddings))
