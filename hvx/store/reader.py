"""Reads a run: its items by number, its columns whole."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hvx.errors import HvxError
from hvx.files import read_json
from hvx.store.schema import FIELDS, TEXT, VERSION
from hvx.store.seal import damage, damaged

_DESCRIBED = {"identity": dict, "image": dict, "images": str}
"""What run.json must say for a run to be read."""


@dataclass(frozen=True)
class Item:
    """One explanation: attention (G, S, S), heatmap (H, W), token_z as long as tokens.

    G is 0 of a model without attention. ``top_answers`` are the likeliest with their probabilities.
    ``block_heatmaps`` (L, H, W) of a model with L > 1 blocks end with ``heatmap``; L is 0 of others.
    ``textual_attention`` is as long as tokens, or empty.
    """

    question_id: int
    image_id: int
    question: str
    image_path: str
    answer: str
    ground_truth: str
    question_type: str
    answer_type: str
    probability: float
    top_answers: tuple[tuple[str, float], ...]
    tokens: list[str]
    token_z: list[float]
    attention: np.ndarray
    heatmap: np.ndarray
    block_heatmaps: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1), np.float32))
    textual_attention: list[float] = field(default_factory=list)


class RunReader:
    """A finished run folder.

    HDF5 reads no file of it whose core is not as it was sealed; that of a shard is checked as the first of
    its items is read.

    Args:
        run: the folder.

    Raises:
        HvxError: no run, an unfinished or damaged one, or one of another schema; on reading an item or a
            column, that a shard is damaged.
    """

    def __init__(self, run: Path) -> None:
        self.path = run
        about = read_json(run / "run.json", "a run folder's description")
        if not isinstance(about, dict) or not all(isinstance(about.get(k), v) for k, v in _DESCRIBED.items()):
            raise HvxError(f"{run / 'run.json'}: not the description of a run")
        self.about: dict[str, Any] = about
        self._view = run / "explanations.h5"
        if not self._view.is_file():
            raise HvxError(f"{run}: the run is not finished (no explanations.h5); run `hvx explain` again")
        reason = damage(self._view, "core")
        if reason:
            raise damaged(self._view, reason)
        try:
            self._file = h5py.File(self._view, "r")
            version = self._file.attrs.get("schema_version")
            shards = _shards(self._file, run)
        except (OSError, KeyError, RuntimeError) as error:
            raise HvxError(f"{self._view}: not the explanations of a run: {error}") from None
        self._starts = [start for start, _ in shards]
        self._shards = [shard for _, shard in shards]
        self._checked: set[int] = set()
        """Places in these of the shards whose core is as it was sealed."""
        if not all(shard.is_file() for shard in self._shards):
            # HDF5 would fill their places in silence.
            raise HvxError(f"{run}: shards are missing from the run; run `hvx explain` again")
        if version != VERSION:
            raise HvxError(f"{self._view}: schema version {version}; this hvx reads {VERSION}")

    def __len__(self) -> int:
        return int(self._file["question_id"].shape[0])

    @property
    def glimpses(self) -> int:
        """G, the attention maps of each item; 0 of a model without attention."""
        return int(self._file["attention"].shape[1]) if "attention" in self._file else 0

    @property
    def blocks(self) -> int:
        """L, the heat maps of each item by block; 0 of a model with one product."""
        return int(self._file["block_heatmaps"].shape[1]) if "block_heatmaps" in self._file else 0

    @property
    def attends_to_words(self) -> bool:
        """Whether the model attends to words, so that items have ``textual_attention``."""
        return "textual_attention" in self._file

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(H, W) of each heat map."""
        height, width = self._file["heatmap"].shape[1:]
        return int(height), int(width)

    def column(self, name: str) -> np.ndarray:
        """A whole dataset; strings as ``str``."""
        stored_as = FIELDS[name]
        self._check(range(len(self)))
        with self._reading():
            stored = self._file[name]
            whole: np.ndarray = stored.asstr()[:] if stored_as.dtype is TEXT else stored[:]
            return whole

    def attribute(self, name: str) -> Any:
        """An attribute of the whole run, such as ``crop``."""
        return json.loads(self._file.attrs[name])

    def __getitem__(self, number: int) -> Item:
        number = range(len(self))[number]
        self._check(range(number, number + 1))
        with self._reading():
            return self._item(number)

    def _item(self, number: int) -> Item:
        file = self._file

        def text(name: str) -> str:
            return str(file[name].asstr()[number])

        length = int(file["length"][number])
        top = [str(answer) for answer in file["top_answers"].asstr()[number]]
        photo = Path(text("image_path"))
        if photo.is_absolute() or ".." in photo.parts:
            raise HvxError(f"{self.path}: image_path: '{photo}' leads out of the images' folder")
        return Item(
            question_id=int(file["question_id"][number]),
            image_id=int(file["image_id"][number]),
            question=text("question"),
            image_path=text("image_path"),
            answer=text("answer"),
            ground_truth=text("ground_truth"),
            question_type=text("question_type"),
            answer_type=text("answer_type"),
            probability=float(file["probability"][number]),
            top_answers=tuple(zip(top, file["top_probabilities"][number].tolist(), strict=True)),
            tokens=[str(token) for token in file["tokens"].asstr()[number][:length]],
            token_z=file["token_z"][number][:length].tolist(),
            attention=file["attention"][number] if self.glimpses else np.zeros((0, 1, 1), np.float32),
            heatmap=file["heatmap"][number].astype(np.float32),
            **self._beside(number, length),
        )

    def _beside(self, number: int, length: int) -> dict[str, Any]:
        """What only some models have, of one item."""
        found: dict[str, Any] = {}
        if self.blocks:
            found["block_heatmaps"] = self._file["block_heatmaps"][number].astype(np.float32)
        if self.attends_to_words:
            found["textual_attention"] = self._file["textual_attention"][number][:length].tolist()
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check(self, numbers: range) -> None:
        """Let HDF5 open the shards of these items only if their cores are as they were sealed."""
        place = max(0, bisect_right(self._starts, numbers.start) - 1)
        while place < len(self._starts) and self._starts[place] < numbers.stop:
            if place not in self._checked:
                reason = damage(self._shards[place], "core")
                if reason:
                    raise damaged(self._shards[place], reason)
                self._checked.add(place)
            place += 1

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What HDF5 cannot read, as by a checksum of its own, as one line."""
        try:
            yield
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise damaged(self.path, error) from None


def _shards(file: h5py.File, run: Path) -> list[tuple[int, Path]]:
    """The shards that a view leads to, each with the number of its first item; none of a solid file."""
    ids = file["question_id"]
    if not ids.is_virtual:
        return []
    sources = ids.virtual_sources()
    if any(Path(source.file_name).parent != Path("shards") for source in sources):
        raise HvxError(f"{run / 'explanations.h5'}: leads out of the run's folder shards")
    return sorted((source.vspace.get_select_bounds()[0][0], run / source.file_name) for source in sources)
