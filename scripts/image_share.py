"""Prints what the images contribute to a model's answers: accuracy next to that with the mean feature map.

    python scripts/image_share.py configs/daquar.yaml

Each question of the validation split is answered again over the mean of its images' features, cell by cell,
so that only the words can tell one answer from another. Next to it: the most frequent ground truth. The
checkpoint is the last epoch's, since the best one was chosen by these questions. Accuracy is exact match; in
brackets 95 % bootstrap intervals over images, of the difference paired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from hvx.config import Config, load
from hvx.data.questions import Question, read_questions
from hvx.data.tokenize import tokenizer
from hvx.device import pick_device
from hvx.errors import HvxError
from hvx.measure.metrics.bootstrap import mean
from hvx.measure.report.claims import shown, signed
from hvx.models.checkpoint import VQAModel, load_checkpoint
from hvx.progress import bar
from hvx.train.dataset import Batch, Examples
from hvx.train.features import CacheJob, FeatureCache, cached_features
from hvx.train.head_trainer import answer_logits
from hvx.train.resume_state import TrainingFiles

_BATCH = 512
_IMAGES = 64
"""Features at once that a mean is taken over."""


def opened(config: Config, model: VQAModel, device: torch.device) -> Examples:
    """The validation split's questions over the features that training kept, or that are computed now."""
    name = config.train.validation
    if name is None:
        raise HvxError("train.validation: null; expected the split whose questions are answered")
    split = config.split(name)
    questions = read_questions(split)
    folder, checkpoint = config.train.feature_cache, config.path(config.checkpoint)
    path = (config.path(folder) if folder else checkpoint.parent) / f"{checkpoint.stem}.features.val.h5"
    job = CacheJob(split, sorted({question.image for question in questions}), path)
    job.check_images()
    (cache,) = cached_features(
        model.backbone, model.config.image, [job], lambda line: click.echo(line, err=True)
    )
    tokens = tokenizer(model.config.encoder)
    rows = {question.question: model.vocabulary.rows(tokens(question.question)) for question in questions}
    return Examples(questions, cache, rows, device)


def mean_features(cache: FeatureCache) -> Tensor:
    """The mean over all images of a cache (1, M, S, S)."""
    rows = list(range(len(cache.rows)))
    parts = (cache[rows[start : start + _IMAGES]] for start in range(0, len(rows), _IMAGES))
    return torch.stack([part.double().sum(0) for part in parts]).sum(0, keepdim=True).div(len(rows)).float()


@torch.inference_mode()
def answers(model: VQAModel, examples: Examples, features: Tensor | None = None) -> list[str]:
    """The answers in the order of the questions; over these features (1, M, S, S) if given."""
    found = [""] * len(examples.questions)
    groups = examples.groups(_BATCH)
    for group in bar(groups, "answering", "batch", len(groups)):
        batch = examples.batch(group)
        if features is not None:
            images = torch.zeros_like(batch.images)
            batch = Batch(features.to(examples.device), images, batch.rows, batch.lengths, batch.indices)
        for place, answer in zip(
            batch.indices, answer_logits(model.head, batch).argmax(1).tolist(), strict=True
        ):
            found[place] = model.answers[answer]
    return found


def table(questions: list[Question], given: list[str], over_mean: list[str]) -> Iterator[str]:
    """The lines of a Markdown table."""
    truths = [question.ground_truth for question in questions]
    images = np.unique([question.image for question in questions], return_inverse=True)[1]
    right, without = (np.array(own, object) == np.array(truths, object) for own in (given, over_mean))
    ((frequent, count),) = Counter(truths).most_common(1)
    yield f"| accuracy (n = {len(truths):,}) | |"
    yield "|---|---:|"
    yield f"| with the images | {shown(mean(right.astype(float), images, 0))} |"
    yield f"| with the mean feature map | {shown(mean(without.astype(float), images, 0))} |"
    yield f"| difference | {signed(mean(right.astype(float) - without, images, 0))} |"
    yield f'| always "{frequent}" | {count / len(truths):.3f} |'


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Overrides a key of the config.")
def main(config: Path, overrides: tuple[str, ...]) -> None:
    """A Markdown table of what the images contribute to the answers of the model that CONFIG trained."""
    try:
        tree, device = load(config, list(overrides)), pick_device("auto")
        model = load_checkpoint(TrainingFiles(tree.path(tree.checkpoint)).last, device)
        examples = opened(tree, model, device)
        given = answers(model, examples)
        over_mean = answers(model, examples, mean_features(examples.features))
    except HvxError as error:
        raise click.ClickException(str(error)) from None
    for line in table(examples.questions, given, over_mean):
        click.echo(line)


if __name__ == "__main__":
    main()
