"""Converts explanations to the columns of a shard, without an object for each question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.config import HeatmapConfig
from hvx.data.questions import Question
from hvx.explain.explainer import TOP, Answered, Explanations
from hvx.run.finite import is_finite, not_finite
from hvx.store.heatmaps import SCALES, is_finite_half, shrunk, to_8_bits, to_half
from hvx.store.schema import EARLIER, FIELDS, ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT

_GETTERS: dict[str, Callable[[Question], Any]] = {
    "question_id": lambda question: question.question_id,
    "image_id": lambda question: question.image_id,
    "question": lambda question: question.question,
    "image_path": lambda question: question.image,
    "ground_truth": lambda question: question.ground_truth,
    "question_type": lambda question: question.question_type,
    "answer_type": lambda question: question.answer_type,
}
_LARGE = 1 << 18
"""Smallest number of values of a column whose memory is used again."""
_OVERFLOW = "is not finite (NaN or infinite): the network's numbers overflow on this question"


class BufferPool:
    """Memory of large columns that is used again for later shards.

    Memory that is new to a process is slow to write: the system clears each page when it is first touched.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """An array without defined values, and its buffer (bytes), to be given back when it is written."""
        size = prod(shape) * np.dtype(dtype).itemsize
        fitting = [index for index, buffer in enumerate(self._free) if len(buffer) >= size]
        smallest = min(fitting, key=lambda index: len(self._free[index]), default=None)
        buffer = np.empty(size, np.uint8) if smallest is None else self._free.pop(smallest)
        return buffer[:size].view(dtype).reshape(shape), buffer

    def give(self, buffers: Sequence[np.ndarray]) -> None:
        """Take buffers back whose arrays nobody reads any more; earlier ones that were not needed go."""
        self._free = list(buffers)


