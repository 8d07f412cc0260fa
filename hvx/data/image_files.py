"""Where images lie: their names, below one folder or several."""

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
"""Files that are named where many are missing; the others are counted."""
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
"""What nearly all names are; a check of these alone is fast."""
_LONGEST = 255
"""Bytes of a file's name, as file systems have it."""


def named_by_pattern(pattern: str, image_id: int | str, coco_split: Any = None) -> str:
    """The name of the image of an id, below the folder of images.

    Args:
        pattern: with ``{image_id}``, and perhaps ``{coco_split}``.
        image_id: the id.
        coco_split: what VQA-CP's rows say: the subset of COCO that the image is from.

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
    """Why a name must not become a path below a folder of images; None if it may."""
    if _PLAIN.fullmatch(name):
        return None
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return "leads out of the images' folder"
    if not path.parts:
        return "names no file"
    if not name.isprintable() and any(unicodedata.category(one) in ("Cc", "Cs") for one in name):
        return "holds a control character"
    if any(len(part.encode()) > _LONGEST for part in path.parts):
        return f"is longer than the {_LONGEST} bytes of a file's name"
    return None


def find_image(folders: Sequence[Path], name: str) -> Path:
    """Where an image of this name lies: in the first folder that has it; if none has, in the first."""
    if len(folders) > 1:
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    return folders[0] / name


def image_path(split: SplitConfig, name: str) -> Path:
    """Where an image of a split lies.

    Raises:
        HvxError: the name leads out of the images' folder.
    """
    reason = why_unsafe(name)
    if reason:
        raise HvxError(f"splits: images: {shown(name)} {reason} {split.folders[0]}")
    return find_image(split.folders, name)


def missing_images(split: SplitConfig, names: Iterable[str]) -> list[Path]:
    """Where the images of these names were expected that are in none of the split's folders.

    Raises:
        HvxError: a folder of images is not there.
    """
    there: set[str] = set()
    for folder in split.folders:
        if not folder.is_dir():
            raise HvxError(f"{folder}: no such folder of images")
        # One listing of the folder in place of a call for each image; a name may lead into folders below.
        there.update(entry.name for entry in os.scandir(folder) if entry.is_file())
    found = (image_path(split, name) for name in names if name not in there)
    return [path for path in found if not path.is_file()]


def some_names(paths: Sequence[Path]) -> str:
    """The names of the first few files, for a line that counts them all."""
    return ", ".join(path.name for path in paths[:_NAMED]) + (", …" if len(paths) > _NAMED else "")


def folders_shown(split: SplitConfig) -> str:
    """The split's folders of images, as errors name them."""
    return ", ".join(map(str, split.folders))
