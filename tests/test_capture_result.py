"""What ``explain_product`` returns shows itself: repr, figure, notebook; and the attention it recognizes."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_capture import JOINT, WIDTH, Small, inputs
from torch import Tensor, nn

from hvx.capture import figure as figures
from hvx.capture.forward import detached
from hvx.capture.products import explain_product
from hvx.capture.result import ProductExplanation
from hvx.errors import HvxError
from hvx.view.style import FigureStyle

SIDE, GLIMPSES = 8, 2


class Attending(Small):
    """Pools the CNN's 8 × 8 cells by an attention that a function makes of cells (N, 64, d) and q (N, d)."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attend = attend
        self.cells, self.fused = nn.Linear(6, JOINT), nn.Linear(JOINT, GLIMPSES)
        self.pooled = nn.Linear(6 * GLIMPSES, JOINT)
        self.multihead = nn.MultiheadAttention(JOINT, 1, batch_first=True, kdim=6, vdim=6)
        self.double()
        self.weights = torch.empty(0)

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        q, cells = self.textual(self.table(ids)), self.cnn(image).flatten(2).transpose(1, 2)
        fused = torch.tanh(self.cells(cells)) * q[:, None]
        weights = self.attend(self, fused)  # (N, G, 64)
        self.weights = weights.detach()
        v = torch.tanh(self.pooled(torch.bmm(weights, cells).flatten(1)))
        return self.answer(v * q)


def _each_glimpse(m: Attending, fused: Tensor) -> Tensor:
    return torch.stack([m.fused(fused)[..., g].softmax(1) for g in range(GLIMPSES)], 1)


ATTENTIONS: dict[str, Callable[..., Tensor]] = {
    "over the last dimension": lambda m, fused: m.fused(fused).transpose(1, 2).softmax(2),
    "over the cells' own dimension": lambda m, fused: m.fused(fused).softmax(1).transpose(1, 2),
    "glimpse by glimpse": _each_glimpse,
    "as a function": lambda m, fused: nn.functional.softmax(m.fused(fused).transpose(1, 2), -1),
    "glimpses in the batch": lambda m, fused: (
        m.fused(fused).transpose(1, 2).reshape(-1, SIDE * SIDE).softmax(1).view(len(fused), GLIMPSES, -1)
    ),
}


@pytest.mark.parametrize("how", ATTENTIONS)
@pytest.mark.parametrize("questions", [1, 3])
def test_the_attention_that_v_was_pooled_with_is_recognized(how: str, questions: int) -> None:
    (image, ids), seen = inputs(questions), []
    model = Attending(ATTENTIONS[how])
    model.register_forward_hook(lambda module, args, out: seen.append(module.weights))
    found = explain_product(model, (image, ids), image=image, words=ids, product=-1)
    assert found.attention is not None
    expected = seen[0].view(questions, GLIMPSES, SIDE, SIDE)
    torch.testing.assert_close(found.attention, expected, rtol=0, atol=0)


UNRECOGNIZED: dict[str, Callable[..., Tensor]] = {
    "of the image alone": lambda m, fused: torch.ones_like(fused[..., :2]).softmax(1).transpose(1, 2),
    "a sigmoid": lambda m, fused: torch.sigmoid(m.fused(fused)).transpose(1, 2),
    "over what is no square": lambda m, fused: nn.functional.pad(
        m.fused(fused)[:, :60].transpose(1, 2).softmax(2), (0, 4)
    ),
    "over glimpses": lambda m, fused: m.fused(fused).softmax(2).transpose(1, 2),
}


@pytest.mark.parametrize("how", UNRECOGNIZED)
def test_what_is_no_attention_over_a_square_of_cells_is_not_taken_for_one(how: str) -> None:
    image, ids = inputs()
    found = explain_product(Attending(UNRECOGNIZED[how]), (image, ids), image=image, words=ids, product=-1)
    assert found.attention is None


