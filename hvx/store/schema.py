"""The datasets of a shard. Item i has index i in every dataset; shapes are per item."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

VERSION = 6
METHOD = "Kim & Zhang 2017: Eqs 2, 3 by guided backpropagation; Eqs 9-11, n - 1"
NO_METHOD = "none: no Hadamard product; answers and attention"

TEXT = h5py.string_dtype("utf-8")


@dataclass(frozen=True)
class Field:
    """A dataset of the run. ``axes`` names its axes after the first, ``fill`` pads short items.

    ``long_name`` and ``units`` are stored as attributes of the dataset, as in netCDF's conventions.
    """

    dtype: Any
    axes: str = ""
    fill: Any = 0
    optional: bool = False
    long_name: str = ""
    units: str = "1"

    @property
    def chunked(self) -> bool:
        """Whether each item is large enough for a separate chunk with a checksum."""
        return len(self.axes) >= 2

    @property
    def ragged(self) -> bool:
        """Whether each token has a separate chunk; chunks of padding are not stored."""
        return self.chunked and self.axes[0] == "T"

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of all axes, the first one ``question``."""
        return (FIRST_AXIS, *(AXES[axis].name for axis in self.axes))


@dataclass(frozen=True)
class Axis:
    """An axis of datasets: the name of its HDF5 dimension scale, its description, and its first position.

    ``pixels``: its positions are the centers of cells, in pixels of the network's input.
    """

    name: str
    long_name: str
    first: int = 0
    pixels: bool = False


FIRST_AXIS = "question"
"""The first axis of every dataset; its scale is the dataset of the questions' texts."""
AXES: dict[str, Axis] = {
    "K": Axis("rank", "rank of an answer by its probability", first=1),
    "T": Axis("token", "position of a token in its question"),
    "G": Axis("glimpse", "attention glimpse"),
    "S": Axis("grid_row", "row of the attention map, at its center in the network's input", pixels=True),
    "R": Axis(
        "grid_column", "column of the attention map, at its center in the network's input", pixels=True
    ),
    "L": Axis("block", "block of the network, in the order of its products"),
    "C": Axis("channel", "color channel: red, green, blue"),
    "H": Axis("row", "row of the heat map, at its center in the network's input", pixels=True),
    "W": Axis("column", "column of the heat map, at its center in the network's input", pixels=True),
}
"""Letter → axis: K the five likeliest answers, T tokens, G glimpses, S×R the attention's grid, L blocks,
C channels, H×W pixels."""

FIELDS: dict[str, Field] = {
    "question_id": Field(TEXT, fill="", long_name="id of the question"),
    "image_id": Field(TEXT, fill="", long_name="id of the image"),
    "question": Field(TEXT, fill="", long_name="text of the question"),
    "image_path": Field(TEXT, fill="", long_name="image file, below the folder of images"),
    "image_digest": Field(TEXT, fill="", long_name="SHA-256 of the image file"),
    "answer": Field(TEXT, fill="", long_name="likeliest answer"),
    "ground_truth": Field(TEXT, fill="", long_name="ground truth"),
    "question_type": Field(TEXT, fill="", long_name="type of the question"),
    "answer_type": Field(TEXT, fill="", long_name="type of the answer"),
    "probability": Field(np.float32, long_name="probability of the answer"),
    "top_answers": Field(TEXT, "K", "", long_name="likeliest answers"),
    "top_probabilities": Field(np.float32, "K", np.nan, long_name="probabilities of the likeliest answers"),
    "score": Field(np.float32, optional=True, long_name="score of the image and the text"),
    "tokens": Field(TEXT, "T", "", long_name="tokens of the question"),
    "length": Field(np.int32, long_name="number of tokens"),
    "unknown": Field(np.uint8, "T", long_name="1: the model's vocabulary lacks this token"),
    "token_saliency": Field(
        np.float32, "T", np.nan, optional=True, long_name="Eq. 10, saliency of each token"
    ),
    "token_z": Field(np.float32, "T", np.nan, optional=True, long_name="Eq. 11, z-score of each token"),
    "textual_attention": Field(
        np.float32, "T", np.nan, optional=True, long_name="attention to each token, last step or level"
    ),
    "word_attention": Field(
        np.float32, "T", np.nan, optional=True, long_name="attention to each token, level of words"
    ),
    "phrase_attention": Field(
        np.float32, "T", np.nan, optional=True, long_name="attention to each token, level of phrases"
    ),
    "attention": Field(np.float32, "GSR", optional=True, long_name="attention map of each glimpse"),
    "heatmap": Field(np.float16, "HW", optional=True, long_name="heat map: sum over channels of |Eq. 9|"),
    "heatmap_scale": Field(np.float32, optional=True, long_name="factor of the squares of an 8-bit heat map"),
    "block_heatmaps": Field(np.float16, "LHW", optional=True, long_name="heat map of each block"),
    "block_heatmap_scale": Field(
        np.float32, "L", optional=True, long_name="factors of a question's 8-bit maps, by block"
    ),
    "word_heatmaps": Field(
        np.float16, "THW", optional=True, long_name="heat map of each token, 0 beyond the question"
    ),
    "word_heatmap_scale": Field(
        np.float32,
        "T",
        optional=True,
        long_name="factors of the squares of the 8-bit maps of tokens",
    ),
    "gradient": Field(np.float16, "CHW", optional=True, long_name="Eq. 9, standardized image gradient"),
    "zero_gradient": Field(
        np.uint8, optional=True, long_name="bit 0: Eq. 2 is zero everywhere; bit 1: Eq. 3 is"
    ),
}

EXPLAINING = ("token_saliency", "token_z", "heatmap", "zero_gradient")
"""Results of Eqs 2 and 3: a run has all of them, or none if its network has no Hadamard product."""
EARLIER = ("word_attention", "phrase_attention")
"""Attention to the tokens on the levels before the question's, which is ``textual_attention``."""

ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT = 1, 2
"""Bits of ``zero_gradient``: Eq. 2, or Eq. 3, is zero everywhere, so its map or scores are meaningless."""


IDS = ("question_id", "image_id")
"""Stored as strings; ``integer_ids`` in run.json lists those that are integers in the split's file."""


def run_digest(identity: dict[str, Any]) -> str:
    """SHA-256 of a run's identity (``run.json``) as JSON with sorted keys; stored in each of its files."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
