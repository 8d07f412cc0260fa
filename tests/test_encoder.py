"""The GRU against the same recurrence written out step by step over whole batches, and what a step costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hvx.config import EncoderConfig
from hvx.models.encoder import QuestionEncoder, SkipThoughtGRU

LENGTHS = [[3, 1, 4, 4, 0, 2], [0, 0], [2], [1, 1, 1], [5, 5], [0, 3]]


def written_out(gru: SkipThoughtGRU, embeddings: Tensor, lengths: list[int]) -> Tensor:
    """The state after each token (N, T, hidden), one question and one token at a time."""
    hidden = gru.state.in_features
    rows = []
    for own, length in zip(embeddings, lengths, strict=True):
        h, states = own.new_zeros(hidden), []
        for step, x in enumerate(own):
            if step < length:
                gates = gru.input.weight @ x + gru.input.bias
                r = torch.sigmoid(gates[:hidden] + gru.gates.weight[:hidden] @ h)
                z = torch.sigmoid(gates[hidden : 2 * hidden] + gru.gates.weight[hidden:] @ h)
                if gru.candidate == "reset_before":
                    new = torch.tanh(gates[2 * hidden :] + gru.state.weight @ (r * h))
                else:
                    inside = gru.state.weight @ h + (0 if gru.state.bias is None else gru.state.bias)
                    new = torch.tanh(gates[2 * hidden :] + r * inside)
                h = (1 - z) * new + z * h
            states.append(h)
        rows.append(torch.stack(states))
    return torch.stack(rows)


@pytest.mark.parametrize("candidate", ["reset_before", "reset_after", "reset_after_bias"])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_states_and_gradients_are_those_of_the_recurrence_written_out(
    candidate: str, lengths: list[int]
) -> None:
    torch.manual_seed(0)
    gru = SkipThoughtGRU(5, 7, candidate).double()
    # One column more than the longest question has tokens: padding of the whole batch.
    embeddings = torch.randn(len(lengths), max(lengths) + 1, 5, dtype=torch.float64, requires_grad=True)
    expected = written_out(gru, embeddings, lengths)
    last, states = gru(embeddings, torch.tensor(lengths)), gru.states(embeddings, torch.tensor(lengths))
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, expected[:, -1], rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    for found, wanted in (
        (states * weights, expected * weights),
        (last * weights[:, 0], expected[:, -1] * weights[:, 0]),
    ):
        gradients = [
            torch.autograd.grad(x.sum(), embeddings, retain_graph=True, materialize_grads=True)[0]
            if x.requires_grad else torch.zeros_like(embeddings)
            for x in (found, wanted)
        ]  # fmt: skip
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_questions_without_tokens_have_a_gradient_of_zero() -> None:
    """Or else Eq. 3 of a batch of empty questions would fail."""
    gru = SkipThoughtGRU(5, 7, "reset_after")
    embeddings = torch.randn(2, 1, 5, requires_grad=True)
    for found in (
        gru(embeddings, torch.zeros(2, dtype=torch.int64)),
        gru.states(embeddings, torch.zeros(2, dtype=torch.int64)),
    ):
        assert not found.any()
        assert not torch.autograd.grad(found.sum(), embeddings)[0].any()


def test_a_step_computes_only_questions_that_have_a_token_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one long question costs its batch no more than its own steps."""
    gru = SkipThoughtGRU(2, 3, "reset_after")
    rows: list[int] = []
    forward = gru.state.forward
    monkeypatch.setattr(gru.state, "forward", lambda x: rows.append(len(x)) or forward(x))
    lengths = torch.tensor([2, 9, 2, 0, 1])
    gru(torch.randn(5, 12, 2), lengths)
    assert rows == [4, 3, 1, 1, 1, 1, 1, 1, 1]
    assert sum(rows) == int(lengths.sum())


def test_padding_is_not_projected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a batch with one long question nearly all is padding."""
    gru = SkipThoughtGRU(2, 3, "reset_before")
    rows: list[tuple[int, ...]] = []
    forward = gru.input.forward
    monkeypatch.setattr(gru.input, "forward", lambda x: rows.append(tuple(x.shape)) or forward(x))
    lengths = torch.tensor([2, 9, 2, 0, 1])
    gru(torch.randn(5, 12, 2), lengths)
    gru.states(torch.randn(5, 12, 2), lengths)
    assert rows == [(14, 2), (14, 2)]


def test_no_step_has_a_gradient_as_large_as_all_steps() -> None:
    """The gradient of a slice of the inputs fills a tensor as large as all of them, at each step."""
    embeddings = torch.randn(2, 30, 4, requires_grad=True)
    q = SkipThoughtGRU(4, 5, "reset_before")(embeddings, torch.tensor([30, 30]))
    todo, seen, names = [q.grad_fn], set(), set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            todo += [ahead for ahead, _ in node.next_functions]
    assert "SplitWithSizesBackward0" in names
    assert not {"SliceBackward0", "SelectBackward0"} & names


@pytest.mark.parametrize("blocks", [("gates", 2), ("state", 1)])
def test_each_recurrent_matrix_starts_orthogonal(blocks: tuple[str, int]) -> None:
    name, count = blocks
    weight = getattr(SkipThoughtGRU(3, 4, "reset_before"), name).weight
    assert weight.shape == (4 * count, 4)
    for matrix in weight.split(4):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(4), rtol=0, atol=1e-5)


def test_the_word_table_has_a_zero_row_for_padding() -> None:
    encoder = QuestionEncoder(EncoderConfig(embedding=4, hidden=5), 3)
    assert encoder.table.weight.shape == (4, 4)
    assert not encoder.embed(torch.tensor([[0]])).any()
    assert encoder.embed(torch.tensor([[1, 3]])).any(2).all()
    torch.autograd.backward(encoder.embed(torch.tensor([[0, 1]])).sum())
    assert not encoder.table.weight.grad[0].any() and encoder.table.weight.grad[1].all()
    assert encoder.gru.candidate == "reset_before"
    assert QuestionEncoder(
        EncoderConfig(candidate="reset_after", embedding=4, hidden=5), 3
    ).gru.candidate == ("reset_after")
