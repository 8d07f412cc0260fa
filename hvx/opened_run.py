"""A finished run from Python: its explanations by number or by id, as a table, as figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
from PIL import Image

from hvx.errors import HvxError, cut, shown
from hvx.store.reader import Item, RunReader
from hvx.store.schema import EXPLAINING

if TYPE_CHECKING:
    import pandas

    from hvx.view.figure import FigureStyle

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
        number: its place in the run, from 0.
        question_id: integer or text, as the split's file has it.
        image_id: as ``question_id``.
        image_path: the photo, below the run's folder of images.
        question: as asked.
        answer: the likeliest.
        ground_truth: "" where unknown.
        question_type: "" where unknown.
        answer_type: "" where unknown.
        probability: of the answer, 0 to 1.
        answers: the five likeliest with their probabilities, likeliest first.
        tokens: T of them.
        unknown: (T) whether the model's vocabulary lacks the token.
        token_z: Eq. 11 (T) float32; None, as ``heatmap``, of a network without a Hadamard product.
        heatmap: H (H, W) float32, as stored.
        attention: α (G, S, S) float32, each glimpse summing to 1; None of a model without attention.
        block_heatmaps: H of each block (L, H, W) float32; None of a model with one product.
        textual_attention: (T) float32, summing to 1; None of a model without one.
        word_attention: (T) float32, of a model that attends to words on three levels that of the first, as
            ``phrase_attention`` of the second and ``textual_attention`` of the third; None of others.
        phrase_attention: see ``word_attention``.
        word_heatmaps: H of each token (T, H, W) float32; None of a model without a product for each word.
        zero_gradient: 1 if Eq. 2 is zero everywhere (the heat map says nothing), 2 if Eq. 3 is, 3 if both.
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
            style: a name as of ``hvx figure --style``, or a ``FigureStyle``; None: the default one.
            outline: draw a line around what is above the heat map's mean + 2 standard deviations; None: as
                the style does.
            methods: names of methods of ``hvx measure`` as columns, in place of the attention and the heat
                map; maps that it kept are used, others computed by the run's checkpoint.
            device: where the network runs, if maps must be computed.

        Raises:
            HvxError: an unknown style or method, one that this network has no map for, or a width in which
                the pictures would be too small to see.
            BadImage: the photo is no longer where the run found it, or is another one now.
        """
        from hvx.view.figure import FigureLayout, FigureStyle, draw_figure
        from hvx.view.run_figures import figure_row, heatmap_columns

        look, reader = FigureStyle.of(style, outline), self._reader
        blocks, levels = heatmap_columns(reader), reader.attends_on_levels
        layout = FigureLayout(width, reader.glimpses, look, blocks=blocks, levels=levels)
        row = figure_row(reader, self.number, max(layout.side, reader.heatmap_size[0]))
        if not methods:
            return draw_figure([row], width, style=look, levels=levels)
        from hvx.measure.method_maps import run_maps

        with run_maps(reader, [self.number], methods, device) as maps:
            drawn = replace(row, maps=maps.of(self.number, reader[self.number]))
            return draw_figure([drawn], width, style=look, columns=maps.columns)

    def __repr__(self) -> str:
        asked = cut(self.question)
        told = f"RunItem({self.number}: id {self.question_id!r}, {asked!r} → {self.answer!r:.60}"
        size = "no heat map" if self.heatmap is None else "H " + "×".join(map(str, self.heatmap.shape))
        return f"{told} {self.probability:.3f}, {size})"


class Run:
    """A finished run. ``run[3]`` is by number, from 0; ``run.id(17)`` is by question_id: never the other.

    Args:
        path: the folder with ``run.json``.

    Raises:
        HvxError: no run, an unfinished or damaged one, or one of another schema; on reading an item, that a
            shard is damaged, or that the run was closed.
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
        """The item of a number, a negative one from the end; of a slice, a list.

        Raises:
            IndexError: no such number.
            HvxError: no number at all; an id is for ``id``.
        """
        places = range(len(self))
        if isinstance(number, slice):
            return [self._item(place) for place in places[number]]
        try:
            place = index(number)
        except TypeError:
            raise HvxError(
                f"run[{shown(number)}]: not a number; an id is for run.id({shown(number)})"
            ) from None
        if not -len(self) <= place < len(self):
            raise IndexError(f"run[{place}]: the run has {len(self):,} items")
        return self._item(places[place])

    def __iter__(self) -> Iterator[RunItem]:
        return (self._item(number) for number in range(len(self)))

    def id(self, question_id: int | np.integer | str) -> RunItem:
        """The item of a question_id: an integer where the split's file has integers, else a text.

        Raises:
            HvxError: no item has it, or the run's ids are of the other kind.
        """
        if self._numbers is None:
            self._open()
            ids = self._reader.column("question_id").tolist()
            self._numbers = {own: number for number, own in enumerate(ids)}
        kind = type(next(iter(self._numbers), 0))
        if isinstance(question_id, bool) or not isinstance(question_id, (str, int, np.integer)):
            raise HvxError(f"question_id {shown(question_id)}: neither an integer nor a text")
        wanted = question_id if isinstance(question_id, str) else int(question_id)
        if type(wanted) is not kind:
            right = "integers" if kind is int else "texts"
            raise HvxError(f"question_id {shown(wanted)}: the ids of {self.path} are {right}")
        if wanted not in self._numbers:
            raise HvxError(f"question_id {shown(wanted)}: not in {self.path}")
        return self._item(self._numbers[wanted])

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each item, by number; without maps.

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
        """Close the run's files; items that were read stay, but for their figures."""
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
        own: Item = self._reader[number]
        return RunItem(
            number, own.question_id, own.image_id, own.image_path, own.question, own.answer, own.ground_truth,
            own.question_type, own.answer_type, own.probability,
            [(answer, share) for answer, share in own.top_answers if answer], own.tokens, own.unknown,
            np.asarray(own.token_z, np.float32) if self._reader.has_heatmaps else None,
            own.heatmap if self._reader.has_heatmaps else None,
            own.attention if len(own.attention) else None,
            own.block_heatmaps if len(own.block_heatmaps) else None,
            np.asarray(own.textual_attention, np.float32) if self._reader.attends_to_words else None,
            own.zero_gradient, own.word_heatmaps if self._reader.maps_words else None,
            np.asarray(own.word_attention, np.float32) if self._reader.attends_on_levels else None,
            np.asarray(own.phrase_attention, np.float32) if self._reader.attends_on_levels else None,
            self._reader,
        )  # fmt: skip
