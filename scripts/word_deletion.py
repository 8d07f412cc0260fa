"""How much each word of a question matters to the answer: what the answer's probability loses without it.

The control for every reading of the words. It uses neither gradients nor attention: the network answers the
question again with one token left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hvx.measure.sample import Batch, EvaluationSample
from hvx.models.checkpoint import VQAModel
from hvx.store.reader import RunReader


def deletion_losses(reader: RunReader, numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """Item → what log p of the run's answer loses without each token (T), for items of two tokens or more.

    Args:
        reader: a run whose checkpoint is still there.
        numbers: items of the run.

    Raises:
        HvxError: the checkpoint or an image is gone or another one.
    """
    long_enough = [number for number in numbers if len(reader[number].tokens) > 1]
    sample = EvaluationSample(reader, [], torch.device("cpu"), numbers=long_enough, takes_set=False)
    losses: dict[int, np.ndarray] = {}
    for batch in sample.batches(range(len(sample))):
        with torch.no_grad():
            features = sample.model.backbone(batch.inputs)
            for question, index in enumerate(batch.positions):
                losses[sample.numbers[index]] = _losses(sample.model, features, batch, question)
    return losses


def _losses(model: VQAModel, features: Tensor, batch: Batch, question: int) -> np.ndarray:
    length, image = int(batch.lengths[question]), int(batch.images[question])
    tokens = batch.rows[question, :length]
    whole = _log_probability(model, features[image], tokens[None], batch.answers[question])
    shorter = torch.stack([torch.cat([tokens[:t], tokens[t + 1 :]]) for t in range(length)])
    left = _log_probability(model, features[image], shorter, batch.answers[question])
    return (whole - left).double().numpy()


def _log_probability(model: VQAModel, features: Tensor, rows: Tensor, answer: Tensor) -> Tensor:
    """Of an answer to questions of as many tokens (N, T) on one image's features (M, S, S): (N)."""
    head, count = model.head, len(rows)
    maps = features[None]
    lengths, images = torch.full((count,), rows.shape[1]), torch.zeros(count, dtype=torch.long)
    joint = head(maps, head.image_terms(maps), images, head.encoder.embed(rows), lengths)
    scores: Tensor = joint.logits.log_softmax(1)[:, answer]
    return scores
