"""Python access to a finished run: its explanations by number or id, as a table, as figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
from PIL import Image

from hvx.errors import HvxError, cut, shown
from hvx.extras import require
from hvx.store.reader import Item, RunReader
from hvx.store.schema import EXPLAINING

if TYPE_CHECKING:
    import pandas

    from hvx.view.style import FigureStyle

_COLUMNS = (
    "question_id", "image_id", "image_path", "question", "question_type", "answer_type", "answer",
    "ground_truth", "probability", "zero_gradient",
)  # fmt: skip


def open_run(path: str | Path) -> Run:
    """Open a finished run folder, as ``hvx explain`` writes it.

    Args:
        path: the folder with ``run.json``.

    Raises:
        HvxError: no run, an unfinished or damaged one, or one of another schema.
    """
    return Run(path)


@dataclass(frozen=True, repr=False, eq=False)
class RunItem:
    """One explanation of a run; arrays are NumPy's.

    Attributes:
        number: index in the run, from 0.
        question_id: integer or text, as the split's file has it.
        image_id: as ``question_id``.
        image_path: the photo, below the run's folder of images.
        question: as asked.
        answer: the likeliest.
        ground_truth: "" where unknown.
        question_type: "" where unknown.
        answer_type: "" where unknown.
        probability: of the answer, 0 to 1.
        answers: the five likeliest with their probabilities, in descending order.
        tokens: T of them.
        unknown: (T) whether the token is out of vocabulary.
        token_z: Eq. 11 (T) float32; like ``heatmap``, None for a network without a Hadamard product.
        heatmap: H (H, W) float32, as stored.
        attention: α (G, S, S) float32, each glimpse summing to 1; None for a model without attention.
        block_heatmaps: H of each block (L, H, W) float32; None for a model with one product.
        textual_attention: (T) float32, summing to 1; None for a model without one.
        word_attention: (T) float32, the word-level attention of a model with three levels, where
            ``phrase_attention`` is the second and ``textual_attention`` the third; None for others.
        phrase_attention: see ``word_attention``.
        word_heatmaps: H of each token (T, H, W) float32; None for a model without a product for each word.
        zero_gradient: 1 if Eq. 2 is zero everywhere (the heat map is meaningless), 2 if Eq. 3 is, 3 if both.
    """

    number: int
    question_id: int | str
    image_id: int | str
    image_path: str
    question: str
    answer: str
    ground_truth: str
    question_type: str
    answer_type: str
    probability: float
    answers: list[tuple[str, float]]
    tokens: list[str]
    unknown: list[bool]
    token_z: np.ndarray | None
    heatmap: np.ndarray | None
    attention: np.ndarray | None
    block_heatmaps: np.ndarray | None
    textual_attention: np.ndarray | None
    zero_gradient: int
    word_heatmaps: np.ndarray | None
    word_attention: np.ndarray | None
    phrase_attention: np.ndarray | None
    _reader: RunReader = field(repr=False)

    def figure(
        self,
        width: int = 1200,
        style: FigureStyle | str | None = None,
        outline: bool | None = None,
        methods: Sequence[str] = (),
        device: str = "auto",
    ) -> Image.Image:
        """One row of the paper's figures, as ``hvx figure --id`` draws it, with the likeliest answers.

        Args:
            width: in pixels.
            style: a name as of ``hvx figure --style``, or a ``FigureStyle``; the default if None.
            outline: outline regions above the heat map's mean + 2 standard deviations; as the style if None.
            methods: names of methods of ``hvx measure`` as columns that replace the attention and the heat
                map; cached maps are reused, others are computed with the run's checkpoint.
            device: where the network runs, if maps must be computed.

        Raises:
            HvxError: an unknown style or method, a method without a map for this network, a width in which
                the pictures would be too small, or the extra ``figures`` is not installed.
            BadImage: the photo is missing, or was replaced after the run.
        """
        require("figures", "a figure")
        from hvx.view.figure import FigureLayout, draw_figure
        from hvx.view.run_figures import figure_row, heatmap_columns
        from hvx.view.style import FigureStyle

        style, reader = FigureStyle.of(style, outline), self._reader
        blocks, levels = heatmap_columns(reader), reader.attends_on_levels
        layout = FigureLayout(width, reader.glimpses, style, blocks=blocks, levels=levels)
        row = figure_row(reader, self.number, max(layout.side, reader.heatmap_size[0]))
        if not methods:
            return draw_figure([row], width, style=style, levels=levels)
        from hvx.measure.methods.maps import run_maps

        with run_maps(reader, [self.number], methods, device) as maps:
            row = replace(row, maps=maps.of(self.number, reader[self.number]))
            return draw_figure([row], width, style=style, columns=maps.columns)

    def __repr__(self) -> str:
        question = cut(self.question)
        text = f"RunItem({self.number}: id {self.question_id!r}, {question!r} → {self.answer!r:.60}"
        size = "no heat map" if self.heatmap is None else "H " + "×".join(map(str, self.heatmap.shape))
        return f"{text} {self.probability:.3f}, {size})"


class Run:
    """A finished run. ``run[3]`` accesses by number, from 0; ``run.id(17)`` by question_id.

    Args:
        path: the folder with ``run.json``.

    Raises:
        HvxError: no run, an unfinished or damaged one, or one of another schema; when an item is
            read: a damaged shard, or a closed run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise HvxError(f"{self.path}: no such run folder")
        self._reader = RunReader(self.path)
        self._numbers: dict[int | str, int] | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._reader)

    @overload
    def __getitem__(self, number: SupportsIndex) -> RunItem: ...
    @overload
    def __getitem__(self, number: slice) -> list[RunItem]: ...
    def __getitem__(self, number: SupportsIndex | slice) -> RunItem | list[RunItem]:
        """The item with a number, counted from the end if negative; a list for a slice.

        Raises:
            IndexError: no such number.
            HvxError: not a number; use ``id`` for a question_id.
        """
        numbers = range(len(self))
        if isinstance(number, slice):
            return [self._item(n) for n in numbers[number]]
        try:
            n = index(number)
        except TypeError:
            raise HvxError(
                f"run[{shown(number)}]: not a number; an id is for run.id({shown(number)})"
            ) from None
        if not -len(self) <= n < len(self):
            raise IndexError(f"run[{n}]: the run has {len(self):,} items")
        return self._item(numbers[n])

    def __iter__(self) -> Iterator[RunItem]:
        return (self._item(number) for number in range(len(self)))

    def id(self, question_id: int | np.integer | str) -> RunItem:
        """The item with a question_id: an integer if the split's file has integers, else a string.

        Raises:
            HvxError: no item has it, or it has the wrong type.
        """
        if self._numbers is None:
            self._open()
            ids = self._reader.column("question_id").tolist()
            self._numbers = {item_id: number for number, item_id in enumerate(ids)}
        kind = type(next(iter(self._numbers), 0))
        if isinstance(question_id, bool) or not isinstance(question_id, (str, int, np.integer)):
            raise HvxError(f"question_id {shown(question_id)}: neither an integer nor a text")
        key = question_id if isinstance(question_id, str) else int(question_id)
        if type(key) is not kind:
            expected = "integers" if kind is int else "texts"
            raise HvxError(f"question_id {shown(key)}: the ids of {self.path} are {expected}")
        if key not in self._numbers:
            raise HvxError(f"question_id {shown(key)}: not in {self.path}")
        return self._item(self._numbers[key])

    def to_dataframe(self) -> pandas.DataFrame:
        """A DataFrame with a row for each item, ordered by number, without maps.

        Columns: question_id, image_id, image_path, question, question_type, answer_type, answer,
        ground_truth, probability (0 to 1), zero_gradient, and lists: tokens (T) and z (T), Eq. 11; without
        zero_gradient and z where the network has no Hadamard product.

        Raises:
            HvxError: pandas is not installed, or a shard is damaged.
        """
        try:
            import pandas
        except ImportError:
            raise HvxError("to_dataframe needs pandas: pip install pandas") from None
        self._open()
        reader, absent = self._reader, () if self._reader.has_heatmaps else EXPLAINING
        columns: dict[str, Any] = {name: reader.column(name) for name in _COLUMNS if name not in absent}
        lengths = self._reader.column("length").tolist()
        for name, source in (("tokens", "tokens"), ("z", "token_z")):
            if source in absent:
                continue
            values = reader.column(source)
            columns[name] = [row[:n].tolist() for row, n in zip(values, lengths, strict=True)]
        return pandas.DataFrame(columns)

    def close(self) -> None:
        """Close the run's files; items that were read remain usable, except for their figures."""
        self._closed = True
        self._reader.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {len(self):,} explanations{', closed' if self._closed else ''})"

    def _open(self) -> None:
        if self._closed:
            raise HvxError(f"{self.path}: the run was closed; open it again with hvx.open_run")

    def _item(self, number: int) -> RunItem:
        self._open()
        item: Item = self._reader[number]
        return RunItem(
            number, item.question_id, item.image_id, item.image_path, item.question, item.answer,
            item.ground_truth, item.question_type, item.answer_type, item.probability,
            [(answer, p) for answer, p in item.top_answers if answer], item.tokens, item.unknown,
            np.asarray(item.token_z, np.float32) if self._reader.has_heatmaps else None,
            item.heatmap if self._reader.has_heatmaps else None,
            item.attention if len(item.attention) else None,
            item.block_heatmaps if len(item.block_heatmaps) else None,
            np.asarray(item.textual_attention, np.float32) if self._reader.attends_to_words else None,
            item.zero_gradient, item.word_heatmaps if self._reader.maps_words else None,
            np.asarray(item.word_attention, np.float32) if self._reader.attends_on_levels else None,
            np.asarray(item.phrase_attention, np.float32) if self._reader.attends_on_levels else None,
            self._reader,
        )  # fmt: skip
