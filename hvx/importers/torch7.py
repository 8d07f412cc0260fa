"""Imports MLB from the author's Torch7 code: one vector of all parameters, and ``data_prepro.json``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from pathlib import Path

import numpy as np
from torch import Tensor

from hvx.config import BackboneConfig, ModelConfig
from hvx.errors import HvxError
from hvx.files import sha256
from hvx.importers.common import AHEAD_OF_LAST_RELU, assemble, at_node
from hvx.importers.torch7_file import read_tensor
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

GLIMPSES = range(1, 9)
"""Possible values of G, tried in this order if none is given."""
_USUAL_ANSWERS = (1000, 2000, 3000)
"""Values of O for which the author's code has word tables; tried if the given vocabulary does not fit."""
_SUGGESTIONS = 3


@dataclass(frozen=True)
class Sizes:
    """The sizes that determine the tensors' positions in the vector, and its length."""

    words: int
    """V, without padding."""
    answers: int
    """O."""
    glimpses: int
    """G."""
    embedding: int
    hidden: int
    joint: int
    """c, per glimpse."""
    channels: int
    """Of the features."""

    def shapes(self) -> Shapes:
        """The tensors in the vector's order."""
        width = self.joint * self.glimpses
        linears: Shapes = {
            "attention_textual": (self.joint, self.hidden),
            "attention_visual": (self.joint, self.channels),
            "attention_output": (self.glimpses, self.joint),
            "textual": (width, self.hidden),
            **{f"visual.{g}": (self.joint, self.channels) for g in range(self.glimpses)},
            "classifier": (self.answers, width),
        }
        table = {"table": (self.words + 1, self.embedding)}
        return table | gru_shapes(self.embedding, self.hidden) | linear_shapes(linears)

    @property
    def count(self) -> int:
        """Length of the vector."""
        return count(self.shapes())

    def __str__(self) -> str:
        return f"{self.words:,} words and {self.answers:,} answers with G = {self.glimpses}"


def import_torch7(
    parameters: Path,
    prepro: Path,
    backbone: BackboneConfig,
    glimpses: int | None = None,
    *,
    joint: int = 1200,
    embedding: int = 620,
    hidden: int = 2400,
    channels: int = 2048,
) -> VQAModel:
    """A model of the author's Torch7 code.

    Args:
        parameters: ``*.t7``, all parameters as one tensor.
        prepro: ``data_prepro.json``, with the words and the answers.
        backbone: of the features; without a node, the author's is used: before the last ReLU.
        glimpses: G; if None, the value from 1 to 8 that fits the vector's length.
        joint: c, the joint's width per glimpse.
        embedding: width of the word table.
        hidden: width of the GRU.
        channels: of the features.

    Raises:
        HvxError: a file is invalid, parameters are not finite, or their number does not fit the words,
            answers and glimpses (it names sizes that would fit).
    """
    if glimpses is not None and glimpses not in GLIMPSES:
        raise HvxError(f"glimpses: expected {GLIMPSES[0]} to {GLIMPSES[-1]}, not {glimpses}")
    words, answers = read_prepro(prepro)
    vector = read_tensor(parameters)
    sizes = Sizes(len(words), len(answers), glimpses or 2, embedding, hidden, joint, channels)
    if glimpses is None:
        candidates = (replace(sizes, glimpses=number) for number in GLIMPSES)
        sizes = next((candidate for candidate in candidates if candidate.count == len(vector)), sizes)
    if sizes.count != len(vector):
        raise HvxError(f"{parameters}: {_length_error(sizes, len(vector), prepro)}")
    head = _head(vector, sizes, parameters)
    config = ModelConfig(
        form="torch7",
        backbone=at_node(backbone, AHEAD_OF_LAST_RELU),
        encoder=encoder_config(embedding, hidden),
        glimpses=sizes.glimpses,
        joint=joint,
    )
    model = assemble(config, head, words, answers, str(parameters))
    model.training = {
        "imported_from": "torch7",
        "file": parameters.name,
        "sha256": sha256(parameters),
        "prepro": prepro.name,
    }
    return model


def _length_error(sizes: Sizes, length: int, prepro: Path) -> str:
    """The message that a vector's length does not fit these sizes, with sizes that would fit."""
    suggestions = "; ".join(map(str, fitting_sizes(sizes, length)[:_SUGGESTIONS]))
    if not suggestions:
        suggestions = (
            f"nothing near that; is it of embeddings {sizes.embedding}, GRU {sizes.hidden}, "
            f"joint {sizes.joint} and features {sizes.channels}?"
        )
    return (
        f"{length:,} parameters; {prepro.name} has {sizes.words:,} words and {sizes.answers:,} answers, "
        f"which with G = {sizes.glimpses} make {sizes.count:,}; would fit: {suggestions}"
    )


def fitting_sizes(expected: Sizes, length: int) -> list[Sizes]:
    """Sizes near ``expected`` that give a vector of this length, the nearest first.

    Only combinations of V, O and G with an unchanged V or O, or a usual O, are tried.
    """
    candidates = set()
    for number in GLIMPSES:
        with_glimpses = replace(expected, glimpses=number)
        candidates.add(_solve(with_glimpses, "answers", length))
        for answers in {expected.answers, *_USUAL_ANSWERS}:
            candidates.add(_solve(replace(with_glimpses, answers=answers), "words", length))
    return sorted((sizes for sizes in candidates if sizes), key=lambda sizes: _distance(sizes, expected))


def _solve(sizes: Sizes, unknown: str, length: int) -> Sizes | None:
    """These sizes with the number of words or answers that gives this length; None if there is none."""
    at_zero, at_one = (replace(sizes, **{unknown: number}).count for number in (0, 1))
    number, remainder = divmod(length - at_zero, at_one - at_zero)
    return replace(sizes, **{unknown: number}) if number > 0 and remainder == 0 else None


def _distance(sizes: Sizes, expected: Sizes) -> tuple[int, float, int]:
    """The distance of sizes from the expected ones: how many of V and O differ, by how much, and G."""
    pairs = ((sizes.words, expected.words), (sizes.answers, expected.answers))
    changed = sum(actual != target for actual, target in pairs)
    log_ratio = sum(abs(log(actual / target)) for actual, target in pairs)
    return changed, log_ratio, abs(sizes.glimpses - expected.glimpses)


def _head(vector: np.ndarray, sizes: Sizes, source: Path) -> dict[str, Tensor]:
    """The vector's tensors under the names of ``MLB``'s state dict."""
    tensors = cut(vector, sizes.shapes(), source)
    parameters = {name: tensor for name, tensor in tensors.items() if "." in name}
    return parameters | encoder_state(tensors["table"], tensors)
