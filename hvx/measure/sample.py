"""The measured sample: a finished run, its model, and a sample of its explanations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hvx.config import Config, SplitConfig, parse
from hvx.data.image_files import find_image
from hvx.data.images import input_batches
from hvx.data.photos import open_photo, photo_size
from hvx.data.tokenize import padded
from hvx.errors import BadImage, HvxError, ReplacedImage
from hvx.explain.fused import FusedGuidedBackbone
from hvx.files import sha256
from hvx.models.checkpoint import VQAModel, load_checkpoint
from hvx.progress import bar
from hvx.store.reader import Item, RunReader

_BATCH_IMAGES = 8
"""Images per batch, unless the run's config sets it."""


@dataclass(frozen=True)
class Batch:
    """Images with questions of the sample on them, on the model's device.

    Attributes:
        positions: position in the sample of each question (N).
        inputs: normalized images (B, C, H, W).
        images: (N) the image, 0 … B − 1, of each question.
        rows: (N, T) rows of the word table.
        lengths: (N) tokens of each question.
        answers: (N) the answer that the run explains.
    """

    positions: list[int]
    inputs: Tensor
    images: Tensor
    rows: Tensor
    lengths: Tensor
    answers: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def own_inputs(self) -> Tensor:
        """Each question's own image (N, C, H, W)."""
        return self.inputs[self.images]


