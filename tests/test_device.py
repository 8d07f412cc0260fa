"""Names of devices."""

from __future__ import annotations

import pytest
import torch

from hvx.device import pick_device
from hvx.errors import HvxError


def with_cuda_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(("count", "kind"), [(0, "cpu"), (1, "cuda"), (8, "cuda")])
def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch, count: int, kind: str) -> None:
    with_cuda_devices(monkeypatch, count)
    assert pick_device("auto").type == kind


@pytest.mark.parametrize("count", [0, 2])
def test_cpu_is_always_there(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    with_cuda_devices(monkeypatch, count)
    assert pick_device("cpu") == torch.device("cpu")


def test_each_cuda_device_of_the_machine_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda_devices(monkeypatch, 11)
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:0") == torch.device("cuda", 0)
    assert pick_device("cuda:10") == torch.device("cuda", 10)


@pytest.mark.parametrize(
    ("count", "name"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (2, "cuda:99999999999999999999")]
)
def test_a_cuda_device_that_is_not_there_is_refused_with_the_count(
    monkeypatch: pytest.MonkeyPatch, count: int, name: str
) -> None:
    with_cuda_devices(monkeypatch, count)
    with pytest.raises(HvxError, match=f"^--device {name}: this machine has {count} CUDA"):
        pick_device(name)


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(
    "name",
    ["", "gpu", "mps", "CPU", "cpu:", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:01", "cuda: 1",
     "cuda:0:1", "cuda:٠", "cuda:²", "cuda:1\n", "cudacuda"],
)  # fmt: skip
def test_another_name_is_refused_with_the_names_that_are_right(
    monkeypatch: pytest.MonkeyPatch, count: int, name: str
) -> None:
    with_cuda_devices(monkeypatch, count)
    with pytest.raises(HvxError) as raised:
        pick_device(name)
    assert str(raised.value) == f"--device {name}: expected auto, cpu, cuda or cuda:i"
