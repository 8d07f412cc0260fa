"""The methods that are compared, each against captum's or a second, slow implementation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradCam, Saliency
from torch import Tensor, nn
from torch.nn import functional

from hvx.config import BackboneConfig, EncoderConfig, ImageConfig, ModelConfig
from hvx.data.tokenize import Vocabulary
from hvx.errors import HvxError
from hvx.explain.explainer import Explainer
from hvx.explain.fused import FusedGuidedBackbone
from hvx.explain.guided import guided
from hvx.explain.scores import heat_map, standardized
from hvx.measure.methods import computer
from hvx.measure.methods.computer import SaliencyComputer, integrated_gradients
from hvx.measure.methods.registry import METHODS, chosen
from hvx.measure.metrics.sanity import _blocks, randomized, similarity
from hvx.measure.sample import Batch, probabilities
from hvx.models.backbone import build_backbone
from hvx.models.checkpoint import VQAModel
from hvx.models.mlb import MLB

SIZE, WORDS, ANSWERS, CHANNELS = 48, 9, 5, 64
IMAGES = [0, 1, 0, 0, 1]
"""The image of each question: not in rounds, not as many on each."""


def small_model(glimpses: int = 2) -> VQAModel:
    """A network with random weights in float64."""
    torch.manual_seed(3)
    config = ModelConfig(
        image=ImageConfig(size=SIZE),
        backbone=BackboneConfig(architecture="resnet10", node="layer1"),
        encoder=EncoderConfig(embedding=6, hidden=8),
        glimpses=glimpses,
        joint=7,
    )
    backbone = build_backbone(config.backbone).double()
    for name, numbers in backbone.state_dict().items():
        if "bn1." in name and numbers.is_floating_point():
            numbers.uniform_(0.5, 1.5)  # an untrained norm has nothing that could be shuffled
    head = MLB(config, CHANNELS, WORDS, ANSWERS).double().requires_grad_(False).eval()
    words = Vocabulary(tuple("abcdefghi"))
    return VQAModel(config, backbone, head, words, [f"answer {k}" for k in range(ANSWERS)])


def small_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    count = len(IMAGES)
    return Batch(
        positions=list(range(count)),
        inputs=torch.randn(2, 3, SIZE, SIZE, generator=generator, dtype=torch.float64),
        images=torch.tensor(IMAGES),
        rows=torch.randint(1, WORDS + 1, (count, 4), generator=generator),
        lengths=torch.tensor([4, 2, 3, 4, 1]),
        answers=torch.tensor([0, 3, 1, 1, 4]),
    )


def logits_of(model: VQAModel, batch: Batch, question: int, network: nn.Module) -> Callable[[Tensor], Tensor]:
    """An image (1, C, H, W) → the logits (1, A) of one question, by the model's public parts."""

    def forward(image: Tensor) -> Tensor:
        features = network(image)["features"]
        rows = batch.rows[question : question + 1]
        embeddings = model.head.encoder.embed(rows)
        lengths = batch.lengths[question : question + 1]
        joint = model.head(features, model.head.image_terms(features), torch.tensor([0]), embeddings, lengths)
        return joint.logits

    return forward


MODEL, BATCH = small_model(), small_batch()
ENGINE = FusedGuidedBackbone(MODEL.backbone.network)
QUESTIONS = range(len(IMAGES))


def image_of(question: int) -> Tensor:
    return BATCH.inputs[IMAGES[question]].unsqueeze(0).clone().requires_grad_()


def mapped(*names: str) -> dict[str, np.ndarray]:
    """Maps of all questions in one batch; each test makes its own, so that it reaches the code it checks."""
    return SaliencyComputer(MODEL, 0).maps(names, BATCH)


def test_every_method_makes_a_finite_map_of_every_question() -> None:
    names = [name for name, own in METHODS.items() if own.family != "specific"]  # of several questions
    maps = mapped(*names)
    assert set(maps) == set(names)
    grid = {"attention", "grad-cam", "grad-cam-attention", "hirescam", "cam"}
    for name, own in maps.items():
        assert own.shape == (len(IMAGES), *((12, 12) if name in grid else (SIZE, SIZE))), name
        assert np.isfinite(own).all(), name
        assert own.std() > 0, name


