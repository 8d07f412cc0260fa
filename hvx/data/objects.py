"""The objects of a split: where they lie on its images, and which of them a question is about."""

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
"""The folder of masks beside a table that does not name one."""


@dataclass(frozen=True)
class Asked:
    """What a question is after: its kind and the labels of the objects that it asks about."""

    kind: str
    labels: tuple[int, ...]


class ObjectTable:
    """The table of objects of a split, with its label masks; docs/formats.md tells the file's fields.

    A table may hold several *targets* of each question, such as the thing that it names and the thing that
    answers it. What is read here is one of them.

    Args:
        split: with its paths resolved.
        target: name of the target; None: the first of the table.

    Raises:
        HvxError: the split has no such table, or it is not one, or has no such target; the name of a mask
            leads out of the table's folder.
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
            """Image id → its objects, each with a ``label``; drawn ones with ``color`` and ``shape``, too."""
            self.targets = self._targets(tree["questions"])
            """Names of the table's targets; none where it holds one target without a name."""
            self.target = self._chosen(target)
            """The name of the target that is read; None where it has none."""
            self.asked = {q["question_id"]: Asked(q["kind"], self._labels(q)) for q in tree["questions"]}
            """Question id → what it is after."""
            self._masks = split.objects.parent / self._name(tree.get("masks", _MASKS))
            self._names = {
                row["image_id"]: self._name(row["mask"]) for row in tree["images"] if "mask" in row
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise HvxError(
                f"{split.objects}: not a table of objects as `hvx scenes` writes it: {error}"
            ) from None

    def with_target(self) -> set[int | str]:
        """The questions that ask about something."""
        return {question for question, asked in self.asked.items() if asked.labels}

    def mask_path(self, image_id: int | str) -> Path:
        """Where the label mask of an image lies: by the table's name for it, else by that of the image."""
        name = self._names.get(image_id)
        return self._masks / (name or named_by_pattern(self._split.image_name or COCO_VAL, image_id))

    def mask(self, image_id: int | str) -> np.ndarray:
        """Label mask of an image, (H, W) integers; 0 is ground.

        Labels are the pixels as the file has them: of a palette image the indices, not the colors.

        Raises:
            HvxError: absent, unreadable, or an image with several channels.
        """
        return read_mask(self.mask_path(image_id))

    def _targets(self, rows: list[dict[str, Any]]) -> tuple[str, ...]:
        """The targets of the first question, which all others must have, too."""
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
        """The labels that a question asks about, of the target that is read."""
        given = row["asks_about"]
        if self.targets:
            own = given if isinstance(given, dict) else {}
            if set(own) != set(self.targets):
                raise HvxError(
                    f"{self._path}: question {shown(row['question_id'])}: asks_about has the targets "
                    f"{', '.join(map(str, own)) or 'none'}; the first question's are "
                    f"{', '.join(self.targets)}"
                )
            given = given[self.target]
        if not isinstance(given, list) or not all(type(label) is int and label > 0 for label in given):
            raise TypeError(
                f"question {shown(row['question_id'])}: expected asks_about as a list of labels, whole "
                "numbers from 1, or as such a list for each target"
            )
        return tuple(given)

    def _name(self, given: Any) -> str:
        """The name of the folder of masks or of a mask; refused where it is none, or leads elsewhere."""
        if not isinstance(given, str) or why_unsafe(given):
            raise HvxError(
                f"{self._path}: masks: {shown(given)} is no name of a file below the table's folder"
            )
        return given


def read_mask(path: Path) -> np.ndarray:
    """A file of labels, (H, W) integers.

    Raises:
        HvxError: absent, unreadable, or an image with several channels.
    """
    try:
        with Image.open(path) as opened:
            mode, labels = opened.mode, np.asarray(opened)
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise HvxError(f"{path}: no readable label mask: {error}") from None
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise HvxError(f"{path}: a label mask has one channel of integers; this image is of mode {mode}")
    return labels.astype(np.int32) if labels.itemsize > 1 else labels.astype(np.uint8)
