"""The README: its blocks run, in order and as written, in a folder as `make reproduce` leaves it.

The model is a tiny one. What installs or trains for long is compared with the Makefile and setup.cfg; every
other command runs. Files that users bring are made up, of random weights.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import test_import_torch7 as torch7
import test_import_vqa_pytorch as port
import torch
import torchvision
import yaml
from conftest import REPOSITORY, Tiny, hvx
from PIL import Image

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MAKE = re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
SHELL_ONLY = {"python3 -m venv .venv", "source .venv/bin/activate"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and the file that the text before it names last."""

    language: str
    text: str
    file: str


def blocks() -> Iterator[Block]:
    start = 0
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        named = re.findall(r"`([\w.]+\.\w+)`", README[start : found.start()])
        yield Block(found[1], found[2], named[-1] if named else "")
        start = found.end()


@pytest.fixture(scope="module")
def folder(tiny: Tiny, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The repository's own files, what `make reproduce` leaves, and checkpoints that a user has."""
    root = tmp_path_factory.mktemp("readme")
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    shutil.copytree(REPOSITORY / "docs" / "examples", root / "docs" / "examples")
    reproduced = root / "runs" / "reproduce"
    shutil.copytree(tiny.root / "scenes", reproduced / "scenes")
    shutil.copytree(finished_run, reproduced / "run")
    shutil.copy(tiny.root / "model.safetensors", reproduced)
    with pytest.MonkeyPatch.context() as patch:
        _bring_checkpoints(root, patch)
    _bring_clip(root)
    yield root
    shutil.rmtree(root)  # a gigabyte


def _bring_checkpoints(root: Path, patch: pytest.MonkeyPatch) -> None:
    """fbresnet152, a folder of vqa.pytorch, and the authors' Torch7 file at the published sizes."""
    backbone = torchvision.models.resnet152().state_dict()
    torch.save({name: tensor.half() for name, tensor in backbone.items()}, root / "fbresnet152.pth")
    (root / "logs").mkdir()
    patch.setattr(port, "CHANNELS", 2048)
    port.write_folder(root / "logs" / "mlb_att", port.att_options(2), port.foreign_state(2))
    sizes = {"EMBEDDING": 620, "HIDDEN": 2400, "JOINT": 1200, "CHANNELS": 2048}
    for name, size in sizes.items():
        patch.setattr(torch7, name, size)
    vector = 0.05 * torch7._vector(2)
    (root / "mlb.t7").write_bytes(torch7.tensor(vector))
    (root / "data_prepro.json").write_text(json.dumps(torch7._tree(torch7.WORDS, torch7.ANSWERS)))


def _bring_clip(root: Path) -> None:
    """A small CLIP as open_clip saves one, and COCO's captions of two photographs."""
    encoders = pytest.importorskip("made_encoders")
    encoders.folder_of(root / "my-clip", encoders.RESNET | {"image_size": 224})
    coco = root / "data" / "coco"
    (coco / "val2014").mkdir(parents=True)
    (coco / "annotations").mkdir()
    chance = np.random.default_rng(0)
    tree: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    for number in (1, 2):
        name = f"COCO_val2014_{number:012d}.jpg"
        Image.fromarray(chance.integers(0, 255, (90, 120, 3), np.uint8)).save(coco / "val2014" / name)
        tree["images"].append({"id": number, "file_name": name})
        tree["annotations"].append({"id": number, "image_id": number, "caption": "a red star"})
    (coco / "annotations" / "captions_val2014.json").write_text(json.dumps(tree))


# Running


def run_shell(block: str) -> None:
    """Each line as a user types it."""
    for line in filter(None, block.splitlines()):
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert words[1] in MAKE, line
        elif words[:2] == ["pip", "install"]:
            assert extras(words[2]) <= extras_of_setup(), line
        elif words[0] == "hvx":
            done = hvx(*words[1:])
            assert done.returncode == 0, (line, done.stderr)
            if "-o" in words:
                output = Path(words[words.index("-o") + 1])
                assert (output / "index.html" if output.is_dir() else output).stat().st_size > 0
        else:
            assert shlex.join(words) in SHELL_ONLY, line


def extras(requirement: str) -> set[str]:
    """Those of ``.[measure]`` or ``hvx[clip,data]``."""
    found = re.fullmatch(r"(?:\.|hvx)\[([\w,]+)\]", requirement)
    assert found, requirement
    return set(found[1].split(","))


def extras_of_setup() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    return set(setup["options.extras_require"])


def test_every_block_runs_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ran: list[str] = []
    names: dict[str, object] = {}
    for block in blocks():
        ran.append(block.language)
        if block.language == "sh":
            run_shell(block.text)
        elif block.language == "python":
            exec(compile(block.text, "README.md", "exec"), names)
        elif block.language in ("json", "yaml"):
            assert not Path(block.file).exists(), block.file
            Path(block.file).write_text(block.text, encoding="utf-8")
        else:
            assert block.language == "bibtex"
    assert {"sh", "python", "json", "yaml", "bibtex"} == set(ran)
    assert ran.count("sh") >= 5 and ran.count("python") >= 2
    with Image.open("why.png") as figure:
        assert figure.width == 1200


def test_the_files_of_ones_own_data_are_those_that_the_text_names() -> None:
    files = {block.language: block.file for block in blocks() if block.language in ("json", "yaml")}
    assert files == {"json": "questions.jsonl", "yaml": "mine.yaml"}


# What it says


def test_every_extra_is_described() -> None:
    table = README[README.index("| extra | for |") : README.index("## First results")]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(first))) == extras_of_setup()


def test_the_citation_is_that_of_the_citation_file() -> None:
    (bibtex,) = [block.text for block in blocks() if block.language == "bibtex"]
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    for value in (cited["title"], cited["journal"], str(cited["year"])):
        assert f"{{{value}}}" in bibtex
    authors = [f"{one['family-names']}, {one['given-names']}" for one in cited["authors"]]
    assert f"{{{' and '.join(authors)}}}" in bibtex


def test_the_table_of_reproduce_is_as_hvx_prints_it() -> None:
    """The rows' names, columns and bounds are those of the checks; the numbers are one training's."""
    rows = re.findall(
        r"^\| ([^|]+) \| [\d.]+ \| [\d. ]+\| ([^|]+) \| (?:yes)? *\| [\d,]+ \|$", README, re.MULTILINE
    )
    assert rows == [
        ("accuracy: attribute, shape, existence", "≥ 0.97"),
        ("accuracy: count", "reported"),
        ("accuracy: relation", "reported"),
        ("pointing game: heat map", "≥ 0.90"),
        ("rank correlation: heat map, attention", "≥ 0.40"),
        ("mean z: content less function words", "≥ 1.00"),
        ("questions with Σz = 0, Σz² = n − 1", "≥ 1.00"),
    ]
