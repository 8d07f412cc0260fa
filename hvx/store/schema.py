"""What a shard holds. Item i has the same i in every dataset; shapes are per item."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

VERSION = 3
METHOD = "Kim & Zhang 2017: Eqs 2, 3 by guided backpropagation; Eqs 9-11, n - 1"

TEXT = h5py.string_dtype("utf-8")


@dataclass(frozen=True)
class Field:
    """A dataset of the run. ``axes`` names its axes after the first, ``fill`` pads short items."""

    dtype: Any
    axes: str = ""
    fill: Any = 0
    optional: bool = False

    @property
    def chunked(self) -> bool:
        """Whether an item is large enough for a chunk, and a checksum, of its own."""
        return len(self.axes) >= 2


FIELDS: dict[str, Field] = {
    "question_id": Field(TEXT, fill=""),
    "image_id": Field(TEXT, fill=""),
    "question": Field(TEXT, fill=""),
    "image_path": Field(TEXT, fill=""),
    "image_digest": Field(TEXT, fill=""),
    "answer": Field(TEXT, fill=""),
    "ground_truth": Field(TEXT, fill=""),
    "question_type": Field(TEXT, fill=""),
    "answer_type": Field(TEXT, fill=""),
    "probability": Field(np.float32),
    "top_answers": Field(TEXT, "K", ""),
    "top_probabilities": Field(np.float32, "K", np.nan),
    "tokens": Field(TEXT, "T", ""),
    "length": Field(np.int32),
    "token_saliency": Field(np.float32, "T", np.nan),
    "token_z": Field(np.float32, "T", np.nan),
    "textual_attention": Field(np.float32, "T", np.nan, optional=True),
    "attention": Field(np.float32, "GSR", optional=True),
    "heatmap": Field(np.float16, "HW"),
    "block_heatmaps": Field(np.float16, "LHW", optional=True),
    "gradient": Field(np.float16, "CHW", optional=True),
    "zero_gradient": Field(np.uint8),
}
"""Axes: K the five likeliest answers, T tokens, G glimpses, S×R lattice, L blocks, C channels, H×W pixels."""

ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT = 1, 2
"""Bits of ``zero_gradient``: Eq. 2, or Eq. 3, is zero everywhere, so that its map or scores say nothing."""


IDS = ("question_id", "image_id")
"""Stored as text; run.json lists under ``integer_ids`` those that the split's file has as integers."""


def run_digest(identity: dict[str, Any]) -> str:
    """SHA-256 of a run's identity (``run.json``) as JSON with sorted keys; each of its files carries it."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
