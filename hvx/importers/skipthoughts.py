"""Skip-thought vectors (Kiros et al. 2015), to initialize a question encoder before training.

The published table has 930,000 words and 2.3 GB. It is memory-mapped: only the rows of a vocabulary's words
are read from disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hvx.data.tokenize import PADDING, UNKNOWN, Vocabulary
from hvx.errors import HvxError
from hvx.importers.numpy_files import as_float32, mapped_array, read_archive
from hvx.models.checkpoint import write_tensors
from hvx.models.encoder import QuestionEncoder

FORMAT = 1
_CANDIDATE = "reset_after"
_LARGEST_DICTIONARY = 64 * 2**20
"""Bytes; the published dictionary has eight million."""


@dataclass(frozen=True)
class PretrainedEncoder:
    """A pretrained question encoder, to start training from.

    Attributes:
        source: the files, for errors.
        words: W words, in the order of the table.
        table: (W, E) float32, a row for each word; may be memory-mapped.
        gru: tensors under the names of ``SkipThoughtGRU``'s state dict, with the convention ``reset_after``.

    Raises:
        HvxError: the numbers of words and rows differ, or ``UNK`` is not among the words.
    """

    source: str
    words: tuple[str, ...]
    table: Tensor
    gru: dict[str, Tensor]

    def __post_init__(self) -> None:
        if len(self.words) != len(self.table):
            raise HvxError(
                f"{self.source}: {len(self.words):,} words, but a table of {len(self.table):,} rows"
            )
        if UNKNOWN not in self.rows:
            raise HvxError(f"{self.source}: the word '{UNKNOWN}', for words without a row, is missing")

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each word; for a word that occurs twice, the later row, as in Kiros' code."""
        return {word: row for row, word in enumerate(self.words)}

    @property
    def embedding(self) -> int:
        """E."""
        return int(self.table.shape[1])

    @property
    def hidden(self) -> int:
        """Width of the GRU."""
        return int(self.gru["state.weight"].shape[0])


def import_skipthoughts(folder: Path) -> PretrainedEncoder:
    """The encoder in ``uni_skip.npz``, with the words of ``utable.npy`` and ``dictionary.txt``.

    Raises:
        HvxError: a file is missing or invalid (object arrays are not opened), or the three do not match.
    """
    if not folder.is_dir():
        raise HvxError(f"{folder}: no such folder (uni_skip.npz, utable.npy and dictionary.txt)")
    table = mapped_array(folder / "utable.npy")
    if table.ndim != 2:
        raise HvxError(f"{folder / 'utable.npy'}: expected words × embedding, not shape {table.shape}")
    words = _read_dictionary(folder / "dictionary.txt")
    gru = _read_gru(folder / "uni_skip.npz", table.shape[1])
    return PretrainedEncoder(str(folder), words, torch.from_numpy(as_float32(table)), gru)


def _read_dictionary(path: Path) -> tuple[str, ...]:
    """The words of a file with one word per line, in UTF-8."""
    try:
        if path.stat().st_size > _LARGEST_DICTIONARY:
            raise HvxError(f"{path}: larger than {_LARGEST_DICTIONARY:,} bytes; expected a word on each line")
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise HvxError(f"{path}: no such file") from None
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise HvxError(f"{path}: not text in UTF-8 (byte {error.start:,})") from None
    return tuple(line.strip() for line in lines)


