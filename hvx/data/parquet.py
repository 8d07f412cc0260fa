"""Rows of a Parquet file, the format of data sets on Hugging Face; images in it are written to files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hvx.data.json_records import Shape
from hvx.errors import HvxError
from hvx.extras import require
from hvx.files import atomic_write

_AT_ONCE = 64
"""Rows in memory."""
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_EXTRACTED = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,5})?")
_IDS = ("question_id", "qid", "id")


class ParquetRows:
    """The rows of a Parquet file; see ``hvx.data.json_records.VQARecords``.

    An image in it, as {bytes, path}, is written to a file in ``images``, named by the SHA-256 of its bytes;
    the row's ``image`` is then this name. A row without an id gets its number. If ``images`` is None, no file
    is written.

    Raises:
        HvxError: pyarrow is not installed, the file is missing or not Parquet, or it has no questions.
    """

    shape: Shape = "parquet"
    key = ""
    about: Mapping[str, str] = MappingProxyType({})

    def __init__(self, path: Path, images: Path | None) -> None:
        self.path, self._images = path, images
        require("data", f"{path}: Parquet", "pyarrow")
        import pyarrow
        import pyarrow.parquet

        self._wrong = (pyarrow.ArrowException, OSError)
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except FileNotFoundError:
            raise HvxError(f"{path}: no such file (the split's questions)") from None
        except self._wrong as error:
            raise HvxError(f"{path}: not a Parquet file that can be read: {error}") from None
        columns = self._file.schema_arrow.names
        if "question" not in columns:
            raise HvxError(
                f"{path}: expected columns 'question' and 'image' or 'image_id'; "
                f"it has: {', '.join(columns):.200}"
            )
        self._numbered = not any(name in columns for name in _IDS)

    def place(self, number: int, field: str = "") -> str:
        """The location of a row, or of a field of it, for errors."""
        return f"{self.path}: row {number}" + (f": {field}" if field else "")

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        number = 0
        try:
            for batch in self._file.iter_batches(_AT_ONCE):
                for row in batch.to_pylist():
                    if self._numbered:
                        row["question_id"] = number
                    if isinstance(row.get("image"), (dict, bytes)):
                        row["image"] = self._extracted(row["image"], number)
                    yield number, row
                    number += 1
        except self._wrong as error:
            raise HvxError(f"{self.path}: cannot be read: {error}") from None

    def _extracted(self, image: dict[str, Any] | bytes, number: int) -> str | None:
        """Write a row's image to the folder of images; returns its name there."""
        data, path = (
            (image, "") if isinstance(image, bytes) else (image.get("bytes"), image.get("path") or "")
        )
        if data is None:
            return path or None
        if not isinstance(data, bytes) or not isinstance(path, str):
            raise HvxError(f"{self.place(number, 'image')}: expected bytes and a path")
        suffix = Path(path).suffix.lower()
        name = hashlib.sha256(data).hexdigest() + (suffix if _SUFFIX.fullmatch(suffix) else "")
        if self._images is None:
            return name
        target = self._images / name
        if target.is_symlink():
            raise HvxError(f"{target}: a symbolic link in place of an image; delete it")
        if not target.is_file() or target.stat().st_size != len(data):
            with atomic_write(target) as part:
                part.write_bytes(data)
        return name


def is_extracted(name: str) -> bool:
    """Whether an image of this name was extracted from a Parquet file."""
    return _EXTRACTED.fullmatch(name) is not None
