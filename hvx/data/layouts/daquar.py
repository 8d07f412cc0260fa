"""DAQUAR's text files: a question that names its image on one line, its answer on the next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hvx.data.compressed import read_unpacked
from hvx.data.json_records import Shape
from hvx.errors import HvxError

_IMAGE = re.compile(r"\bin (?:the )?(image\d+)\s*\?\s*$")


def is_daquar_text(path: Path) -> bool:
    """Whether a file's first line is a question that names its image."""
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 12)
    except OSError:
        return False
    return _IMAGE.search(line.decode("utf-8", "replace")) is not None


class DaquarRows:
    """Rows of a text file; the id of a question is the number of its line, as text."""

    shape: Shape = "text"
    key = ""
    about: Mapping[str, str] = MappingProxyType({})

    def __init__(self, path: Path) -> None:
        self.path = path
        _, data = read_unpacked(path, "the split's questions")
        try:
            self._lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise HvxError(f"{path}: expected text in UTF-8: {error}") from None

    def place(self, number: int, field: str = "") -> str:
        """The location of a row, or of a field of it, for errors."""
        return f"{self.path}: line {number + 1}" + (f": {field}" if field else "")

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        lines = [(number, line.strip()) for number, line in enumerate(self._lines) if line.strip()]
        for (number, question), answer in zip(lines[::2], [*lines[1::2], (0, "")], strict=False):
            match = _IMAGE.search(question)
            if match is None:
                raise HvxError(f"{self.place(number)}: expected a question that ends with 'in the image3 ?'")
            if not answer[1]:
                raise HvxError(f"{self.place(number)}: expected its answer on the next line")
            image = f"{match[1]}.png"
            yield number, {
                "question_id": str(number + 1), "image_id": match[1], "image": image,
                "question": question, "answer": answer[1],
            }  # fmt: skip
