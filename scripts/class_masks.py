"""Hand-labeled class masks of photographs: a mask of each, and the words that name a class.

A folder of masks holds a mask of each labeled photograph, of its size and name but .png, whose pixels are
classes (0: none), and classes.json: ``classes``, name → label, and ``words``, word → label.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hvx.config import SplitConfig
from hvx.data.image_files import find_image
from hvx.data.object_masks import read_mask
from hvx.data.photos import photo_size
from hvx.data.questions import Question
from hvx.errors import HvxError
from hvx.files import read_json


@dataclass(frozen=True)
class Masks:
    """A folder of class masks.

    Attributes:
        folder: where they lie.
        names: label → the class's name.
        words: word → label.
    """

    folder: Path
    names: dict[int, str]
    words: dict[str, int]

    @classmethod
    def opened(cls, folder: Path) -> Masks:
        """The folder with its classes.json.

        Raises:
            HvxError: it has none, or a word has a label that is no class.
        """
        path = folder / "classes.json"
        tree = read_json(path, "the classes of the masks")
        try:
            names = {int(label): str(name) for name, label in tree["classes"].items()}
            words = {str(word): int(label) for word, label in tree["words"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise HvxError(f"{path}: expected 'classes', name → label, and 'words', word → label") from None
        for word, label in words.items():
            if label not in names:
                raise HvxError(f"{path}: word '{word}' has the label {label}, which is no class")
        return cls(folder, names, words)

    def path(self, image: str) -> Path:
        """Where the mask of an image lies, if it has one."""
        return (self.folder / image).with_suffix(".png")

    def labels(self, image: str, photo: Path) -> np.ndarray:
        """The mask of an image.

        Raises:
            HvxError: it is not of the photograph's size, or holds a label that is no class.
        """
        found, (width, height) = read_mask(self.path(image)), photo_size(photo)
        if found.shape != (height, width):
            raise HvxError(
                f"{self.path(image)}: {found.shape[1]}×{found.shape[0]} pixels; its photograph has "
                f"{width}×{height}"
            )
        unknown = set(np.unique(found).tolist()) - {0, *self.names}
        if unknown:
            raise HvxError(
                f"{self.path(image)}: label {min(unknown)} is no class of {self.folder / 'classes.json'}"
            )
        return found

    def of_words(self, words: Iterable[str]) -> list[int]:
        """The labels that words name, each once, in ascending order."""
        return sorted({self.words[word] for word in words if word in self.words})


@dataclass(frozen=True)
class Labeled:
    """A photograph with a mask.

    Attributes:
        image_id: its id.
        image: its name.
        shares: label → share of the photograph, and of its center square.
    """

    image_id: int | str
    image: str
    shares: dict[int, tuple[float, float]]


def labeled(masks: Masks, split: SplitConfig, questions: list[Question]) -> list[Labeled]:
    """The photographs of a split that have a mask, in the order of its questions.

    Raises:
        HvxError: none has.
    """
    images = {question.image_id: question.image for question in questions}
    found = []
    for image_id, image in images.items():
        if masks.path(image).is_file():
            mask = masks.labels(image, find_image(split.folders, image))
            square = _center(mask)
            there = [label for label in masks.names if (mask == label).any()]
            shares = {
                label: (float((mask == label).mean()), float((square == label).mean())) for label in there
            }
            found.append(Labeled(image_id, image, shares))
    if not found:
        raise HvxError(
            f"{masks.folder}: has a mask of none of the {len(images):,} images of {split.questions}"
        )
    return found


def _center(mask: np.ndarray) -> np.ndarray:
    side = min(mask.shape)
    top, left = ((size - side) // 2 for size in mask.shape)
    return mask[top : top + side, left : left + side]
