"""``hvx import`` as a user runs it: what it prints, what it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import hvx
from test_import_vqa_pytorch import att_options, foreign_state, write_folder

from hvx.models.backbone import new_network
from hvx.models.checkpoint import load_checkpoint

SMALL = ("--architecture", "resnet10", "--node", "layer2")


def _weights(folder: Path) -> Path:
    torch.manual_seed(0)
    torch.save(new_network("resnet10").state_dict(), folder / "backbone.pth")
    return folder / "backbone.pth"


def test_an_import_says_what_it_found_and_writes_a_native_checkpoint(tmp_path: Path) -> None:
    write_folder(tmp_path / "logs", att_options(3), foreign_state(3))
    output = tmp_path / "native.safetensors"
    done = hvx(
        "import", "vqa-pytorch", tmp_path / "logs", "--backbone", _weights(tmp_path), *SMALL, "-o", output
    )
    assert done.returncode == 0, done.stderr
    for part in (
        "MLB, form vqa-pytorch, 3 glimpses",
        "V tanh, Q tanh, F tanh; in the attention tanh, tanh, tanh",
        "mcb tokens",
        "words:        6: what, colour",
        "answers:      4: yes, no, 2, café au lait",
        "weights in the file",
    ):
        assert part in done.stdout
    assert load_checkpoint(output).config.glimpses == 3


def test_the_formats_own_node_is_taken_where_none_is_given(tmp_path: Path) -> None:
    """At full depth that is ResNet-152's; here the small head does not fit it, which names the node."""
    options = att_options(2)
    write_folder(tmp_path / "logs", options, foreign_state(2))
    torch.manual_seed(0)
    torch.save(new_network("resnet152").state_dict(), tmp_path / "r152.pth")
    arguments = ("--backbone", tmp_path / "r152.pth", "-o", tmp_path / "native.safetensors")
    done = hvx("import", "vqa-pytorch", tmp_path / "logs", *arguments)
    assert done.returncode == 2
    assert "resnet152 at layer4 yields (2048, 3, 3)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--architecture", "resnet10", "--backbone", "x.pth"), "give the --node of it"),
        (("--architecture", "resnet10", "--node", "layer2", "--backbone", "x.pth"), "neither a file nor"),
        (("--architecture", "resnet11", "--backbone", "x.pth"), "did you mean 'resnet101'?"),
    ],
)
def test_a_backbone_that_cannot_be_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    write_folder(tmp_path / "logs", att_options(1), foreign_state(1))
    done = hvx("import", "vqa-pytorch", tmp_path / "logs", *arguments, "-o", tmp_path / "n.safetensors")
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "n.safetensors").exists()
