"""Training of a head on cached features of a frozen backbone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hvx.config import TrainConfig
from hvx.errors import HvxError
from hvx.models.base import Head
from hvx.train.dataset import Batch, Examples, Targets
from hvx.train.resume_state import Progress
from hvx.train.schedule import warm_cosine

_ORDER, _DROPOUT = 1, 2
"""Random streams: an epoch's order and targets, and a step's dropout."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's two moments of a parameter, under PyTorch's names."""


def answer_logits(model: Head, batch: Batch) -> Tensor:
    """Logits (N, A) of a batch."""
    embeddings = model.encoder.embed(batch.rows)
    joint = model(batch.features, model.image_terms(batch.features), batch.images, embeddings, batch.lengths)
    logits: Tensor = joint.logits
    return logits


class HeadTrainer:
    """Trains a head by AdamW with a warm-up and cosine schedule; targets are drawn from the human answers.

    The random generators are seeded again for each epoch and each step, so that model, moments and
    ``progress`` are the whole state of a training.

    Args:
        model: the head, on the device to train on.
        examples: the train split: questions with at least one answer that the classifier has.
        answers: the answers of the classifier's outputs.
        train: the options.
        seed: of the order, the targets and the dropout.
        progress: of the training; updated at each step.
    """

    def __init__(
        self,
        model: Head,
        examples: Examples,
        answers: list[str],
        train: TrainConfig,
        seed: int,
        progress: Progress,
    ) -> None:
        self.model, self.examples, self.train, self.seed = model, examples, train, seed
        self.targets = Targets(examples.questions, answers)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=train.rate, weight_decay=train.weight_decay)
        self.progress = progress
        self._planned = train.epochs * len(examples.groups(train.batch))

    @property
    def rate(self) -> float:
        """The learning rate of the latest step."""
        return self.train.rate * warm_cosine(max(0, self.progress.steps - 1), self._planned)

    def begin(self) -> list[list[str]]:
        """Draw the epoch's order and its target for each question.

        Returns:
            The remaining groups of images of the epoch, in order.
        """
        rng = np.random.default_rng([_ORDER, self.seed, self.progress.epoch])
        groups = self.examples.groups(self.train.batch, rng)
        self._drawn = self.targets.draw(np.arange(len(self.examples.questions)), rng)
        self.model.train()
        return groups[self.progress.step :]

    def step(self, group: list[str]) -> None:
        """Take a training step on the questions of a group of images.

        Raises:
            HvxError: the loss is no longer finite.
        """
        progress = self.progress
        batch = self.examples.batch(group)
        targets = torch.from_numpy(self._drawn[batch.indices]).to(self.examples.device)
        seed_sequence = np.random.SeedSequence([_DROPOUT, self.seed, progress.steps])
        torch.manual_seed(int(seed_sequence.generate_state(1, np.uint64)[0]))
        for options in self.optimizer.param_groups:
            options["lr"] = self.train.rate * warm_cosine(progress.steps, self._planned)
        loss = functional.cross_entropy(answer_logits(self.model, batch), targets)
        value = loss.item()
        if not math.isfinite(value):
            raise HvxError(
                f"training: the loss of epoch {progress.epoch}, step {progress.step + 1} is {value}; "
                "a lower train.rate or train.gradient_clip may keep it finite"
            )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.train.gradient_clip)
        self.optimizer.step()
        progress.step, progress.steps = progress.step + 1, progress.steps + 1
        progress.loss += value * len(targets)
        progress.questions += len(targets)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the state, in addition to ``progress``: the weights and their moments."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            moments = self.optimizer.state[parameter]
            tensors |= {f"{moment}.{name}": moments[moment] for moment in _MOMENTS}
        return tensors

    def restore(self, tensors: dict[str, Tensor], path: Path) -> None:
        """Load the tensors that were saved with the progress.

        Raises:
            HvxError: the tensors are not those of this model; names ``path``.
        """
        expected = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            expected |= {f"{moment}.{name}": parameter for moment in _MOMENTS}
        for name in sorted(expected.keys() | tensors.keys()):
            if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape:
                raise HvxError(
                    f"{path}: tensor '{name}' is not as the model has it; `hvx train --restart` starts again"
                )
        self.model.load_state_dict({name: tensors[f"model.{name}"] for name in self.model.state_dict()})
        moments = {
            index: {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            | {"step": torch.tensor(float(self.progress.steps))}
            for index, (name, _) in enumerate(self.model.named_parameters())
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
