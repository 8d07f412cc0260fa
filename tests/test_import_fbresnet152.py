"""The ported Torch7 ResNet-152: folded weights make the features that its biased convolutions made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hvx.config import BackboneConfig
from hvx.errors import HvxError
from hvx.importers.fbresnet152 import convert_fbresnet152, import_fbresnet152
from hvx.models.backbone import build_backbone, is_fbresnet152

BLOCKS = (3, 8, 36, 3)


def _conv(state: dict[str, Tensor], name: str, out: int, into: int, kernel: int) -> None:
    fan = into * kernel * kernel
    state[f"{name}.weight"] = torch.randn(out, into, kernel, kernel) * (2 / fan) ** 0.5
    state[f"{name}.bias"] = torch.randn(out)


def _norm(state: dict[str, Tensor], name: str, width: int) -> None:
    state[f"{name}.weight"] = torch.rand(width) * 0.5 + 0.5
    state[f"{name}.bias"] = torch.randn(width) * 0.2
    state[f"{name}.running_mean"] = torch.randn(width)
    state[f"{name}.running_var"] = torch.rand(width) + 0.5


@pytest.fixture(scope="module")
def port() -> dict[str, Tensor]:
    """A random network in the port's layout: names written out, no counters of batches."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    _conv(state, "conv1", 64, 3, 7)
    _norm(state, "bn1", 64)
    into = 64
    for layer, blocks in enumerate(BLOCKS, start=1):
        width = 32 * 2**layer
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            for number, (out, wide, kernel) in enumerate(
                ((width, into, 1), (width, width, 3), (4 * width, width, 1)), start=1
            ):
                _conv(state, f"{at}.conv{number}", out, wide, kernel)
                _norm(state, f"{at}.bn{number}", out)
            if block == 0:
                _conv(state, f"{at}.downsample.0", 4 * width, into, 1)
                _norm(state, f"{at}.downsample.1", 4 * width)
            into = 4 * width
    state["last_linear.weight"] = torch.randn(1000, 2048)
    state["last_linear.bias"] = torch.randn(1000)
    return state


