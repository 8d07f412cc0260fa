"""``hvx import``: a command for each foreign format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hvx.cli.common import PATH, Existing, common
from hvx.terminal import echo

if TYPE_CHECKING:
    from hvx.config import BackboneConfig
    from hvx.models.checkpoint import VQAModel

_DEFAULT_CNN = "resnet152"


@click.group("import")
def import_() -> None:
    """Make a native checkpoint of a foreign one. Nothing in a foreign file is ever run.

    \b
    Example:
      hvx import vqa-pytorch logs/mlb_att --backbone fbresnet152.pth -o mlb.safetensors
    """


def _backbone_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --backbone and related options."""
    for option in (
        click.option(
            "--node", default=None, show_default="the one the format's features come from", metavar="NODE",
            help="Node of the network that yields the features: layer4.2.add is before the last ReLU, "
            "layer4 after it.",
        ),
        click.option(
            "--architecture", default=_DEFAULT_CNN, show_default=True, help="torchvision's name of the CNN."
        ),
        click.option(
            "--backbone", required=True, metavar="FILE|NAME",
            help="Weights of the CNN under the head: a state dict (that of fbresnet152 by `hvx import "
            "fbresnet152`), or a name of torchvision's such as IMAGENET1K_V2. The published heads learned on "
            "fbresnet152's features; on others their answers mean little.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


_output = click.option(
    "-o", "--output", required=True, type=PATH, metavar="FILE", help="The native file to write."
)


@import_.command()
@click.argument("parameters", metavar="FILE.t7", type=Existing("file"))
@click.argument("prepro", metavar="DATA_PREPRO.json", type=Existing("file"))
@click.option(
    "--glimpses", type=click.IntRange(min=1), default=None, show_default="the one that fits", help="G."
)
@_backbone_options
@_output
@common
def torch7(
    parameters: Path, prepro: Path, glimpses: int | None, backbone: str, architecture: str, node: str | None,
    output: Path,
) -> None:  # fmt: skip
    """The author's Torch7 code: FILE.t7 holds all parameters, DATA_PREPRO.json words and answers.

    \b
    Example:
      hvx import torch7 mlb.t7 data_prepro.json --backbone fbresnet152.pth -o mlb.safetensors
    """
    from hvx.importers.torch7 import import_torch7

    cnn = _backbone(backbone, architecture, node)
    _save(import_torch7(parameters, prepro, cnn, glimpses=glimpses), output)


@import_.command("torch7-mrn")
@click.argument("parameters", metavar="FILE.t7", type=Existing("file"))
@click.argument("prepro", metavar="DATA_PREPRO.json", type=Existing("file"))
@click.option("--blocks", type=click.IntRange(min=1), default=None, show_default="those that fit", help="L.")
@_backbone_options
@_output
@common
def torch7_mrn(
    parameters: Path, prepro: Path, blocks: int | None, backbone: str, architecture: str, node: str | None,
    output: Path,
) -> None:  # fmt: skip
    """The author's Torch7 code for MRN: FILE.t7 holds three vectors, DATA_PREPRO.json words and answers.

    Its images are of 224 pixels, their mean features of unit length. The published file learned on Caffe's
    ResNet-152; with another CNN its answers mean little.

    \b
    Example:
      hvx import torch7-mrn mrn.t7 data_prepro.json --backbone IMAGENET1K_V2 -o mrn.safetensors
    """
    from hvx.importers.torch7_mrn import import_torch7_mrn

    cnn = _backbone(backbone, architecture, node)
    _save(import_torch7_mrn(parameters, prepro, cnn, blocks), output)


@import_.command("vqa-pytorch")
@click.argument("folder", type=Existing("folder"))
@click.option(
    "--checkpoint", "which", default="best", show_default=True, metavar="best|ckpt|epoch,N",
    help="best_model.pth.tar, ckpt_model.pth.tar, or ckpt_epoch,N_model.pth.tar.",
)  # fmt: skip
@click.option(
    "--options", type=Existing("options file"), help="The options' YAML file, where it is not in FOLDER."
)
@click.option(
    "--vocabulary",
    type=Existing("folder of vocabularies"),
    help="Folder of the pickled vocabularies, where it is not FOLDER.",
)
@_backbone_options
@_output
@common
def vqa_pytorch(
    folder: Path, which: str, options: Path | None, vocabulary: Path | None, backbone: str, architecture: str,
    node: str | None, output: Path,
) -> None:  # fmt: skip
    """vqa.pytorch: FOLDER holds options, checkpoint and pickled vocabularies (MLBAtt, MLBNoAtt, MutanAtt,
    MutanNoAtt).

    \b
    Example:
      hvx import vqa-pytorch logs/mlb_att --backbone fbresnet152.pth -o mlb.safetensors
    """
    from hvx.importers.vqa_pytorch import import_vqa_pytorch

    cnn = _backbone(backbone, architecture, node)
    _save(import_vqa_pytorch(folder, cnn, which=which, options=options, vocabulary=vocabulary), output)


@import_.command()
@click.argument("file", type=Existing("file"))
@_output
@common
def fbresnet152(file: Path, output: Path) -> None:
    """The Torch7 ResNet-152 ported to PyTorch → weights for `--backbone` and `model.backbone.weights`.

    \b
    Example:
      hvx import fbresnet152 fbresnet152-2e20f6b4.pth -o fbresnet152.pth
    """
    from hvx.importers.fbresnet152 import import_fbresnet152

    import_fbresnet152(file, output)
    echo(f"{output}: a torchvision resnet152; the convolutions' biases are folded away")


@import_.command()
@click.argument("folder", type=Existing("folder"))
@_output
@common
def skipthoughts(folder: Path, output: Path) -> None:
    """Skip-thought vectors (uni_skip.npz, utable.npy, dictionary.txt) → a start for `train.start`.

    \b
    Example:
      hvx import skipthoughts skip-thoughts/ -o skipthoughts.safetensors
    """
    from hvx.importers.skipthoughts import import_skipthoughts, save_pretrained

    start = import_skipthoughts(folder)
    save_pretrained(output, start)
    echo(f"{output}: {len(start.words):,} words; give it as train.start")


def _backbone(weights: str, architecture: str, node: str | None) -> BackboneConfig:
    """The CNN of the options; without a node, the importer uses its format's default."""
    from hvx.config import BackboneConfig, expanded
    from hvx.errors import HvxError
    from hvx.models.backbone import is_weights_name, new_network

    new_network(architecture, empty=True)  # reports an unknown one before the foreign files are read
    if node is None and architecture != _DEFAULT_CNN:
        raise HvxError(f"--architecture {architecture}: give the --node of it that yields the features, too")
    config = BackboneConfig(architecture=architecture, weights=weights, **({"node": node} if node else {}))
    if is_weights_name(config):
        return config
    return config.model_copy(update={"weights": str(expanded(Path(weights)).absolute())})


def _save(model: VQAModel, output: Path) -> None:
    """Write the native checkpoint and print its description."""
    from hvx.info import describe
    from hvx.models.checkpoint import save_checkpoint

    save_checkpoint(output, model)
    for name, value in describe(output).items():
        echo(f"{name + ':':<14}{value}")
