"""Native checkpoints: what goes in comes out; what is no checkpoint is refused in one line."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Tiny
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hvx.config import BackboneConfig, EncoderConfig, ModelConfig
from hvx.data.tokenize import Vocabulary
from hvx.errors import HvxError
from hvx.info import describe
from hvx.models.backbone import build_backbone, new_network
from hvx.models.checkpoint import VQAModel, load_checkpoint, save_checkpoint
from hvx.models.header import _safetensors_header, read_header
from hvx.models.mlb import MLB
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.store.reader import RunReader
from hvx.view.run_figures import write_figure

WORDS, ANSWERS = ("?", "UNK", "what"), ["yes", "no", "two"]


def _model(weights: str | None = None, form: str = "paper") -> VQAModel:
    torch.manual_seed(1)
    config = ModelConfig(
        form=form,
        backbone=BackboneConfig(architecture="squeezenet1_1", node="features.3", weights=weights),
        encoder=EncoderConfig(embedding=4, hidden=5),
        joint=6,
    )
    backbone = build_backbone(config.backbone)
    head = MLB(config, 128, len(WORDS), len(ANSWERS)).eval()
    return VQAModel(config, backbone, head, Vocabulary(WORDS), ANSWERS, {"epochs": 3})


@pytest.mark.parametrize("form", ["paper", "torch7", "vqa-pytorch"])
def test_round_trip_keeps_every_tensor_word_and_answer(tmp_path: Path, form: str) -> None:
    model = _model(form=form)
    save_checkpoint(tmp_path / "m.safetensors", model)
    found = load_checkpoint(tmp_path / "m.safetensors")
    assert found.config == model.config
    assert (found.vocabulary, found.answers) == (model.vocabulary, model.answers)
    assert found.training == {"epochs": 3}
    for one, other in ((model.head, found.head), (model.backbone, found.backbone)):
        assert one.state_dict().keys() == other.state_dict().keys()
        for name, tensor in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], tensor, rtol=0, atol=0)


def test_weights_from_a_local_file_travel_in_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(7)
    torch.save(new_network("squeezenet1_1").state_dict(), tmp_path / "weights.pth")
    model = _model(str(tmp_path / "weights.pth"))
    save_checkpoint(tmp_path / "m.safetensors", model)
    (tmp_path / "weights.pth").unlink()
    found = load_checkpoint(tmp_path / "m.safetensors")
    assert found.config.backbone.weights is None
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(found.backbone(image), model.backbone(image), rtol=0, atol=0)


def test_published_weights_are_kept_by_name_and_fetched_from_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision looks into its cache before it downloads; a local file stands in for the download."""
    from torchvision.models import SqueezeNet1_1_Weights as Weights

    torch.manual_seed(8)
    state = new_network("squeezenet1_1").state_dict()
    name = Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state, cache / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = _model("IMAGENET1K_V1")
    loaded = model.backbone.network.state_dict()
    torch.testing.assert_close(loaded["features.0.weight"], state["features.0.weight"])
    save_checkpoint(tmp_path / "m.safetensors", model)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert not [key for key in file.keys() if key.startswith("backbone.")]  # noqa: SIM118
    found = load_checkpoint(tmp_path / "m.safetensors")
    assert found.config.backbone.weights == "IMAGENET1K_V1"
    torch.testing.assert_close(found.backbone.network.state_dict(), model.backbone.network.state_dict())


