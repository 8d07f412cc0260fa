"""The Python face, and the documentation's Python: every block and every example is run."""

from __future__ import annotations

import io
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import REPOSITORY, Tiny
from PIL import Image

import hvx as face
from hvx.cli import main
from hvx.explain.scores import heat_map, token_z

QUESTION = "what color is the circle ?"
EXAMPLES = REPOSITORY / "docs" / "examples"


@pytest.fixture(scope="module")
def explainer(tiny: Tiny) -> face.Explainer:
    return face.Explainer(face.load_model(tiny.root / "model.safetensors", device="cpu"))


@pytest.fixture(scope="module")
def photo(tiny: Tiny) -> Path:
    return sorted((tiny.root / "scenes" / "images").glob("SCENES_val_*.png"))[0]


def test_an_explanation_holds_what_the_equations_say(explainer: face.Explainer, photo: Path) -> None:
    found = explainer.explain(photo, QUESTION)
    tokens = len(QUESTION.split())
    assert found.tokens == QUESTION.split() and found.question == QUESTION
    assert found.z.shape == found.saliency.shape == (tokens,)
    z = token_z(found.saliency[None], torch.tensor([tokens]))[0]
    torch.testing.assert_close(found.z, z, rtol=0, atol=1e-6)
    assert found.gradient.shape == (3, 64, 64) and found.heatmap.shape == (64, 64)
    torch.testing.assert_close(found.heatmap, heat_map(found.gradient[None])[0], rtol=0, atol=1e-5)
    assert found.attention is not None
    torch.testing.assert_close(found.attention.sum((1, 2)), torch.ones(2), rtol=0, atol=1e-5)
    assert found.answer == found.answers[0][0]
    chances = [chance for _, chance in found.answers]
    assert chances == sorted(chances, reverse=True)


def test_an_explanation_says_what_its_parts_do_not_mean(explainer: face.Explainer, photo: Path) -> None:
    """Words that the model does not know, gradients that are zero everywhere, what lies outside the crop."""
    known, other = explainer.explain_all(photo, [QUESTION, "what blorp is the frob ?"])
    assert known.unknown == [False] * 6 and known.zero_gradient == 0
    assert other.unknown == [False, True, False, False, True, False]
    assert known.row(80).unknown == known.unknown and known.row(80).whole is None
    wide = explainer.explain(np.zeros((48, 64, 3), np.uint8), QUESTION)
    row = wide.row(80)
    assert row.whole is not None and row.whole.size == (107, 80)
    for bits in (1, 2, 3):
        assert replace(known, zero_gradient=bits).row(80).zero_gradient == bits


def test_a_path_and_an_opened_photo_explain_alike(explainer: face.Explainer, photo: Path) -> None:
    with Image.open(photo) as opened:
        given = explainer.explain(opened, QUESTION)
    for other in (photo, str(photo)):
        assert torch.equal(explainer.explain(other, QUESTION).heatmap, given.heatmap)


def test_questions_asked_together_are_each_ones_own(explainer: face.Explainer, photo: Path) -> None:
    questions = [QUESTION, "is there a red star?"]
    together = explainer.explain_all(photo, questions)
    for found, question in zip(together, questions, strict=True):
        alone = explainer.explain(photo, question)
        assert found.tokens == alone.tokens and len(found.z) == len(found.tokens)
        torch.testing.assert_close(found.z, alone.z, rtol=0, atol=1e-2)
        assert (found.heatmap - alone.heatmap).norm() <= 1e-2 * alone.heatmap.norm()
    assert explainer.explain_all(photo, []) == []


def test_the_figure_is_the_one_that_ask_draws(
    explainer: face.Explainer, tiny: Tiny, photo: Path, tmp_path: Path
) -> None:
    # In this process: another one may add up in another order, and print another last digit of z.
    arguments = ["ask", tiny.root / "model.safetensors", photo, QUESTION, "-o", tmp_path / "why.png"]
    done = CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "why.png") as asked:
        np.testing.assert_array_equal(
            np.asarray(asked), np.asarray(explainer.explain(photo, QUESTION).figure())
        )


def test_an_explanation_shows_itself_in_a_notebook(explainer: face.Explainer, photo: Path) -> None:
    found = explainer.explain(photo, 'is <b>this</b> the "red" star?')
    with Image.open(io.BytesIO(found._repr_png_())) as shown:
        assert shown.size == found.figure().size
    text = found._repr_html_()
    assert "<b>" not in text and "&lt;b&gt;" in text and "&quot;red&quot;" in text
    assert "data:image/png;base64," in text


def test_what_cannot_be_explained_is_one_line(explainer: face.Explainer, photo: Path, tmp_path: Path) -> None:
    with pytest.raises(face.HvxError, match="holds no word"):
        explainer.explain(photo, "  ")
    with pytest.raises(face.HvxError, match="pass a list"):
        explainer.explain_all(photo, QUESTION)
    with pytest.raises(face.HvxError, match="no such checkpoint"):
        face.load_model(tmp_path / "none.safetensors", device="cpu")
    with pytest.raises(AttributeError, match="no attribute 'explane'"):
        face.explane  # noqa: B018


def test_names_of_the_face_are_there_and_cost_nothing_until_asked_for() -> None:
    code = "import hvx, sys; assert 'torch' not in sys.modules; assert set(hvx.__all__) <= set(dir(hvx))"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in face.__all__:
        assert getattr(face, name) is not None


def test_a_figure_of_ones_own_model_asks_for_what_is_missing() -> None:
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    embeddings = torch.rand(1, 3, 2, requires_grad=True)
    visual = torch.relu(image).mean((2, 3))[:, :2]
    found = face.explain_joint(visual, embeddings.sum(1), image=image, embeddings=embeddings)
    photo = Image.new("RGB", (8, 8))
    figure = found.figure([photo], [["a", "b", "c"]], ["yes"], width=300)
    assert figure.width == 300
    with pytest.raises(face.HvxError, match="1 questions explained"):
        found.figure([], [["a", "b", "c"]], ["yes"])
    with pytest.raises(face.HvxError, match="tokens"):
        found.figure([photo], [["a"]], ["yes"])


def test_the_blocks_of_the_documentation_run(
    tiny: Tiny, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny.root / "model.safetensors", tmp_path)
    with Image.open(photo) as opened:
        opened.convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    for made in ("why.png", "products.png"):
        with Image.open(tmp_path / made) as picture:
            assert picture.height > 100


def _run(example: str, *arguments: object) -> None:
    """An example as a script, in this process: another one would import PyTorch again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [example, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / example), run_name="__main__")


def test_the_dual_encoder_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "dual.png"
    _run("dual_encoder.py", "--output", output, "--scenes", 64, "--epochs", 1, "--val", 6)
    printed = capsys.readouterr().out
    assert "Eq. 2: in the caption's object" in printed and "mean z" in printed
    with Image.open(output) as figure:
        assert figure.width == 600


def test_the_open_clip_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("open_clip")
    _run("clip_rn50.py", "--size", 32)
    printed = capsys.readouterr().out
    assert "51 ReLUs guided, 0 other activations" in printed
    assert "V of image, Q of words, joint" in printed
