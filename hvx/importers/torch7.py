"""MLB as the author's Torch7 code saved it: one vector of all parameters, beside ``data_prepro.json``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from pathlib import Path

import numpy as np
from torch import Tensor

from hvx.config import BackboneConfig, ModelConfig
from hvx.errors import HvxError
from hvx.files import sha256
from hvx.importers.assemble import AHEAD_OF_LAST_RELU, assemble, at_node
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
"""G that a checkpoint may have, and that are tried where none is given."""
_USUAL_ANSWERS = (1000, 2000, 3000)
"""O for which the author's code has word tables; tried where the vocabulary at hand does not fit."""
_SUGGESTIONS = 3


@dataclass(frozen=True)
class Sizes:
    """What decides where each tensor lies in the vector, and how long it is."""

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
        backbone: what made the features; without a node, the author's: ahead of the last ReLU.
        glimpses: G; none: the one of 1 to 8 that the length implies.
        joint: c, the joint's width per glimpse.
        embedding: width of the word table.
        hidden: width of the GRU.
        channels: of the features.

    Raises:
        HvxError: a file is not what it should be, parameters are not finite, or their number is not what
            the words, answers and glimpses imply (it names those that would fit).
    """
    if glimpses is not None and glimpses not in GLIMPSES:
        raise HvxError(f"glimpses: expected {GLIMPSES[0]} to {GLIMPSES[-1]}, not {glimpses}")
    words, answers = read_prepro(prepro)
    vector = read_tensor(parameters)
    given = Sizes(len(words), len(answers), glimpses or 2, embedding, hidden, joint, channels)
    if glimpses is None:
        tried = (replace(given, glimpses=number) for number in GLIMPSES)
        given = next((sizes for sizes in tried if sizes.count == len(vector)), given)
    if given.count != len(vector):
        raise HvxError(f"{parameters}: {_misfit(given, len(vector), prepro)}")
    head = _head(vector, given, parameters)
    config = ModelConfig(
        form="torch7",
        backbone=at_node(backbone, AHEAD_OF_LAST_RELU),
        encoder=encoder_config(embedding, hidden),
        glimpses=given.glimpses,
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


def _misfit(given: Sizes, length: int, prepro: Path) -> str:
    """Says that a vector has another length than these sizes imply, and which sizes it would fit."""
    fitting = "; ".join(map(str, fitting_sizes(given, length)[:_SUGGESTIONS]))
    if not fitting:
        fitting = (
            f"nothing near that; is it of embeddings {given.embedding}, GRU {given.hidden}, "
            f"joint {given.joint} and features {given.channels}?"
        )
    return (
        f"{length:,} parameters; {prepro.name} has {given.words:,} words and {given.answers:,} answers, "
        f"which with G = {given.glimpses} make {given.count:,}; would fit: {fitting}"
    )


def fitting_sizes(given: Sizes, length: int) -> list[Sizes]:
    """Sizes near ``given`` that make a vector of this length, the nearest first.

    Of V, O and G, those are tried that keep V or O, or that have a usual O.
    """
    found = set()
    for number in GLIMPSES:
        here = replace(given, glimpses=number)
        found.add(_solved(here, "answers", length))
        for answers in {given.answers, *_USUAL_ANSWERS}:
            found.add(_solved(replace(here, answers=answers), "words", length))
    return sorted((sizes for sizes in found if sizes), key=lambda sizes: _distance(sizes, given))


def _solved(sizes: Sizes, unknown: str, length: int) -> Sizes | None:
    """These sizes with the number of words or answers that makes a vector of this length, if one does."""
    none, one = (replace(sizes, **{unknown: number}).count for number in (0, 1))
    number, rest = divmod(length - none, one - none)
    return replace(sizes, **{unknown: number}) if number > 0 and rest == 0 else None


def _distance(sizes: Sizes, given: Sizes) -> tuple[int, float, int]:
    """How far sizes are from the given ones: how many of V and O differ, how much, and G."""
    pairs = ((sizes.words, given.words), (sizes.answers, given.answers))
    changed = sum(one != other for one, other in pairs)
    apart = sum(abs(log(one / other)) for one, other in pairs)
    return changed, apart, abs(sizes.glimpses - given.glimpses)


def _head(vector: np.ndarray, sizes: Sizes, source: Path) -> dict[str, Tensor]:
    """The vector's tensors under the names of ``MLB``'s state dict."""
    tensors = cut(vector, sizes.shapes(), source)
    own = {name: tensor for name, tensor in tensors.items() if "." in name}
    return own | encoder_state(tensors["table"], tensors)
