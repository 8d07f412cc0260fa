"""Whatever mode of PyTorch the caller is in: the same explanation, and the mode is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from conftest import Tiny
from safetensors.torch import load_file

import hvx
from hvx.api import Explanation
from hvx.device import leave_inference_mode, standard_mode
from hvx.train.trainer import train_model


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def default_dtype(dtype: torch.dtype) -> Callable[[], object]:
    @contextmanager
    def mode() -> Iterator[None]:
        torch.set_default_dtype(dtype)
        try:
            yield
            assert torch.get_default_dtype() == dtype
        finally:
            torch.set_default_dtype(torch.float32)

    return mode


MODES: dict[str, Callable[[], object]] = {
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "default device": default_device,
    "float64": default_dtype(torch.float64),
    "float16": default_dtype(torch.float16),
    "bfloat16": default_dtype(torch.bfloat16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def explained(tiny: Tiny) -> Explanation:
    config = tiny.load(tiny.root / "run")
    photo = next((tiny.root / "scenes" / "images").glob("*val*"))
    model = hvx.load_model(config.path(config.checkpoint), "cpu")
    return hvx.Explainer(model).explain(photo, "what color is the star?")


@pytest.fixture(scope="module")
def expected(tiny: Tiny) -> Explanation:
    return explained(tiny)


def check(found: Explanation, expected: Explanation) -> None:
    assert [answer for answer, _ in found.answers] == [answer for answer, _ in expected.answers]
    assert [p for _, p in found.answers] == pytest.approx([p for _, p in expected.answers], rel=1e-5)
    for name in ("z", "saliency", "heatmap", "gradient", "attention"):
        pair = getattr(found, name), getattr(expected, name)
        assert pair[0].dtype == torch.float32
        assert not pair[0].is_inference()
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6)  # memory lies otherwise, sums round otherwise


@pytest.mark.parametrize("mode", MODES)
def test_an_explanation_is_the_same_in_every_mode(tiny: Tiny, expected: Explanation, mode: str) -> None:
    with MODES[mode]():  # type: ignore[attr-defined]
        found = explained(tiny)
    check(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_loaded_outside_is_explained_inside(tiny: Tiny, expected: Explanation, mode: str) -> None:
    config = tiny.load(tiny.root / "run")
    model = hvx.load_model(config.path(config.checkpoint), "cpu")
    photo = next((tiny.root / "scenes" / "images").glob("*val*"))
    explainer = hvx.Explainer(model)
    with MODES[mode]():  # type: ignore[attr-defined]
        found = explainer.explain(photo, "what color is the star?")
    check(found, expected)


def test_a_model_built_in_inference_mode_is_explained(tiny: Tiny, expected: Explanation) -> None:
    config = tiny.load(tiny.root / "run")
    model = hvx.load_model(config.path(config.checkpoint), "cpu")
    with torch.inference_mode():
        for module in (model.backbone, model.head):
            state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            module.load_state_dict(state, assign=True)
    assert all(weight.is_inference() for weight in model.head.parameters())
    photo = next((tiny.root / "scenes" / "images").glob("*val*"))
    check(hvx.Explainer(model).explain(photo, "what color is the star?"), expected)
    assert not any(tensor.is_inference() for tensor in model.head.state_dict().values())
    assert not any(tensor.is_inference() for tensor in model.backbone.state_dict().values())


def test_only_tensors_of_inference_mode_are_replaced() -> None:
    module = torch.nn.BatchNorm2d(2)
    before = dict(module.state_dict(keep_vars=True))
    leave_inference_mode(module)
    assert all(tensor is before[name] for name, tensor in module.state_dict(keep_vars=True).items())


def test_the_callers_mode_is_restored_after_an_error() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with suppress(ValueError), standard_mode():
            assert torch.get_default_dtype() == torch.float32
            raise ValueError
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_many_questions_on_one_photo_are_answered_in_groups(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory beyond the results does not grow with their number; order and values stay."""
    config = tiny.load(tiny.root / "run")
    explainer = hvx.Explainer(hvx.load_model(config.path(config.checkpoint), "cpu"))
    photo = next((tiny.root / "scenes" / "images").glob("*val*"))
    questions = [
        "what color is the star?",
        "is there a star?",
        "what is red?",
        "how many are there?",
        "what?",
    ]
    at_once = explainer.explain_all(photo, questions)
    sizes: list[int] = []
    explain = explainer._batched.explain
    monkeypatch.setattr(hvx.api, "_TOGETHER", 2)
    monkeypatch.setattr(
        explainer._batched, "explain", lambda i, n, q: sizes.append(len(q)) or explain(i, n, q)
    )
    in_groups = explainer.explain_all(photo, questions)
    assert sizes == [2, 2, 1]
    for one, other in zip(at_once, in_groups, strict=True):
        assert (one.question, one.answer) == (other.question, other.answer)
        torch.testing.assert_close(one.heatmap, other.heatmap, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.z, other.z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["inference mode", "float64", "default device"])
def test_a_training_is_the_same_in_every_mode(tiny: Tiny, tmp_path: Path, mode: str) -> None:
    def trained(name: str) -> dict[str, torch.Tensor]:
        checkpoint = tmp_path / f"{name}.safetensors"
        config = tiny.load(
            tmp_path / "run", checkpoint=checkpoint, train__backbone_epochs=0, train__workers=0
        )
        train_model(config, torch.device("cpu"))
        return load_file(checkpoint)

    outside = trained("outside")
    with MODES[mode]():  # type: ignore[attr-defined]
        inside = trained("inside")
    assert outside.keys() == inside.keys()
    for name, tensor in outside.items():
        assert inside[name].dtype == tensor.dtype
        torch.testing.assert_close(inside[name], tensor, rtol=1e-4, atol=1e-5)
