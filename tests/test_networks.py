"""The networks beside MLB: Eqs 2 and 3 of each block a second, slow way, and the road as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Tiny
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from slow_heads import SlowHead, agree, derivative

from hvx.cli import main
from hvx.config import BackboneConfig, Config, ModelConfig
from hvx.data.tokenize import Vocabulary
from hvx.errors import HvxError
from hvx.explain.hadamard import head_gradients
from hvx.info import describe
from hvx.models.backbone import build_backbone
from hvx.models.base import HadamardHead
from hvx.models.checkpoint import VQAModel, check_config, load_checkpoint, save_checkpoint
from hvx.models.dan import DAN
from hvx.models.header import read_header
from hvx.models.mcb import MCB, _SignedRoot
from hvx.models.mlb import MLB
from hvx.models.networks import NETWORKS, new_head

CHANNELS, LATTICE, WORDS, ANSWERS = 3, (2, 3), 6, 4
LENGTHS = [4, 2]
ROWS = [[1, 3, 2, 6], [5, 4, 0, 0]]
IMAGES = [1, 0]
MUTAN = {
    "visual": 4, "textual": 3, "rank": 2,
    "attention_visual": 3, "attention_textual": 2, "attention_joint": 4, "attention_rank": 3,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "mrn": {"network": "mrn"},
    "mrn, max": {"network": "mrn", "mrn": {"pool": "max", "blocks": 2}},
    "mrn, of the author's code": {"network": "mrn", "mrn": {"inner": 6, "unit_length": True}},
    "mrn, no shortcuts": {"network": "mrn", "mrn": {"shortcuts": False, "blocks": 2}},
    "mutan": {"network": "mutan", "mutan": MUTAN},
    "mutan, activations": {
        "network": "mutan",
        "glimpses": 1,
        "attention_product_activation": "tanh",
        "visual_activation": "sigmoid",
        "product_activation": "sigmoid",
        "mutan": MUTAN
        | {
            "visual_part_activation": "tanh",
            "textual_part_activation": "sigmoid",
            "attention_visual_part_activation": "sigmoid",
            "attention_textual_part_activation": "tanh",
            "sum_activation": "tanh",
        },
    },
    "mutan, no attention": {"network": "mutan", "glimpses": 0, "mutan": MUTAN},
    "mcb": {"network": "mcb", "mcb": {"attention": 6}},
    "mcb, even": {"network": "mcb", "glimpses": 1, "mcb": {"attention": 6}, "joint": 4},
    "mcb, no attention": {"network": "mcb", "glimpses": 0},
    "gated": {"network": "gated"},
    "dan": {"network": "dan"},
    "dan, three steps": {"network": "dan", "dan": {"steps": 3}, "encoder": {"candidate": "reset_after"}},
}


def _model(name: str) -> HadamardHead:
    torch.manual_seed(3)
    options = OPTIONS[name]
    encoder = {"embedding": 3, "hidden": 4, **options.get("encoder", {})}
    config = ModelConfig.model_validate({"joint": 5, **options, "encoder": encoder})
    model = new_head(config, CHANNELS, WORDS, ANSWERS).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    features = torch.randn(2, CHANNELS, *LATTICE, dtype=torch.float64)
    return features, torch.tensor(IMAGES), torch.tensor(ROWS), torch.tensor(LENGTHS)


class SlowMRN(SlowHead):
    """Kim et al. 2016 for one question on one image."""

    def visual(self, block: int, cells: np.ndarray) -> np.ndarray:
        if self.config.mrn.pool == "mean":
            mean = sum(cells) / len(cells)
            if self.config.mrn.unit_length:
                mean = mean / np.sqrt((mean**2).sum())
            inner = np.tanh(self.linear(f"visual_inner.{block}", mean))
        else:
            each = np.array([np.tanh(self.linear(f"visual_inner.{block}", cell)) for cell in cells])
            inner = np.array([column[column.real.argmax()] for column in each.T])
        return np.tanh(self.linear(f"visual.{block}", inner))

    def blocks(self, features: np.ndarray, words: np.ndarray) -> tuple[list[Any], np.ndarray, Any]:
        """(V, Q, F) of each block; the logits; what attends."""
        cells = features.reshape(CHANNELS, -1).T
        state, found = self.question(words), []
        for block in range(self.config.mrn.blocks):
            visual, textual = self.visual(block, cells), np.tanh(self.linear(f"textual.{block}", state))
            found.append((visual, textual, textual * visual))
            shortcut = self.linear(f"shortcut.{block}", state) if self.config.mrn.shortcuts else 0
            state = shortcut + textual * visual
        return found, self.linear("classifier", state), (None, None)


class SlowMutan(SlowHead):
    """Ben-younes et al. 2017 for one question on one image, product by product."""

    def parts(self, prefix: str, rank: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The factors of each of the R products, (R, d) each."""
        own = self.config.mutan
        visual = getattr(own, f"{prefix}visual_part_activation")
        textual = getattr(own, f"{prefix}textual_part_activation")
        return (
            self.activate(visual, self.linear(f"{prefix}visual_parts", x)).reshape(rank, -1),
            self.activate(textual, self.linear(f"{prefix}textual_parts", y)).reshape(rank, -1),
        )

    def attention(self, q: np.ndarray, cells: np.ndarray) -> np.ndarray:
        y = self.activate(self.config.attention_textual_activation, self.linear("attention_textual", q))
        scores = []
        for cell in cells:
            x = self.linear("attention_visual", cell)
            x = self.activate(self.config.attention_visual_activation, x)
            visual, textual = self.parts("attention_", self.config.mutan.attention_rank, x, y)
            summed = sum(a * b for a, b in zip(visual, textual, strict=True))
            for _ in range(2):
                summed = self.activate(self.config.attention_product_activation, summed)
            scores.append(self.linear("attention_output", summed))
        return np.array([_softmax(np.array([score[g] for score in scores])) for g in range(len(scores[0]))])

    def blocks(self, features: np.ndarray, words: np.ndarray) -> tuple[list[Any], np.ndarray, Any]:
        q, cells = self.question(words), features.reshape(CHANNELS, -1).T
        attention = None
        pooled = [sum(cells) / len(cells)]
        if self.config.glimpses:
            attention = self.attention(q, cells)
            pooled = [sum(a * cell for a, cell in zip(alpha, cells, strict=True)) for alpha in attention]
        x = np.concatenate([self.linear(f"visual.{g}", each) for g, each in enumerate(pooled)])
        x = self.activate(self.config.visual_activation, x)
        y = self.activate(self.config.textual_activation, self.linear("textual", q))
        visual, textual = self.parts("", self.config.mutan.rank, x, y)
        summed = self.activate(self.config.mutan.sum_activation, (visual * textual).sum(0))
        logits = self.linear("classifier", self.activate(self.config.product_activation, summed))
        visual, textual = visual.ravel(), textual.ravel()
        return [(visual, textual, visual * textual)], logits, (attention, None)


