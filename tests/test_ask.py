"""``hvx ask``: one photo, one question, one figure; and what ``hvx info`` says of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Tiny, hvx
from PIL import Image

QUESTION = "what color is the circle ?"


def _photo(tiny: Tiny) -> Path:
    return sorted((tiny.root / "scenes" / "images").glob("SCENES_val_*.png"))[0]


def test_ask_prints_answers_and_scores_and_draws_a_figure(tiny: Tiny, tmp_path: Path) -> None:
    done = hvx("ask", tiny.root / "model.safetensors", _photo(tiny), QUESTION, "-o", tmp_path / "why.png")
    assert done.returncode == 0, done.stderr
    *answers, scores, last = done.stdout.splitlines()
    assert len(answers) == 5
    probabilities = [float(line.split()[0]) for line in answers]
    assert probabilities == sorted(probabilities, reverse=True)
    z = [float(part.split()[-1]) for part in scores.split("  ")]
    assert len(z) == len(QUESTION.split())
    assert abs(sum(z)) < 0.05
    assert last == f"{tmp_path / 'why.png'}: {answers[0].split(maxsplit=1)[1]}"
    with Image.open(tmp_path / "why.png") as figure:
        assert figure.width == 1200


def test_words_that_the_model_does_not_know_are_named(tiny: Tiny, tmp_path: Path) -> None:
    question = "what blorp is the circle blorp frob ?"
    done = hvx("ask", tiny.root / "model.safetensors", _photo(tiny), question, "-o", tmp_path / "why.png")
    assert "unknown to the model: blorp, frob" in done.stdout.splitlines()
    known = hvx("ask", tiny.root / "model.safetensors", _photo(tiny), QUESTION, "-o", tmp_path / "why.png")
    assert "unknown" not in known.stdout


def test_a_photo_of_ones_own_is_turned_as_its_exif_data_says(tiny: Tiny, tmp_path: Path) -> None:
    """The same picture stored upright, and stored on its side with a note to turn it, explains alike."""
    with Image.open(_photo(tiny)) as opened:
        upright = opened.convert("RGB")
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left of how it is meant
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    figures = []
    for name in ("upright", "turned"):
        output = tmp_path / f"{name}-why.png"
        done = hvx("ask", tiny.root / "model.safetensors", tmp_path / f"{name}.png", QUESTION, "-o", output)
        assert done.returncode == 0, done.stderr
        with Image.open(output) as figure:
            figures.append(np.asarray(figure))
    np.testing.assert_array_equal(*figures)


@pytest.mark.parametrize(
    ("question", "output", "named"),
    [("   ", "why.png", "holds no word"), (QUESTION, "why.jpg", "written as .png, .pdf or .svg")],
)
def test_what_cannot_be_asked_is_one_line(
    tiny: Tiny, tmp_path: Path, question: str, output: str, named: str
) -> None:
    done = hvx("ask", tiny.root / "model.safetensors", _photo(tiny), question, "-o", tmp_path / output)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_info_says_what_a_checkpoint_is(tiny: Tiny) -> None:
    said = hvx("info", tiny.root / "model.safetensors").stdout
    for part in (
        "MLB, form paper, 2 glimpses, joint 20 wide",
        "V tanh, Q tanh, F none; in the attention tanh, tanh, none",
        "nltk tokens, embeddings 8, GRU 12 (reset_before)",
        "resnet10 at layer2, weights in the file",
        "64×64",
    ):
        assert part in said