def test_an_attention_behind_the_joint_or_over_as_many_tokens_is_none_of_vs() -> None:
    class Later(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            joint = self.visual(image) * self.textual(self.table(ids))
            return torch.outer(joint.flatten(), joint.flatten())[:3, :4].softmax(1)

    image, ids = inputs()
    assert explain_product(Later(), (image, ids), image=image, words=ids).attention is None
    image, ids = inputs(3, SIDE * SIDE)
    model = Attending(ATTENTIONS["as a function"])
    assert explain_product(model, (image, ids), image=image, words=ids, product=-1).attention is None


# Einsums of three, regions


def test_bilinear_attention_is_explained_for_each_image() -> None:
    """BAN: Σ over regions and tokens of V, attention and Q, as one ``einsum`` of three."""

    class Ban(Small):
        def forward(self, image: Tensor, ids: Tensor) -> Tensor:
            v = torch.tanh(self.to_visual(self.cnn(image).flatten(2).transpose(1, 2)))
            q = torch.tanh(self.to_textual(self.table(ids)))
            weights = (v @ q.transpose(1, 2)).flatten(1).softmax(1).view(len(v), v.shape[1], -1)
            return self.answer(torch.einsum("bvk,bvq,bqk->bk", v, weights, q))

    (image, ids), model = inputs(), Ban()
    with pytest.raises(HvxError, match="choose by product=: 0: bmm"):
        explain_product(model, (image, ids), image=image, words=ids)
    found = explain_product(model, (image, ids), image=image, words=ids, product=0)
    for n in range(3):
        one, words = image[n : n + 1].clone(), ids[n : n + 1].clone()
        alone = explain_product(model, (one, words), image=one, words=words, product=0)
        torch.testing.assert_close(found.image_gradient[n], alone.image_gradient[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(found.word_gradient[n], alone.word_gradient[0], rtol=0, atol=1e-12)
        assert float(alone.image_gradient.abs().max()) > 0


# Display


def small(**options: Any) -> ProductExplanation:
    image, ids = inputs()
    return explain_product(Small(), (image, ids), image=image, words=ids, **options)


def test_a_repr_says_in_one_short_line_what_was_explained() -> None:
    found = small()
    assert re.fullmatch(
        r"ProductExplanation\(3 questions; joint test_capture\.py:\d+ \(3, 5\); image gradient "
        r"\(3, 3, 12, 12\), guided at 2 ReLUs; heat map \(3, 12, 12\); z \(3, 4\)\)",
        repr(found),
    )
    assert "plain gradient; heat map" in repr(small(rule="gradient"))


def _drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What reaches the drawing: rows, width, style."""
    calls: list[Any] = []
    draw = figures.draw_figure

    def note(rows: Any, width: int, style: FigureStyle) -> Image.Image:
        calls.append((list(rows), width, style))
        return draw(rows, width, style=style)

    monkeypatch.setattr(figures, "draw_figure", note)
    return calls


def test_a_figure_has_a_row_for_each_question_with_its_own_content(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, style = _drawn(monkeypatch), FigureStyle(top_answers=True)
    image, ids = inputs()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]]).bool()
    model = Attending(ATTENTIONS["as a function"])
    found = explain_product(model, (image, ids), image=image, words=ids, mask=mask, product=-1)
    photos = [Image.new("RGB", (20, 20), (40 * n, 0, 0)) for n in range(3)]
    tokens = [["a", "b", "c", "d"], ["e", "f"], ["g", "h", "i"]]
    drawn = found.figure(photos, tokens, ["x", "y", "z"], width=500, style=style)
    ((rows, width, used),) = calls
    assert (width, drawn.width, used) == (500, 500, style)
    assert found.heatmap is not None and found.z is not None and found.attention is not None
    for n, row in enumerate(rows):
        assert (row.photo, row.tokens, row.predicted) == (photos[n], tokens[n], "xyz"[n])
        np.testing.assert_allclose(row.z, found.z[n][mask[n]].numpy(), rtol=1e-6)
        np.testing.assert_allclose(row.heatmap, found.heatmap[n].numpy(), rtol=1e-6)
        np.testing.assert_allclose(row.attention, found.attention[n].numpy(), rtol=1e-6)


def test_without_photos_and_tokens_a_figure_shows_the_pixels_and_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, found = _drawn(monkeypatch), small()
    found.figure(width=400)
    for n, row in enumerate(calls[0][0]):
        assert (row.tokens, row.predicted, row.attention.shape) == (["1", "2", "3", "4"], "", (0, 1, 1))
        pixels, shown = inputs()[0][n].permute(1, 2, 0).numpy(), np.asarray(row.photo, float)
        expected = 255 * (pixels - pixels.min()) / (pixels.max() - pixels.min())
        assert np.abs(shown - expected).max() <= 0.51


@pytest.mark.filterwarnings("ignore:Eq")
def test_a_figure_marks_gradients_that_are_zero_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, (image, ids) = _drawn(monkeypatch), inputs()
    one = torch.tensor([[0], [1], [0]]).bool()
    for join, bits in (
        (lambda v, q: v * torch.where(one, q - q.detach() + 1, q), [0, 1, 0]),
        (lambda v, q: torch.where(one, v - v.detach() + 1, v) * q, [0, 2, 0]),
        (lambda v, q: v * torch.where(one, q * 0 + 1, q), [0, 3, 0]),
    ):
        explain_product(Small(join), (image, ids), image=image, words=ids).figure(width=400)
        assert [row.zero_gradient for row in calls.pop()[0]] == bits


def test_one_image_is_shown_beside_each_of_its_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, (image, ids) = _drawn(monkeypatch), inputs()
    one = image[:1].clone()
    explain_product(Small(), (one, ids), image=one, words=ids).figure(width=400)
    assert len(calls[0][0]) == 3


def test_a_notebook_shows_the_first_eight_questions() -> None:
    image, ids = inputs(10)
    found = explain_product(Small(), (image, ids), image=image, words=ids)
    page = found._repr_html_()
    source = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert source is not None and "Explanation of 10 questions" in page
    drawn = Image.open(io.BytesIO(base64.b64decode(source[1])))
    image, ids = image[:8].clone(), ids[:8].clone()
    eight = explain_product(Small(), (image, ids), image=image, words=ids).figure()
    assert np.array_equal(np.asarray(drawn.convert("RGB")), np.asarray(eight.convert("RGB")))


def test_what_cannot_be_drawn_is_shown_as_escaped_text() -> None:
    (image, ids), model = inputs(), Small()
    found = explain_product(model, (image, ids), image="cnn", words=ids)
    assert found._repr_html_() == f"<pre>{found!r}</pre>"
    with pytest.raises(HvxError, match="photos: none given, and the image is no pixels"):
        found.figure()

    class Vectors(Small):
        def visual(self, x: Tensor) -> Tensor:
            return torch.relu(x @ torch.ones(WIDTH, JOINT, dtype=x.dtype))

    features = torch.rand(3, WIDTH, dtype=torch.float64)
    flat = explain_product(Vectors(), (features, ids), image=features, words=ids)
    with pytest.raises(HvxError, match="a figure needs a heat map and z-scores"):
        flat.figure()


def test_detached_outputs_keep_their_layout() -> None:
    value = torch.ones(2, requires_grad=True) * 2
    made = detached({"a": [value, 1], "b": None})
    assert made["a"][1] == 1 and made["b"] is None and not made["a"][0].requires_grad
