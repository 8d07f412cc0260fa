"""``hvx import``: what each command passes on, what it prints, what it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from test_import_vqa_pytorch import att_options, foreign_state, write_folder
from torch import nn

from hvx.cli import import_ as commands
from hvx.cli import main
from hvx.config import BackboneConfig, ModelConfig
from hvx.errors import HvxError
from hvx.importers import fbresnet152, skipthoughts, torch7, vqa_pytorch
from hvx.importers.common import AHEAD_OF_LAST_RELU, BEHIND_LAST_RELU
from hvx.models.backbone import empty_backbone, new_network
from hvx.models.checkpoint import load_checkpoint

SMALL = ("--architecture", "resnet10", "--node", "layer2")
Call = tuple[tuple[Any, ...], dict[str, Any]]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is saved, in place of saving it."""
    made: list[Any] = []
    monkeypatch.setattr(commands, "_save", lambda model, output: made.append((model, output)))
    return made


def _calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, result: Any) -> list[Call]:
    made: list[Call] = []

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        made.append((args, kwargs))
        return result

    monkeypatch.setattr(module, name, stand_in)
    return made


BACKBONES: list[tuple[tuple[str, ...], BackboneConfig]] = [
    (("--backbone", "IMAGENET1K_V2"), BackboneConfig(architecture="resnet152", weights="IMAGENET1K_V2")),
    (
        ("--backbone", "IMAGENET1K_V1", "--node", "layer4.2.add"),
        BackboneConfig(architecture="resnet152", weights="IMAGENET1K_V1", node="layer4.2.add"),
    ),
    (
        ("--backbone", "w.pth", *SMALL),
        BackboneConfig(architecture="resnet10", node="layer2", weights="w.pth"),
    ),
    (
        ("--backbone", "~/w.pth"),
        BackboneConfig(architecture="resnet152", weights=str(Path("~/w.pth").expanduser())),
    ),
]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands are given is there: a missing file is told before anything else."""
    for name in ("p", "q", "p.t7", "p.json", "data.json", "o.yaml", "port.pth"):
        (tmp_path / name).touch()
    for name in ("folder", "words", "skip"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("options", "expected"), BACKBONES)
@pytest.mark.parametrize("kind", ["torch7", "vqa-pytorch"])
def test_the_backbone_is_the_one_asked_for(
    kind: str, options: tuple[str, ...], expected: BackboneConfig, saved: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls = [
        *(_calls(monkeypatch, torch7, "import_torch7", "a model"),),
        *(_calls(monkeypatch, vqa_pytorch, "import_vqa_pytorch", "a model"),),
    ]
    files = ("p.t7", "p.json") if kind == "torch7" else ("folder",)
    done = run(kind, *files, *options, "-o", "out.safetensors")
    assert done.exit_code == 0, done.output
    (((*_, backbone), _),) = [call for made in calls for call in made]
    if expected.weights == "w.pth":  # a file's path is made absolute
        expected = expected.model_copy(update={"weights": str(Path("w.pth").absolute())})
    assert backbone == expected
    # An importer takes its format's own node where none was given.
    assert ("node" in backbone.model_fields_set) == ("--node" in options)
    assert saved == [("a model", Path("out.safetensors"))]


@pytest.mark.parametrize(
    ("options", "glimpses"), [((), None), (("--glimpses", "1"), 1), (("--glimpses", "4"), 4)]
)
def test_torch7_passes_on_its_files_and_glimpses(
    options: tuple[str, ...], glimpses: int | None, saved: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _calls(monkeypatch, torch7, "import_torch7", "a model")
    done = run("torch7", "p.t7", "data.json", "--backbone", "IMAGENET1K_V2", *options, "--output", "out")
    assert done.exit_code == 0, done.output
    (((parameters, prepro, _), named),) = made
    assert (parameters, prepro, named) == (Path("p.t7"), Path("data.json"), {"glimpses": glimpses})
    assert saved == [("a model", Path("out"))]


VQA_PYTORCH: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {"which": "best", "options": None, "vocabulary": None}),
    (("--checkpoint", "ckpt"), {"which": "ckpt", "options": None, "vocabulary": None}),
    (("--checkpoint", "best"), {"which": "best", "options": None, "vocabulary": None}),
    (("--options", "o.yaml"), {"which": "best", "options": Path("o.yaml"), "vocabulary": None}),
    (("--vocabulary", "words"), {"which": "best", "options": None, "vocabulary": Path("words")}),
    (
        ("--vocabulary", "words", "--options", "o.yaml", "--checkpoint", "ckpt"),
        {"which": "ckpt", "options": Path("o.yaml"), "vocabulary": Path("words")},
    ),
]


@pytest.mark.parametrize(("options", "expected"), VQA_PYTORCH)
def test_vqa_pytorch_passes_on_each_option(
    options: tuple[str, ...], expected: dict[str, Any], saved: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _calls(monkeypatch, vqa_pytorch, "import_vqa_pytorch", "a model")
    done = run("vqa-pytorch", "logs", "--backbone", "IMAGENET1K_V2", *options, "-o", "out")
    assert done.exit_code == 0, done.output
    (((folder, _), named),) = made
    assert (folder, named) == (Path("logs"), expected)
    assert saved == [("a model", Path("out"))]


def test_fbresnet152_and_skipthoughts_pass_on_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _calls(monkeypatch, fbresnet152, "import_fbresnet152", None)
    done = run("fbresnet152", "port.pth", "-o", "own.pth")
    assert made == [((Path("port.pth"), Path("own.pth")), {})]
    assert done.output == ("own.pth: a torchvision resnet152; the convolutions' biases are folded away\n")

    class Start:
        words = range(12_345)

    start = Start()
    read = _calls(monkeypatch, skipthoughts, "import_skipthoughts", start)
    written = _calls(monkeypatch, skipthoughts, "save_pretrained", None)
    done = run("skipthoughts", "folder", "-o", "start.safetensors")
    assert read == [((Path("folder"),), {})]
    assert written == [((Path("start.safetensors"), start), {})]
    assert done.output == "start.safetensors: 12,345 words; give it as train.start\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ("torch7", "p", "q", "--glimpses", "0", "--backbone", "x", "-o", "out"),
            "0 is not in the range x>=1",
        ),
        (
            ("vqa-pytorch", "folder", "--checkpoint", "last", "--backbone", "x", "-o", "out"),
            "expected 'best', 'ckpt' or 'epoch,N', not 'last'",
        ),
        (("torch7", "p", "q", "-o", "out"), "Missing option '--backbone'"),
        (("vqa-pytorch", "folder", "-o", "out"), "Missing option '--backbone'"),
        (("torch7", "p", "q", "--backbone", "x"), "Missing option '-o' / '--output'"),
        (("skipthoughts", "folder"), "Missing option '-o' / '--output'"),
        (("fbresnet152", "p"), "Missing option '-o' / '--output'"),
    ],
)
def test_wrong_options_are_refused(arguments: tuple[str, ...], named: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert named in done.output


def _weights(folder: Path) -> Path:
    torch.manual_seed(0)
    torch.save(new_network("resnet10").state_dict(), folder / "backbone.pth")
    return folder / "backbone.pth"


def test_an_import_says_what_it_found_and_writes_a_native_checkpoint(tmp_path: Path) -> None:
    write_folder(tmp_path / "logs", att_options(3), foreign_state(3))
    output = tmp_path / "native.safetensors"
    done = run("vqa-pytorch", tmp_path / "logs", "--backbone", _weights(tmp_path), *SMALL, "-o", output)
    assert done.exit_code == 0, done.output
    for part in (
        "MLB, form vqa-pytorch, 3 glimpses",
        "V tanh, Q tanh, F tanh; in the attention tanh, tanh, tanh",
        "mcb tokens",
        "words:        6: what, color",
        "answers:      4: yes, no, 2, café au lait",
        "weights in the file",
    ):
        assert part in done.output
    assert load_checkpoint(output).config.glimpses == 3


@pytest.mark.parametrize("asked", [None, "layer3"])
def test_an_import_without_a_node_takes_the_formats_own(
    asked: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The author's features, and those that vqa.pytorch took from Torch7, lack the last ReLU."""

    def stop(config: ModelConfig, *rest: object) -> None:
        raise HvxError(f"cut at {config.backbone.node}")

    monkeypatch.setattr(torch7, "assemble", stop)
    monkeypatch.setattr(vqa_pytorch, "assemble", stop)
    monkeypatch.setattr(torch7, "_head", lambda *rest: {})
    monkeypatch.setattr(torch7, "read_prepro", lambda path: (["a"], ["b"]))
    # As many parameters as one word, one answer and one glimpse make at the published sizes.
    count = torch7.Sizes(1, 1, 1, 620, 2400, 1200, 2048).count
    monkeypatch.setattr(torch7, "read_tensor", lambda path: range(count))
    node = ("--node", asked) if asked else ()
    options = ("--backbone", "IMAGENET1K_V2", *node, "-o", tmp_path / "out")
    assert f"cut at {asked or 'layer4.2.add'}" in run("torch7", "p.t7", "p.json", *options).output
    own = att_options(1)
    for features, usual in (("fbresnet152", "layer4"), ("fbresnet152torch", "layer4.2.add")):
        own["coco"]["arch"] = features
        write_folder(tmp_path / features, own, foreign_state(1))
        done = run("vqa-pytorch", tmp_path / features, *options)
        assert f"cut at {asked or usual}\n" in done.output