def test_gradient_and_input_x_gradient_are_captums() -> None:
    maps = mapped("gradient", "input-x-gradient")
    for question in QUESTIONS:
        forward = logits_of(MODEL, BATCH, question, MODEL.backbone.network)
        target = int(BATCH.answers[question])
        gradient = Saliency(forward).attribute(image_of(question), target=target, abs=True).sum(1)[0]
        assert maps["gradient"][question] == pytest.approx(gradient.numpy(), rel=1e-5, abs=1e-12)
        product = InputXGradient(forward).attribute(image_of(question), target=target).abs().sum(1)[0]
        wanted = product.detach().numpy()
        assert maps["input-x-gradient"][question] == pytest.approx(wanted, rel=1e-5, abs=1e-12)


class _Whole(nn.Module):
    """A question's network whose features come out of a layer of their own, for captum's hooks."""

    def __init__(self, question: int, network: nn.Module) -> None:
        super().__init__()
        self.network, self.features, self._question = network, nn.Identity(), question

    def forward(self, image: Tensor) -> Tensor:
        features = self.features(self.network(image)["features"])
        return logits_of(MODEL, BATCH, self._question, lambda _: {"features": features})(image)


def test_grad_cam_is_captums() -> None:
    found = mapped("grad-cam")["grad-cam"]
    for question in QUESTIONS:
        whole = _Whole(question, MODEL.backbone.network)
        cam = LayerGradCam(whole, whole.features)
        target = int(BATCH.answers[question])
        wanted = cam.attribute(image_of(question), target=target, relu_attributions=True)[0, 0].detach()
        assert found[question] == pytest.approx(wanted.numpy(), rel=1e-5, abs=1e-12)


def test_hirescam_and_grad_cam_times_attention_are_those_of_loops_over_cells() -> None:
    found = mapped("hirescam", "grad-cam-attention", "attention")
    for question in QUESTIONS:
        features = MODEL.backbone(image_of(question).detach()).requires_grad_()
        logits = logits_of(MODEL, BATCH, question, lambda _, f=features: {"features": f})(features)
        gradient = torch.autograd.grad(logits[0, BATCH.answers[question]], features)[0][0]
        values, side = features[0].detach(), features.shape[-1]
        weights = [float(gradient[m].mean()) for m in range(CHANNELS)]
        for row in range(side):
            for column in range(side):
                cell = values[:, row, column]
                by_cell = max(0.0, float((cell * gradient[:, row, column]).sum()))
                assert found["hirescam"][question][row, column] == pytest.approx(by_cell, rel=1e-4, abs=1e-9)
                averaged = max(0.0, sum(w * float(v) for w, v in zip(weights, cell, strict=True)))
                product = averaged * found["attention"][question][row, column]
                seen = found["grad-cam-attention"][question][row, column]
                assert seen == pytest.approx(product, rel=1e-4, abs=1e-9)


