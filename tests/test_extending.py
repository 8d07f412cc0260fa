"""The examples of docs/extending.md, applied to a copy of the package and run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision
from conftest import REPOSITORY, Tiny

from hvx.config import ModelConfig
from hvx.models.mlb import MLB

PAGE = REPOSITORY / "docs" / "extending.md"
PART = re.compile(
    r"^In \[`(\S+)`\]|^A new file `(\S+)`:|^```(diff|python)\n(.*?)^```", re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with all changes of the page."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(REPOSITORY / "hvx", root / "hvx", ignore=shutil.ignore_patterns("__pycache__"))
    file = Path()
    for edited, new, kind, block in PART.findall(PAGE.read_text(encoding="utf-8")):
        if edited or new:
            file = root / (edited or new)
        elif kind == "python":
            assert not file.exists()
            file.write_text(block, encoding="utf-8")
        else:
            before, after = (_side(block, sign) for sign in "-+")
            source = file.read_text(encoding="utf-8")
            assert source.count(before) == 1, (file, before)
            file.write_text(source.replace(before, after), encoding="utf-8")
    return root


def _side(block: str, sign: str) -> str:
    """What a diff has on one side: "-" before, "+" after."""
    return "".join(line[1:] + "\n" for line in block.splitlines() if line[0] in f" {sign}")


def run(root: Path, *arguments: object) -> str:
    """What ``hvx`` of the copy prints."""
    command = [sys.executable, "-m", "hvx", *map(str, arguments)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_a_method_and_a_column(extended: Path, tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tmp_path / "pooled.safetensors"
    settings = tiny.settings(tmp_path / "run", checkpoint=checkpoint, model__network="pooled")
    own = [tiny.config, *(part for setting in settings for part in ("--set", setting))]
    run(extended, "train", *own, "--set", "train.feature_cache=" + str(tmp_path))
    assert "no attention, joint 10 wide" in run(extended, "info", checkpoint)
    run(extended, "explain", *own)
    with h5py.File(tmp_path / "run" / "explanations.h5") as file:
        top = file["top_probabilities"][:]
        np.testing.assert_allclose(file["margin"][:], top[:, 0] - top[:, 1], atol=1e-6)
        assert file["margin"].attrs["long_name"] == "probability of the answer, less the second's"
        assert "attention" not in file and file["heatmap"][:].any(axis=(1, 2)).all()
    said = run(
        extended,
        "measure",
        tmp_path / "run",
        "--methods",
        "feature-gradient",
        "--sample",
        4,
        "--curves",
        2,
        "--sanity",
        0,
    )
    assert "| Feature gradient |" in said


def test_a_layout_and_a_format_of_checkpoints(extended: Path, tiny: Tiny, tmp_path: Path) -> None:
    rows = [{"number": "n1", "picture": "a.png", "question": "what?", "said": ["red", "blue", "red"]}]
    (tmp_path / "album.json").write_text(json.dumps(rows))
    lines = (
        "import sys; from hvx.config import SplitConfig; from hvx.data.questions import read_questions",
        "(found,) = read_questions(SplitConfig(questions=sys.argv[1], images='.'))",
        "print(found.question_id, found.image, found.ground_truth)",
    )
    command = [sys.executable, "-c", "\n".join(lines), str(tmp_path / "album.json")]
    done = subprocess.run(command, cwd=extended, capture_output=True, text=True, check=True)
    assert done.stdout == "n1 a.png red\n"

    sizes = {"encoder": {"embedding": 5, "hidden": 6}, "glimpses": 2, "joint": 4}
    head = MLB(ModelConfig.model_validate(sizes), 512, 3, 2)
    np.savez(tmp_path / "head.npz", **{name: tensor.numpy() for name, tensor in head.state_dict().items()})
    (tmp_path / "words.txt").write_text("what\nis\nit\n")
    (tmp_path / "answers.txt").write_text("yes\nno\n")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "cnn.pth")
    under = ("--architecture", "resnet18", "--node", "layer4", "--backbone", tmp_path / "cnn.pth")
    said = run(extended, "import", "arrays", tmp_path, *under, "-o", tmp_path / "mlb.safetensors")
    assert "2 glimpses" in said and "yes, no" in said
