"""Weights of CNNs as people have them: nested, prefixed, renamed, with other classifiers; damaged ones."""

from __future__ import annotations

import json
import logging
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import Tiny
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hvx.config import BackboneConfig
from hvx.errors import HvxError
from hvx.models.backbone import build_backbone
from hvx.models.checkpoint import load_checkpoint
from hvx.models.header import read_header
from hvx.models.weights import fill, fill_from, read_state_dict

State = dict[str, Tensor]
COUNTER = "num_batches_tracked"


def _resnet() -> State:
    torch.manual_seed(1)
    state: State = torchvision.models.resnet18(num_classes=7).state_dict()
    return state


@pytest.fixture(scope="module")
def resnet() -> State:
    return _resnet()


def config(path: Path, architecture: str = "resnet18", node: str = "layer2") -> BackboneConfig:
    return BackboneConfig(architecture=architecture, node=node, weights=str(path))


def prefixed(prefix: str) -> Callable[[State], object]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


WAYS: dict[str, Callable[[State], object]] = {
    "another classifier": dict,
    "no classifier": lambda state: {name: t for name, t in state.items() if not name.startswith("fc.")},
    "no unused layers": lambda state: {n: t for n, t in state.items() if not n.startswith(("fc", "layer4"))},
    "under state_dict": lambda state: {"epoch": 3, "state_dict": OrderedDict(state), "best": 0.5},
    "under model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "under net with prefix": lambda state: {"net": prefixed("module.")(state)},
    "data parallel": prefixed("module."),
    "in a larger model": lambda state: {**prefixed("cnn.")(state), "head.weight": torch.ones(2)},  # type: ignore[dict-item]
    "without counters": lambda state: {
        n: t for n, t in state.items() if not n.endswith("num_batches_tracked")
    },
    "half precision": lambda state: {n: t.half() if t.is_floating_point() else t for n, t in state.items()},
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_are_found_however_they_were_saved(resnet: State, tmp_path: Path, way: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(WAYS[way](resnet), path)
    found = build_backbone(config(path)).network.state_dict()
    assert len(found) == 60
    for name, tensor in found.items():
        if name.endswith(COUNTER):
            continue
        wanted = resnet[name].half().float() if way == "half precision" else resnet[name]
        assert torch.equal(tensor, wanted), name
        assert tensor.dtype == torch.float32


def test_the_names_of_published_densenets_are_those_of_torchvision(tmp_path: Path) -> None:
    """The files behind torchvision's weights say ``denselayer1.norm.1`` where its code says ``norm1``."""
    torch.manual_seed(0)
    state = torchvision.models.densenet121().state_dict()
    old = {
        name.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.").replace("conv2.", "conv.2."): tensor
        for name, tensor in state.items()
        if not name.endswith(COUNTER)
    }  # fmt: skip
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    found = build_backbone(config(tmp_path / "densenet.pth", "densenet121", "features.denseblock1.cat"))
    name = "features.denseblock1.denselayer2.conv2.weight"
    assert torch.equal(found.network.state_dict()[name], state[name])


def test_auxiliary_classifiers_may_be_there_or_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    network = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True)
    torch.save(network.state_dict(), tmp_path / "googlenet.pth")
    found = build_backbone(config(tmp_path / "googlenet.pth", "googlenet", "inception3b.cat"))
    assert torch.equal(found.network.state_dict()["conv1.conv.weight"], network.conv1.conv.weight)
    torch.save({n: t for n, t in network.state_dict().items() if "aux" not in n}, tmp_path / "bare.pth")
    build_backbone(config(tmp_path / "bare.pth", "googlenet", "inception3b.cat"))
    assert caplog.records == []


def test_tensors_without_a_place_are_named_in_one_line(
    resnet: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**resnet, "extra.bias": torch.ones(1)}, path)
    with caplog.at_level(logging.WARNING):
        build_backbone(config(path))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 3 tensors are not used: extra.bias, fc.bias, fc.weight"
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("layer2.1.conv2.weight"), "no tensor 'layer2.1.conv2.weight'"),
        (
            lambda s: s.update({"conv1.weight": torch.ones(64, 3, 5, 5)}),
            r"tensor 'conv1.weight' has shape \(64, 3, 5, 5\); the network has \(64, 3, 7, 7\)",
        ),
        (lambda s: s["bn1.running_var"].fill_(torch.nan), "tensor 'bn1.running_var' holds NaN or infinity"),
        (
            lambda s: s["layer2.0.conv1.weight"][0, 0, 0].fill_(torch.inf),
            "tensor 'layer2.0.conv1.weight' holds NaN",
        ),
        (lambda s: s.clear() or s.update(conv9=torch.ones(1)), "no tensor 'conv1.weight'"),
    ],
)
def test_what_is_needed_must_be_there(tmp_path: Path, change: Callable[[State], object], reason: str) -> None:
    state, path = _resnet(), tmp_path / "weights.pth"
    change(state)
    torch.save(state, path)
    with pytest.raises(HvxError, match=f"{path}: not the weights of resnet18: {reason}"):
        build_backbone(config(path))


