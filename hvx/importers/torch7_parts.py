"""Shared by the importers of the author's Torch7 code: vocabularies, split vectors, question encoder."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.config import EncoderConfig
from hvx.data.tokenize import PADDING
from hvx.errors import HvxError
from hvx.files import read_json

MOST_TOKENS = 26
"""The number of tokens at which the author's code truncates questions."""
Shapes = dict[str, tuple[int, ...]]
"""Shapes of tensors by name, in a vector's order; each Linear is out × in."""


def gru_shapes(embedding: int, hidden: int) -> Shapes:
    """The shapes of the GRU's nine tensors."""
    shapes: Shapes = {}
    for gate in ("r", "z"):
        shapes |= {f"W_{gate}": (hidden, embedding), f"b_{gate}": (hidden,)}
    shapes |= {"U_r": (hidden, hidden), "U_z": (hidden, hidden)}
    return shapes | {"W_h": (hidden, embedding), "b_h": (hidden,), "U_h": (hidden, hidden)}


def linear_shapes(linears: Shapes) -> Shapes:
    """The shapes of weight and bias of each Linear, given by name as out × in."""
    shapes: Shapes = {}
    for name, (out, into) in linears.items():
        shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    return shapes


def count(shapes: Shapes) -> int:
    """Length of the vector of tensors with these shapes."""
    return sum(prod(shape) for shape in shapes.values())


def cut(vector: np.ndarray, shapes: Shapes, source: Path) -> dict[str, Tensor]:
    """Split a vector into its tensors, which share memory.

    Raises:
        HvxError: not all numbers are finite.
    """
    flat = torch.from_numpy(np.array(vector, np.float32))
    tensors, start = {}, 0
    for name, shape in shapes.items():
        tensors[name] = flat[start : start + prod(shape)].view(shape)
        start += prod(shape)
        if not torch.isfinite(tensors[name]).all():
            raise HvxError(f"{source}: not all parameters are finite numbers; the first others are in {name}")
    return tensors


def encoder_state(table: Tensor, gru: dict[str, Tensor]) -> dict[str, Tensor]:
    """The question encoder's tensors under the names of hvx's state dict."""
    table[PADDING] = 0  # the padding row; Torch7 sets it to zero before each lookup
    return {
        "encoder.table.weight": table,
        "encoder.gru.input.weight": torch.cat([gru[f"W_{gate}"] for gate in "rzh"]),
        "encoder.gru.input.bias": torch.cat([gru[f"b_{gate}"] for gate in "rzh"]),
        "encoder.gru.gates.weight": torch.cat([gru["U_r"], gru["U_z"]]),
        "encoder.gru.state.weight": gru["U_h"],
    }


def encoder_config(embedding: int, hidden: int) -> EncoderConfig:
    """The config of the author's tokenization and question encoder."""
    return EncoderConfig(
        tokenizer="nltk",
        sentences=True,
        max_tokens=MOST_TOKENS,
        embedding=embedding,
        hidden=hidden,
        candidate="reset_before",
    )


def read_prepro(path: Path) -> tuple[list[str], list[str]]:
    """The words and the answers of a ``data_prepro.json``, in the order of their numbers.

    Raises:
        HvxError: not JSON, or ``ix_to_word`` or ``ix_to_ans`` is not ``{"1": …, "2": …}`` with different
            strings.
    """
    tree = read_json(path, "data_prepro.json: words and answers")
    if not isinstance(tree, dict):
        raise HvxError(f"{path}: expected an object with the keys 'ix_to_word' and 'ix_to_ans'")
    return _numbered(tree, "ix_to_word", path), _numbered(tree, "ix_to_ans", path)


def _numbered(tree: dict[str, Any], key: str, path: Path) -> list[str]:
    """The strings of ``{"1": …, "2": …}``, in the order of their numbers."""
    numbered = tree.get(key)
    if not isinstance(numbered, dict) or not numbered:
        raise HvxError(f'{path}: expected \'{key}\': {{"1": "…", "2": "…"}}')
    numbers: dict[str, str] = {}
    for number in map(str, range(1, len(numbered) + 1)):
        if number not in numbered:
            raise HvxError(f"{path}: {key} has {len(numbered):,} entries, but none numbered '{number}'")
        text = numbered[number]
        if not _is_text(text):
            raise HvxError(f"{path}: {key}: '{number}' is no text, but {text!r:.40}")
        if text in numbers:
            raise HvxError(f"{path}: {key}: {text!r:.40} is both '{numbers[text]}' and '{number}'")
        numbers[text] = number
    return list(numbers)


def _is_text(value: Any) -> bool:
    """Whether a value from JSON is a string that can be stored: without lone surrogates and NUL."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
