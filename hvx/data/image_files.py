"""Paths of images: their names, below one folder or several."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hvx.config import SplitConfig
from hvx.errors import HvxError, shown

_NAMED = 5
"""The most missing files that a message names; the others are counted."""
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
"""Matches nearly all names, for a fast check."""
_LONGEST = 255
"""The most bytes of a file name in common file systems."""


def named_by_pattern(pattern: str, image_id: int | str, coco_split: Any = None) -> str:
    """The name of the image with an id, below the folder of images.

    Args:
        pattern: with ``{image_id}``, and perhaps ``{coco_split}``.
        image_id: the id.
        coco_split: the image's subset of COCO, from VQA-CP's rows.

    Raises:
        HvxError: the pattern does not fit ids of this kind, or the name leads out of the folder.
    """
    try:
        name = pattern.format(image_id=image_id, coco_split=coco_split)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise HvxError(
            f"splits: image_name: {pattern!r} does not fit the image_id {shown(image_id)}; "
            "expected a pattern such as '{image_id}.jpg'"
        ) from None
    reason = why_unsafe(name)
    if reason:
        raise HvxError(f"splits: image_name: {shown(name)} {reason}")
    return name


def why_unsafe(name: str) -> str | None:
    """Why a name cannot be used as a path below a folder of images; None if it can."""
    if _PLAIN.fullmatch(name):
        return None
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "leads out of the images' folder"
    if not path.parts:
        return "names no file"
    if not name.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "holds a control character"
    if any(len(part.encode()) > _LONGEST for part in path.parts):
        return f"is longer than the {_LONGEST} bytes of a file's name"
    return None


def find_image(folders: Sequence[Path], name: str) -> Path:
    """The path of an image: in the first folder that has it, or in the first folder if none has."""
    if len(folders) > 1:
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    return folders[0] / name


def image_path(split: SplitConfig, name: str) -> Path:
    """The path of an image of a split.

    Raises:
        HvxError: the name leads out of the images' folder.
    """
    reason = why_unsafe(name)
    if reason:
        raise HvxError(f"splits: images: {shown(name)} {reason} {split.folders[0]}")
    return find_image(split.folders, name)


def missing_images(split: SplitConfig, names: Iterable[str]) -> list[Path]:
    """The expected paths of those images that are in none of the split's folders.

    Raises:
        HvxError: a folder of images does not exist.
    """
    existing: set[str] = set()
    for folder in split.folders:
        if not folder.is_dir():
            raise HvxError(f"{folder}: no such folder of images")
        # One listing of the folder instead of a call for each image; names may include subfolders.
        existing.update(entry.name for entry in os.scandir(folder) if entry.is_file())
    paths = (image_path(split, name) for name in names if name not in existing)
    return [path for path in paths if not path.is_file()]


def some_names(paths: Sequence[Path]) -> str:
    """The names of the first few files, for a message that counts all of them."""
    return ", ".join(path.name for path in paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")


def folders_shown(split: SplitConfig) -> str:
    """The split's folders of images, for messages."""
    return ", ".join(map(str, split.folders))