@pytest.fixture(scope="module")
def file(port: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The port as people have it, 240 MB."""
    path = tmp_path_factory.mktemp("port") / "port.pth"
    torch.save(port, path)
    yield path
    path.unlink()


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Tensor]], Path]:
    """Makes a path of which torch.load gives a state dict, without writing 240 MB for each test."""

    def path_of(state: dict[str, Tensor]) -> Path:
        monkeypatch.setattr("hvx.importers.fbresnet152.read_state_dict", lambda path: state)
        (tmp_path / "port.pth").touch()
        return tmp_path / "port.pth"

    return path_of


def _forward(state: dict[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """The ported network up to its last block, without and with that block's ReLU; in float64."""
    p = {name: tensor.double() for name, tensor in state.items()}

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        kernel = p[f"{conv}.weight"]
        x = functional.conv2d(x, kernel, p[f"{conv}.bias"], stride, padding=kernel.shape[-1] // 2)
        mean, var = (p[f"{norm}.running_{name}"][:, None, None] for name in ("mean", "var"))
        scale, shift = (p[f"{norm}.{name}"][:, None, None] for name in ("weight", "bias"))
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    x = conv_norm(images.double(), "conv1", "bn1", 2).relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    summed = x
    for layer, blocks in enumerate(BLOCKS, start=1):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = conv_norm(x, f"{at}.conv1", f"{at}.bn1").relu()
            y = conv_norm(y, f"{at}.conv2", f"{at}.bn2", stride).relu()
            y = conv_norm(y, f"{at}.conv3", f"{at}.bn3")
            short = conv_norm(x, f"{at}.downsample.0", f"{at}.downsample.1", stride) if block == 0 else x
            summed = y + short
            x = summed.relu()
    return summed, x


def test_features_at_full_depth_are_the_biased_networks_with_and_without_the_last_relu(
    port: dict[str, Tensor], file: Path, tmp_path: Path
) -> None:
    import_fbresnet152(file, tmp_path / "own.pth")
    torch.manual_seed(1)
    images = torch.randn(1, 3, 64, 64)
    for node, expected in zip(("layer4.2.add", "layer4"), _forward(port, images), strict=True):
        config = BackboneConfig(architecture="resnet152", node=node, weights=str(tmp_path / "own.pth"))
        found = build_backbone(config)(images).double()
        assert (found - expected).abs().max() / expected.abs().max() < 1e-5
        assert (found.min() < 0) == (node == "layer4.2.add")
    (tmp_path / "own.pth").unlink()


def test_the_classifier_is_taken_over_and_the_prefix_of_data_parallel_left_out(
    port: dict[str, Tensor], read: Callable[[dict[str, Tensor]], Path]
) -> None:
    state = convert_fbresnet152(read({f"module.{name}": tensor for name, tensor in port.items()}))
    assert torch.equal(state["fc.weight"], port["last_linear.weight"])
    assert torch.equal(state["fc.bias"], port["last_linear.bias"])
    assert not [name for name in state if name.startswith(("module.", "last_linear")) or name == "conv1.bias"]
    torch.testing.assert_close(
        state["layer2.0.downsample.1.running_mean"],
        port["layer2.0.downsample.1.running_mean"] - port["layer2.0.downsample.0.bias"],
    )


def test_older_files_call_the_classifier_fc(
    port: dict[str, Tensor], read: Callable[[dict[str, Tensor]], Path]
) -> None:
    older = {name.replace("last_linear.", "fc."): tensor for name, tensor in port.items()}
    assert is_fbresnet152(older)
    found, expected = convert_fbresnet152(read(older)), convert_fbresnet152(read(port))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_counters_of_batches_in_the_file_do_no_harm(
    port: dict[str, Tensor], read: Callable[[dict[str, Tensor]], Path]
) -> None:
    counted = port | {"bn1.num_batches_tracked": torch.tensor(7)}
    assert convert_fbresnet152(read(counted))["bn1.num_batches_tracked"] == 0


def _renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: state.update({new: state.pop(old)})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("conv1.bias"), "tensor 'conv1.bias' is missing"),
        (lambda s: s.pop("layer3.35.conv2.bias"), "tensor 'layer3.35.conv2.bias' is missing"),
        (
            lambda s: s.pop("layer4.0.downsample.1.running_var"),
            "'layer4.0.downsample.1.running_var' is missing",
        ),
        (_renamed("last_linear.weight", "fc.weight"), "'last_linear.weight' is missing"),
        (
            lambda s: s.update({"layer3.36.conv1.bias": torch.zeros(1)}),
            "unexpected tensor 'layer3.36.conv1.bias'",
        ),
        (_renamed("bn1.weight", "module.bn1.weight"), "tensor 'bn1.weight' is missing"),
        (
            lambda s: s.update({"last_linear.bias": torch.zeros(5)}),
            r"'last_linear.bias' has shape \(5,\), not \(1000,\)",
        ),
        (
            lambda s: s.update({"layer1.0.conv1.bias": torch.zeros(256)}),
            r"'layer1.0.conv1.bias' has shape \(256,\), not \(64,\)",
        ),
        (lambda s: s.update({"bn1.bias": torch.full((64,), torch.nan)}), "'bn1.bias' does not hold finite"),
        (
            lambda s: s.update({"bn1.bias": torch.full((64,), 1e300, dtype=torch.float64)}),
            "'bn1.bias' does not hold finite",
        ),
        (lambda s: s.update({"bn1.bias": torch.zeros(64, dtype=torch.int64)}), "does not hold finite"),
        (lambda s: s.update({"bn1.bias": torch.zeros(64).to_sparse()}), "does not hold finite"),
        (
            lambda s: s.update({"bn1.bias": torch.zeros(64, device="meta")}),
            "does not hold finite",
        ),
    ],
)
def test_another_networks_weights_are_refused_by_the_first_tensor_that_is_wrong(
    port: dict[str, Tensor], read: Callable[[dict[str, Tensor]], Path], change: Any, named: str
) -> None:
    changed = dict(port)
    change(changed)
    with pytest.raises(HvxError, match=named) as caught:
        convert_fbresnet152(read(changed))
    assert "\n" not in str(caught.value) and "port.pth" in str(caught.value)


def test_torchvisions_own_weights_are_said_to_need_no_import(
    port: dict[str, Tensor], read: Callable[[dict[str, Tensor]], Path]
) -> None:
    own = convert_fbresnet152(read(port))
    with pytest.raises(HvxError, match="torchvision's resnet152 already"):
        convert_fbresnet152(read(own))


def test_files_that_are_absent_or_no_state_dict_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    for name, said in (("absent.pth", "no such file"), ("text.pth", "read safely")):
        with pytest.raises(HvxError, match=said):
            import_fbresnet152(tmp_path / name, tmp_path / "own.pth")
    assert not (tmp_path / "own.pth").exists()


def test_the_port_given_as_a_backbones_weights_is_told_how_to_be_converted(
    port: dict[str, Tensor], file: Path
) -> None:
    assert is_fbresnet152(port)
    assert is_fbresnet152({f"module.{name}": tensor for name, tensor in port.items()})
    assert not is_fbresnet152({"conv1.weight": torch.zeros(1), "last_linear.weight": torch.zeros(1)})
    config = BackboneConfig(architecture="resnet152", node="layer4", weights=str(file))
    with pytest.raises(HvxError, match="hvx import fbresnet152") as caught:
        build_backbone(config)
    assert "\n" not in str(caught.value)