def test_guided_backpropagation_is_the_answers_gradient_through_guided_relus() -> None:
    maps = mapped("guided-backpropagation", "guided-grad-cam", "grad-cam")
    for question in QUESTIONS:
        image = image_of(question)
        forward = logits_of(MODEL, BATCH, question, guided(MODEL.backbone.network))
        forward(image)[0, BATCH.answers[question]].backward()
        assert image.grad is not None
        wanted = image.grad.abs().sum(1)[0]
        assert maps["guided-backpropagation"][question] == pytest.approx(wanted.numpy(), rel=1e-5, abs=1e-12)
        cam = torch.from_numpy(maps["grad-cam"][question])[None, None].double()
        enlarged = functional.interpolate(cam, (SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0]
        product = (wanted * enlarged).numpy()
        assert maps["guided-grad-cam"][question] == pytest.approx(product, rel=1e-5, abs=1e-12)


def test_maps_of_a_batch_are_those_of_each_question_alone() -> None:
    names = [name for name in METHODS if METHODS[name].family not in ("floor", "path")]
    whole = mapped(*names)
    for question in (1, 3):  # neither is the first of the batch
        own = torch.tensor([question])
        alone = Batch(
            [question], BATCH.own_inputs()[own], torch.tensor([0]), BATCH.rows[own], BATCH.lengths[own],
            BATCH.answers[own],
        )  # fmt: skip
        for name, found in SaliencyComputer(MODEL, 0).maps(names, alone).items():
            assert whole[name][question] == pytest.approx(found[0], rel=1e-4, abs=1e-12), (name, question)


@pytest.mark.parametrize("questions", [[0], [0, 1], [1, 4], [0, 2, 3], [4, 3, 2, 1, 0], [0, 2, 3, 0]])
def test_gradients_are_pulled_to_however_many_questions_an_image_has(questions: list[int]) -> None:
    whole = mapped("gradient")["gradient"]
    own = torch.tensor(questions)
    part = Batch(
        questions, BATCH.inputs, BATCH.images[own], BATCH.rows[own], BATCH.lengths[own], BATCH.answers[own]
    )
    found = SaliencyComputer(MODEL, 0).maps(["gradient"], part)["gradient"]
    assert found == pytest.approx(whole[questions], rel=1e-4, abs=1e-12)


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        (["unguided", "gradient", "input-x-gradient"], ["plain"]),
        (["proposed", "free-product", "guided-backpropagation", "guided-grad-cam"], ["guided"]),
        (["proposed"], ["guided"]), (["guided-grad-cam"], ["guided"]), (["gradient"], ["plain"]),
        (["grad-cam", "cam", "attention"], ["head"]), (["attention"], ["head"]), (["cam"], ["head"]),
        (["center", "random"], []), ([], []), (["integrated-gradients"], []),
        (["cam", "gradient", "proposed"], ["plain", "guided", "head"]),
    ],
)  # fmt: skip
def test_methods_of_a_family_share_one_pass_and_no_other_is_made(
    monkeypatch: pytest.MonkeyPatch, names: list[str], passes: list[str]
) -> None:
    own, made = SaliencyComputer(MODEL, 0), list[str]()
    whole, head = computer._Pass, computer._Head

    def counted_pass(model: VQAModel, engine: FusedGuidedBackbone, batch: Batch, guides: bool) -> object:
        monkeypatch.setattr(computer, "_Head", head)  # the one within a pass
        assert engine is own._engine
        made.append("guided" if guides else "plain")
        found = whole(model, engine, batch, guides)
        monkeypatch.setattr(computer, "_Head", counted_head)
        return found

    def counted_head(model: VQAModel, features: Tensor, batch: Batch) -> object:
        made.append("head")
        return head(model, features, batch)

    monkeypatch.setattr(computer, "_Pass", counted_pass)
    monkeypatch.setattr(computer, "_Head", counted_head)
    monkeypatch.setattr(
        computer, "integrated_gradients", lambda model, engine, batch, steps: batch.own_inputs()
    )
    assert set(own.maps(names, BATCH)) == set(names)
    assert made == passes


def eq2_by_hand(question: int, network: nn.Module, held: bool) -> np.ndarray:
    """The gradient of ½‖V − F‖² at the image, F held or not, through the head's own equations."""
    image = image_of(question)
    features = network(image)["features"]
    embeddings = MODEL.head.encoder.embed(BATCH.rows[question : question + 1])
    lengths = BATCH.lengths[question : question + 1]
    joint = MODEL.head(features, MODEL.head.image_terms(features), torch.tensor([0]), embeddings, lengths)
    product = joint.textual.detach() * joint.visual
    deviation = joint.visual - (product.detach() if held else product)
    (0.5 * (deviation * deviation).sum()).backward()
    assert image.grad is not None
    return heat_map(standardized(image.grad))[0].numpy()


@pytest.mark.parametrize(
    ("name", "relus", "held"),
    [("proposed", "guided", True), ("unguided", "plain", True), ("free-product", "guided", False)],
)
def test_the_forms_of_eq_2_are_gradients_of_half_the_squared_deviation(
    name: str, relus: str, held: bool
) -> None:
    network = guided(MODEL.backbone.network) if relus == "guided" else MODEL.backbone.network
    found = mapped(name)[name]
    for question in QUESTIONS:
        wanted = eq2_by_hand(question, network, held)
        assert found[question] == pytest.approx(wanted, rel=1e-4, abs=1e-6), question


def test_holding_f_makes_another_map() -> None:
    maps = mapped("proposed", "free-product")
    assert np.abs(maps["free-product"] - maps["proposed"]).max() > 0.01


