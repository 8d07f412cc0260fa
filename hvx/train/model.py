"""``hvx train``: the frozen backbone's features once, then the head; a checkpoint and its metrics."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from hvx.config import Config, SplitConfig
from hvx.data.questions import Question, read_questions
from hvx.data.words import TOKENIZERS, Vocabulary
from hvx.errors import HvxError
from hvx.files import whole_file
from hvx.models.backbone import Backbone, build_backbone
from hvx.models.checkpoint import VQAModel, save_checkpoint
from hvx.models.mlb import MLB
from hvx.progress import bar
from hvx.train.cells import train_backbone
from hvx.train.features import FeatureCache, cached_features
from hvx.train.head import Examples, HeadTrainer, accuracy, frequent_answers, predictions

Metrics = dict[str, Any]

_SMALLEST_FEATURES = 1e-6
"""Features smaller than this are no features; they are not blown up."""


def train_model(config: Config, device: torch.device) -> Metrics:
    """Train the model that a config describes and write its checkpoint.

    Beside the checkpoint stands ``<name>.metrics.jsonl``, a line for each epoch.

    Returns:
        The last epoch's metrics, with the time of each stage in seconds.

    Raises:
        HvxError: a file is missing or wrong.
        BadImage: an image of the splits cannot be read.
    """
    train = config.train
    splits = {"train": config.split(train.split)}
    if train.validation:
        splits["val"] = config.split(train.validation)
    questions = {name: read_questions(split) for name, split in splits.items()}
    for name, own in questions.items():
        if not own[0].answers:
            raise HvxError(
                f"{splits[name].questions}: training needs annotations; give the split's 'annotations'"
            )
    clock = _Clock()
    backbone = _backbone(config, splits["train"], device).to(device)
    clock.stage("backbone")
    vocabulary, answers = _words(config, questions["train"])
    caches = {name: _features(config, name, splits[name], questions[name], backbone) for name in splits}
    # Some networks' features are so large that tanh would be flat from the first step on.
    scale = 1 / max(caches["train"].root_mean_square, _SMALLEST_FEATURES)
    tokenizer = config.model.encoder.tokenizer
    examples = {
        name: Examples(questions[name], caches[name], vocabulary, tokenizer, device, scale) for name in splits
    }
    clock.stage("features")
    torch.manual_seed(config.seed)
    channels = examples["train"].features.channels
    head = MLB(config.model, channels, len(vocabulary), len(answers), train.dropout).to(device)
    metrics = _train_head(config, head, examples, answers)
    head.absorb_scale(scale)
    clock.stage("head")
    metrics |= {"questions": len(questions["train"]), "seconds": clock.seconds}
    save_checkpoint(
        config.path(config.checkpoint), VQAModel(config.model, backbone, head, vocabulary, answers, metrics)
    )
    return metrics


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = round(now - self._last, 1), now


def _backbone(config: Config, split: SplitConfig, device: torch.device) -> Backbone:
    if config.train.backbone_epochs:
        return train_backbone(config, split, device)
    torch.manual_seed(config.seed)
    return build_backbone(config.model.backbone, config.path(Path()))


def _words(config: Config, questions: list[Question]) -> tuple[Vocabulary, list[str]]:
    tokenize = TOKENIZERS[config.model.encoder.tokenizer]
    tokens = (tokenize(question.question) for question in questions)
    vocabulary = Vocabulary.from_tokens(tokens, config.train.min_word_count)
    return vocabulary, frequent_answers(questions, config.train.answers)


def _features(
    config: Config, name: str, split: SplitConfig, questions: list[Question], backbone: Backbone
) -> FeatureCache:
    checkpoint = config.path(config.checkpoint)
    folder = config.path(config.train.feature_cache) if config.train.feature_cache else checkpoint.parent
    image_ids = sorted({question.image_id for question in questions})
    cache = folder / f"{checkpoint.stem}.features.{name}.h5"
    return cached_features(backbone, config.model.image, split, image_ids, cache)


def _train_head(config: Config, head: MLB, examples: dict[str, Examples], answers: list[str]) -> Metrics:
    trainer = HeadTrainer(head, examples["train"], answers, config.train, config.seed)
    rows: list[Metrics] = []
    for epoch in bar(range(1, config.train.epochs + 1), "training the head", "epoch"):
        rows.append({"epoch": epoch, "loss": round(trainer.epoch(), 4)})
        if "val" in examples:
            rows[-1]["val_accuracy"] = _val_accuracy(head, examples["val"], answers)
    if "val" in examples:
        # How much of the accuracy the words alone would give.
        rows[-1]["val_accuracy_shuffled_images"] = _val_accuracy(head, examples["val"], answers, True)
    _write_metrics(config.path(config.checkpoint).with_suffix(".metrics.jsonl"), rows)
    return rows[-1]


def _val_accuracy(head: MLB, examples: Examples, answers: list[str], shuffled: bool = False) -> float:
    predicted = predictions(head, examples, answers, examples.swapped() if shuffled else None)
    return round(accuracy(predicted, examples.questions), 4)


def _write_metrics(path: Path, rows: list[Metrics]) -> None:
    with whole_file(path) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
