"""The explainer: what it returns for a batch, against the head, the equations and the plain engine."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hvx.config import BackboneConfig, ModelConfig
from hvx.data.tokenize import Vocabulary
from hvx.errors import HvxError, OutOfMemory
from hvx.explain.explainer import TOP, Explainer, question_rounds
from hvx.explain.guided import GuidedVJP, guided
from hvx.explain.hadamard import head_gradients
from hvx.explain.scores import heat_map, standardized, token_saliency, token_z
from hvx.models.backbone import build_backbone
from hvx.models.checkpoint import VQAModel
from hvx.models.networks import new_head

WORDS = ("?", "UNK", "what", "is", "it")
ROWS = {"what": 3, "is": 4, "it": 5, "?": 1, "zebra": 2}
IMAGES = [1, 0, 1, 1, 2]
QUESTIONS = ["what is it ?", "is it", "it", "what zebra ?", "what what"]


def _model(answers: int = 7, network: str = "mlb", **more: object) -> VQAModel:
    torch.manual_seed(1)
    config = ModelConfig.model_validate(
        {
            "network": network,
            "backbone": {"architecture": "squeezenet1_1", "node": "features.3"},
            "encoder": {"embedding": 4, "hidden": 5},
            "joint": 6,
            "mrn": {"blocks": 2},
            **more,
        }
    )
    head = new_head(config, 128, len(WORDS), answers).eval().requires_grad_(False)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    names = [f"answer {n}" for n in range(answers)]
    model = VQAModel(config, build_backbone(config.backbone), head, Vocabulary(WORDS), names)
    model.backbone.double()
    model.head.double()
    return model


def _images() -> Tensor:
    return torch.randn(3, 3, 40, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def _rows() -> tuple[Tensor, Tensor]:
    own = [[ROWS[word] for word in question.split()] for question in QUESTIONS]
    width = max(map(len, own))
    return torch.tensor([row + [0] * (width - len(row)) for row in own]), torch.tensor(list(map(len, own)))


@pytest.mark.parametrize(("network", "free"), [("mlb", False), ("mlb", True), ("mrn", False), ("dan", False)])
def test_each_question_of_a_batch_is_explained_by_the_equations(network: str, free: bool) -> None:
    model, images, (rows, lengths) = _model(network=network), _images(), _rows()
    found = Explainer(model, gradient=True, free=free).explain(images, IMAGES, QUESTIONS)
    features = model.backbone(images)
    own = head_gradients(model.head, features, torch.tensor(IMAGES), rows, lengths, free)
    plain = GuidedVJP(guided(model.backbone.network), images[IMAGES])
    raw = [plain.vjp(cotangent) for cotangent in own.features]
    gradients = [standardized(x) for x in raw]
    torch.testing.assert_close(found.gradient, gradients[-1], rtol=0, atol=1e-9)
    torch.testing.assert_close(found.heatmap, heat_map(gradients[-1]), rtol=0, atol=1e-9)
    if len(gradients) > 1:
        assert found.block_heatmaps is not None
        expected = torch.stack([heat_map(x) for x in gradients], 1)
        torch.testing.assert_close(found.block_heatmaps, expected, rtol=0, atol=1e-9)
    else:
        assert found.block_heatmaps is None
    saliency = token_saliency(own.embeddings)
    torch.testing.assert_close(found.saliency, saliency, rtol=0, atol=1e-12)
    z = token_z(saliency, lengths)
    torch.testing.assert_close(found.z, z, rtol=0, atol=1e-9, equal_nan=True)
    for name in ("attention", "textual_attention"):
        wanted = getattr(own.joint, name)
        assert (getattr(found, name) is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(getattr(found, name), wanted, rtol=0, atol=1e-12)
    assert found.tokens == [question.split() for question in QUESTIONS]
    assert found.zero_image_gradient.tolist() == [False] * 5
    assert found.zero_word_gradient.tolist() == [False] * 5


@pytest.mark.parametrize(("attention", "free"), [(False, False), (True, False), (True, True)])
def test_each_word_of_a_batch_is_explained_by_its_own_block(attention: bool, free: bool) -> None:
    """Questions of different length, in rounds, against each block pulled back alone by the plain engine."""
    model = _model(network="mi", mi={"attention": attention})
    images, (rows, lengths) = _images(), _rows()
    found = Explainer(model, gradient=True, free=free).explain(images, IMAGES, QUESTIONS)
    assert found.word_heatmaps is not None and found.block_heatmaps is None
    features = model.backbone(images)
    for n, length in enumerate(lengths.tolist()):
        alone = head_gradients(
            model.head, features, torch.tensor(IMAGES[n : n + 1]), rows[n : n + 1], lengths[n : n + 1], free
        )
        assert len(alone.features) == length == len(found.word_heatmaps[n])
        plain = GuidedVJP(guided(model.backbone.network), images[IMAGES[n] : IMAGES[n] + 1])
        gradients = [standardized(plain.vjp(cotangent)) for cotangent in alone.features]
        expected = torch.cat([heat_map(x) for x in gradients])
        torch.testing.assert_close(found.word_heatmaps[n], expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.heatmap[n], expected[-1], rtol=0, atol=1e-9)
        assert found.gradient is not None
        torch.testing.assert_close(found.gradient[n], gradients[-1][0], rtol=0, atol=1e-9)
        saliency = token_saliency(alone.embeddings)[0, :length]
        torch.testing.assert_close(found.saliency[n, :length], saliency, rtol=0, atol=1e-12)
    assert not found.zero_image_gradient.any()


@pytest.mark.parametrize("answers", [3, 5, 7])
def test_answers_are_those_of_the_largest_probabilities_of_the_softmax(answers: int) -> None:
    """Eqs 7 and 8."""
    model, images, (rows, lengths) = _model(answers), _images(), _rows()
    found = Explainer(model).explain(images, IMAGES, QUESTIONS)
    features = model.backbone(images)
    head = model.head
    joint = head(
        features, head.image_terms(features), torch.tensor(IMAGES), head.encoder.embed(rows), lengths
    )
    assert TOP == 5
    for n, logits in enumerate(joint.logits.tolist()):
        total = sum(math.exp(x) for x in logits)
        best = sorted(range(answers), key=lambda a: -logits[a])[:5]
        assert found.answers[n] == [f"answer {a}" for a in best]
        expected = [math.exp(logits[a]) / total for a in best]
        assert found.probabilities[n].tolist() == pytest.approx(expected, abs=1e-12)
    assert found.probabilities.shape == (5, min(5, answers))
    assert found.gradient is None


def test_gradients_that_are_zero_everywhere_are_reported() -> None:
    model = _model(visual_activation="relu", textual_activation="relu")
    model.head.get_submodule("visual.0").bias.fill_(-1e3)  # type: ignore[union-attr, operator]
    found = Explainer(model).explain(_images(), IMAGES, QUESTIONS)
    assert found.zero_image_gradient.tolist() == [True] * 5
    assert found.zero_word_gradient.tolist() == [False] * 5
    assert not found.heatmap.any()
    model = _model(textual_activation="relu")
    model.head.textual.bias.fill_(-1e3)  # type: ignore[union-attr, operator]
    found = Explainer(model).explain(_images(), IMAGES, QUESTIONS)
    assert found.zero_image_gradient.tolist() == [False] * 5
    assert found.zero_word_gradient.tolist() == [True] * 5


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([], []),
        ([4], [[0]]),
        ([0, 1, 2], [[0, 1, 2]]),
        ([1, 0, 1, 1, 2], [[0, 1, 4], [2], [3]]),
        ([0, 1, 1, 2, 2, 2], [[3, 1, 0], [4, 2], [5]]),
    ],
)
def test_rounds_take_one_question_of_each_image_those_with_most_first(
    images: list[int], expected: list[list[int]]
) -> None:
    assert question_rounds(images) == expected


@pytest.mark.parametrize(("node", "yields"), [("features.2", (64, 9, 8)), ("features.6", (256, 4, 4))])
def test_features_that_the_head_does_not_take_are_refused(node: str, yields: tuple[int, ...]) -> None:
    model = _model()
    config = model.config.backbone.model_copy(update={"node": node})
    model.config = model.config.model_copy(update={"backbone": config})
    model.backbone = build_backbone(BackboneConfig(**config.model_dump())).double()
    with pytest.raises(HvxError) as caught:
        Explainer(model).explain(_images(), IMAGES, QUESTIONS)
    assert str(caught.value) == (
        f"model.backbone.node: '{node}' yields {yields}; the head takes 128 channels on a grid"
    )


def test_vectors_as_features_are_refused_too() -> None:
    model = _model()
    with pytest.raises(HvxError, match=r"yields \(\); the head takes 128 channels on a grid"):
        Explainer(model)._check(torch.zeros(2))
    with pytest.raises(HvxError, match=r"yields \(128,\)"):
        Explainer(model)._check(torch.zeros(2, 128))
    Explainer(model)._check(torch.zeros(2, 128, 1, 1))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_an_error_of_its_own(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(_model())

    def fails(*rest: object) -> None:
        raise error

    monkeypatch.setattr(explainer, "_explain", fails)
    with pytest.raises(OutOfMemory) as caught:
        explainer.explain(torch.zeros(2, 3, 40, 36), [0], ["it"])
    assert str(caught.value) == (
        "cpu: not enough memory for 2 images of 40×36 pixels; give a smaller batch or another device"
    )
    assert caught.value.__context__ is None


def test_other_errors_are_raised_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(_model())

    def fails(*rest: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(explainer, "_explain", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        explainer.explain(torch.zeros(2, 3, 40, 36), [0], ["it"])


def test_the_backbone_computes_in_the_numbers_asked_for() -> None:
    model = _model()
    model.backbone.float()
    model.head.float()
    images = _images().float()
    one, other = (
        Explainer(model, gradient=True, dtype=dtype).explain(images, IMAGES, QUESTIONS)
        for dtype in (None, torch.bfloat16)
    )
    assert other.gradient is not None and one.gradient is not None
    apart = float((other.gradient - one.gradient).norm() / one.gradient.norm())
    assert 1e-4 < apart < 0.3
    assert other.heatmap.dtype == torch.float32
