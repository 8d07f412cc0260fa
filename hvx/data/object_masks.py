"""The objects of a split: their masks on its images, and which of them a question asks about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hvx.config import SplitConfig
from hvx.data.image_files import named_by_pattern, why_unsafe
from hvx.data.layouts.layout import COCO_VAL
from hvx.errors import HvxError, did_you_mean, shown
from hvx.files import read_json

_MASKS = "masks"
"""The folder of masks, next to a table that does not name one."""


@dataclass(frozen=True)
class QuestionTarget:
    """The target of a question: its kind and the labels of the objects that it asks about."""

    kind: str
    labels: tuple[int, ...]


class ObjectTable:
    """The table of objects of a split, with its label masks; docs/formats.md describes the file's fields.

    A table may have several *targets* for each question, such as the object that it names and the object that
    answers it. One of them is read here.

    Args:
        split: with its paths resolved.
        target: name of the target; the first of the table if None.

    Raises:
        HvxError: the split has no table, the file is not a table, or it has no such target; or the name of a
            mask leads out of the table's folder.
    """

    def __init__(self, split: SplitConfig, target: str | None = None) -> None:
        if split.objects is None:
            raise HvxError(f"{split.questions}: the split has no table of objects (splits.*.objects)")
        self._split, self._path = split, split.objects
        tree = read_json(split.objects, "the split's table of objects")
        try:
            self.objects: dict[int | str, list[dict[str, Any]]] = {
                row["image_id"]: row["objects"] for row in tree["images"]
            }
            """Image id → its objects, each with a ``label``; drawn ones also with ``color`` and ``shape``."""
            self.targets = self._targets(tree["questions"])
            """Names of the table's targets; empty if it has one target without a name."""
            self.target = self._chosen(target)
            """The name of the target that is read; None if it has no name."""
            self.asked = {
                q["question_id"]: QuestionTarget(q["kind"], self._labels(q)) for q in tree["questions"]
            }
            """Question id → its target."""
            self._masks = split.objects.parent / self._name(tree.get("masks", _MASKS))
            self._names = {
                row["image_id"]: self._name(row["mask"]) for row in tree["images"] if "mask" in row
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise HvxError(
                f"{split.objects}: not a table of objects as `hvx scenes` writes it: {error}"
            ) from None

    def with_target(self) -> set[int | str]:
        """The ids of the questions that ask about at least one object."""
        return {question for question, target in self.asked.items() if target.labels}

    def mask_path(self, image_id: int | str) -> Path:
        """The path of an image's label mask: by its name in the table, else by the image's name."""
        name = self._names.get(image_id)
        return self._masks / (name or named_by_pattern(self._split.image_name or COCO_VAL, image_id))

    def mask(self, image_id: int | str) -> np.ndarray:
        """Label mask of an image, (H, W) integers; 0 is the background.

        Labels are the stored pixel values: for a palette image the indices, not the colors.

        Raises:
            HvxError: absent, unreadable, or an image with several channels.
        """
        return read_mask(self.mask_path(image_id))

    def _targets(self, rows: list[dict[str, Any]]) -> tuple[str, ...]:
        """The targets of the first question; all others must have the same."""
        first = rows[0]["asks_about"] if rows else []
        return tuple(first) if isinstance(first, dict) else ()

    def _chosen(self, target: str | None) -> str | None:
        if target is None or target in self.targets:
            return target or next(iter(self.targets), None)
        known = ", ".join(self.targets) or "one target without a name"
        raise HvxError(
            f"{self._path}: no target {shown(target)}{did_you_mean(target, self.targets)}; it has: {known}"
        )

    def _labels(self, row: dict[str, Any]) -> tuple[int, ...]:
        """The labels that a question asks about, for the target that is read."""
        labels = row["asks_about"]
        if self.targets:
            by_target = labels if isinstance(labels, dict) else {}
            if set(by_target) != set(self.targets):
                raise HvxError(
                    f"{self._path}: question {shown(row['question_id'])}: asks_about has the targets "
                    f"{', '.join(map(str, by_target)) or 'none'}; the first question's are "
                    f"{', '.join(self.targets)}"
                )
            labels = labels[self.target]
        if not isinstance(labels, list) or not all(type(label) is int and label > 0 for label in labels):
            raise TypeError(
                f"question {shown(row['question_id'])}: expected asks_about as a list of labels, whole "
                "numbers from 1, or as such a list for each target"
            )
        return tuple(labels)

    def _name(self, name: Any) -> str:
        """Check the name of a mask or of the folder of masks; it must not lead out of the table's folder."""
        if not isinstance(name, str) or why_unsafe(name):
            raise HvxError(
                f"{self._path}: masks: {shown(name)} is no name of a file below the table's folder"
            )
        return name


def read_mask(path: Path) -> np.ndarray:
    """Read a label mask, (H, W) integers.

    Raises:
        HvxError: absent, unreadable, or an image with several channels.
    """
    try:
        with Image.open(path) as image:
            mode, labels = image.mode, np.asarray(image)
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise HvxError(f"{path}: no readable label mask: {error}") from None
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise HvxError(f"{path}: a label mask has one channel of integers; this image is of mode {mode}")
    return labels.astype(np.int32) if labels.itemsize > 1 else labels.astype(np.uint8)
