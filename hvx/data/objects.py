"""The objects drawn in a built-in split: what they are, where they lie, which a question asks about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hvx.config import SplitConfig
from hvx.data.image_files import named_by_pattern
from hvx.data.layouts.layout import COCO_VAL
from hvx.errors import HvxError
from hvx.files import read_json


@dataclass(frozen=True)
class Asked:
    """What a question is after: its kind and the labels of the objects that it asks about."""

    kind: str
    labels: tuple[int, ...]


class ObjectTable:
    """The table of objects of a split, with its masks (in ``masks`` beside the table).

    Raises:
        HvxError: the split has no such table, or it is not one.
    """

    def __init__(self, split: SplitConfig) -> None:
        if split.objects is None:
            raise HvxError(f"{split.questions}: the split has no table of objects (splits.*.objects)")
        self._split, self._masks = split, split.objects.parent / "masks"
        tree = read_json(split.objects, "the split's table of objects")
        try:
            self.objects: dict[int | str, list[dict[str, Any]]] = {
                row["image_id"]: row["objects"] for row in tree["images"]
            }
            """Image id → its objects, each with ``label``, ``color`` and ``shape``."""
            self.asked = {
                q["question_id"]: Asked(q["kind"], tuple(q["asks_about"])) for q in tree["questions"]
            }
            """Question id → what it is after."""
        except (KeyError, TypeError) as error:
            raise HvxError(
                f"{split.objects}: not a table of objects as `hvx scenes` writes it: {error}"
            ) from None

    def mask(self, image_id: int | str) -> np.ndarray:
        """Label mask of an image, (H, W) integers; 0 is ground.

        Labels are the pixels as the file has them: of a palette image the indices, not the colors.

        Raises:
            HvxError: absent, unreadable, or an image with several channels.
        """
        path: Path = self._masks / named_by_pattern(self._split.image_name or COCO_VAL, image_id)
        try:
            with Image.open(path) as opened:
                mode, labels = opened.mode, np.asarray(opened)
        except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
            raise HvxError(f"{path}: no readable label mask: {error}") from None
        if labels.ndim != 2 or labels.dtype.kind not in "bui":
            raise HvxError(f"{path}: a label mask has one channel of integers; this image is of mode {mode}")
        return labels.astype(np.int32) if labels.itemsize > 1 else labels.astype(np.uint8)
