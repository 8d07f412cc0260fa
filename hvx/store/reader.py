"""Reads a run: single items by number, or whole columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hvx.errors import HvxError
from hvx.files import read_json
from hvx.store.checksum import damaged, open_hdf5, verify_checksum
from hvx.store.datasets import Block, Datasets, own_dataset
from hvx.store.names import DESCRIPTION, VIEW
from hvx.store.schema import EARLIER, EXPLAINING, FIELDS, IDS, TEXT, VERSION, run_digest
from hvx.store.shards import INDEX, ShardFiles, check_inside, read_index, read_shapes

_REQUIRED: dict[str, type | tuple[type, ...]] = {"identity": dict, "image": dict, "images": (str, list)}
"""Keys of run.json that are required to read a run, and their types."""


@dataclass(frozen=True)
class Item:
    """One explanation: attention (G, S, S), heatmap (H, W), token_z with a value for each token.

    G is 0 for a model without attention. ``top_answers``: the likeliest answers with their probabilities.
    ``block_heatmaps`` (L, H, W), for a model with L > 1 blocks, end with ``heatmap``; L is 0 for others.
    ``word_heatmaps`` (T, H, W), for a model with a product for each word, end with ``heatmap``; else T is 0.
    ``textual_attention`` has a value for each token, or is empty; so have ``word_attention`` and
    ``phrase_attention``, for a model that attends to words on three levels. In a run without heat maps,
    ``heatmap`` has shape (0, 0), ``token_z`` is empty, and ``zero_gradient`` is 0.
    ``image_digest``: SHA-256 of the image file. ``unknown``: whether each token is not in the vocabulary.
    ``zero_gradient``: bits ``ZERO_IMAGE_GRADIENT`` and ``ZERO_WORD_GRADIENT`` of ``hvx.store.schema``.
    """

    question_id: int | str
    image_id: int | str
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
    image_digest: str
    zero_gradient: int
    block_heatmaps: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1), np.float32))
    textual_attention: list[float] = field(default_factory=list)
    unknown: list[bool] = field(default_factory=list)
    word_heatmaps: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1), np.float32))
    word_attention: list[float] = field(default_factory=list)
    phrase_attention: list[float] = field(default_factory=list)


class RunReader:
    """A finished run folder.

    Items and columns are read from the shards, a few of which are open at a time, not from the view: HDF5
    fills virtual data that it cannot open with zeros and reports nothing. Only the attributes and the index
    of the view are read. A shard is checked when it is opened: its core must match its seal, and it must be
    the shard that the view lists, and this run's. Its datasets must be in the shard itself.

    Args:
        run: the folder.

    Raises:
        HvxError: not a run, or a run that is unfinished, damaged or of another schema; on reading an item or
            a column, a shard is damaged or was replaced.
    """

    def __init__(self, run: Path) -> None:
        self.path = run
        check_inside(run / DESCRIPTION, run)
        about = read_json(run / DESCRIPTION, "a run folder's description")
        if not isinstance(about, dict) or not all(isinstance(about.get(k), v) for k, v in _REQUIRED.items()):
            raise HvxError(f"{run / 'run.json'}: not the description of a run")
        self.about: dict[str, Any] = about
        integers = about.get("integer_ids")
        self._integer_ids = tuple(integers) if isinstance(integers, list) else ()
        self._view = run / VIEW
        self._file = self._opened(run_digest(about["identity"]))
        self._solid = Datasets(self._file)
        try:
            self._shards, self._shapes = self._read_contents(run_digest(about["identity"]))
        except BaseException:
            self._file.close()
            raise

    def _opened(self, digest: str) -> h5py.File:
        if not self._view.is_file():
            raise HvxError(
                f"{self.path}: the run is not finished (no explanations.h5); run `hvx explain` again"
            )
        check_inside(self._view, self.path)
        reason = verify_checksum(self._view, "core")
        if reason:
            raise damaged(self._view, reason)
        try:
            file = open_hdf5(self._view)
            version, of_run = file.attrs.get("schema_version"), file.attrs.get("run_digest")
        except (OSError, RuntimeError) as error:
            raise HvxError(f"{self._view}: not the explanations of a run: {error}") from None
        if version != VERSION:
            file.close()
            raise HvxError(
                f"{self._view}: schema version {version}; this hvx reads {VERSION}; run `hvx explain` into a "
                "new folder"
            )
        if of_run != digest:
            file.close()
            raise HvxError(f"{self._view}: belongs to another run than {self.path / 'run.json'}")
        return file

    def _read_contents(self, digest: str) -> tuple[ShardFiles | None, dict[str, tuple[int, ...]]]:
        """The shards of a view, or None for a solid file, which has all items; and each dataset's shape."""
        try:
            if INDEX not in self._file:
                stored_names = (name for name in FIELDS if name in self._file)
                shapes = {name: own_dataset(self._file, name).shape for name in stored_names}
                _check_shapes(shapes, len(self._file["question_id"]))
                return None, shapes
            entries, shapes = read_index(self._file, self.path), read_shapes(self._file)
            _check_shapes(shapes, sum(entry.items for entry in entries))
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise HvxError(f"{self._view}: not the explanations of a run: {error}") from None
        if not all(entry.path.is_file() for entry in entries):
            raise HvxError(f"{self.path}: shards are missing from the run; run `hvx explain` again")
        return ShardFiles(self.path, entries, digest), shapes

    def __enter__(self) -> RunReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._shapes["question_id"][0]

    @property
    def image_folders(self) -> tuple[Path, ...]:
        """The run's folders of photographs, in the order in which they are searched."""
        images = self.about["images"]
        return tuple(map(Path, images if isinstance(images, list) else [images]))

    @property
    def glimpses(self) -> int:
        """G, the number of attention maps of each item; 0 for a model without attention."""
        return self._shapes["attention"][1] if "attention" in self._shapes else 0

    @property
    def blocks(self) -> int:
        """L, the number of block heat maps of each item; 0 for a model with one product."""
        return self._shapes["block_heatmaps"][1] if "block_heatmaps" in self._shapes else 0

    @property
    def maps_words(self) -> bool:
        """Whether each word has a heat map, so that items have ``word_heatmaps``."""
        return "word_heatmaps" in self._shapes

    @property
    def attends_to_words(self) -> bool:
        """Whether the model attends to words, so that items have ``textual_attention``."""
        return "textual_attention" in self._shapes

    @property
    def attends_on_levels(self) -> bool:
        """Whether it attends on three levels: items have ``word_attention`` and ``phrase_attention``."""
        return all(name in self._shapes for name in EARLIER)

    @property
    def has_heatmaps(self) -> bool:
        """Whether the items have results of Eqs 2 and 3, which need a network with a Hadamard product."""
        return "heatmap" in self._shapes

    def check_heatmaps(self) -> None:
        """Refuse a run without results of Eqs 2 and 3.

        Raises:
            HvxError: says what is missing, and why.
        """
        if not self.has_heatmaps:
            raise HvxError(f"{self.path}: no heat maps, no z-scores: its network has no Hadamard product")

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """(H, W) of each stored heat map, which may be smaller than the image; (0, 0) if there are none."""
        _, height, width = self._shapes.get("heatmap", (0, 0, 0))
        return height, width

    @property
    def attention_size(self) -> tuple[int, int]:
        """(S, S) of each attention map; (0, 0) for a model without attention."""
        _, _, rows, columns = self._shapes.get("attention", (0, 0, 0, 0))
        return rows, columns

    @property
    def stores_scaled_heatmaps(self) -> bool:
        """Whether heat maps are stored in 8 bits, with a factor for each; see ``hvx.store.heatmaps``."""
        if not self.has_heatmaps:
            return False
        with self._reading():
            return self._datasets(0).in_8_bits("heatmap")

    def item_values(self, name: str) -> int:
        """The number of values of a dataset for each item."""
        return prod(self._shapes[name][1:])

    def column(self, name: str) -> np.ndarray:
        """A whole dataset; strings as ``str``, 8-bit heat maps as float32.

        Ids are integers if they are in the split's file. Axes that differ between shards are padded to the
        longest.

        Raises:
            HvxError: the run has no results of Eqs 2 and 3, or a shard is damaged.
        """
        if name in EXPLAINING:
            self.check_heatmaps()
        with self._reading():
            values = self._column(name)
            return values.astype(np.int64) if name in IDS and name in self._integer_ids else values

    def chunks(
        self, name: str, size: int, wanted: np.ndarray | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """A dataset in the order of the items, a few items at a time; values as ``column`` returns them.

        Axes that differ between shards have the length of the shard.

        Args:
            name: of the dataset.
            size: the most items at a time.
            wanted: (N) bool; chunks without a wanted item are not read. All are read if None.

        Yields:
            The number of the first item, and the values.
        """
        for shard, first, rows in self._pieces(size, wanted):
            with self._reading():
                values = self._datasets(shard).values(name, rows)
                if len(values) != rows.stop - rows.start:
                    raise ValueError(f"shard {shard}: {name} has another number of items")
                if name in IDS and name in self._integer_ids:
                    values = values.astype(np.int64)
            yield first, values

    def chunk_count(self, size: int, wanted: np.ndarray | None = None) -> int:
        """The number of chunks that ``chunks`` yields."""
        return sum(1 for _ in self._pieces(size, wanted))

    def _pieces(self, size: int, selected: np.ndarray | None) -> Iterator[tuple[int, int, slice]]:
        """For each chunk: the shard's index, the number of its first item, and its rows in the shard."""
        starts = [0] if self._shards is None else self._shards.starts[:-1]
        for shard, (start, end) in enumerate(zip(starts, [*starts[1:], len(self)], strict=True)):
            for first in range(start, end, size):
                last = min(first + size, end)
                if selected is None or selected[first:last].any():
                    yield shard, first, slice(first - start, last - start)

    def _column(self, name: str) -> np.ndarray:
        field = FIELDS[name]
        if self._shards is None:
            return self._datasets(0).values(name)
        dtype = object if field.dtype is TEXT else self._datasets(0).dtype(name)
        column = np.full(self._shapes[name], field.fill, dtype)
        for shard, start in enumerate(self._shards.starts[:-1]):
            values = self._datasets(shard).values(name)
            if len(values) != self._shards.entries[shard].items:
                raise ValueError(f"shard {shard}: {name} has another number of items")
            column[(slice(start, start + len(values)), *map(slice, values.shape[1:]))] = values
        return column

    def attribute(self, name: str) -> Any:
        """An attribute of the whole run, such as ``crop``."""
        return json.loads(self._file.attrs[name])

    def __getitem__(self, number: int) -> Item:
        return next(self.items([range(len(self))[number]]))

    def value(self, name: str, number: int) -> np.ndarray:
        """A dataset's values for one item, as ``column`` returns them for all."""
        with self._reading():
            shard, row = self._locate(number)
            return self._datasets(shard).values(name, row)

    def items(self, numbers: Sequence[int]) -> Iterator[Item]:
        """Items by number, in the given order; items with consecutive numbers are read together.

        Reading many items of a shard together is several times faster than one by one. They are all in memory
        at once, so request some dozens at a time.

        Args:
            numbers: 0 to N − 1.
        """
        for first, count in _consecutive(numbers):
            with self._reading():
                while count:
                    shard, row = self._locate(first)
                    datasets = self._datasets(shard)
                    rows = slice(row, min(row + count, len(datasets["question_id"])))
                    block = Block(datasets, rows)
                    yield from (self._item(block, number) for number in range(rows.stop - rows.start))
                    first, count = first + rows.stop - rows.start, count - (rows.stop - rows.start)

    def _locate(self, number: int) -> tuple[int, int]:
        """The shard of an item, and the item's row in it; shard 0 is a solid file."""
        return (0, number) if self._shards is None else self._shards.locate(number)

    def _datasets(self, shard: int) -> Datasets:
        """The datasets of a shard, or those of a solid file."""
        return self._solid if self._shards is None else self._shards.datasets(shard)

    def _item(self, block: Block, number: int) -> Item:
        def value(name: str) -> Any:
            return block.values(name)[number]

        def texts(name: str) -> Any:
            return block.decoded(name)[number]

        def text(name: str) -> str:
            return str(texts(name))

        def typed_id(name: str) -> int | str:
            return int(text(name)) if name in self._integer_ids else text(name)

        length = int(value("length"))
        top = [str(answer) for answer in texts("top_answers")]
        photo = Path(text("image_path"))
        if photo.is_absolute() or ".." in photo.parts:
            raise HvxError(f"{self.path}: image_path: '{photo}' leads out of the images' folder")
        return Item(
            question_id=typed_id("question_id"),
            image_id=typed_id("image_id"),
            question=text("question"),
            image_path=text("image_path"),
            image_digest=text("image_digest"),
            answer=text("answer"),
            ground_truth=text("ground_truth"),
            question_type=text("question_type"),
            answer_type=text("answer_type"),
            probability=float(value("probability")),
            top_answers=tuple(zip(top, value("top_probabilities").tolist(), strict=True)),
            tokens=[str(token) for token in texts("tokens")[:length]],
            token_z=value("token_z")[:length].tolist() if self.has_heatmaps else [],
            attention=value("attention") if self.glimpses else np.zeros((0, 1, 1), np.float32),
            heatmap=self._heatmap(block, number),
            zero_gradient=int(value("zero_gradient")) if self.has_heatmaps else 0,
            unknown=(value("unknown")[:length] != 0).tolist(),
            **self._optional(block, number, length),
        )

    def _heatmap(self, block: Block, number: int) -> np.ndarray:
        if not self.has_heatmaps:
            return np.zeros((0, 0), np.float32)
        return block.decoded("heatmap")[number].astype(np.float32)

    def _optional(self, block: Block, number: int, length: int) -> dict[str, Any]:
        """The fields of one item that only some models have."""
        fields: dict[str, Any] = {}
        if self.blocks:
            fields["block_heatmaps"] = block.decoded("block_heatmaps")[number].astype(np.float32)
        if self.maps_words:
            fields["word_heatmaps"] = block.word_maps(number, length)
        words = ["textual_attention"] if self.attends_to_words else []
        for name in words + (list(EARLIER) if self.attends_on_levels else []):
            fields[name] = block.values(name)[number][:length].tolist()
        return fields

    def close(self) -> None:
        """Close all files."""
        self._file.close()
        if self._shards is not None:
            self._shards.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Convert HDF5's read errors, such as a wrong checksum, to one line."""
        try:
            yield
        except (OSError, KeyError, RuntimeError, ValueError, OverflowError) as error:
            raise damaged(self.path, error) from None


def _consecutive(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first number and the length of each range of consecutive numbers."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield int(numbers[start]), end - start
            start = end


def _check_shapes(shapes: dict[str, tuple[int, ...]], items: int) -> None:
    """Compare the datasets of a run with the schema.

    Raises:
        ValueError: names one that is absent, or of another shape.
    """
    for name, schema_field in FIELDS.items():
        if name not in shapes:
            if not schema_field.optional:
                raise ValueError(f"{name} is missing")
        elif len(shapes[name]) != 1 + len(schema_field.axes) or shapes[name][0] != items:
            raise ValueError(f"{name} has the shape {shapes[name]}, for {items} items")
    absent = [name for name in EXPLAINING if name not in shapes]
    if absent and len(absent) < len(EXPLAINING):
        raise ValueError(f"{absent[0]} is missing")
