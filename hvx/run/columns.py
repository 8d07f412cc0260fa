"""From explanations to the columns of a shard, without an object for each question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvx.config import HeatmapConfig
from hvx.data.questions import Question
from hvx.explain.explainer import TOP, Answered, Explanations
from hvx.store.heatmaps import SCALES, shrunk, to_8_bits, to_half
from hvx.store.schema import EARLIER, FIELDS, ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT

_OF_QUESTIONS: dict[str, Callable[[Question], Any]] = {
    "question_id": lambda question: question.question_id,
    "image_id": lambda question: question.image_id,
    "question": lambda question: question.question,
    "image_path": lambda question: question.image,
    "ground_truth": lambda question: question.ground_truth,
    "question_type": lambda question: question.question_type,
    "answer_type": lambda question: question.answer_type,
}
_AT_ONCE = 4
_OVERFLOW = "is not finite (NaN or infinite): the network's numbers overflow on this question"


class ShardColumns:
    """The columns of a shard's N questions, filled as its explanations come, in any order.

    Args:
        questions: of the shard, in its order.
        stored: how heat maps are stored.
    """

    def __init__(self, questions: Sequence[Question], stored: HeatmapConfig) -> None:
        self._questions, self._stored = questions, stored
        self._known = np.zeros(len(questions), bool)
        self._columns: dict[str, np.ndarray] = {}
        self._tokens: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self.odd: dict[int, str] = {}
        """Why a question has no row though it was explained, by its place."""

    def add(self, places: Sequence[int], explained: Answered) -> None:
        """Take the explanations of the questions at these places."""
        odd = _not_finite(explained)
        self.odd |= {places[row]: f"{part} {_OVERFLOW}" for row, part in odd.items()}
        own = np.array(places, int)
        self._known[[place for place in places if place not in self.odd]] = True
        for name, values in _columns(explained, self._stored):
            if name not in self._columns:
                dtype = np.float16 if isinstance(values, Tensor) else values.dtype
                self._columns[name] = np.empty((len(self._questions), *values.shape[1:]), dtype)
            if isinstance(values, Tensor):
                _put_half(values, self._columns[name], own)
            else:
                self._columns[name][own] = values
        self._tokens.append((own, _of_tokens(explained, self._stored)))

    def done(self, digests: Sequence[str]) -> dict[str, np.ndarray]:
        """Every column of the schema that there is, of the questions that have a row.

        Args:
            digests: of each question's image file; of those without a row it does not matter.
        """
        rows = np.flatnonzero(self._known).tolist()
        asked = [self._questions[row] for row in rows]
        found = {name: _objects([of(question) for question in asked]) for name, of in _OF_QUESTIONS.items()}
        found["image_digest"] = _objects([digests[row] for row in rows])
        every = len(rows) == len(self._known)
        found |= {name: own if every else own[rows] for name, own in self._columns.items()}
        found |= {name: own if every else own[rows] for name, own in self._padded()}
        return found if len(rows) else _no_rows()

    def _padded(self) -> Iterator[tuple[str, np.ndarray]]:
        """The columns of tokens, each as long as the longest question that has a row."""
        if not self._tokens:
            return
        length = self._columns["length"][self._known]
        longest = int(length.max(initial=0))
        for name, first in self._tokens[0][1].items():
            field = FIELDS[name]
            shape = (len(self._known),) if field.ragged else (len(self._known), longest)
            column = np.full(shape, None if field.ragged else field.fill, first.dtype)
            for places, own in self._tokens:
                values = own[name] if field.ragged else own[name][:, :longest]
                if field.ragged:
                    column[places] = values
                else:
                    column[places, : values.shape[1]] = values
            yield name, column


def _put_half(values: Tensor, column: np.ndarray, places: np.ndarray) -> None:
    """Put numbers into a column of half precision, at these places.

    On the CPU a few items at a time: memory for all of them would be new at each call, and take longer than
    the numbers do.
    """
    count = _AT_ONCE if values.device.type == "cpu" else max(1, len(values))
    for start in range(0, len(values), count):
        column[places[start : start + count]] = to_half(values[start : start + count]).cpu().numpy()


def _columns(explained: Answered, stored: HeatmapConfig) -> Iterator[tuple[str, np.ndarray | Tensor]]:
    """The columns of explanations whose items have one shape, by name; tensors go into half precision."""
    top = [answers + [""] * (TOP - len(answers)) for answers in explained.answers]
    shares = explained.probabilities.float().cpu().numpy()
    yield "answer", _objects([answers[0] for answers in top])
    yield "top_answers", np.array(top, object).reshape(len(top), TOP)
    yield "probability", shares[:, 0]
    yield (
        "top_probabilities",
        np.pad(shares, ((0, 0), (0, TOP - shares.shape[1])), constant_values=np.float32(np.nan)),
    )
    yield "length", np.array([len(own) for own in explained.tokens], np.int32)
    if explained.attention is not None:
        yield "attention", explained.attention.float().cpu().numpy()
    if isinstance(explained, Explanations):
        yield from _explaining(explained, stored)


def _explaining(explained: Explanations, stored: HeatmapConfig) -> Iterator[tuple[str, np.ndarray | Tensor]]:
    """What Eqs 2 and 3 say, by name."""
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
    """Heat maps (…, H, W) at the size that the run stores, to be put into half precision; or in 8 bits, and
    then their factors."""
    small = shrunk(maps, stored.size)
    if stored.dtype == "uint8":
        values, factors = to_8_bits(small.cpu().numpy())
        yield name, values
        yield SCALES[name], factors
    else:
        yield name, small


def _of_tokens(explained: Answered, stored: HeatmapConfig) -> dict[str, np.ndarray]:
    """The columns whose items are as long as their questions, padded to the longest, or objects."""
    lengths = torch.tensor([len(own) for own in explained.tokens])
    longest = int(lengths.max()) if len(lengths) else 0
    own = torch.arange(longest) < lengths[:, None]
    found = {
        "tokens": _padded_lists(explained.tokens, longest, "", np.dtype(object)),
        "unknown": _padded_lists(explained.unknown, longest, 0, np.dtype(np.uint8)),
    }
    for name, values in _numbers_of_tokens(explained).items():
        found[name] = values[:, :longest].float().cpu().where(own, FIELDS[name].fill).numpy()
    if isinstance(explained, Explanations) and explained.word_heatmaps is not None:
        found |= _word_maps(explained.word_heatmaps, longest, stored)
    return found


def _numbers_of_tokens(explained: Answered) -> dict[str, Tensor]:
    """The numbers that each token has (N, T), by field."""
    found: dict[str, Tensor | None] = {"textual_attention": explained.textual_attention}
    if explained.earlier_attention is not None:
        found |= dict(zip(EARLIER, explained.earlier_attention.unbind(1), strict=True))
    if isinstance(explained, Explanations):
        found |= {"token_saliency": explained.saliency, "token_z": explained.z}
    return {name: values for name, values in found.items() if values is not None}


def _word_maps(maps: list[Tensor], longest: int, stored: HeatmapConfig) -> dict[str, np.ndarray]:
    """The heat maps of tokens, an array for each question, and the factors of those in 8 bits."""
    each = [dict(_stored_maps("word_heatmaps", own, stored)) for own in maps]
    values = [one["word_heatmaps"] for one in each]
    found = {
        "word_heatmaps": _objects(
            [to_half(one).numpy() if isinstance(one, Tensor) else one for one in values]
        )
    }
    scale = SCALES["word_heatmaps"]
    if each and scale in each[0]:
        factors = [one[scale].tolist() for one in each]
        found[scale] = _padded_lists(factors, longest, 0, np.dtype(np.float32))
    return found


def _padded_lists(
    items: Sequence[Sequence[Any]], longest: int, fill: Any, dtype: np.dtype[Any]
) -> np.ndarray:
    padded = [[*item, *[fill] * (longest - len(item))] for item in items]
    return np.array(padded, dtype).reshape(len(items), longest)


def _objects(values: Sequence[Any]) -> np.ndarray:
    """As an array of objects, arrays among them, too."""
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array


def _no_rows() -> dict[str, np.ndarray]:
    """The columns of a shard none of whose questions could be explained."""
    return {
        name: np.zeros((0,) * (1 + len(field.axes)), object if field.fill == "" else field.dtype)
        for name, field in FIELDS.items()
        if not field.optional
    }


def _not_finite(explained: Answered) -> dict[int, str]:
    """Of explanations that hold a NaN or an infinity, by row, the first such part."""
    lengths = torch.tensor([len(own) for own in explained.tokens], device=explained.probabilities.device)
    has_score = isinstance(explained, Explanations) and explained.scores is not None
    parts: dict[str, Tensor | None] = {
        "the answer's probability": None if has_score else explained.probabilities
    }
    if isinstance(explained, Explanations):
        parts |= _explaining_parts(explained, lengths)
    parts |= {
        "the attention": explained.attention,
        "the attention to words": _own(explained.textual_attention, lengths),
        "the attention to words and phrases": _own(explained.earlier_attention, lengths),
    }
    flags = {
        name: part if part.dtype == torch.bool else _finite(part)
        for name, part in parts.items()
        if part is not None and len(part)
    }
    if not flags:
        return {}
    # One copy for all of them: each would wait for the GPU.
    odd = ~torch.stack([rows.to(lengths.device) for rows in flags.values()]).cpu()
    found: dict[int, str] = {}
    for part, row in odd.nonzero().tolist():
        found.setdefault(row, list(flags)[part])
    return found


def _explaining_parts(explained: Explanations, lengths: Tensor) -> dict[str, Tensor | None]:
    """What must be finite of Eqs 2 and 3, by name; flags (N) of what is known to be so."""
    words = explained.word_heatmaps
    return {
        "the score": explained.scores,
        "the heat map (Eqs 2, 9)": explained.heatmap,
        "the tokens' saliency (Eqs 3, 10)": _own(explained.saliency, lengths),
        "the tokens' z-score (Eq. 11)": _own(explained.z, lengths),
        "a block's heat map": explained.block_heatmaps,
        "a word's heat map": torch.stack([one.isfinite().all() for one in words]) if words else None,
        "the gradient (Eq. 9)": explained.gradient,
    }


def _own(values: Tensor | None, lengths: Tensor) -> Tensor | None:
    """Values of tokens (N, …, T), 0 beyond each question's."""
    if values is None:
        return None
    own = torch.arange(values.shape[-1], device=values.device) < lengths[:, None]
    return values.where(own if values.ndim == 2 else own[:, None], 0)


def _finite(values: Tensor) -> Tensor:
    """Of each item (N, …), whether all of its numbers are finite."""
    flat = values.flatten(1) if values.ndim > 1 else values[:, None]
    if not flat.shape[1]:
        return torch.ones(len(flat), dtype=torch.bool, device=values.device)
    # A NaN is the least and the largest; by far quicker than isfinite() and all() of every number.
    return flat.amin(1).isfinite() & flat.amax(1).isfinite()