def test_a_checkpoint_may_be_read_by_whom_other_files_may(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    save_checkpoint(tmp_path / "m.safetensors", _model())
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_file_says_what_it_is_in_its_metadata(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", _model())
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        about = json.loads(file.metadata()["hvx"])
    assert about["format"] == 1
    assert about["words"] == list(WORDS)
    assert about["model"]["joint"] == 6


def _rewritten(path: Path, target: Path, change: Any) -> Path:
    """The checkpoint with its tensors and description changed by ``change(tensors, about)``."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["hvx"])
    change(tensors, about)
    save_file(tensors, target, metadata={"hvx": json.dumps(about)})
    return target


def _without_backbone(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("backbone.")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t, a: t.update({"head.textual.bias": torch.zeros(3)}), r"'textual.bias' has shape \(3,\)"),
        (lambda t, a: t.pop("head.classifier.bias"), "'classifier.bias' is missing"),
        (lambda t, a: t.update({"head.more": torch.zeros(1)}), "unexpected tensor 'more'"),
        (lambda t, a: t.pop("head.attention_visual.weight"), "attention_visual.weight"),
        (lambda t, a: a.update(format=99), "checkpoint format 99"),
        (lambda t, a: a.update(words=["a"]), r"'encoder.table.weight' has shape \(4, 4\)"),
        (lambda t, a: a.update(words=["a", "a", "b"]), "'a' occurs twice"),
        (lambda t, a: a.update(answers=[1, 2, 3]), "lists of strings"),
        (lambda t, a: a["model"].update(glimpse=2), "unknown key 'glimpse'"),
        (lambda t, a: a["model"]["backbone"].update(architecture="resnet1"), "no network 'resnet1'"),
        (lambda t, a: a.pop("model"), "metadata"),
        (lambda t, a: _without_backbone(t), "holds no backbone"),
        (lambda t, a: (_without_backbone(t), a["model"]["backbone"].update(weights="/x.pth")), "no backbone"),
        (lambda t, a: a.update(training=["x"]), "'training' must be an object"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused_by_what_is_wrong(
    tmp_path: Path, change: Any, named: str
) -> None:
    save_checkpoint(tmp_path / "m.safetensors", _model())
    changed = _rewritten(tmp_path / "m.safetensors", tmp_path / "n.safetensors", change)
    with pytest.raises(HvxError, match=named) as caught:
        load_checkpoint(changed)
    assert "\n" not in str(caught.value)


HUGE = {"embedding": 65536, "hidden": 65536}


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"glimpses": 10**9}, "glimpses: expected a number less than or equal to 64, not 1000000000"),
        ({"glimpses": 64}, r"'attention_visual.weight' has shape \(6, 128\); the checkpoint's .* \(6, 4\)"),
        ({"joint": 1e30}, r"joint: expected a whole number, not 1e\+30"),
        ({"joint": 65536}, r"'attention_textual.weight' has shape \(6, 5\); .* \(65536, 5\)"),
        ({"encoder": HUGE}, r"'encoder.table.weight' has shape \(4, 4\); .* implies \(4, 65536\)"),
        (
            {"network": "dan", "dan": {"steps": 10**9}},
            "dan.steps: expected a number less than or equal to 64",
        ),
        (
            {"network": "dan", "dan": {"steps": 64}, "joint": 65536, "encoder": HUGE},
            r"'encoder.table.weight' has shape \(4, 4\)",
        ),
        ({"image": {"size": 10**5}}, "image.size: expected a number less than or equal to 4096, not 100000"),
        (
            {"backbone": {"architecture": "regnet_y_128gf", "node": "stem"}},
            "backbone: tensor 'network.stem.0.weight' is missing",
        ),
    ],
)
def test_sizes_that_the_file_does_not_hold_are_refused_without_memory_for_them(
    tmp_path: Path, sizes: dict[str, Any], named: str
) -> None:
    save_checkpoint(tmp_path / "m.safetensors", _model())
    changed = _rewritten(
        tmp_path / "m.safetensors", tmp_path / "n.safetensors", lambda t, a: a["model"].update(sizes)
    )
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, before[1]))  # 1 GB more than it has now
    try:
        with pytest.raises(HvxError, match=named):
            load_checkpoint(changed)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HvxError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(HvxError, match="not a readable safetensors"):
        load_checkpoint(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(HvxError, match="not a native hvx checkpoint"):
        load_checkpoint(tmp_path / "other.safetensors")


HEADER = {"__metadata__": {"hvx": "null"}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def _file(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def test_the_header_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", _model())
    metadata, tensors = _safetensors_header(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert metadata == file.metadata()
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
    (tmp_path / "plain.safetensors").write_bytes(_file({"a": HEADER["a"]}))
    assert _safetensors_header(tmp_path / "plain.safetensors")[0] == {}


BROKEN = {
    "short": _file(HEADER, bytes(7)),
    "long": _file(HEADER, bytes(9)),
    "header beyond the file": _file(HEADER, length=10**6),
    "header beyond the limit": _file(HEADER, length=10**9),
    "header of no length": bytes(8),
    "cut in the length": b"\7\0",
    "no object": _file([1]),
    "no JSON": _file(b"{'a': 1}"),
    "not UTF-8": _file(b'{"\xff": 1}'),
    "nested": _file(b'{"a":' * 100_000),
    "metadata of numbers": _file(HEADER | {"__metadata__": {"hvx": 1}}),
    "gap": _file(HEADER | {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
    "overlap": _file(HEADER | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
    "backwards": _file(HEADER | {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}),
    "negative": _file(HEADER | {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}),
    "no offsets": _file(HEADER | {"a": {"dtype": "F32", "shape": [2]}}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_header_is_refused_as_the_library_refuses_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(BROKEN[name])
    with pytest.raises(SafetensorError):
        safe_open(path, framework="pt").__enter__()
    with pytest.raises(HvxError, match=r"broken\.safetensors: .*not a (readable|native)") as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    data = (tiny.root / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(HvxError, match=r"cut\.safetensors"):
        load_checkpoint(tmp_path / "cut.safetensors")


def test_a_model_without_attention_goes_through_a_file_and_through_a_run(tiny: Tiny, tmp_path: Path) -> None:
    trained = load_checkpoint(tiny.root / "model.safetensors")
    config = trained.config.model_copy(update={"glimpses": 0})
    torch.manual_seed(0)
    head = MLB(config, trained.head.channels, len(trained.vocabulary), len(trained.answers))
    model = VQAModel(config, trained.backbone, head, trained.vocabulary, trained.answers)
    save_checkpoint(tmp_path / "m.safetensors", model)
    loaded = tiny.load(tmp_path / "run", checkpoint=tmp_path / "m.safetensors", model__glimpses=0)
    explain_split(loaded, local_engine(torch.device("cpu")))
    reader = RunReader(tmp_path / "run")
    assert reader.glimpses == 0
    assert len(reader) > 0
    write_figure(reader, [0, 1], tmp_path / "figure.png", 600)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width == 600
    assert describe(tmp_path / "m.safetensors")["model"] == "MLB, form paper, no attention, joint 10 wide"


def test_a_checkpoint_that_cannot_be_written_whole_is_not_there_at_all(tmp_path: Path) -> None:
    """A real limit on the size of files, as a full disk would set it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(HvxError, match=r"m\.safetensors: cannot be written"):
            save_checkpoint(tmp_path / "m.safetensors", _model())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