def test_the_proposed_map_and_the_attention_are_the_explainers() -> None:
    model, batch = small_model(), small_batch()
    model.vocabulary = Vocabulary(("is", "the", "red", "star", "there", "?"))
    texts = ["is the star red ?", "red star ?", "is there ?", "the star ?", "is ?"]
    explained = Explainer(model).explain(batch.inputs, IMAGES, texts)
    rows = [model.vocabulary.rows(tokens) for tokens in explained.tokens]
    longest = max(map(len, rows))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    own = Batch(batch.positions, batch.inputs, batch.images, padded, lengths, batch.answers)
    found = SaliencyComputer(model, 0).maps(["proposed", "attention"], own)
    assert found["proposed"] == pytest.approx(explained.heatmap.numpy(), rel=1e-5, abs=1e-5)
    assert explained.attention is not None
    assert found["attention"] == pytest.approx(explained.attention.sum(1).numpy(), rel=1e-5)


def path_by_hand(question: int, steps: int) -> Tensor:
    """Integrated gradients from input 0 by Gauss-Legendre's points, one at a time."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    image = image_of(question).detach()
    forward = logits_of(MODEL, BATCH, question, MODEL.backbone.network)
    total = torch.zeros_like(image)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        at = (float(point) * image).requires_grad_()
        forward(at)[0, BATCH.answers[question]].backward()
        assert at.grad is not None
        total += float(weight) * at.grad
    return total * image


def test_integrated_gradients_are_captums() -> None:
    found = integrated_gradients(MODEL, ENGINE, BATCH, 16)
    for question in QUESTIONS:
        method = IntegratedGradients(logits_of(MODEL, BATCH, question, MODEL.backbone.network))
        target = int(BATCH.answers[question])
        expected = method.attribute(
            image_of(question).detach(), target=target, n_steps=16, internal_batch_size=1
        )
        assert found[question].numpy() == pytest.approx(expected[0].numpy(), rel=1e-6, abs=1e-10)


def test_integrated_gradients_are_those_of_a_loop_and_add_up_to_the_logits_difference() -> None:
    found = integrated_gradients(MODEL, ENGINE, BATCH, 16)
    for question in QUESTIONS:
        assert found[question].numpy() == pytest.approx(
            path_by_hand(question, 16)[0].numpy(), rel=1e-6, abs=1e-10
        )
    many = integrated_gradients(MODEL, ENGINE, BATCH, 30)
    for question in QUESTIONS:
        forward = logits_of(MODEL, BATCH, question, MODEL.backbone.network)
        image, target = image_of(question).detach(), int(BATCH.answers[question])
        rise = (forward(image) - forward(torch.zeros_like(image)))[0, target].item()
        assert many[question].sum().item() == pytest.approx(rise, rel=0.01, abs=1e-6)


@pytest.mark.parametrize("glimpses", [0, 2])
def test_cam_adds_up_to_the_answers_derivative_along_the_features(glimpses: int) -> None:
    """Σ_s CAM_s is dy/dt of scaling what is pooled by t, the attention held: CAM shares out the answer."""
    model = small_model(glimpses)
    found = SaliencyComputer(model, 0).maps(["cam"], BATCH)["cam"]
    features = model.backbone(BATCH.inputs)
    every, step = torch.arange(len(IMAGES)), 1e-5
    embeddings = model.head.encoder.embed(BATCH.rows)

    def answers(factor: float) -> Tensor:
        own = features[BATCH.images]
        held = model.head.image_terms(own if glimpses else factor * own)
        joint = model.head(factor * own, held, every, embeddings, BATCH.lengths)
        return joint.logits[every, BATCH.answers]

    slope = (answers(1 + step) - answers(1 - step)) / (2 * step)
    assert found.sum((1, 2)) == pytest.approx(slope.numpy(), rel=1e-4, abs=1e-8)


def test_cam_of_a_linear_head_over_the_mean_is_zhous() -> None:
    """Without attention, V linear and Q all ones, CAM is Σ_m w_m f_ms: the class's weights on each cell."""
    model = small_model(glimpses=0)
    config = model.config.model_copy(update={"visual_activation": "none", "textual_activation": "none"})
    model.head.config = config
    model.head.textual.weight.zero_()
    model.head.textual.bias.fill_(1)
    found = SaliencyComputer(model, 0).maps(["cam"], BATCH)["cam"]
    features = model.backbone(BATCH.inputs)
    cells = features.shape[-1] * features.shape[-2]
    for question in QUESTIONS:
        weights = model.head.classifier.weight[BATCH.answers[question]] @ model.head.visual[0].weight / cells
        wanted = torch.einsum("m,mhw->hw", weights, features[IMAGES[question]])
        assert found[question] == pytest.approx(wanted.numpy(), rel=1e-5, abs=1e-10)


