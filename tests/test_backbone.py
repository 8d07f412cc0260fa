"""Backbones: torchvision networks cut at a node, their weights by name or from a file."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from hvx.config import BackboneConfig
from hvx.errors import HvxError
from hvx.models.backbone import build_backbone, empty_backbone, is_weights_name, new_network, read_state_dict


def test_features_are_the_networks_own_up_to_the_node() -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(architecture="resnet18", node="layer2"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        expected = network.layer2(network.layer1(x))
        torch.testing.assert_close(backbone(images), expected)


def test_a_node_ahead_of_the_last_relu_yields_negative_features() -> None:
    """ResNet without its very last ReLU, as the author's Torch7 features are."""
    images = torch.randn(1, 3, 64, 64)
    torch.manual_seed(0)
    with_relu = build_backbone(BackboneConfig(architecture="resnet18", node="layer4"))(images)
    torch.manual_seed(0)
    without = build_backbone(BackboneConfig(architecture="resnet18", node="layer4.1.add"))(images)
    assert without.min() < 0
    torch.testing.assert_close(without.clamp(min=0), with_relu)


def test_it_stays_frozen_in_training() -> None:
    backbone = build_backbone(BackboneConfig(architecture="resnet10", node="layer2"))
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_weights_from_a_file_are_the_files(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = new_network("resnet10").state_dict()
    torch.save(state, tmp_path / "w.pth")
    config = BackboneConfig(architecture="resnet10", node="layer2", weights="w.pth")
    backbone = build_backbone(config, tmp_path)
    torch.testing.assert_close(backbone.network.state_dict()["conv1.weight"], state["conv1.weight"])


def test_names_of_published_weights_are_told_from_files() -> None:
    assert is_weights_name(BackboneConfig(architecture="resnet152", weights="IMAGENET1K_V2"))
    assert is_weights_name(BackboneConfig(architecture="resnet152", weights="DEFAULT"))
    assert not is_weights_name(BackboneConfig(architecture="resnet152", weights="w.pth"))
    assert not is_weights_name(BackboneConfig(architecture="resnet152"))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architecture": "resnet51"}, r"no network 'resnet51' \(did you mean 'resnet50'\?\)"),
        ({"architecture": "resnet10", "node": "layer9"}, "no node 'layer9'"),
        ({"architecture": "resnet10", "weights": "absent.pth"}, "'absent.pth' is neither a file"),
        ({"architecture": "resnet152", "weights": "IMAGENET1K_V3"}, "IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_what_torchvision_does_not_have_is_named(config: dict[str, str], named: str) -> None:
    with pytest.raises(HvxError, match=named):
        build_backbone(BackboneConfig.model_validate(config))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(new_network("squeezenet1_1").state_dict(), tmp_path / "w.pth")
    config = BackboneConfig(architecture="resnet10", node="layer2", weights=str(tmp_path / "w.pth"))
    with pytest.raises(HvxError, match="not the weights of resnet10") as caught:
        build_backbone(config)
    assert "\n" not in str(caught.value)


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("attacked"),)


def test_a_weights_file_that_runs_code_is_refused_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": _Attack()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Attack()))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(HvxError, match=name):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04torn"])
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(HvxError, match=r"w\.pth"):
        read_state_dict(tmp_path / "w.pth")


def test_a_file_of_something_else_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(HvxError, match="expected a state dict"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("architecture", ["googlenet", "inception_v3"])
def test_networks_that_expect_another_normalization_see_to_it(architecture: str) -> None:
    """As torchvision makes them for their published weights."""
    network = new_network(architecture, empty=True)
    assert network.transform_input is True


@pytest.mark.parametrize("architecture", ["resnet10", "squeezenet1_1", "googlenet", "regnet_x_400mf"])
def test_an_empty_network_has_names_and_shapes_but_no_values(architecture: str) -> None:
    """RegNet-Y 128GF would take 10 s and 2.5 GB for numbers that are then replaced."""
    empty, full = new_network(architecture, empty=True), new_network(architecture)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert {p.device.type for p in full.parameters()} == {"cpu"}
    shapes = [{n: (t.shape, t.dtype) for n, t in x.state_dict().items()} for x in (empty, full)]
    assert shapes[0] == shapes[1]
    assert nn.Linear(1, 1).weight.device.type == "cpu"  # other modules have values again


@pytest.mark.parametrize("architecture", ["resnet10", "regnet_x_400mf"])
def test_an_empty_network_is_filled_from_a_file(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = new_network(architecture).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    node = {"resnet10": "layer1", "regnet_x_400mf": "stem"}[architecture]
    config = BackboneConfig(architecture=architecture, node=node, weights=str(tmp_path / "w.pth"))
    images = torch.randn(1, 3, 32, 32)
    torch.manual_seed(0)
    same = build_backbone(config.model_copy(update={"weights": None}))
    assert torch.equal(build_backbone(config)(images), same(images))


def test_an_empty_backbone_is_frozen_and_has_no_values() -> None:
    backbone = empty_backbone(BackboneConfig(architecture="resnet10", node="layer2"))
    assert {(p.device.type, p.requires_grad) for p in backbone.parameters()} == {("meta", False)}
    assert not any(module.training for module in backbone.modules())
    with_values = build_backbone(BackboneConfig(architecture="resnet10", node="layer2"))
    assert {p.device.type for p in with_values.parameters()} == {"cpu"}
    assert backbone.state_dict().keys() == with_values.state_dict().keys()


def test_an_unknown_node_is_answered_with_the_last_ones() -> None:
    with pytest.raises(HvxError) as caught:
        build_backbone(BackboneConfig(architecture="resnet10", node="nothing"))
    assert str(caught.value) == (
        "model.backbone.node: resnet10 has no node 'nothing'; its last ones are: layer4.0.downsample.1, "
        "layer4.0.add, layer4.0.relu_1, avgpool, flatten, fc"
    )