class EvaluationSample:
    """A run, its model, and explanations drawn from it at random.

    Whole images are drawn, with all of their questions, so that what depends only on the image is computed
    once. Any first part of the sample is also a random sample, of as many images as possible.

    Args:
        reader: the run.
        overrides: ``key=value`` strings that override the config of the run.
        device: of the network.
        count: explanations to draw; 0: all of them.
        seed: of the draw.
        numbers: the items, instead of a draw by ``count`` and ``seed``.
        takes_set: whether the command has ``--set``; error messages then recommend it.

    Raises:
        HvxError: the run is empty, its config is invalid, or the checkpoint is missing or not the one that
            the run was made with.
    """

    def __init__(
        self,
        reader: RunReader,
        overrides: list[str],
        device: torch.device,
        count: int = 0,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        takes_set: bool = True,
    ) -> None:
        self.reader, self.device = reader, device
        self.config = _config(reader, overrides)
        assert self.config.explain is not None
        self.explain = self.config.explain
        self._batch_images = self.explain.batch_images or _BATCH_IMAGES
        self.split: SplitConfig = self.config.split(self.explain.split)
        self._folders = self._image_folders()
        path = self.config.path(self.config.checkpoint)
        self._takes_set = takes_set
        self.model = _model(reader, path, device, takes_set)
        self.image_ids: np.ndarray = reader.column("image_id")
        """The image id of each item of the run."""
        self.numbers = draw(self.image_ids, count, seed) if numbers is None else list(numbers)
        self._questions: dict[int, tuple[list[int], int]] = {}
        """The sample: item numbers of the run."""
        self.images: np.ndarray = self.image_ids[self.numbers]
        """(n) the image id of each explanation of the sample."""
        self._paths, self._digests = reader.column("image_path"), reader.column("image_digest")
        self._answers = {answer: index for index, answer in enumerate(self.model.answers)}
        self.glimpses = reader.glimpses
        self.check: Callable[[], None] = lambda: None
        """Called at each batch; raises an exception to stop the work."""

    def __len__(self) -> int:
        return len(self.numbers)

    def draw_among(self, question_ids: Container[int | str], count: int, seed: int) -> None:
        """Draw the sample again, from these questions only.

        Raises:
            HvxError: the run explains none of them.
        """
        ids = self.reader.column("question_id").tolist()
        items = np.array([number for number, question in enumerate(ids) if question in question_ids], int)
        if not len(items):
            raise HvxError(
                f"{self.reader.path}: explains no question that has a target in {self.split.objects}"
            )
        self.numbers = [int(items[k]) for k in draw(self.image_ids[items], count, seed)]
        self._questions.clear()
        self.images = self.image_ids[self.numbers]

    def check_images(self) -> None:
        """Compare the sample's image files with those that the run explains.

        Some measures need the photographs even if all maps are in the cache. Missing files are reported by
        ``batches`` when they are needed.

        Raises:
            ReplacedImage: a file contains another image now.
        """
        first = {self._path(position): position for position in range(len(self))}
        for path, position in bar(first.items(), "checking images", "image", total=len(first)):
            self.check()
            if path.is_file():
                self._check_digest(path, position, sha256(path))

    def _check_digest(self, path: Path, position: int, digest: str) -> None:
        if digest != self._digests[self.numbers[position]]:
            raise ReplacedImage(
                f"{path}: another image than the one explained (its bytes changed since); restore it, or "
                "run `hvx explain` into a new folder"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images, as the network sees them; heat maps may be stored smaller."""
        return self.model.config.image.size, self.model.config.image.size

    def photo_size(self, position: int) -> tuple[int, int]:
        """(W, H) of an explanation's photograph, rotated if the run applied the EXIF orientation.

        Raises:
            BadImage: it is missing or cannot be read.
        """
        path = self._path(position)
        rotated = self.reader.about.get("exif_orientation") is True
        return open_photo(path, True).size if rotated else photo_size(path)

    @cached_property
    def engine(self) -> FusedGuidedBackbone:
        """The model's backbone."""
        return FusedGuidedBackbone(self.model.backbone.network)

    def item(self, position: int) -> Item:
        """An explanation of the sample."""
        return self.reader[self.numbers[position]]

    def _question(self, position: int) -> tuple[list[int], int]:
        """Rows of the word table, and the index of the answer; read once."""
        if position not in self._questions:
            item = self.item(position)
            self._questions[position] = self.model.vocabulary.rows(item.tokens), self._answer(item)
        return self._questions[position]

    def batches(self, positions: Sequence[int]) -> Iterator[Batch]:
        """Batches of these explanations; images of a batch have similar numbers of questions.

        Raises:
            BadImage: an image is missing or cannot be read.
        """
        by_image: dict[int | str, list[int]] = {}
        for position in positions:
            by_image.setdefault(self.images[position], []).append(position)
        groups = sorted(by_image.values(), key=lambda group: -len(group))
        paths = [self._path(group[0]) for group in groups]
        step = self._batch_images
        batches = [
            list(range(start, min(start + step, len(groups)))) for start in range(0, len(groups), step)
        ]
        rotated = self.reader.about.get("exif_orientation") is True
        workers = 1 if self.explain.workers is None else self.explain.workers
        image = self.model.config.image
        for decoded in input_batches(paths, image, batches, workers, rotated):
            for reason in decoded.failures.values():
                hint = f"; if images moved: --set splits.{self.explain.split}.images=FOLDER"
                raise BadImage(f"{reason} (the run explains it{hint if self._takes_set else ''})")
            self.check()
            for number, digest in zip(decoded.indices, decoded.digests, strict=True):
                self._check_digest(paths[number], groups[number][0], digest)
            yield self._batch(decoded.inputs, [groups[number] for number in decoded.indices])

    def batch_count(self, positions: Sequence[int]) -> int:
        """The number of ``batches`` of these explanations."""
        return -(-len({self.images[position] for position in positions}) // self._batch_images)

    def _image_folders(self) -> tuple[Path, ...]:
        """The run's folders of images, unless an override names others."""
        configured = _config(self.reader, []).split(self.explain.split).folders
        return self.reader.image_folders if self.split.folders == configured else self.split.folders

    def _path(self, position: int) -> Path:
        path = Path(str(self._paths[self.numbers[position]]))
        if path.is_absolute() or ".." in path.parts:
            raise HvxError(f"{self.reader.path}: image_path: '{path}' leads out of the images' folder")
        return find_image(self._folders, path.as_posix())

    def _batch(self, inputs: Tensor, groups: list[list[int]]) -> Batch:
        positions = [position for group in groups for position in group]
        questions = [self._question(position) for position in positions]
        rows, lengths = padded([rows for rows, _ in questions])
        answers = [answer for _, answer in questions]
        images = [number for number, group in enumerate(groups) for _ in group]

        def moved(values: np.ndarray | list[int]) -> Tensor:
            return torch.as_tensor(values, device=self.device)

        return Batch(
            positions, inputs.to(self.device), moved(images), moved(rows), moved(lengths), moved(answers)
        )

    def _answer(self, item: Item) -> int:
        if item.answer not in self._answers:
            raise HvxError(
                f"{self.reader.path}: the model has no answer {item.answer!r:.60}, which the run gives"
            )
        return self._answers[item.answer]


def draw(image_ids: np.ndarray, count: int, seed: int) -> list[int]:
    """Numbers of items of whole images drawn at random, about ``count`` of them; all of them for 0.

    Images are taken in random order while their questions fit into ``count``, at least one. The result has
    one random question of each image first, then a second one of each image that has one, and so on.
    """
    rng = np.random.default_rng(seed)
    _, image = np.unique(image_ids, return_inverse=True)
    sizes = np.bincount(image)
    order = rng.permutation(len(sizes))
    image_count = max(1, int(np.searchsorted(np.cumsum(sizes[order]), count or len(image), side="right")))
    image_rank = np.full(len(sizes), len(sizes))
    image_rank[order[:image_count]] = np.arange(image_count)
    drawn = rng.permutation(np.flatnonzero(image_rank[image] < image_count))
    by_image = drawn[np.argsort(image_rank[image[drawn]], kind="stable")]
    _, starts, counts = np.unique(image_rank[image[by_image]], return_index=True, return_counts=True)
    rank = np.arange(len(by_image)) - np.repeat(starts, counts)
    return [int(number) for number in by_image[np.argsort(rank, kind="stable")]]


def probabilities(model: VQAModel, features: Tensor, rows: Tensor, lengths: Tensor, answer: Tensor) -> Tensor:
    """The probability of an answer to one question for the features of each of several images (K).

    Args:
        model: the network.
        features: (K, M, S, S).
        rows: (T) rows of the word table.
        lengths: () tokens of the question.
        answer: () the answer.
    """
    count = len(features)
    with torch.no_grad():
        image_indices = torch.arange(count, device=features.device)
        question = model.head.encode_question(
            model.head.encoder.embed(rows.unsqueeze(0)), lengths.unsqueeze(0)
        )
        question = question.expand(count, *question.shape[1:])  # the same one on each image
        terms = model.head.image_terms(features)
        joint = model.head.join(features, terms, image_indices, question, lengths.expand(count))
        probability: Tensor = joint.logits.softmax(1)[:, answer]
        return probability


def _config(reader: RunReader, overrides: list[str]) -> Config:
    source = f"{reader.path / 'run.json'}: config"
    tree = reader.about.get("config")
    if not isinstance(tree, dict) or not isinstance(tree.get("explain"), dict):
        raise HvxError(f"{source}: expected the config that the run was made with")
    if len(reader) == 0:
        raise HvxError(f"{reader.path}: the run holds no explanation; nothing to measure")
    identity = reader.about.get("identity")
    if isinstance(identity, dict) and "model_file" in identity:
        raise HvxError(
            f"{reader.path}: a run of a module of one's own ({identity['model_file']}:"
            f"{identity.get('model_function')}); this computes with hvx's own networks; not available"
        )
    config = parse(copy.deepcopy(tree), source, overrides)
    if config.dual_encoder is not None:
        raise HvxError(
            f"{reader.path}: a run of a dual encoder ({config.dual_encoder.network} "
            f"{config.dual_encoder.name}); "
            "this measures the answers and the attention of hvx's own networks"
        )
    return config


def _model(reader: RunReader, path: Path, device: torch.device, takes_set: bool) -> VQAModel:
    """The model of the run; rejected if its checkpoint is another one."""
    if not path.is_file():
        moved = "if it moved: --set checkpoint=FILE or --set root=FOLDER" if takes_set else "restore it"
        raise HvxError(f"{path}: no such checkpoint, which made the run; {moved}")
    expected, digest = reader.about["identity"].get("checkpoint_sha256"), sha256(path)
    if digest != expected:
        other = "--set checkpoint=FILE names another" if takes_set else "restore it"
        raise HvxError(
            f"{path}: not the checkpoint that the run was made with (sha256 {digest:.12}…, the run's "
            f"{expected!s:.12}…); {other}"
        )
    return load_checkpoint(path, device)
