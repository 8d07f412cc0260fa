"""Every kind of file that hvx reads, damaged by chance or made to do harm: read, or refused in one line."""

from __future__ import annotations

import json
import pickle
import random
import sys
from pathlib import Path

import h5py
import pytest
import torch
import yaml
from conftest import REPOSITORY, Tiny, hvx
from hostile import Harm
from made_runs import written

from hvx.config import BackboneConfig
from hvx.errors import HvxError
from hvx.importers import common
from hvx.importers.fbresnet152 import convert_fbresnet152
from hvx.importers.vqa_pytorch_files import read_options
from hvx.models import checkpoint
from hvx.models.backbone import build_backbone
from hvx.store.checksum import write_checksum
from hvx.store.reader import RunReader

sys.path.insert(0, str(REPOSITORY / "scripts"))
from fuzz_files import mutated, struck
from fuzz_kinds import KINDS

PLANTED = """
import os, sys, time, types

def kind(folder):
    path = folder / "file"
    path.write_bytes(b"whole")
    sys.modules["__main__"].PATIENCE = 0.2
    fates = {3: lambda: 1 / 0, 5: lambda: os.kill(os.getpid(), 11), 6: lambda: time.sleep(60),
             8: lambda: bytes(1 << 40)}
    number = int(sys.argv[sys.argv.index("--strike") + 2]) - 2  # a whole file is read first

    def read():
        nonlocal number
        number += 1
        fates.get(number, int)() if path.read_bytes() != b"whole" else None

    return [path], read

sys.modules["fuzz_kinds"] = types.SimpleNamespace(KINDS={"planted": kind})
"""


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damaged_files_are_read_or_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A few of the mutations that scripts/fuzz_files.py tries by the thousand, in bounds."""
    for module in (common, checkpoint):
        monkeypatch.setattr(module, "build_backbone", module.build_backbone)
    files, read = KINDS[kind](tmp_path)
    whole = {path: path.read_bytes() for path in files}
    read()
    refused = 0
    for number in range(100):
        chance = random.Random(f"test {kind} {number}")
        path = chance.choice(files)
        path.write_bytes(mutated(whole[path], chance))
        try:
            read()
        except HvxError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
        path.write_bytes(whole[path])
    assert refused > 10
    read()


def test_the_fuzzer_tells_faults_from_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds what is planted: an exception, a crash, a hang and a flood of memory."""
    (tmp_path / "sitecustomize.py").write_text(PLANTED)  # which Python imports as it starts
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tally = struck("planted", 10, 0, lambda line: None)
    assert [fault.partition(":")[0] for fault in tally.faults] == ["3", "5", "6", "8"]
    assert "ZeroDivisionError" in tally.faults[0] and "MemoryError" in tally.faults[3]
    assert (tally.accepted, tally.refused, tally.mutations) == (6, 0, 10)


def torch_file(path: Path, held: object, zipped: bool) -> Path:
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_would_run_code_are_refused_and_run_none(tmp_path: Path, zipped: bool) -> None:
    path = torch_file(tmp_path / "weights.pth", {"conv1.weight": Harm(tmp_path)}, zipped)
    with pytest.raises(HvxError, match=r"weights\.pth: not a state dict of tensors that can be read safely"):
        build_backbone(BackboneConfig(architecture="resnet10", node="relu", weights=str(path)))
    with pytest.raises(HvxError, match=r"weights\.pth: not a state dict"):
        convert_fbresnet152(path)
    assert not (tmp_path / "harmed").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "harmed").exists()  # so the file does hold what was refused


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system"])
def test_options_that_would_run_code_are_refused_and_run_none(tmp_path: Path, tag: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(f"model: {tag} ['touch {tmp_path / 'harmed'}']\n")
    with pytest.raises(
        HvxError, match=r"options\.yaml: not valid YAML on line 1: could not determine a constructor"
    ):
        read_options(path)
    assert not (tmp_path / "harmed").exists()
    yaml.unsafe_load(path.read_text())
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize("command", ["info", "explain"])
def test_a_pickle_in_place_of_a_checkpoint_is_one_line(tiny: Tiny, tmp_path: Path, command: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Harm(tmp_path)))
    explain = ["explain", tiny.config, "--set", f"checkpoint={path}", "--set", f"root={tiny.root}"]
    done = hvx("info", path) if command == "info" else hvx(*explain)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(path) in done.stderr
    assert not (tmp_path / "harmed").exists()


def test_a_checkpoint_that_names_a_file_for_its_backbone_does_not_have_it_read(tmp_path: Path) -> None:
    """Else a checkpoint would choose what is read on its user's machine."""
    KINDS["checkpoint"](tmp_path)
    secret, path = tmp_path / "secret.pth", tmp_path / "model.safetensors"
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["hvx"])
        head = {name: file.get_tensor(name) for name in file.keys() if name.startswith("head.")}  # noqa: SIM118
    torch_file(secret, {"conv1.weight": torch.zeros(1)}, zipped=True)
    about["model"]["backbone"]["weights"] = str(secret)
    save_file(head, path, metadata={"hvx": json.dumps(about)})
    with pytest.raises(HvxError, match=r"holds no backbone, and its backbone\.weights .* is not one of"):
        checkpoint.load_checkpoint(path)


@pytest.mark.parametrize("name", ["../{image_id}.png", "/etc/{image_id}", "a/../../{image_id}.png"])
def test_an_image_name_that_leaves_the_folder_is_one_line(tiny: Tiny, tmp_path: Path, name: str) -> None:
    settings = [*tiny.settings(tmp_path / "run"), f"splits.val.image_name={name}"]
    done = hvx("explain", tiny.config, *(part for setting in settings for part in ("--set", setting)))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "leads out of the images' folder" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png"])
def test_a_run_whose_image_path_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    run = written(tmp_path / "run", solid=True)
    with h5py.File(run / "explanations.h5", "r+") as file:
        file["image_path"][1] = name
        file.flush()
    write_checksum(run / "explanations.h5")
    reader = RunReader(run)
    assert reader[0].question_id == 0
    with pytest.raises(HvxError, match="leads out of the images' folder"):
        reader[1]


@pytest.mark.parametrize("key", ["identity", "image", "images"])
def test_a_description_that_lacks_what_is_read_is_refused(tmp_path: Path, key: str) -> None:
    run = written(tmp_path / "run", solid=False)
    about = json.loads((run / "run.json").read_text())
    for wrong in ({k: v for k, v in about.items() if k != key}, about | {key: 5}):
        (run / "run.json").write_text(json.dumps(wrong))
        with pytest.raises(HvxError, match=r"run\.json: not the description of a run"):
            RunReader(run)


@pytest.mark.parametrize("name", ["{image_id:0999999999d}.jpg", "{image_id:{image_id}}", "{image_id:>4096}"])
def test_a_pattern_of_image_names_that_would_fill_memory_is_refused(
    tiny: Tiny, tmp_path: Path, name: str
) -> None:
    with pytest.raises(HvxError, match="expected a pattern such as"):
        tiny.load(tmp_path / "run", splits__val__image_name=f"'{name}'")
