"""Question-specific maps of a run: from its own maps of all questions on an image."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import numpy as np
import torch

from hvx.data.words import padded
from hvx.errors import HvxError
from hvx.explain.specific import question_specific
from hvx.measure.mapper import Mapper
from hvx.measure.methods import ATTENTION, PROPOSED, SPECIFIC, SPECIFIC_ATTENTION
from hvx.measure.subject import Batch, Subject
from hvx.store.reader import Item

REFERENCES = 3
"""Questions that stand in for others where an image has but one: the run's most frequent."""
_OF = {SPECIFIC: PROPOSED, SPECIFIC_ATTENTION: ATTENTION}
"""Each method, and the method whose maps it compares."""


class SpecificMaps:
    """Makes question-specific maps of a sample's explanations.

    The other questions are all of the run's on the same image with another text, in the sample or not. Where
    there are none, the run's most frequent questions are asked on the image in their place.

    Args:
        subject: the sample.
        mapper: makes maps of reference questions.
    """

    def __init__(self, subject: Subject, mapper: Mapper) -> None:
        self._subject, self._mapper = subject, mapper

    def maps(self, names: list[str], batch: Batch) -> dict[str, np.ndarray]:
        """Maps of a batch's N questions by method: (N, H, W) or, of the attention, (N, S, S), float32."""
        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        held: dict[int, list[Item]] = {}
        for place, image in zip(batch.places, batch.images.tolist(), strict=True):
            number = self._subject.numbers[place]
            if image not in held:
                held = {image: self._items(number)}  # a batch has the questions of an image side by side
            own = self._subject.reader[number]
            texts = [item for item in held[image] if item.question != own.question]
            others = self._own_maps(names, texts) if texts else self._asked(names, batch, image, own)
            for name in names:
                map = _of_run(_OF[name], own)
                found[name].append(question_specific(map, others[name]))
        return {name: np.stack(maps) for name, maps in found.items()}

    def _items(self, number: int) -> list[Item]:
        """All explanations of the run on the same image as this one."""
        image = self._subject.image_ids[number]
        return [self._subject.reader[other] for other in self._numbers[image]]

    @cached_property
    def _numbers(self) -> dict[int | str, list[int]]:
        """Items of the run by image."""
        found: dict[int | str, list[int]] = {}
        for number, image in enumerate(self._subject.image_ids.tolist()):
            found.setdefault(image, []).append(number)
        return found

    @staticmethod
    def _own_maps(names: list[str], items: list[Item]) -> dict[str, np.ndarray]:
        return {name: np.stack([_of_run(_OF[name], item) for item in items]) for name in names}

    def _asked(self, names: list[str], batch: Batch, image: int, own: Item) -> dict[str, np.ndarray]:
        """Maps of the reference questions on one of the batch's images."""
        asked = [item for item in self._references if item.question != own.question][:REFERENCES]
        if not asked:
            raise HvxError(
                f"{self._subject.reader.path}: all of its questions are the same; a question-specific map "
                "needs another one"
            )
        vocabulary = self._subject.model.vocabulary
        rows, lengths = padded([vocabulary.rows(item.tokens) for item in asked])
        zeros = torch.zeros(len(asked), dtype=torch.long, device=batch.inputs.device)
        device = batch.inputs.device
        here = Batch(
            list(range(len(asked))),
            batch.inputs[image : image + 1],
            zeros,
            torch.as_tensor(rows, device=device),
            torch.as_tensor(lengths, device=device),
            zeros,
        )
        made = self._mapper.maps([_OF[name] for name in names], here)
        found = {}
        for name in names:
            maps, shape = made[_OF[name]], _of_run(_OF[name], own).shape
            found[name] = np.stack([_reduced(map, shape) for map in maps])
        return found

    @cached_property
    def _references(self) -> list[Item]:
        """An explanation of each of the run's most frequent questions, ties in the order of the run."""
        texts = self._subject.reader.column("question")
        first = {text: number for number, text in reversed(list(enumerate(texts)))}
        frequent = [text for text, _ in Counter(texts.tolist()).most_common(REFERENCES + 1)]
        return [self._subject.reader[first[text]] for text in frequent]


def _of_run(name: str, item: Item) -> np.ndarray:
    """The run's own map by a method."""
    return np.asarray(item.attention.sum(0) if name == ATTENTION else item.heatmap)


def _reduced(map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map at the size at which the run stores it: means over squares."""
    height, width = shape
    rows, columns = map.shape[0] // height, map.shape[1] // width
    return np.asarray(map.reshape(height, rows, width, columns).mean((1, 3)))
