"""Prints what the images contribute to a run's answers: its accuracy beside that with the mean feature map.

    python scripts/image_share.py runs/daquar/run

Each question is answered again over the mean of the features of all the run's images, cell by cell, so that
only the words can tell one answer from another. Beside it: the most frequent ground truth. Accuracy is exact
match; in brackets 95 % bootstrap intervals over images, of the difference paired.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from hvx.data.words import padded
from hvx.device import pick_device
from hvx.errors import HvxError
from hvx.measure.bootstrap import mean
from hvx.measure.claims import shown, signed
from hvx.measure.subject import Subject
from hvx.progress import bar
from hvx.store.reader import RunReader

_QUESTIONS = 256
"""At once."""


@torch.inference_mode()
def mean_features(subject: Subject) -> Tensor:
    """The mean over the images of their features (1, M, S, S)."""
    total, count = torch.zeros(()), 0
    places = range(len(subject))
    for batch in bar(subject.batches(places), "features", "batch", subject.batch_count(places)):
        found = subject.model.backbone(batch.inputs)
        total, count = total.to(found.device) + found.double().sum(0, keepdim=True), count + len(found)
    return (total / count).float()


@torch.inference_mode()
def answers_over(subject: Subject, features: Tensor) -> list[str]:
    """The answer to each question over the same features (1, M, S, S), whichever its image."""
    model, found = subject.model, []
    terms = model.head.image_terms(features)
    for start in range(0, len(subject), _QUESTIONS):
        asked = [subject.item(place).tokens for place in range(start, min(start + _QUESTIONS, len(subject)))]
        rows, lengths = (
            torch.as_tensor(own, device=features.device)
            for own in padded(list(map(model.vocabulary.rows, asked)))
        )
        images = torch.zeros(len(asked), dtype=torch.long, device=features.device)
        joint = model.head(features, terms, images, model.head.encoder.embed(rows), lengths)
        found += [model.answers[answer] for answer in joint.logits.argmax(1).tolist()]
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Overrides a key of the run's config."
)
def main(run: Path, overrides: tuple[str, ...]) -> None:
    """A Markdown table of what the images contribute to the answers of RUN."""
    try:
        with closing(RunReader(run)) as reader:
            subject = Subject(reader, list(overrides), pick_device("auto"))
            given, truths = (reader.column(name)[subject.numbers] for name in ("answer", "ground_truth"))
            over_mean = np.array(answers_over(subject, mean_features(subject)), object)
    except HvxError as error:
        raise click.ClickException(str(error)) from None
    right, without = ((answers == truths).astype(float) for answers in (given, over_mean))
    ((frequent, count),) = Counter(truths.tolist()).most_common(1)
    click.echo(f"| accuracy (n = {len(truths):,}) | |\n|---|---:|")
    click.echo(f"| with the images | {shown(mean(right, subject.images, 0))} |")
    click.echo(f"| with the mean feature map | {shown(mean(without, subject.images, 0))} |")
    click.echo(f"| difference | {signed(mean(right - without, subject.images, 0))} |")
    click.echo(f'| always "{frequent}" | {count / len(truths):.3f} |')


if __name__ == "__main__":
    main()
