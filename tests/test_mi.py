"""Multiplicative integration (Wu et al. 2016): the encoder and the network ``mi`` against loops in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from slow_heads import SlowHead, agree, derivative
from torch import Tensor

from hvx.config import ModelConfig
from hvx.explain.hadamard import head_gradients
from hvx.models.base import HadamardHead
from hvx.models.encoder import SkipThoughtGRU
from hvx.models.networks import new_head

SIZES = {"network": "mi", "encoder": {"embedding": 3, "hidden": 4}, "joint": 5}
OPTIONS: dict[str, dict[str, Any]] = {
    "mean": {},
    "max": {"pool": "max"},
    "attention": {"attention": True},
    "attention and max": {"attention": True, "pool": "max"},
}
IMAGES, LENGTHS = [1, 0, 1], [3, 1, 2]
ROWS = [[2, 1, 3], [4, 0, 0], [3, 3, 0]]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("candidate", ["reset_before", "reset_after", "reset_after_bias"])
def test_each_gate_of_the_encoder_integrates_as_the_equations_say(candidate: str) -> None:
    torch.manual_seed(0)
    gru = SkipThoughtGRU(5, 7, candidate, "multiplicative").double()
    for parameter in gru.parameters():
        torch.nn.init.normal_(parameter)
    p = {name: tensor.detach().numpy() for name, tensor in gru.state_dict().items()}
    words, lengths = torch.randn(3, 4, 5, dtype=torch.float64), [4, 2, 3]
    found = gru(words, torch.tensor(lengths))
    for n, length in enumerate(lengths):
        h = np.zeros(7)
        for x in words[n, :length].numpy():
            inputs = p["input.weight"] @ x

            def gate(part: slice, u: np.ndarray, own: np.ndarray = inputs) -> np.ndarray:
                wx = own[part]
                joined = p["alpha"][part] * wx * u + p["beta_state"][part] * u
                total: np.ndarray = joined + p["beta_input"][part] * wx + p["input.bias"][part]
                return total

            gates = p["gates.weight"] @ h
            r, z = sigmoid(gate(slice(0, 7), gates[:7])), sigmoid(gate(slice(7, 14), gates[7:]))
            if candidate == "reset_before":
                u = p["state.weight"] @ (r * h)
            else:
                u = r * (p["state.weight"] @ h + p.get("state.bias", 0))
            h = (1 - z) * np.tanh(gate(slice(14, 21), u)) + z * h
        np.testing.assert_allclose(found[n].detach().numpy(), h, rtol=0, atol=1e-9)


def test_integration_begins_at_one_half_half_and_zero() -> None:
    gru = SkipThoughtGRU(3, 4, "reset_after", "multiplicative")
    for name, value in {"alpha": 1, "beta_state": 0.5, "beta_input": 0.5, "input.bias": 0}.items():
        tensor = gru.get_parameter(name)
        assert tensor.shape == (12,)
        assert (tensor == value).all(), name
    assert not {"alpha", "beta_state"} & set(SkipThoughtGRU(3, 4, "reset_after").state_dict())


class SlowMI(SlowHead):
    """The network's blocks, logits and last attention for features (M, S, S) and words (T, E)."""

    def blocks(self, features: np.ndarray, words: np.ndarray) -> tuple[list[Any], np.ndarray, Any]:
        cells = features.reshape(len(features), -1).T
        if self.config.mi.pool == "mean":
            h = np.tanh(self.linear("start", sum(cells) / len(cells)))
        else:
            inner = np.array([np.tanh(self.linear("start", cell)) for cell in cells])
            best = inner.real.argmax(0)
            h = np.tanh(self.linear("initial", inner[best, np.arange(inner.shape[1])]))
        found, alpha = [], None
        read = self.states("reader", words) if self.config.mi.attention else words
        for word, state in zip(words, read, strict=True):
            q = self.p["encoder.gru.input.weight"] @ word
            v = np.concatenate([self.linear("encoder.gru.gates", h), self.linear("encoder.gru.state", h)])
            if self.config.mi.attention:
                alpha = self.attend(cells, state)
                v = v + self.p["seen.weight"] @ sum(a * cell for a, cell in zip(alpha, cells, strict=True))
            found.append((v, q, q * v))
            h = self.step(q, v, h)
        return found, self.linear("classifier", h), alpha

    def attend(self, cells: np.ndarray, state: np.ndarray) -> np.ndarray:
        steered = np.tanh(self.linear("attention_textual", state))
        logits = np.array(
            [
                (self.p["attention_output.weight"][0] * np.tanh(self.linear("attention_visual", cell)))
                @ steered
                for cell in cells
            ]
        )
        shares: np.ndarray = np.exp(logits) / np.exp(logits).sum()
        return shares

    def step(self, q: np.ndarray, v: np.ndarray, h: np.ndarray) -> np.ndarray:
        n = len(h)
        alpha, by_state, by_input = (
            self.p[f"encoder.gru.{k}"] for k in ("alpha", "beta_state", "beta_input")
        )
        bias = self.p["encoder.gru.input.bias"]
        r, z = (
            sigmoid(alpha[g] * q[g] * v[g] + by_state[g] * v[g] + by_input[g] * q[g] + bias[g])
            for g in (slice(0, n), slice(n, 2 * n))
        )
        c = slice(2 * n, 3 * n)
        u = r * v[c]
        new = np.tanh(alpha[c] * q[c] * u + by_state[c] * u + by_input[c] * q[c] + bias[c])
        moved: np.ndarray = (1 - z) * new + z * h
        return moved