@pytest.mark.parametrize(
    ("node", "relus"), [(AHEAD_OF_LAST_RELU, 1 + 3 * 50 - 1), (BEHIND_LAST_RELU, 1 + 3 * 50)]
)
def test_the_nodes_of_resnet152_leave_out_its_last_relu_and_keep_it(node: str, relus: int) -> None:
    """It has one ReLU at its start and three in each of its 3 + 8 + 36 + 3 blocks."""
    graph = empty_backbone(BackboneConfig(architecture="resnet152", node=node)).network
    *_, made, _ = graph.graph.nodes
    modules = [graph.get_submodule(str(n.target)) for n in graph.graph.nodes if n.op == "call_module"]
    assert sum(isinstance(module, nn.ReLU) for module in modules) == relus
    assert (made.op == "call_module") == (node == BEHIND_LAST_RELU)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ("--architecture", "resnet10", "--backbone", "x.pth"),
            "--architecture resnet10: give the --node of it that yields the features, too",
        ),
        (("--architecture", "resnet10", "--node", "layer2", "--backbone", "x.pth"), "neither a file nor"),
        (("--architecture", "resnet11", "--backbone", "x.pth"), "did you mean 'resnet101'?"),
    ],
)
def test_a_backbone_that_cannot_be_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    write_folder(tmp_path / "logs", att_options(1), foreign_state(1))
    done = run("vqa-pytorch", tmp_path / "logs", *arguments, "-o", tmp_path / "n.safetensors")
    assert done.exit_code == 2
    assert named in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not (tmp_path / "n.safetensors").exists()


def test_an_unknown_architecture_is_told_before_the_files_are_read() -> None:
    done = run("torch7", "p.t7", "p.json", "--architecture", "resnet11", "--backbone", "x", "-o", "o")
    assert done.exit_code == 2
    assert "no network 'resnet11'" in done.output
