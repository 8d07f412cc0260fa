"""scripts/convert_daquar.py, on files made up in DAQUAR's published form."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hvx.config import load
from hvx.data.image_files import missing_images
from hvx.data.questions import read_questions

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))
from convert_daquar import main  # noqa: E402

TRAIN = """what is on the desk in the image3 ?
lamp
how many chairs are in the image3 ?
2
what is under the shelf in the image12 close to the bed ?
box, basket
"""
TEST = "is the door open in the image7 ?\nyes\n"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in (3, 7, 12):
        pixels = np.full((12, 16, 3), 10 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"image{number}.png")
    (tmp_path / "train.txt").write_text(TRAIN)
    (tmp_path / "test.txt").write_text(TEST)
    return tmp_path


def convert(published: Path) -> Result:
    files = [str(published / name) for name in ("train.txt", "test.txt", "images")]
    return CliRunner().invoke(main, [*files, "-o", str(published / "data" / "daquar")])


def test_the_config_reads_what_the_script_writes(published: Path) -> None:
    done = convert(published)
    assert done.exit_code == 0 and "3 train questions, 1 val questions, 3 images" in done.output
    config = load(REPOSITORY / "configs" / "daquar.yaml", [f"root={published}"])
    train, val = (config.split(name) for name in ("train", "val"))
    questions = read_questions(train)
    assert [question.question for question in questions] == [
        "what is on the desk ?",
        "how many chairs are ?",
        "what is under the shelf in the image12 close to the bed ?",
    ]
    assert [question.ground_truth for question in questions] == ["lamp", "2", "box, basket"]
    assert [question.answer_type for question in questions] == ["other", "number", "other"]
    assert [question.question_type for question in questions] == ["what is", "how many", "what is"]
    assert len({question.question_id for question in questions}) == 3
    (asked,) = read_questions(val)
    assert (asked.question, asked.ground_truth, asked.answer_type) == ("is the door open ?", "yes", "yes/no")
    for split, own in ((train, questions), (val, [asked])):
        assert missing_images(split, [question.image for question in own]) == []
    with Image.open(val.images / "DAQUAR_000000000007.jpg") as photo:
        assert abs(int(np.asarray(photo).mean()) - 70) <= 1


def test_it_can_be_run_again(published: Path) -> None:
    convert(published)
    image = published / "data" / "daquar" / "images" / "DAQUAR_000000000003.jpg"
    before = image.stat().st_mtime_ns
    assert convert(published).exit_code == 0 and image.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one line\n", "expected lines of questions and answers in turn; there are 1"),
        ("what is this ?\nlamp\n", "line 1: expected a question that names imageN, not 'what is this ?'"),
        ("what is in the image99 ?\nlamp\n", "1 images are missing, such as image99.png"),
    ],
)
def test_what_is_no_daquar_is_one_line(published: Path, text: str, said: str) -> None:
    (published / "train.txt").write_text(text)
    done = convert(published)
    assert done.exit_code != 0 and said in done.output and "Traceback" not in done.output
    assert not list(published.rglob("*.json"))


def test_the_config_names_weights_that_torchvision_has() -> None:
    from torchvision.models import get_model_weights

    backbone = load(REPOSITORY / "configs" / "daquar.yaml").model.backbone
    assert backbone.weights in [weights.name for weights in get_model_weights(backbone.architecture)]