def _model(name: str) -> HadamardHead:
    torch.manual_seed(3)
    head = new_head(ModelConfig.model_validate(SIZES | {"mi": OPTIONS[name]}), 4, 6, 7).double().eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return head.requires_grad_(False)


def _inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return features, torch.tensor(IMAGES), torch.tensor(ROWS), torch.tensor(LENGTHS)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_word_has_equations_2_and_3_of_its_own_block(name: str, free: bool) -> None:
    model = _model(name)
    slow = SlowMI(model)
    features, images, rows, lengths = _inputs()
    found = head_gradients(model, features, images, rows, lengths, free)
    assert found.joint.steps is not None
    assert found.joint.steps.tolist() == LENGTHS
    for n, (image, length) in enumerate(zip(IMAGES, LENGTHS, strict=True)):
        words, own = slow.p["encoder.table.weight"][ROWS[n][:length]], features[image].numpy()
        blocks, logits, alpha = slow.blocks(own, words)
        agree(found.joint.logits[n], logits)
        for t, (visual, textual, product) in enumerate(blocks):
            for key, value in {"visual": visual, "textual": textual, "product": product}.items():
                agree(getattr(found.joint.blocks[t], key)[n], value)

            def of_image(x: np.ndarray, t: int = t, w: np.ndarray = words) -> np.ndarray:
                v, _, f = slow.blocks(x, w)[0][t]
                return ((v - f) ** 2 / 2).sum() if free else v

            cotangent = np.ones(()) if free else visual - product
            agree(found.features[t][n], derivative(of_image, own, cotangent))
            to_word = slow.p["encoder.gru.input.weight"].T @ (textual - product)
            agree(found.embeddings[n, t], to_word)
        for key, value in zip(("visual", "textual", "product"), blocks[-1], strict=True):
            agree(getattr(found.joint, key)[n], value)
        assert (found.embeddings[n, length:] == 0).all()
        # Beyond its own words a question has no cotangent, or no row at all.
        assert all((x[n:] if n >= len(x) else x[n]).count_nonzero() == 0 for x in found.features[length:])
        if alpha is not None:
            assert found.joint.attention is not None
            agree(found.joint.attention[n, 0].flatten(), alpha)
    assert [len(x) for x in found.features] == [3, 3, 1]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_word_that_comes_later_changes_nothing_of_the_maps_before_it(name: str) -> None:
    model = _model(name)
    features, images, rows, lengths = _inputs()
    whole = head_gradients(model, features, images[:1], rows[:1], lengths[:1])
    other = head_gradients(model, features, images[:1], torch.tensor([[2, 1, 5]]), lengths[:1])
    for t in (0, 1):
        torch.testing.assert_close(whole.features[t], other.features[t], rtol=0, atol=0)
    assert (whole.features[2] - other.features[2]).abs().max() > 1e-6


@pytest.mark.parametrize("name", OPTIONS)
def test_a_question_without_words_is_finite(name: str) -> None:
    model = _model(name)
    features, images, rows, lengths = _inputs()
    for width in (0, 3):
        empty = torch.zeros_like(rows)[:, :width], torch.zeros_like(lengths)
        found = head_gradients(model, features, images, *empty)
        assert len(found.features) == 1
        assert all(x.isfinite().all() for x in (*found.features, found.embeddings, found.joint.logits))
        assert found.embeddings.shape == (3, width, 3)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_scale_of_the_features_is_absorbed(name: str) -> None:
    model = _model(name)
    features, images, rows, lengths = _inputs()
    embeddings = model.encoder.embed(rows)
    wanted = model(3 * features, model.image_terms(3 * features), images, embeddings, lengths).logits
    model.fold_feature_scale(3)
    found = model(features, model.image_terms(features), images, embeddings, lengths).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"integration": "additive"}, "encoder.integration: the network mi needs 'multiplicative'"),
        ({"candidate": "reset_before"}, "encoder.candidate: the network mi needs 'reset_after'"),
    ],
)
def test_an_encoder_of_another_kind_is_refused(encoder: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig.model_validate(SIZES | {"encoder": encoder})
