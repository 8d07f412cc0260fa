"""What heads say of themselves, and what they are made of: sizes, names and options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hvx.checkpoint_info import _NETWORKS
from hvx.config import ModelConfig
from hvx.explain.hadamard import HeadVJP
from hvx.models.base import HadamardHead, HadamardProduct, HeadOutput
from hvx.models.networks import NETWORKS, new_head

SIZES: dict[str, Any] = {"encoder": {"embedding": 3, "hidden": 4}, "joint": 5}
CHANNELS, WORDS, ANSWERS = 6, 7, 8
GRU = {
    "encoder.table.weight": (8, 3),
    "encoder.gru.input.weight": (12, 3), "encoder.gru.input.bias": (12,),
    "encoder.gru.gates.weight": (8, 4), "encoder.gru.state.weight": (4, 4),
}  # fmt: skip


def _linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _attention(glimpses: int) -> dict[str, tuple[int, ...]]:
    own = _linear("attention_textual", 5, 4) | _linear("attention_visual", 5, 6)
    return own | _linear("attention_output", glimpses, 5)


def _gated(name: str, into: int) -> dict[str, tuple[int, ...]]:
    return _linear(f"{name}.linear", 5, into) | _linear(f"{name}.gate", 5, into)


HEADS: list[tuple[dict[str, Any], dict[str, tuple[int, ...]], dict[str, str]]] = [
    (
        {},
        _attention(2) | _linear("textual", 10, 4) | _linear("visual.0", 10, 12)
        | _linear("classifier", 8, 10),
        {
            "model": "MLB, form paper, 2 glimpses, joint 10 wide",
            "activations": "V tanh, Q tanh, F none; in the attention tanh, tanh, none",
        },
    ),
    (
        {
            "form": "torch7", "glimpses": 3, "product_activation": "relu",
            "attention_visual_activation": "sigmoid",
        },
        _attention(3) | _linear("textual", 15, 4) | _linear("visual.0", 5, 6) | _linear("visual.1", 5, 6)
        | _linear("visual.2", 5, 6) | _linear("classifier", 8, 15),
        {
            "model": "MLB, form torch7, 3 glimpses, joint 15 wide",
            "activations": "V tanh, Q tanh, F relu; in the attention sigmoid, tanh, none",
        },
    ),
    (
        {"glimpses": 0},
        _linear("textual", 5, 4) | _linear("visual.0", 5, 6) | _linear("classifier", 8, 5),
        {
            "model": "MLB, form paper, no attention, joint 5 wide",
            "activations": "V tanh, Q tanh, F none",
        },
    ),
    (
        {"network": "mrn", "mrn": {"blocks": 2}},
        _linear("textual.0", 5, 4) | _linear("textual.1", 5, 5) | _linear("shortcut.0", 5, 4)
        | _linear("shortcut.1", 5, 5) | _linear("visual_inner.0", 5, 6) | _linear("visual_inner.1", 5, 6)
        | _linear("visual.0", 5, 5) | _linear("visual.1", 5, 5) | _linear("classifier", 8, 5),
        {"model": "MRN, 2 blocks, joint 5 wide, mean of the features over the grid"},
    ),
    (
        {"network": "mrn", "mrn": {"blocks": 1, "inner": 7, "shortcuts": False, "unit_length": True}},
        _linear("textual.0", 5, 4) | _linear("visual_inner.0", 7, 6) | _linear("visual.0", 5, 7)
        | _linear("classifier", 8, 5),
        {
            "model": "MRN, 1 block, no shortcuts, joint 5 wide, mean of the features over the grid, of "
            "unit length"
        },
    ),
    (
        {
            "network": "mutan", "glimpses": 2,
            "mutan": {"visual": 6, "textual": 7, "rank": 2, "attention_visual": 9, "attention_textual": 11,
                      "attention_joint": 12, "attention_rank": 3},
        },
        _linear("attention_visual", 9, 6) | _linear("attention_textual", 11, 4)
        | _linear("attention_visual_parts", 36, 9) | _linear("attention_textual_parts", 36, 11)
        | _linear("attention_output", 2, 12) | _linear("visual.0", 3, 6) | _linear("visual.1", 3, 6)
        | _linear("textual", 7, 4) | _linear("visual_parts", 10, 6) | _linear("textual_parts", 10, 7)
        | _linear("classifier", 8, 5),
        {"model": "MUTAN, 2 glimpses, sum of 2 products, each 5 wide"},
    ),
    (
        {"network": "mcb", "glimpses": 3, "mcb": {"attention": 7}},
        {"attention_visual_sketch.table": (2, 6), "attention_textual_sketch.table": (2, 4)}
        | _linear("attention_hidden", 7, 5) | _linear("attention_output", 3, 7)
        | {"visual_sketch.table": (2, 18), "textual_sketch.table": (2, 4)} | _linear("classifier", 8, 5),
        {"model": "MCB, 3 glimpses, product of spectra, count sketches 5 wide"},
    ),
    (
        {"network": "gated"},
        {"attention_visual.weight": (10, 6)} | _linear("attention_textual", 10, 4)
        | {"attention_output.weight": (1, 5)} | _gated("visual", 6) | _gated("textual", 4)
        | _gated("output", 5) | _linear("classifier", 8, 5),
        {"model": "gated tanh (Teney et al. 2017), 1 glimpse, joint 5 wide"},
    ),
    (
        {"network": "dan", "dan": {"steps": 1}},
        {name.replace("encoder.gru", "from_the_end"): shape for name, shape in GRU.items() if "gru" in name}
        | _linear("visual.0", 4, 6) | _linear("visual.1", 4, 6) | _linear("attention_visual.0", 5, 6)
        | _linear("attention_textual.0", 5, 4) | _linear("memory_visual.0", 5, 4)
        | _linear("memory_textual.0", 5, 4) | _linear("classifier", 8, 4)
        | {"output_visual.0.weight": (1, 5), "output_textual.0.weight": (1, 5)},
        {"model": "r-DAN, 1 steps, attentions 5 wide, joint 4 wide"},
    ),
]  # fmt: skip


def _head(options: dict[str, Any], dropout: float = 0.0) -> HadamardHead:
    torch.manual_seed(0)
    return new_head(ModelConfig.model_validate(SIZES | options), CHANNELS, WORDS, ANSWERS, dropout)


@pytest.mark.parametrize(("options", "shapes", "said"), HEADS)
def test_a_head_has_the_tensors_of_its_equations(
    options: dict[str, Any], shapes: dict[str, tuple[int, ...]], said: dict[str, str]
) -> None:
    head = _head(options)
    assert {name: tuple(t.shape) for name, t in head.state_dict().items()} == GRU | shapes
    kind = NETWORKS[head.config.network]
    assert type(head) is kind
    assert _NETWORKS[head.config.network](head.config) == said
    columns = head.state_dict()[kind.feature_weight_name].shape[1]
    assert kind.channels_of(columns, head.config) == head.channels == CHANNELS


@pytest.mark.parametrize("options", [options for options, _, _ in HEADS])
def test_a_forward_pass_has_the_shapes_of_its_equations_and_joins_own_images(options: dict[str, Any]) -> None:
    head = _head(options).eval().double()
    features, lengths = torch.randn(2, CHANNELS, 2, 3, dtype=torch.float64), torch.tensor([3, 2, 1])
    rows, images = torch.tensor([[1, 2, 3], [4, 5, 0], [6, 0, 0]]), torch.tensor([1, 0, 1])

    def joined(images: Tensor, rows: Tensor, lengths: Tensor) -> HeadOutput:
        found: HeadOutput = head(
            features, head.image_terms(features), images, head.encoder.embed(rows), lengths
        )
        return found

    together = joined(images, rows, lengths)
    assert together.logits.shape == (3, ANSWERS)
    for n in range(3):
        alone = joined(images[n : n + 1], rows[n : n + 1], lengths[n : n + 1])
        torch.testing.assert_close(together.logits[n], alone.logits[0], rtol=0, atol=1e-12)
    other = joined(1 - images, rows, lengths)
    assert (together.logits - other.logits).abs().amax(1).min() > 1e-6
    if together.attention is not None:
        glimpses = together.attention.shape[1]
        assert together.attention.shape == (3, glimpses, 2, 3)
        torch.testing.assert_close(together.attention.sum((2, 3)), torch.ones(3, glimpses).double())
    detached = together.detach()
    tensors = [x for block in detached.blocks for x in (block.visual, block.textual, block.product)]
    assert not any(x.requires_grad for x in (*tensors, detached.logits))
    last = detached.blocks[-1]
    assert detached.visual is last.visual and detached.textual is last.textual
    assert detached.product is last.product
    if head.config.network != "mcb":  # whose product is complex
        torch.testing.assert_close(last.product, last.visual * last.textual, rtol=0, atol=0)


@pytest.mark.parametrize("options", [options for options, _, _ in HEADS])
def test_dropout_is_for_training_alone(options: dict[str, Any]) -> None:
    head = _head(options, dropout=0.5).double()
    features, lengths = torch.randn(1, CHANNELS, 2, 3, dtype=torch.float64), torch.tensor([3])

    def logits() -> Tensor:
        embedded = head.encoder.embed(torch.tensor([[1, 2, 3]]))
        found: Tensor = head(
            features, head.image_terms(features), torch.tensor([0]), embedded, lengths
        ).logits
        return found

    assert (logits() - logits()).abs().max() > 1e-6
    head.eval()
    assert torch.equal(logits(), logits())
    expected = logits()
    head = _head(options).double()  # none by default, in training too
    assert torch.equal(logits(), expected)


@pytest.mark.parametrize("options", [options for options, _, _ in HEADS])
def test_a_cotangent_at_the_images_terms_is_pulled_back_as_autograd_does(options: dict[str, Any]) -> None:
    head = _head(options).eval().double()
    features = torch.randn(2, CHANNELS, 2, 3, dtype=torch.float64)
    own = features.clone().requires_grad_()
    terms = head.image_terms(own)
    cotangent = torch.randn_like(terms)
    expected = torch.autograd.grad(terms, own, cotangent)[0]
    found = head.image_terms_vjp(features, terms.detach(), cotangent)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        HadamardHead.image_terms_vjp(head, features, terms, cotangent), expected, rtol=0, atol=1e-12
    )


def test_a_block_is_made_of_its_factors() -> None:
    visual, textual = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    block = HadamardProduct.of(visual, textual)
    assert block.visual is visual and block.textual is textual
    assert block.product.tolist() == [[10, 21]]
    joint = HeadOutput((block,), None, torch.zeros(1, 2)).detach()
    assert joint.attention is None and joint.textual_attention is None


def test_a_pullback_holds_f_constant_unless_told_otherwise() -> None:
    head = _head({}).eval().double()
    features = torch.randn(1, CHANNELS, 2, 3, dtype=torch.float64)
    rows, lengths = torch.tensor([[1, 2]]), torch.tensor([2])
    found = {}
    for free in (False, True):
        own = features.clone().requires_grad_()
        joint = head(own, head.image_terms(own), torch.tensor([0]), head.encoder.embed(rows), lengths)
        product = joint.product if free else joint.product.detach()
        expected = torch.autograd.grad(((joint.visual - product) ** 2).sum() / 2, own)[0]
        pullback = HeadVJP(head, features, rows, lengths, free)
        (found[free],) = pullback.visual(torch.tensor([0]))[1]
        torch.testing.assert_close(found[free], expected, rtol=0, atol=1e-12)
    (usual,) = HeadVJP(head, features, rows, lengths).visual(torch.tensor([0]))[1]
    assert torch.equal(usual, found[False]) and not torch.allclose(usual, found[True])


@pytest.mark.parametrize("method", ["build", "feature_projections", "image_terms", "join"])
def test_a_head_must_say_what_it_is(method: str) -> None:
    methods = dict.fromkeys(["build", "feature_projections", "image_terms", "join"], lambda *rest: None)
    del methods[method]
    unfinished = type("Unfinished", (HadamardHead,), methods)
    with pytest.raises(TypeError, match=f"abstract method '?{method}'?$"):
        unfinished(ModelConfig.model_validate(SIZES), CHANNELS, WORDS, 7)