def test_nan_in_a_part_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    state, path = _resnet(), tmp_path / "weights.pth"
    state["layer4.0.conv1.weight"].fill_(torch.nan)
    torch.save(state, path)
    build_backbone(config(path))
    with pytest.raises(HvxError, match=r"layer4\.0\.conv1\.weight' holds NaN"):
        build_backbone(config(path, node="layer4"))


@pytest.mark.parametrize("held", [{}, {"epoch": 1}, {"state_dict": {}}, {"model": {"a": 1}}, [torch.ones(1)]])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "x.pth")
    with pytest.raises(
        HvxError, match=r"x\.pth: expected a state dict, tensors by name, or one under state_dict"
    ):
        read_state_dict(tmp_path / "x.pth")


def test_the_prefix_that_fits_best_is_taken() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(1, 1)
            self.b = nn.Linear(1, 1)

    network = Net()
    state = {f"x.{n}": torch.full_like(t, 2.0) for n, t in network.state_dict().items()}
    state |= {"y.a.weight": torch.full((1, 1), 3.0), "za.weight": torch.full((1, 1), 4.0)}
    fill_from(network, network.state_dict(), state, "file")
    assert all(bool((t == 2).all()) for t in network.state_dict().values())
    state |= {n: torch.full_like(t, 5.0) for n, t in network.state_dict().items()}
    fill_from(network, network.state_dict(), state, "file")
    assert all(bool((t == 5).all()) for t in network.state_dict().values())


class _Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 1, bias=False)
        self.norm = nn.BatchNorm1d(2)


def _state(**changed: Tensor) -> State:
    state = _Norm().state_dict()
    return {name: changed.get(name.replace(".", "_"), tensor) for name, tensor in state.items()}


DAMAGED = "holds NaN or infinity; the file is damaged, or its training diverged"
LARGEST = torch.finfo(torch.float32).max


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("first.weight", torch.tensor([[0.0, torch.nan]]), DAMAGED),
        ("first.weight", torch.tensor([[torch.inf, 0.0]]), DAMAGED),
        ("norm.bias", torch.tensor([0.0, -torch.inf]), DAMAGED),
        ("norm.bias", torch.tensor([0, 4e38], dtype=torch.float64), "holds numbers too large for float32"),
        ("first.weight", torch.ones(1, 2).to(torch.int8), "holds int8; expected a plain tensor of float32"),
        ("first.weight", torch.ones(1, 2) > 0, "holds bool; expected a plain tensor of float32"),
        ("first.weight", torch.ones(1, 2) * 1j, "holds complex64; expected a plain tensor of float32"),
        (
            "first.weight", torch.ones(1, 2).to_sparse(),
            "holds sparse_coo float32; expected a plain tensor of float32",
        ),
        ("norm.running_var", torch.tensor([1.0, -0.1]), "holds negative variances; the file is damaged"),
    ],
)  # fmt: skip
def test_tensors_that_are_no_weights_are_refused(name: str, tensor: Tensor, reason: str) -> None:
    with pytest.raises(HvxError) as caught:
        fill(_Norm(), _state(**{name.replace(".", "_"): tensor}), "file")
    assert str(caught.value) == f"file: tensor '{name}' {reason}"


