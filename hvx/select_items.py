"""Selects explanations of a run: by id, type, correctness or agreement, or at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hvx.errors import HvxError, did_you_mean
from hvx.measure.metrics.agreement import pooled, rank_correlation
from hvx.progress import bar
from hvx.store.reader import Item, RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT
from hvx.view.tokens import is_right

Order = Literal["random", "agreement", "disagreement"]
ORDERS: tuple[Order, ...] = ("random", "agreement", "disagreement")


@dataclass(frozen=True)
class ItemFilter:
    """A filter for items of a run, with an order and a limit.

    Attributes:
        ids: select exactly these question_ids, in this order.
        answer_types: select only these types; any type if empty.
        question_types: as ``answer_types``.
        right: select only right, or only wrong answers; if None any, also without ground truth.
        order: random, or by the heat map's agreement with the attention: highest or lowest first.
        count: maximum number of items; does not apply to ``ids``.
        seed: of the random order.
        among: select only from these question_ids, as strings; from all if None.
    """

    ids: tuple[int | str, ...] = ()
    answer_types: tuple[str, ...] = ()
    question_types: tuple[str, ...] = ()
    right: bool | None = None
    order: Order = "random"
    count: int = 3
    seed: int = 0
    among: frozenset[str] | None = None


def select_items(reader: RunReader, choice: ItemFilter) -> list[int]:
    """The numbers of a run's items that a choice selects, in order.

    Raises:
        HvxError: the run lacks a question_id or a type, no item matches, or an order by agreement without
            attention or heat maps.
    """
    if choice.ids:
        return _of_ids(reader, choice.ids)
    selected = np.ones(len(reader), bool)
    for name, types in (("answer_type", choice.answer_types), ("question_type", choice.question_types)):
        selected &= _of_types(reader, name, types)
    if choice.among is not None:
        selected &= np.array([str(value) in choice.among for value in reader.column("question_id")], bool)
    if choice.right is not None:
        pairs = zip(reader.column("answer"), reader.column("ground_truth"), strict=True)
        selected &= np.array([is_right(*pair) is choice.right for pair in pairs], bool)
    numbers = np.flatnonzero(selected)
    if not numbers.size:
        raise HvxError(f"{reader.path}: no explanation fits what is asked for; ask for less at once")
    shuffled = np.random.default_rng(choice.seed).permutation(numbers)
    if choice.order != "random":
        shuffled = _by_agreement(reader, shuffled, choice.order)
    return [int(number) for number in shuffled[: choice.count]]


def agreement(item: Item) -> float:
    """Spearman's rank correlation of the heat map with the glimpses' summed attention, over the grid cells.

    The heat map is averaged over each cell. NaN if the model has no attention, or if the item's gradient of
    the image is zero everywhere.
    """
    if not len(item.attention) or item.zero_gradient & ZERO_IMAGE_GRADIENT:
        return float("nan")
    summed = item.attention.sum(0)
    return rank_correlation(pooled(item.heatmap, summed.shape), summed)


def _by_agreement(reader: RunReader, numbers: np.ndarray, order: Order) -> np.ndarray:
    """Items sorted by agreement, highest or lowest first, without those that have none."""
    reader.check_heatmaps()
    if not reader.glimpses:
        raise HvxError(f"{reader.path}: a model without attention; there is no agreement to choose by")
    scores = np.array([agreement(reader[int(n)]) for n in bar(numbers, "comparing maps", "item")])
    if np.isnan(scores).all():
        raise HvxError(
            f"{reader.path}: the gradient of all that fit is zero; there is no agreement to choose by"
        )
    ranked = np.argsort(-scores if order == "agreement" else scores, kind="stable")  # NaN last
    return numbers[ranked[~np.isnan(scores[ranked])]]


def _of_ids(reader: RunReader, ids: Sequence[int | str]) -> list[int]:
    numbers = {str(question_id): number for number, question_id in enumerate(reader.column("question_id"))}
    for question_id in ids:
        if str(question_id) not in numbers:
            raise HvxError(f"{reader.path}: holds no explanation of question_id {question_id}")
    return [numbers[str(question_id)] for question_id in ids]


def _of_types(reader: RunReader, name: str, types: Sequence[str]) -> np.ndarray:
    """A mask of the items of these types; all items if ``types`` is empty."""
    column = reader.column(name)
    if not types:
        return np.ones(len(column), bool)
    known = sorted({str(value) for value in column} - {""})
    for value in types:
        if value not in known:
            listed = f"the run has: {', '.join(known)}" if known else "the run knows no types"
            raise HvxError(f"{reader.path}: no {name} '{value}'{did_you_mean(value, known)}; {listed:.300}")
    return np.isin(column.astype(str), types)