def test_floors_know_nothing_of_the_image() -> None:
    maps = mapped("center", "random")
    assert (maps["center"] == maps["center"][0]).all()
    middle = maps["center"][0, SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1]
    assert middle.min() > 0.99 and maps["center"][0, 0, 0] < 0.05
    again = SaliencyComputer(MODEL, 0).maps(["random"], BATCH)["random"]
    assert (again == maps["random"]).all()
    assert not (SaliencyComputer(MODEL, 1).maps(["random"], BATCH)["random"] == again).any()
    assert not (again[0] == again[1]).all()


def test_the_probability_on_masked_images_is_the_models() -> None:
    images = torch.cat([BATCH.inputs, BATCH.inputs * 0.5])
    found = probabilities(MODEL, MODEL.backbone(images), BATCH.rows[2], BATCH.lengths[2], BATCH.answers[2])
    forward = logits_of(MODEL, BATCH, 2, MODEL.backbone.network)
    wanted = [forward(image.unsqueeze(0)).softmax(1)[0, BATCH.answers[2]].item() for image in images]
    assert found.numpy() == pytest.approx(wanted, rel=1e-9)


# Which methods


def test_no_name_chooses_all_and_the_proposed_method_is_always_there() -> None:
    assert chosen([], 2) == list(METHODS)
    of_attention = {"attention", "question-specific-attention", "grad-cam-attention"}
    assert chosen([], 0) == [name for name in METHODS if name not in of_attention]
    assert chosen(["random", "cam"], 2) == ["proposed", "cam", "random"]


def test_unknown_and_impossible_methods_are_refused_by_name() -> None:
    with pytest.raises(HvxError, match=r"no method 'gradcam' \(did you mean 'grad-cam'\?\)"):
        chosen(["gradcam"], 2)
    for name in ("attention", "question-specific-attention", "grad-cam-attention"):
        with pytest.raises(HvxError, match=f"without attention; leave '{name}' out"):
            chosen([name], 0)


# Randomized weights


def test_blocks_are_randomized_from_the_top_each_keeping_its_values() -> None:
    before = {name: [t.clone() for t in tensors] for name, tensors in _blocks(MODEL)}
    names = list(before)
    assert names == ["classifier", "V and Q", "attention", "question", "layer1", "bn1", "conv1"]
    for done, (name, model) in enumerate(randomized(MODEL, 0)):
        assert name == names[done]
        for k, (block, tensors) in enumerate(_blocks(model)):
            same = all(torch.equal(one, other) for one, other in zip(tensors, before[block], strict=True))
            assert same == (k > done), (name, block)
            for one, other in zip(tensors, before[block], strict=True):
                assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
    after = dict(_blocks(MODEL))
    assert all(torch.equal(a, b) for name in names for a, b in zip(after[name], before[name], strict=True))


def test_a_random_classifier_changes_the_answers_gradient_and_not_eq_2() -> None:
    maps = mapped("proposed", "gradient")
    _, model = next(randomized(MODEL, 0))
    found = SaliencyComputer(model, 0).maps(["proposed", "gradient"], BATCH)
    assert found["proposed"] == pytest.approx(maps["proposed"], rel=1e-6)
    assert np.abs(found["gradient"] / maps["gradient"] - 1).max() > 0.1


def test_a_network_of_numbered_layers_falls_into_blocks_by_number() -> None:
    config = BackboneConfig(architecture="squeezenet1_0", node="features.5.cat")
    model = small_model()
    model.backbone = build_backbone(config)
    names = [name for name, _ in _blocks(model)]
    assert names[4:] == ["features.5", "features.4", "features.3", "features.0"]


def test_similarity_of_known_maps() -> None:
    map = np.random.default_rng(0).random((20, 20))
    assert similarity(map, 3 * map + 1) == pytest.approx((1, 1))
    correlation, ssim = similarity(map, 1 - map)
    assert correlation == pytest.approx(-1)
    assert ssim < 0
    correlation, ssim = similarity(map, np.random.default_rng(1).random((20, 20)))
    assert abs(correlation) < 0.2 and abs(ssim) < 0.2
    assert similarity(map, np.ones((20, 20)))[0] == 0
    assert similarity(map[:4, :4], map[:4, :4]) == pytest.approx((1, 1))
