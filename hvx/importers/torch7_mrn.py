"""Imports MRN from the author's Torch7 code: three vectors of parameters, and ``data_prepro.json``.

Kim et al. 2016, *Multimodal Residual Learning for Visual QA*. The published network was trained on features
of Caffe's ResNet-152; with those of another CNN its answers mean little.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hvx.config import BackboneConfig, ImageConfig, ModelConfig, MRNConfig
from hvx.errors import HvxError
from hvx.files import sha256
from hvx.importers.common import BEHIND_LAST_RELU, assemble, at_node
from hvx.importers.torch7_file import read_tensors
from hvx.importers.torch7_parts import (
    Shapes,
    count,
    cut,
    encoder_config,
    encoder_state,
    gru_shapes,
    linear_shapes,
    read_prepro,
)
from hvx.models.checkpoint import VQAModel

BLOCKS = range(1, 9)
"""Possible values of L, tried in this order if none is given."""
_TABLE, _ENCODER, _JOINT = "embedding_w_q", "encoder_w_q", "multimodal_w"


@dataclass(frozen=True)
class Widths:
    """The sizes that the author's code fixes."""

    embedding: int = 620
    hidden: int = 2400
    joint: int = 1200
    inner: int = 2048
    """Of W_1's output."""
    channels: int = 2048
    """Of the features."""
    image: int = 224
    """Pixels along a side."""

    def blocks(self, number: int, shortcuts: bool, answers: int) -> Shapes:
        """The tensors of ``multimodal_w`` under the names of ``MRN``'s state dict."""
        linears: Shapes = {}
        for block in range(number):
            width = self.joint if block else self.hidden
            linears |= {
                f"textual.{block}": (self.joint, width),
                f"visual_inner.{block}": (self.inner, self.channels),
                f"visual.{block}": (self.joint, self.inner),
            }
            if shortcuts:
                linears[f"shortcut.{block}"] = (self.joint, width)
        return linear_shapes(linears | {"classifier": (answers, self.joint)})


PUBLISHED = Widths()


def import_torch7_mrn(
    parameters: Path,
    prepro: Path,
    backbone: BackboneConfig,
    blocks: int | None = None,
    *,
    widths: Widths = PUBLISHED,
) -> VQAModel:
    """A model of the author's code for MRN, or for its variant MN without shortcuts.

    Args:
        parameters: ``*.t7``, a table of the vectors ``embedding_w_q``, ``encoder_w_q`` and ``multimodal_w``.
        prepro: ``data_prepro.json``, with the words and the answers.
        backbone: of the features; without a node, after the last ReLU.
        blocks: L; if None, the value from 1 to 8 that fits the vector's length.
        widths: the author's, unless a file has others.

    Raises:
        HvxError: a file is invalid, parameters are not finite, or their number does not fit the words,
            answers and blocks.
    """
    if blocks is not None and blocks not in BLOCKS:
        raise HvxError(f"blocks: expected {BLOCKS[0]} to {BLOCKS[-1]}, not {blocks}")
    words, answers = read_prepro(prepro)
    vectors = read_tensors(parameters, (_TABLE, _ENCODER, _JOINT))
    table: Shapes = {"table": (len(words) + 1, widths.embedding)}
    gru = gru_shapes(widths.embedding, widths.hidden)
    _check(vectors[_TABLE], table, parameters, _TABLE, f"{prepro.name} has {len(words):,} words")
    _check(vectors[_ENCODER], gru, parameters, _ENCODER, f"a GRU of {widths.embedding} → {widths.hidden}")
    number, shortcuts = _blocks(len(vectors[_JOINT]), len(answers), blocks, widths, parameters, prepro)
    head = encoder_state(
        cut(vectors[_TABLE], table, parameters)["table"], cut(vectors[_ENCODER], gru, parameters)
    ) | cut(vectors[_JOINT], widths.blocks(number, shortcuts, len(answers)), parameters)
    model = assemble(_config(widths, backbone, number, shortcuts), head, words, answers, str(parameters))
    model.training = {
        "imported_from": "torch7-mrn",
        "file": parameters.name,
        "sha256": sha256(parameters),
        "prepro": prepro.name,
    }
    return model


def _check(vector: np.ndarray, shapes: Shapes, path: Path, name: str, reason: str) -> None:
    if len(vector) != count(shapes):
        raise HvxError(
            f"{path}: '{name}' has {len(vector):,} parameters; expected {count(shapes):,}, since {reason}"
        )


def _blocks(
    length: int, answers: int, blocks: int | None, widths: Widths, path: Path, prepro: Path
) -> tuple[int, bool]:
    """L, and whether there are shortcuts, for a ``multimodal_w`` of this length."""
    variants = [(number, shortcuts) for number in BLOCKS for shortcuts in (True, False)]
    fitting = [
        (n, s) for n, s in variants if blocks in (None, n) and count(widths.blocks(n, s, answers)) == length
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        several = ", ".join(str(number) for number, _ in fitting)
        raise HvxError(f"{path}: '{_JOINT}' fits several numbers of blocks ({several}); give one")
    number = blocks or MRNConfig().blocks
    with_, without = (count(widths.blocks(number, shortcuts, answers)) for shortcuts in (True, False))
    raise HvxError(
        f"{path}: '{_JOINT}' has {length:,} parameters; {prepro.name} has {answers:,} answers, which with "
        f"{number} blocks make {with_:,}, or {without:,} without shortcuts"
    )


def _config(widths: Widths, backbone: BackboneConfig, blocks: int, shortcuts: bool) -> ModelConfig:
    return ModelConfig(
        network="mrn",
        form="torch7",
        image=ImageConfig(size=widths.image, interpolation="bicubic"),
        backbone=at_node(backbone, BEHIND_LAST_RELU),
        encoder=encoder_config(widths.embedding, widths.hidden),
        joint=widths.joint,
        mrn=MRNConfig(blocks=blocks, inner=widths.inner, shortcuts=shortcuts, unit_length=True),
    )
