"""Which explanations of a run to show: by id, by type, right or wrong, by agreement, by lot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hvx.errors import HvxError, did_you_mean
from hvx.measure.agreement import pooled, rank_correlation
from hvx.progress import bar
from hvx.store.reader import Item, RunReader
from hvx.view.tokens import is_right

Order = Literal["random", "agreement", "disagreement"]
ORDERS: tuple[Order, ...] = ("random", "agreement", "disagreement")


@dataclass(frozen=True)
class Choice:
    """What is asked for.

    Attributes:
        ids: these question_ids, in this order, and no others.
        answer_types: of these types alone; none: of any.
        question_types: the same.
        right: right answers alone, or wrong ones; None: any, those without ground truth too.
        order: by lot, or the heat map's agreement with the attention: highest or lowest first.
        count: how many; those of ``ids`` all.
        seed: of the lot.
    """

    ids: tuple[int, ...] = ()
    answer_types: tuple[str, ...] = ()
    question_types: tuple[str, ...] = ()
    right: bool | None = None
    order: Order = "random"
    count: int = 3
    seed: int = 0


def choose(reader: RunReader, choice: Choice) -> list[int]:
    """The numbers of a run's items that a choice takes, in its order.

    Raises:
        HvxError: a question_id or a type that the run does not hold, nothing that fits, or an order by
            agreement in a run without attention.
    """
    if choice.ids:
        return _of_ids(reader, choice.ids)
    wanted = np.ones(len(reader), bool)
    for name, types in (("answer_type", choice.answer_types), ("question_type", choice.question_types)):
        wanted &= _of_types(reader, name, types)
    if choice.right is not None:
        pairs = zip(reader.column("answer"), reader.column("ground_truth"), strict=True)
        wanted &= np.array([is_right(*pair) is choice.right for pair in pairs], bool)
    numbers = np.flatnonzero(wanted)
    if not numbers.size:
        raise HvxError(f"{reader.path}: no explanation fits what is asked for; ask for less at once")
    shuffled = np.random.default_rng(choice.seed).permutation(numbers)
    if choice.order != "random":
        scores = np.array([agreement(reader[int(n)]) for n in bar(shuffled, "comparing maps", "item")])
        if np.isnan(scores).any():
            raise HvxError(f"{reader.path}: a model without attention; there is no agreement to choose by")
        shuffled = shuffled[np.argsort(-scores if choice.order == "agreement" else scores, kind="stable")]
    return [int(number) for number in shuffled[: choice.count]]


def agreement(item: Item) -> float:
    """Spearman's rank correlation of the heat map with the glimpses' summed attention, over the lattice.

    Of the heat map counts its mean over each cell. NaN of a model without attention.
    """
    if not len(item.attention):
        return float("nan")
    summed = item.attention.sum(0)
    return rank_correlation(pooled(item.heatmap, summed.shape), summed)


def _of_ids(reader: RunReader, ids: Sequence[int]) -> list[int]:
    numbers = {int(question_id): number for number, question_id in enumerate(reader.column("question_id"))}
    for question_id in ids:
        if question_id not in numbers:
            raise HvxError(f"{reader.path}: holds no explanation of question_id {question_id}")
    return [numbers[question_id] for question_id in ids]


def _of_types(reader: RunReader, name: str, types: Sequence[str]) -> np.ndarray:
    """Which items are of one of these types; all, where there are none."""
    column = reader.column(name)
    if not types:
        return np.ones(len(column), bool)
    known = sorted({str(one) for one in column} - {""})
    for one in types:
        if one not in known:
            listed = f"the run has: {', '.join(known)}" if known else "the run knows no types"
            raise HvxError(f"{reader.path}: no {name} '{one}'{did_you_mean(one, known)}; {listed:.300}")
    return np.isin(column.astype(str), types)