def test_what_is_at_a_bound_is_taken_in_the_networks_own_numbers() -> None:
    network = _Norm()
    fill(network, _state(norm_bias=torch.tensor([LARGEST, -LARGEST]).double()), "file")
    assert network.norm.bias.dtype == torch.float32
    assert network.norm.bias.tolist() == [LARGEST, -LARGEST]
    fill(
        network, _state(norm_running_var=torch.tensor([0.0, 1.0]), norm_bias=torch.tensor([-1.0, 0])), "file"
    )
    assert network.norm.running_var.tolist() == [0, 1]
    fill(network, _state(norm_num_batches_tracked=torch.tensor(3.0)), "file")
    assert network.norm.num_batches_tracked.dtype == torch.int64
    fill(network, _state(first_weight=torch.ones(1, 2).to(torch.float8_e4m3fn)), "file")
    assert network.first.weight.tolist() == [[1, 1]]


# Native checkpoints


@pytest.mark.parametrize("name", ["head.classifier.weight", "backbone.network.conv1.weight"])
def test_a_checkpoint_with_nan_is_refused_by_its_tensor(tiny: Tiny, tmp_path: Path, name: str) -> None:
    source = tiny.load(tiny.root / "run")
    original = source.path(source.checkpoint)
    tensors = load_file(original)
    assert name in tensors
    tensors[name].view(-1)[-1] = torch.nan
    header = original.read_bytes()
    length = int.from_bytes(header[:8], "little")
    about = json.loads(header[8 : 8 + length])["__metadata__"]
    save_file(tensors, tmp_path / "nan.safetensors", about)
    part, _, short = name.partition(".")
    with pytest.raises(HvxError, match=rf"nan\.safetensors: {part}: tensor '{short}' holds NaN"):
        load_checkpoint(tmp_path / "nan.safetensors")


def test_other_files_than_checkpoints_are_called_what_they_are(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "zip.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name, start in {
        "x.h5": b"\x89HDF\r\n\x1a\n",
        "x.gz": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        "table.t7": b"\x03\0\0\0\x01\0\0\0\x01\0\0\0",
        "tensor.t7": b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1",
        "x.npy": b"\x93NUMPY\x01\x00v\x00",
        "lfs": b"version https://git-lfs.github.com/spec/v1\n",
        "page": b"<!DOCTYPE html>",
    }.items():
        (tmp_path / name).write_bytes(start + bytes(100))
    (tmp_path / "empty").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as file:
        file.writestr("a", "b")
    more = (
        "`hvx import` converts published models, `hvx.explain_product` explains any PyTorch model in Python"
    )
    for name, what in {
        "zip.pth": f"a zip archive, as PyTorch writes; {more}",
        "plain.zip": f"a zip archive, as PyTorch writes; {more}",
        "old.pth": f"a PyTorch pickle; {more}",
        "x.h5": "an HDF5 file",
        "x.gz": "a gzip file; unpack it",
        "table.t7": "a Torch7 file; see `hvx import torch7`",
        "tensor.t7": "a Torch7 file; see `hvx import torch7`",
        "x.npy": "a NumPy array",
        "lfs": "a Git LFS pointer; fetch the file that it stands for (`git lfs pull`)",
        "page": "an HTML or XML page; the download failed",
        "empty": "empty",
    }.items():
        with pytest.raises(HvxError) as caught:
            read_header(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {what}, not a native checkpoint (safetensors)"
    with pytest.raises(HvxError, match=r"no such checkpoint \(a folder\)"):
        read_header(tmp_path)