def _read_gru(path: Path, embedding: int) -> dict[str, Tensor]:
    """The GRU's tensors under native names; the file's matrices are in × out, columns of W and U [r | z]."""
    arrays = read_archive(path, [f"encoder_{name}" for name in ("W", "b", "U", "Wx", "bx", "Ux")])
    hidden = len(arrays["encoder_Ux"])
    shapes = {
        "encoder_W": (embedding, 2 * hidden),
        "encoder_b": (2 * hidden,),
        "encoder_U": (hidden, 2 * hidden),
        "encoder_Wx": (embedding, hidden),
        "encoder_bx": (hidden,),
        "encoder_Ux": (hidden, hidden),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise HvxError(
                f"{path}: {name} has shape {arrays[name].shape}; with {hidden} units over "
                f"utable.npy's embeddings of {embedding} it would be {shape}"
            )
    out_in = {name: torch.from_numpy(np.array(array.T, order="C")) for name, array in arrays.items()}
    return {
        "input.weight": torch.cat([out_in["encoder_W"], out_in["encoder_Wx"]]),
        "input.bias": torch.cat([out_in["encoder_b"], out_in["encoder_bx"]]),
        "gates.weight": out_in["encoder_U"],
        "state.weight": out_in["encoder_Ux"],
    }


def save_pretrained(path: Path, start: PretrainedEncoder) -> None:
    """Write a start file atomically: one safetensors file, with the words in its metadata.

    Raises:
        HvxError: the file cannot be written.
    """
    about = {
        "format": FORMAT,
        "embedding": start.embedding,
        "hidden": start.hidden,
        "candidate": _CANDIDATE,
        "words": start.words,
    }
    tensors = {"table": start.table} | {f"gru.{name}": tensor for name, tensor in start.gru.items()}
    write_tensors(path, tensors, {"hvx_start": json.dumps(about, ensure_ascii=False)})


def load_pretrained(path: Path) -> PretrainedEncoder:
    """Read a start file; the rows of its table are read from disk on access.

    Raises:
        HvxError: no such file, or not a start file.
    """
    if not path.is_file():
        raise HvxError(f"{path}: no such start file; `hvx import skipthoughts` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("hvx_start", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise HvxError(f"{path}: not a readable start file: {error}") from None
    words = _words(about, path)
    shapes = _shapes(about, len(words))
    for name, shape in shapes.items():
        actual = tuple(tensors[name].shape) if name in tensors else None
        if actual != shape or tensors[name].dtype != torch.float32:
            raise HvxError(f"{path}: tensor '{name}' has shape {actual}; expected {shape}, float32")
    gru = {name.removeprefix("gru."): tensors[name] for name in shapes if name != "table"}
    return PretrainedEncoder(str(path), words, tensors["table"], gru)


def _words(about: Any, path: Path) -> tuple[str, ...]:
    """The words in a start file's metadata."""
    if not isinstance(about, dict) or "format" not in about:
        raise HvxError(f"{path}: a safetensors file, but not a start file (no 'hvx_start' metadata)")
    if about["format"] != FORMAT or about.get("candidate") != _CANDIDATE:
        actual = f"{about['format']!r:.20}, {about.get('candidate')!r:.20}"
        raise HvxError(f"{path}: start file of format {actual}; this hvx reads {FORMAT}, {_CANDIDATE!r}")
    words = about.get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise HvxError(f"{path}: 'words' in its metadata must be a list of strings")
    if not all(type(about.get(key)) is int for key in ("embedding", "hidden")):
        raise HvxError(f"{path}: 'embedding' and 'hidden' in its metadata must be whole numbers")
    return tuple(words)


def _shapes(about: dict[str, Any], words: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a start file's tensors, by name."""
    embedding, hidden = about["embedding"], about["hidden"]
    return {
        "table": (words, embedding),
        "gru.input.weight": (3 * hidden, embedding),
        "gru.input.bias": (3 * hidden,),
        "gru.gates.weight": (2 * hidden, hidden),
        "gru.state.weight": (hidden, hidden),
    }


@torch.no_grad()
def fill_encoder(encoder: QuestionEncoder, vocabulary: Vocabulary, start: PretrainedEncoder) -> int:
    """Copy a pretrained encoder into a question encoder with a row for each word of the vocabulary.

    A word without a pretrained row gets the row of ``UNK``; padding stays zero. The GRU's weights can also
    initialize an encoder with the convention ``reset_before``, although they were learned with the other.

    Returns:
        The number of the vocabulary's words that have a pretrained row.

    Raises:
        HvxError: the sizes of the two encoders differ, or rows are not finite.
    """
    weight = encoder.table.weight
    for key, expected, actual in (
        ("embedding", weight.shape[1], start.embedding),
        ("hidden", encoder.gru.state.weight.shape[0], start.hidden),
    ):
        if expected != actual:
            raise HvxError(f"model.encoder.{key}: {expected}, but {start.source} has {actual}; take that")
    unknown = start.rows[UNKNOWN]
    rows = start.table[[start.rows.get(word, unknown) for word in vocabulary.words]]
    if not all(torch.isfinite(tensor).all() for tensor in (rows, *start.gru.values())):
        raise HvxError(f"{start.source}: not all of its numbers are finite")
    weight[PADDING + 1 :] = rows
    encoder.gru.load_state_dict(start.gru)
    return sum(word in start.rows for word in vocabulary.words)
