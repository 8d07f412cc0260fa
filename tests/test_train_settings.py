"""Every setting of the training reaches what it is for: none is ignored, none is taken for another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Tiny

from hvx.errors import HvxError
from hvx.train import features, head_trainer
from hvx.train.schedule import warm_cosine
from hvx.train.trainer import train_model


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the optimizer, the clipping and the decoding of images are called with."""
    found: dict[str, list[Any]] = {"clip": [], "adam": [], "decode": [], "rates": []}
    clip, adam, decode = torch.nn.utils.clip_grad_norm_, torch.optim.AdamW, features.input_batches

    class Adam(adam):  # type: ignore[misc, valid-type]
        def __init__(self, parameters: Any, **options: Any) -> None:
            found["adam"].append(options)
            super().__init__(parameters, **options)

        def step(self, *args: Any) -> Any:
            found["rates"].append(self.param_groups[0]["lr"])
            return super().step(*args)

    def clipped(parameters: Any, most: float) -> Any:
        found["clip"].append(most)
        return clip(parameters, most)

    def decoded(paths: Any, image: Any, batches: Any, workers: int, exif: bool) -> Any:
        found["decode"].append((workers, exif))
        return decode(paths, image, batches, 0, exif)

    monkeypatch.setattr(head_trainer.torch.nn.utils, "clip_grad_norm_", clipped)
    monkeypatch.setattr(torch.optim, "AdamW", Adam)
    monkeypatch.setattr(features, "input_batches", decoded)
    return found


def trained(tiny: Tiny, tmp_path: Path, **settings: object) -> None:
    config = tiny.load(
        tmp_path / "run", checkpoint=tmp_path / "model.safetensors", train__backbone_epochs=0, **settings
    )
    train_model(config, torch.device("cpu"))


def test_settings_reach_the_optimizer_and_the_decoder(
    tiny: Tiny, tmp_path: Path, seen: dict[str, list[Any]]
) -> None:
    trained(
        tiny, tmp_path, train__gradient_clip=0.125, train__weight_decay=0.25, train__rate=0.002,
        train__workers=3, splits__train__exif_orientation="true", train__epochs=2, train__batch=50,
    )  # fmt: skip
    assert seen["adam"] == [{"lr": 0.002, "weight_decay": 0.25}]
    assert len(seen["clip"]) >= 4
    assert set(seen["clip"]) == {0.125}
    assert seen["rates"][0] == pytest.approx(0.002)
    assert seen["rates"] == sorted(seen["rates"], reverse=True)
    assert sorted(seen["decode"]) == [(3, False), (3, True)]  # validation keeps its own


def test_those_of_the_file_reach_them_too(tiny: Tiny, tmp_path: Path, seen: dict[str, list[Any]]) -> None:
    trained(tiny, tmp_path)
    assert seen["adam"] == [{"lr": tiny.load(tmp_path).train.rate, "weight_decay": 0.1}]
    assert set(seen["clip"]) == {10.0}
    assert seen["decode"] == [(1, False), (1, False)]


def test_gradients_are_clipped_to_the_norm(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *args: Any) -> Any:
        squares = [p.grad.square().sum().item() for group in self.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(squares)))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    trained(tiny, tmp_path, train__gradient_clip=0.01)
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_the_rate_warms_up_and_falls_as_a_cosine() -> None:
    found = [warm_cosine(step, 100) for step in range(100)]
    assert found[0] == pytest.approx(min(found[:5]))
    top = found.index(max(found))
    assert max(found) == pytest.approx(1, abs=0.01)
    assert found[:top] == sorted(found[:top])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert 0 <= found[-1] < 0.01


@pytest.mark.parametrize(
    ("architecture", "node", "activation"),
    [("efficientnet_b0", "features.2", "SiLU"), ("vit_b_16", "encoder", "MultiheadAttention")],
)
def test_a_backbone_that_no_run_could_explain_is_refused_before_the_training(
    tiny: Tiny, tmp_path: Path, architecture: str, node: str, activation: str
) -> None:
    backbone = {"model__backbone__architecture": architecture, "model__backbone__node": node}
    with pytest.raises(HvxError, match=f"defined for ReLU; node '.*' is {activation}; use a network"):
        trained(tiny, tmp_path, **backbone)
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_products_takes_any_backbone(tiny: Tiny, tmp_path: Path) -> None:
    sizes = {"model__encoder__embedding": 8, "model__encoder__hidden": 8}
    backbone = {"model__backbone__architecture": "efficientnet_b0", "model__backbone__node": "features.2"}
    trained(tiny, tmp_path, model__network="hiecoatt", model__glimpses=3, **sizes, **backbone)
    assert (tmp_path / "model.safetensors").is_file()