class ShardColumns:
    """The columns of a shard's N questions, filled from its explanations in any order.

    Args:
        questions: the shard's questions, in its order.
        stored: how heat maps are stored.
        pool: memory for large columns.
    """

    def __init__(
        self, questions: Sequence[Question], stored: HeatmapConfig, pool: BufferPool | None = None
    ) -> None:
        self._questions, self._stored = questions, stored
        self._pool = pool or BufferPool()
        self.buffers: list[np.ndarray] = []
        """Of the pool; to be given back when the columns are written."""
        self._known = np.zeros(len(questions), bool)
        self._columns: dict[str, np.ndarray] = {}
        self._tokens: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self.odd: dict[int, str] = {}
        """Why a question has no row although it was explained, by its index in the shard."""

    def add(self, positions: Sequence[int], explained: Answered) -> None:
        """Store the explanations of the questions at ``positions``, their indices in the shard."""
        rows = np.array(positions, int)
        finite: dict[str, Tensor] = {}
        for name, values in _columns(explained, self._stored):
            if name not in self._columns:
                dtype = np.float16 if isinstance(values, Tensor) else values.dtype
                self._columns[name] = self._new((len(self._questions), *values.shape[1:]), dtype)
            if isinstance(values, Tensor):
                finite[name] = _put_half(values, self._columns[name], rows)
            else:
                self._columns[name][rows] = values
        self._tokens.append((rows, _token_columns(explained, self._stored)))
        odd = not_finite(explained, finite)
        self.odd |= {positions[item]: f"{part} {_OVERFLOW}" for item, part in odd.items()}
        self._known[[position for position in positions if position not in self.odd]] = True

    def _new(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if np.dtype(dtype).hasobject or prod(shape) < _LARGE:
            return np.empty(shape, dtype)
        column, buffer = self._pool.take(shape, dtype)
        self.buffers.append(buffer)
        return column

    def done(self, digests: Sequence[str]) -> dict[str, np.ndarray]:
        """All columns of the schema that have values, for the questions that have a row.

        Args:
            digests: of each question's image file; ignored for questions without a row.
        """
        rows = np.flatnonzero(self._known).tolist()
        questions = [self._questions[row] for row in rows]
        columns = {name: _objects(list(map(get, questions))) for name, get in _GETTERS.items()}
        columns["image_digest"] = _objects([digests[row] for row in rows])
        complete = len(rows) == len(self._known)
        columns |= {name: values if complete else values[rows] for name, values in self._columns.items()}
        columns |= {name: values if complete else values[rows] for name, values in self._padded()}
        return columns if len(rows) else _no_rows()

    def _padded(self) -> Iterator[tuple[str, np.ndarray]]:
        """The columns of tokens, padded to the longest question that has a row."""
        if not self._tokens:
            return
        length = self._columns["length"][self._known]
        longest = int(length.max(initial=0))
        for name, sample in self._tokens[0][1].items():
            field = FIELDS[name]
            shape = (len(self._known),) if field.ragged else (len(self._known), longest)
            column = np.full(shape, None if field.ragged else field.fill, sample.dtype)
            for rows, token_columns in self._tokens:
                values = token_columns[name] if field.ragged else token_columns[name][:, :longest]
                if field.ragged:
                    column[rows] = values
                else:
                    column[rows, : values.shape[1]] = values
            yield name, column


def _put_half(values: Tensor, column: np.ndarray, rows: np.ndarray) -> Tensor:
    """Write values (N, …) into these rows of a half-precision column, clamped to its range.

    On the CPU item by item: each is read from memory once, and its overflows are found in the processor's
    cache, in the half-precision numbers.

    Returns:
        Whether all numbers of each item are finite (N).
    """
    if values.device.type != "cpu":
        column[rows] = to_half(values).cpu().numpy()
        return is_finite(values)
    finite = torch.ones(len(values), dtype=torch.bool)
    target = torch.from_numpy(column)
    for index, (row, item) in enumerate(zip(rows.tolist(), values, strict=True)):
        target[row] = item
        if not is_finite_half(column[row]):  # infinite, NaN, or only beyond the range
            finite[index] = item.isfinite().all()
            target[row] = to_half(item)
    return finite


def _columns(explained: Answered, stored: HeatmapConfig) -> Iterator[tuple[str, np.ndarray | Tensor]]:
    """The columns whose items all have the same shape, by name; tensors are stored in half precision."""
    top = [answers + [""] * (TOP - len(answers)) for answers in explained.answers]
    probabilities = explained.probabilities.float().cpu().numpy()
    yield "answer", _objects([answers[0] for answers in top])
    yield "top_answers", np.array(top, object).reshape(len(top), TOP)
    yield "probability", probabilities[:, 0]
    yield (
        "top_probabilities",
        np.pad(
            probabilities, ((0, 0), (0, TOP - probabilities.shape[1])), constant_values=np.float32(np.nan)
        ),
    )
    yield "length", np.array([len(tokens) for tokens in explained.tokens], np.int32)
    if explained.attention is not None:
        yield "attention", explained.attention.float().cpu().numpy()
    if isinstance(explained, Explanations):
        yield from _eq_columns(explained, stored)


def _eq_columns(explained: Explanations, stored: HeatmapConfig) -> Iterator[tuple[str, np.ndarray | Tensor]]:
    """The columns computed from Eqs 2 and 3, by name."""
    zero = ZERO_IMAGE_GRADIENT * explained.zero_image_gradient.to(
        torch.uint8
    ) | ZERO_WORD_GRADIENT * explained.zero_word_gradient.to(torch.uint8)
    yield "zero_gradient", zero.cpu().numpy()
    if explained.scores is not None:
        yield "score", explained.scores.float().cpu().numpy()
    if explained.gradient is not None:
        yield "gradient", explained.gradient
    for name, maps in (("heatmap", explained.heatmap), ("block_heatmaps", explained.block_heatmaps)):
        if maps is not None:
            yield from _stored_maps(name, maps, stored)


def _stored_maps(name: str, maps: Tensor, stored: HeatmapConfig) -> Iterator[tuple[str, np.ndarray | Tensor]]:
    """Heat maps (…, H, W) at the size that the run stores: a tensor to be stored in half precision, or 8-bit
    values and their scale factors."""
    small = shrunk(maps, stored.size)
    if stored.dtype == "uint8":
        values, factors = to_8_bits(small.cpu().numpy())
        yield name, values
        yield SCALES[name], factors
    else:
        yield name, small


def _token_columns(explained: Answered, stored: HeatmapConfig) -> dict[str, np.ndarray]:
    """The columns with a value for each token, padded to the longest question, or as objects."""
    lengths = torch.tensor([len(tokens) for tokens in explained.tokens])
    longest = int(lengths.max()) if len(lengths) else 0
    in_question = torch.arange(longest) < lengths[:, None]
    columns = {
        "tokens": _padded_lists(explained.tokens, longest, "", np.dtype(object)),
        "unknown": _padded_lists(explained.unknown, longest, 0, np.dtype(np.uint8)),
    }
    for name, values in _token_values(explained).items():
        columns[name] = values[:, :longest].float().cpu().where(in_question, FIELDS[name].fill).numpy()
    if isinstance(explained, Explanations) and explained.word_heatmaps is not None:
        columns |= _word_maps(explained.word_heatmaps, longest, stored)
    return columns


def _token_values(explained: Answered) -> dict[str, Tensor]:
    """The numbers of each token (N, T), by field."""
    numbers: dict[str, Tensor | None] = {"textual_attention": explained.textual_attention}
    if explained.earlier_attention is not None:
        numbers |= dict(zip(EARLIER, explained.earlier_attention.unbind(1), strict=True))
    if isinstance(explained, Explanations):
        numbers |= {"token_saliency": explained.saliency, "token_z": explained.z}
    return {name: values for name, values in numbers.items() if values is not None}


def _word_maps(maps: list[Tensor], longest: int, stored: HeatmapConfig) -> dict[str, np.ndarray]:
    """The heat maps of tokens, an array for each question, and the scale factors of 8-bit ones."""
    questions = [dict(_stored_maps("word_heatmaps", word_maps, stored)) for word_maps in maps]
    arrays = [question["word_heatmaps"] for question in questions]
    columns = {
        "word_heatmaps": _objects(
            [to_half(array).numpy() if isinstance(array, Tensor) else array for array in arrays]
        )
    }
    scale = SCALES["word_heatmaps"]
    if questions and scale in questions[0]:
        factors = [question[scale].tolist() for question in questions]
        columns[scale] = _padded_lists(factors, longest, 0, np.dtype(np.float32))
    return columns


def _padded_lists(
    items: Sequence[Sequence[Any]], longest: int, fill: Any, dtype: np.dtype[Any]
) -> np.ndarray:
    padded = [[*item, *[fill] * (longest - len(item))] for item in items]
    return np.array(padded, dtype).reshape(len(items), longest)


def _objects(values: Sequence[Any]) -> np.ndarray:
    """An array of objects, which may themselves be arrays."""
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def _no_rows() -> dict[str, np.ndarray]:
    """The columns of a shard in which no question could be explained."""
    return {
        name: np.zeros((0,) * (1 + len(field.axes)), object if field.fill == "" else field.dtype)
        for name, field in FIELDS.items()
        if not field.optional
    }
