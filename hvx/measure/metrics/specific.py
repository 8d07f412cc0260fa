"""Question-specific maps of a run, from its own maps of all questions on an image."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import numpy as np
import torch

from hvx.data.tokenize import padded
from hvx.errors import HvxError
from hvx.explain.specific import question_specific
from hvx.measure.methods.computer import SaliencyComputer
from hvx.measure.methods.registry import ATTENTION, PROPOSED, SPECIFIC, SPECIFIC_ATTENTION
from hvx.measure.sample import Batch, EvaluationSample
from hvx.store.reader import Item

REFERENCES = 3
"""Reference questions for an image with only one question: the run's most frequent ones."""
_OF = {SPECIFIC: PROPOSED, SPECIFIC_ATTENTION: ATTENTION}
"""Each method → the method whose maps it compares."""


class SpecificMaps:
    """Makes question-specific maps of a sample's explanations.

    The other questions are all questions of the run on the same image with another text, in the sample or
    not. If there are none, the run's most frequent questions are asked on the image instead.

    Args:
        sample: the sample.
        computer: makes maps of reference questions.
    """

    def __init__(self, sample: EvaluationSample, computer: SaliencyComputer) -> None:
        self._subject, self._mapper = sample, computer

    def maps(self, names: list[str], batch: Batch) -> dict[str, np.ndarray]:
        """Maps of a batch's N questions by method: (N, H, W) or, of the attention, (N, S, S), float32."""
        by_method: dict[str, list[np.ndarray]] = {name: [] for name in names}
        cached: dict[int, list[Item]] = {}
        for position, image in zip(batch.positions, batch.images.tolist(), strict=True):
            number = self._subject.numbers[position]
            if image not in cached:
                cached = {image: self._items(number)}  # in a batch, questions on one image are adjacent
            item = self._subject.reader[number]
            others = [other for other in cached[image] if other.question != item.question]
            other_maps = (
                self._run_maps(names, others) if others else self._reference_maps(names, batch, image, item)
            )
            for name in names:
                map = _item_map(_OF[name], item)
                by_method[name].append(question_specific(map, other_maps[name]))
        return {name: np.stack(maps) for name, maps in by_method.items()}

    def _items(self, number: int) -> list[Item]:
        """All explanations of the run on the same image as this one."""
        image = self._subject.image_ids[number]
        return [self._subject.reader[other] for other in self._numbers[image]]

    @cached_property
    def _numbers(self) -> dict[int | str, list[int]]:
        """Items of the run by image."""
        by_image: dict[int | str, list[int]] = {}
        for number, image in enumerate(self._subject.image_ids.tolist()):
            by_image.setdefault(image, []).append(number)
        return by_image

    @staticmethod
    def _run_maps(names: list[str], items: list[Item]) -> dict[str, np.ndarray]:
        return {name: np.stack([_item_map(_OF[name], item) for item in items]) for name in names}

    def _reference_maps(
        self, names: list[str], batch: Batch, image: int, item: Item
    ) -> dict[str, np.ndarray]:
        """Maps of the reference questions on one of the batch's images."""
        references = [other for other in self._references if other.question != item.question][:REFERENCES]
        if not references:
            raise HvxError(
                f"{self._subject.reader.path}: all of its questions are the same; a question-specific map "
                "needs another one"
            )
        vocabulary = self._subject.model.vocabulary
        rows, lengths = padded([vocabulary.rows(reference.tokens) for reference in references])
        zeros = torch.zeros(len(references), dtype=torch.long, device=batch.inputs.device)
        device = batch.inputs.device
        reference_batch = Batch(
            list(range(len(references))),
            batch.inputs[image : image + 1],
            zeros,
            torch.as_tensor(rows, device=device),
            torch.as_tensor(lengths, device=device),
            zeros,
        )
        computed = self._mapper.maps([_OF[name] for name in names], reference_batch)
        reduced = {}
        for name in names:
            maps, shape = computed[_OF[name]], _item_map(_OF[name], item).shape
            reduced[name] = np.stack([_reduced(map, shape) for map in maps])
        return reduced

    @cached_property
    def _references(self) -> list[Item]:
        """An explanation of each of the run's most frequent questions, ties in the order of the run."""
        texts = self._subject.reader.column("question")
        first = {text: number for number, text in reversed(list(enumerate(texts)))}
        frequent = [text for text, _ in Counter(texts.tolist()).most_common(REFERENCES + 1)]
        return [self._subject.reader[first[text]] for text in frequent]


def _item_map(name: str, item: Item) -> np.ndarray:
    """The run's own map by a method."""
    return np.asarray(item.attention.sum(0) if name == ATTENTION else item.heatmap)


def _reduced(map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map at the size that the run stores: means over squares."""
    height, width = shape
    rows, columns = map.shape[0] // height, map.shape[1] // width
    return np.asarray(map.reshape(height, rows, width, columns).mean((1, 3)))
