"""Reads a run: its items by number, its columns whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hvx.errors import HvxError
from hvx.files import read_json
from hvx.store.schema import FIELDS, TEXT, VERSION


@dataclass(frozen=True)
class Item:
    """One explanation: attention (G, S, S), heatmap (H, W), token_z as long as tokens."""

    question_id: int
    image_id: int
    question: str
    image_path: str
    answer: str
    ground_truth: str
    question_type: str
    tokens: list[str]
    token_z: list[float]
    attention: np.ndarray
    heatmap: np.ndarray


class RunReader:
    """A finished run folder.

    Args:
        run: the folder.

    Raises:
        HvxError: no run, an unfinished one, or one of another schema.
    """

    def __init__(self, run: Path) -> None:
        self.path = run
        about = read_json(run / "run.json", "a run folder's description")
        if not isinstance(about, dict) or "identity" not in about:
            raise HvxError(f"{run / 'run.json'}: not the description of a run")
        self.about: dict[str, Any] = about
        view = run / "explanations.h5"
        if not view.is_file():
            raise HvxError(f"{run}: the run is not finished (no explanations.h5); run `hvx explain` again")
        try:
            self._file = h5py.File(view, "r")
            version = self._file.attrs.get("schema_version")
        except OSError as error:
            raise HvxError(f"{view}: not a readable HDF5 file: {error}") from None
        if version != VERSION:
            raise HvxError(f"{view}: schema version {version}; this hvx reads {VERSION}")

    def __len__(self) -> int:
        return int(self._file["question_id"].shape[0])

    @property
    def glimpses(self) -> int:
        """G, the attention maps of each item."""
        return int(self._file["attention"].shape[1])

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(H, W) of each heat map."""
        height, width = self._file["heatmap"].shape[1:]
        return int(height), int(width)

    def column(self, name: str) -> np.ndarray:
        """A whole dataset; strings as ``str``."""
        field = FIELDS[name]
        stored = self._file[name]
        whole: np.ndarray = stored.asstr()[:] if field.dtype is TEXT else stored[:]
        return whole

    def attribute(self, name: str) -> Any:
        """An attribute of the whole run, such as ``crop``."""
        return json.loads(self._file.attrs[name])

    def __getitem__(self, number: int) -> Item:
        file = self._file
        length = int(file["length"][number])

        def text(name: str) -> str:
            return str(file[name].asstr()[number])

        return Item(
            question_id=int(file["question_id"][number]),
            image_id=int(file["image_id"][number]),
            question=text("question"),
            image_path=text("image_path"),
            answer=text("answer"),
            ground_truth=text("ground_truth"),
            question_type=text("question_type"),
            tokens=[str(token) for token in file["tokens"].asstr()[number][:length]],
            token_z=file["token_z"][number][:length].tolist(),
            attention=file["attention"][number],
            heatmap=file["heatmap"][number].astype(np.float32),
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