class SlowMCB(SlowHead):
    """Fukui et al. 2016 for one question on one image: sums and a convolution, no FFT."""

    def sketch(self, name: str, x: np.ndarray) -> np.ndarray:
        sketch = np.zeros(self.config.joint, x.dtype)
        for place, sign, value in zip(*self.p[f"{name}_sketch.table"], x, strict=True):
            sketch[place] += sign * value
        return sketch

    def fused(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The circular convolution of two sketches, its signed root, of unit length."""
        d = self.config.joint
        both = np.array([sum(x[i] * y[(k - i) % d] for i in range(d)) for k in range(d)])
        sign = np.where(both.real < 0, -1, 1)
        return self.unit(sign * np.sqrt(sign * both))

    def unit(self, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).sum())

    def spectrum(self, x: np.ndarray) -> np.ndarray:
        """The whole spectrum, real part of each frequency, then imaginary: 2d numbers."""
        d = self.config.joint
        angle = 2 * np.pi * np.outer(np.arange(d), np.arange(d)) / d
        return np.concatenate([np.cos(angle) @ x, -np.sin(angle) @ x])

    def attention(self, q: np.ndarray, cells: np.ndarray) -> np.ndarray:
        textual, scores = self.sketch("attention_textual", q), []
        for cell in cells:
            fused = self.fused(self.sketch("attention_visual", cell), textual)
            hidden = self.activate("relu", self.linear("attention_hidden", fused))
            scores.append(self.linear("attention_output", hidden))
        return np.array([_softmax(np.array([score[g] for score in scores])) for g in range(len(scores[0]))])

    def blocks(self, features: np.ndarray, words: np.ndarray) -> tuple[list[Any], np.ndarray, Any]:
        q = self.question(words)
        cells = np.array([self.unit(cell) for cell in features.reshape(CHANNELS, -1).T])
        attention, pooled = None, sum(cells) / len(cells)
        if self.config.glimpses:
            attention = self.attention(q, cells)
            pooled = np.concatenate(
                [sum(a * c for a, c in zip(alpha, cells, strict=True)) for alpha in attention]
            )
        x, y = self.sketch("visual", pooled), self.sketch("textual", q)
        both = np.array([sum(x[i] * y[(k - i) % len(x)] for i in range(len(x))) for k in range(len(x))])
        # By the convolution theorem the product of two spectra is the spectrum of the convolution.
        block = (self.spectrum(x), self.spectrum(y), self.spectrum(both))
        return [block], self.linear("classifier", self.fused(x, y)), (attention, None)


class SlowGated(SlowHead):
    """Teney et al. 2017 for one question on one image."""

    def gated(self, name: str, x: np.ndarray) -> np.ndarray:
        return np.tanh(self.linear(f"{name}.linear", x)) * self.activate(
            "sigmoid", self.linear(f"{name}.gate", x)
        )

    def attention(self, q: np.ndarray, cells: np.ndarray) -> np.ndarray:
        logits = []
        for cell in cells:
            both = self.linear("attention_visual", cell) + self.linear("attention_textual", q)
            linear, gate = both[: len(both) // 2], both[len(both) // 2 :]
            hidden = np.tanh(linear) * self.activate("sigmoid", gate)
            logits.append(self.linear("attention_output", hidden)[0])
        return _softmax(np.array(logits))

    def blocks(self, features: np.ndarray, words: np.ndarray) -> tuple[list[Any], np.ndarray, Any]:
        q, cells = self.question(words), features.reshape(CHANNELS, -1).T
        attention = self.attention(q, cells)
        pooled = sum(a * cell for a, cell in zip(attention, cells, strict=True))
        visual, textual = self.gated("visual", pooled), self.gated("textual", q)
        product = textual * visual
        logits = self.linear("classifier", self.gated("output", product))
        return [(visual, textual, product)], logits, (attention[None], None)


class SlowDAN(SlowHead):
    """Nam et al. 2017 for one question on one image."""

    def attention(self, side: str, k: int, memory: np.ndarray, each: Any) -> np.ndarray:
        steer = np.tanh(self.linear(f"memory_{side}.{k}", memory))
        hidden = [np.tanh(self.linear(f"attention_{side}.{k}", x)) * steer for x in each]
        return _softmax(np.array([self.linear(f"output_{side}.{k}", h)[0] for h in hidden]))

    def blocks(self, features: np.ndarray, words: np.ndarray) -> tuple[list[Any], np.ndarray, Any]:
        cells = features.reshape(CHANNELS, -1).T
        back = self.states("from_the_end", words[::-1])[::-1]
        states = [one + other for one, other in zip(self.states("encoder.gru", words), back, strict=True)]
        visual = np.tanh(self.linear("visual.0", sum(cells) / len(cells)))
        textual = sum(states) / len(states)
        found, seen = [(visual, textual, visual * textual)], []
        memory = visual * textual
        for k in range(self.config.dan.steps):
            seen.append(self.attention("visual", k, memory, cells))
            said = self.attention("textual", k, memory, states)
            pooled = sum(a * cell for a, cell in zip(seen[-1], cells, strict=True))
            visual = np.tanh(self.linear(f"visual.{k + 1}", pooled))
            textual = sum(b * state for b, state in zip(said, states, strict=True))
            found.append((visual, textual, visual * textual))
            memory = memory + visual * textual
        return found, self.linear("classifier", memory), (np.array(seen), said)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum()


SLOW: dict[str, Any] = {
    "mrn": SlowMRN,
    "mutan": SlowMutan,
    "mcb": SlowMCB,
    "gated": SlowGated,
    "dan": SlowDAN,
}


def _slow(model: HadamardHead) -> Any:
    return SLOW[model.config.network](model)


def _agree_as_vectors(model: HadamardHead, found: torch.Tensor, expected: np.ndarray) -> None:
    """A block's vector; of MCB's, half a spectrum with weights, the frequencies of the whole one."""
    if not isinstance(model, MCB):
        agree(found, expected)
        return
    d = model.config.joint
    half = found.unflatten(0, (-1, 2)).numpy()
    for k, (real, imaginary) in enumerate(half):
        root = 1 if k in (0, d / 2) else np.sqrt(2)
        np.testing.assert_allclose([real / root, imaginary / root], expected[[k, d + k]], atol=1e-9, rtol=0)
    np.testing.assert_allclose((half**2).sum(), (expected**2).sum(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", OPTIONS)
def test_each_block_agrees_with_equations_2_and_3_by_complex_steps(name: str) -> None:
    model = _model(name)
    slow = _slow(model)
    features, images, rows, lengths = _inputs()
    found = head_gradients(model, features, images, rows, lengths)
    for n, (image, length) in enumerate(zip(IMAGES, LENGTHS, strict=True)):
        words, own = slow.p["encoder.table.weight"][ROWS[n][:length]], features[image].numpy()
        blocks, logits, (attention, textual_attention) = slow.blocks(own, words)
        assert len(blocks) == len(found.joint.blocks) == len(found.features)
        for place, (visual, textual, product) in enumerate(blocks):
            for key, value in {"visual": visual, "textual": textual, "product": product}.items():
                _agree_as_vectors(model, getattr(found.joint.blocks[place], key)[n], value)
            to_features = derivative(
                lambda x, p=place, w=words: slow.blocks(x, w)[0][p][0], own, visual - product
            )
            agree(found.features[place][n], to_features)
        agree(found.joint.logits[n], logits)
        _, textual, product = blocks[-1]
        to_words = derivative(lambda x, o=own: slow.blocks(o, x)[0][-1][1], words, textual - product)
        agree(found.embeddings[n, :length], to_words)
        assert (found.embeddings[n, length:] == 0).all()
        if attention is None:
            assert found.joint.attention is None
        else:
            assert found.joint.attention is not None
            agree(found.joint.attention[n].flatten(1), attention)
        if textual_attention is None:
            assert found.joint.textual_attention is None
        else:
            assert found.joint.textual_attention is not None
            agree(found.joint.textual_attention[n, :length], textual_attention)
            assert (found.joint.textual_attention[n, length:] == 0).all()


@pytest.mark.parametrize("name", OPTIONS)
def test_with_f_free_it_is_the_gradient_of_half_the_squared_difference(name: str) -> None:
    model = _model(name)
    slow = _slow(model)
    features, images, rows, lengths = _inputs()
    found = head_gradients(model, features, images, rows, lengths, free=True)
    constant = head_gradients(model, features, images, rows, lengths)
    words, own = slow.p["encoder.table.weight"][ROWS[0]], features[IMAGES[0]].numpy()
    for place, (free, held) in enumerate(zip(found.features, constant.features, strict=True)):

        def half_square(x: np.ndarray, place: int = place) -> np.ndarray:
            visual, _, product = slow.blocks(x, words)[0][place]
            return ((visual - product) ** 2 / 2).sum()

        agree(free[0], derivative(half_square, own, np.ones(())))
        assert (free - held).abs().max() > 1e-3
    torch.testing.assert_close(found.embeddings, constant.embeddings, rtol=0, atol=0)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_question_is_what_it_is_alone_and_one_without_tokens_is_finite(name: str) -> None:
    model = _model(name)
    features, images, rows, lengths = _inputs()
    together = head_gradients(model, features, images, rows, lengths)
    alone = head_gradients(model, features, images[1:], rows[1:, :2], lengths[1:])
    for one, other in zip(together.features, alone.features, strict=True):
        torch.testing.assert_close(one[1], other[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(together.embeddings[1, :2], alone.embeddings[0], rtol=0, atol=1e-9)
    empty = head_gradients(model, features, images, torch.zeros_like(rows), torch.zeros_like(lengths))
    assert all(x.isfinite().all() for x in (*empty.features, empty.embeddings, empty.joint.logits))


def test_dan_attends_to_tokens_without_their_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a batch with one long question nearly all is padding."""
    model = _model("dan")
    features, images, rows, lengths = _inputs()
    seen: list[tuple[int, ...]] = []
    assert isinstance(model, DAN)
    for linear in model.attention_textual:
        forward = linear.forward
        monkeypatch.setattr(linear, "forward", lambda x, f=forward: seen.append(tuple(x.shape)) or f(x))
    head_gradients(model, features, images, rows, lengths)
    assert seen == [(6, 4), (6, 4)]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_scale_on_the_features_folds_into_the_weights(name: str) -> None:
    model = _model(name)
    features, images, rows, lengths = _inputs()

    def logits(x: torch.Tensor) -> torch.Tensor:
        return model(x, model.image_terms(x), images, model.encoder.embed(rows), lengths).logits

    before = logits(features * 0.03)
    model.fold_feature_scale(0.03)
    torch.testing.assert_close(logits(features), before, rtol=0, atol=1e-12)
    if not model.config.mrn.unit_length and not isinstance(model, MCB):  # which sees no scale
        assert (logits(features * 2) - before).abs().max() > 1e-6


def _whole(name: str) -> VQAModel:
    """A head of random weights over a small backbone of random weights."""
    torch.manual_seed(1)
    backbone = BackboneConfig(architecture="squeezenet1_1", node="features.3")
    options = OPTIONS.get(name, {"network": name})
    encoder = {"embedding": 3, "hidden": 4, **options.get("encoder", {})}
    tree = {"joint": 5, **options, "encoder": encoder, "backbone": backbone}
    config = ModelConfig.model_validate(tree)
    head = new_head(config, 128, 2, 2).eval()
    return VQAModel(config, build_backbone(backbone), head, Vocabulary(("?", "UNK")), ["yes", "no"])


@pytest.mark.parametrize("name", OPTIONS)
def test_a_checkpoint_keeps_a_network_and_refuses_tensors_of_another(name: str, tmp_path: Path) -> None:
    model = _whole(name)
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model)
    found = load_checkpoint(path)
    assert (found.config, found.head.channels) == (model.config, 128)
    for key, tensor in model.head.state_dict().items():
        torch.testing.assert_close(found.head.state_dict()[key], tensor, rtol=0, atol=0)
    other = "mlb" if model.config.network == "mrn" else "mrn"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["hvx"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    about["model"]["network"] = other
    save_file(tensors, path, {"hvx": json.dumps(about)})
    with pytest.raises(HvxError, match=r"m\.safetensors: head: (no matrix|tensor|unexpected tensor) '"):
        load_checkpoint(path)


def test_a_checkpoint_that_names_no_network_is_an_mlb(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = _whole("mlb")
    save_checkpoint(path, model)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["hvx"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key in ("network", "mrn", "dan"):
        del about["model"][key]
    save_file(tensors, path, {"hvx": json.dumps(about)})
    found = load_checkpoint(path)
    assert isinstance(found.head, MLB)
    assert found.config == model.config


@pytest.mark.parametrize(
    ("row", "value", "said"),
    [
        (0, 5.0, r"tensor 'visual_sketch\.table': row 0 has values beyond 0 to 4"),
        (0, -1.0, r"tensor 'visual_sketch\.table': row 0 has values beyond 0 to 4"),
        (1, 2.0, r"tensor 'visual_sketch\.table': row 1 has values other than -1 and 1"),
        (1, 0.5, r"tensor 'visual_sketch\.table' holds numbers that are not whole; expected int64"),
    ],
)
def test_a_count_sketch_that_is_none_is_refused(row: int, value: float, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, _whole("mcb"))
    with safe_open(path, "pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    table = tensors["head.visual_sketch.table"].double()
    table[row, -1] = value
    save_file(tensors | {"head.visual_sketch.table": table}, path, about)
    with pytest.raises(HvxError, match=rf"m\.safetensors: head: {said}"):
        load_checkpoint(path)


def test_a_cell_without_features_has_finite_gradients_in_mcb() -> None:
    """Its sketch is all zeros, where a square root and a norm have no derivative."""
    model = _model("mcb")
    features, images, rows, lengths = _inputs()
    features[:, :, 0, 0] = 0
    found = head_gradients(model, features, images, rows, lengths)
    assert all(x.isfinite().all() for x in (*found.features, found.embeddings, found.joint.logits))


def test_the_signed_root_of_mcb_has_the_derivative_of_its_two_steps() -> None:
    """Of a root and a division by the norm; where a number is 0 the root's slope counts as 1."""
    x = torch.tensor(
        [[0.3, -2.0, 0.0, 1e-9], [-0.0, 5e3, -0.7, 0.2], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64
    )
    cotangent = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = _SignedRoot.apply(found)
    root = expected / torch.where(expected == 0, 1, expected.abs()).sqrt()
    square = root.square().sum(1, keepdim=True)
    two = root / torch.where(square == 0, 1, square).sqrt()
    torch.testing.assert_close(y, two, rtol=1e-12, atol=0)
    y.backward(cotangent)
    two.backward(cotangent)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-9, atol=0)


@pytest.mark.parametrize("form", ["torch7", "vqa-pytorch", "paper"])
def test_a_checkpoint_of_before_keeps_its_tokens_whatever_its_form_now_presets(
    form: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, _whole("mlb"))
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["hvx"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    about["model"]["form"] = form
    for key in ("sentences", "max_tokens"):
        del about["model"]["encoder"][key]
    save_file(tensors, path, {"hvx": json.dumps(about)})
    encoder = read_header(path).config.encoder
    assert (encoder.sentences, encoder.max_tokens) == (False, None)
    about["model"]["encoder"] |= {"sentences": True, "max_tokens": 26}
    save_file(tensors, path, {"hvx": json.dumps(about)})
    encoder = read_header(path).config.encoder
    assert (encoder.sentences, encoder.max_tokens) == (True, 26)
    assert "nltk tokens of each sentence, the first 26, embeddings" in describe(path)["question"]


def test_a_config_is_held_against_a_checkpoint_by_the_keys_of_its_network(tmp_path: Path) -> None:
    def config(**model: Any) -> Config:
        return Config.model_validate({"checkpoint": "m", "model": model})

    path = tmp_path / "m.safetensors"
    trained = ModelConfig.model_validate({"network": "dan", "dan": {"steps": 3}})
    check_config(trained, config(network="dan", dan={"steps": 3}, mrn={"pool": "max"}), path)
    with pytest.raises(HvxError, match=r"model\.dan\.steps = 3, the config 2"):
        check_config(trained, config(network="dan"), path)
    with pytest.raises(HvxError, match=r"model\.network = 'dan', the config 'mrn'"):
        check_config(trained, config(network="mrn"), path)


ROAD: dict[str, tuple[list[str], int, int]] = {
    "mrn": (["model.network=mrn", "model.mrn.pool=max"], 3, 0),
    "mcb": (["model.network=mcb", "model.mcb.attention=6"], 1, 2),
    "gated": (["model.network=gated"], 1, 1),
    "dan": (["model.network=dan"], 3, 2),
    "mi": (["model.network=mi", "model.mi.attention=true"], 1, 1),
}
"""Settings of each network, its blocks and its attention maps."""
SAID = {
    "mrn": "MRN, 3 blocks, joint 10 wide, maximum of tanh(W1 ·) over the grid",
    "mcb": "MCB, 2 glimpses, product of spectra, count sketches 10 wide",
    "gated": "gated tanh (Teney et al. 2017), 1 glimpse, joint 10 wide",
    "dan": "r-DAN, 2 steps, attentions 10 wide, joint 12 wide",
    "mi": "multiplicative integration (Wu et al. 2016), a product for each word, state 12 wide from the mean "
    "of the features over the grid, attention in every step, 10 wide",
}


@pytest.mark.parametrize("name", ROAD)
def test_trains_explains_and_is_drawn_as_commands(name: str, tiny: Tiny, tmp_path: Path) -> None:
    network, blocks, glimpses = ROAD[name]
    checkpoint = tmp_path / "m.safetensors"
    # No backbone is trained: one of random weights does.
    more = {"checkpoint": checkpoint, "train__backbone_epochs": 0, "train__workers": 0}
    settings = [*tiny.settings(tmp_path / "run", **more), *network]
    given = [argument for setting in settings for argument in ("--set", setting)]
    for command in ("train", "explain"):
        _run(command, str(tiny.config), *given, "--device", "cpu")
    figure = tmp_path / "figure.png"
    _run("figure", str(tmp_path / "run"), "-o", str(figure), "--rows", "2", "--width", "800")
    with Image.open(figure) as picture:
        assert picture.width == 800
    assert describe(checkpoint)["model"] == SAID[name]
    with h5py.File(tmp_path / "run" / "explanations.h5") as run:
        _check_run(run, blocks, glimpses)
        assert ("textual_attention" in run) == (name == "dan")
        assert ("word_heatmaps" in run) == (name == "mi")
        if name == "mi":
            maps, lengths = run["word_heatmaps"][:], run["length"][:]
            for own, heatmap, length in zip(maps, run["heatmap"][:], lengths, strict=True):
                np.testing.assert_array_equal(own[length - 1], heatmap)
                assert own[:length].any((1, 2)).all() and not own[length:].any()
                assert (own[0] != own[length - 1]).any()
    loaded = load_checkpoint(checkpoint)
    assert isinstance(loaded.head, NETWORKS[loaded.config.network])


def _run(*arguments: str) -> None:
    """A command, in this process: each of its own would load PyTorch again."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output


def _check_run(run: h5py.File, blocks: int, glimpses: int) -> None:
    count, lengths = len(run["question_id"]), run["length"][:]
    assert run.attrs["product"] == '"constant"'
    assert ("attention" in run) == bool(glimpses)
    if glimpses:
        assert run["attention"].shape[1] == glimpses
        np.testing.assert_allclose(run["attention"][:].sum((2, 3)), 1, atol=1e-5)
    assert ("block_heatmaps" in run) == (blocks > 1)
    if blocks > 1:
        assert run["block_heatmaps"].shape == (count, blocks, *run["heatmap"].shape[1:])
        np.testing.assert_array_equal(run["block_heatmaps"][:, -1], run["heatmap"][:])
        assert (run["block_heatmaps"][:, 0] != run["heatmap"][:]).any()
    if "textual_attention" in run:
        said = run["textual_attention"][:]
        np.testing.assert_allclose(np.nansum(said, 1), 1, atol=1e-5)
        assert (np.isnan(said) == (np.arange(said.shape[1]) >= lengths[:, None])).all()
