"""The head learns to answer over cached features of a frozen backbone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hvx.config import TrainConfig
from hvx.errors import HvxError
from hvx.models.joint import Head
from hvx.train.examples import Batch, Examples, Targets
from hvx.train.schedule import warm_cosine
from hvx.train.state import Progress

_ORDER, _DROPOUT = 1, 2
"""Streams of chance: an epoch's order and targets, and a step's dropout."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's two moments of a parameter, under PyTorch's names."""


def answer_logits(model: Head, batch: Batch) -> Tensor:
    """Logits (N, A) of a batch."""
    embeddings = model.encoder.embed(batch.rows)
    joint = model(batch.features, model.image_terms(batch.features), batch.images, embeddings, batch.lengths)
    logits: Tensor = joint.logits
    return logits


class HeadTrainer:
    """Trains a head with AdamW under a warm cosine; a target is drawn from what the people asked said.

    Chance is drawn anew from the seed for each epoch and each step, so that model, moments and
    ``progress`` are all there is to a training's state.

    Args:
        model: the head, on the device to train on.
        examples: the train split: questions with at least one answer that the classifier has.
        answers: what the classifier's outputs mean.
        train: the options.
        seed: of the order, the targets and the dropout.
        progress: how far the training is; kept up to date.
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
            Groups of images that are left of the epoch, to be taken in this order.
        """
        rng = np.random.default_rng([_ORDER, self.seed, self.progress.epoch])
        groups = self.examples.groups(self.train.batch, rng)
        self._drawn = self.targets.draw(np.arange(len(self.examples.questions)), rng)
        self.model.train()
        return groups[self.progress.step :]

    def step(self, group: list[str]) -> None:
        """Learn from the questions on a group of images.

        Raises:
            HvxError: the loss is no longer finite.
        """
        progress = self.progress
        batch = self.examples.batch(group)
        targets = torch.from_numpy(self._drawn[batch.places]).to(self.examples.device)
        chance = np.random.SeedSequence([_DROPOUT, self.seed, progress.steps])
        torch.manual_seed(int(chance.generate_state(1, np.uint64)[0]))
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
        """What ``progress`` does not hold of the state after a step: the weights and their moments."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            moments = self.optimizer.state[parameter]
            found |= {f"{moment}.{name}": moments[moment] for moment in _MOMENTS}
        return found

    def restore(self, tensors: dict[str, Tensor], path: Path) -> None:
        """Take over the tensors that were stored with the progress.

        Raises:
            HvxError: the tensors are not those of this model; names ``path``.
        """
        own = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            own |= {f"{moment}.{name}": parameter for moment in _MOMENTS}
        for name in sorted(own.keys() | tensors.keys()):
            if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
                raise HvxError(
                    f"{path}: tensor '{name}' is not as the model has it; `hvx train --restart` begins anew"
                )
        self.model.load_state_dict({name: tensors[f"model.{name}"] for name in self.model.state_dict()})
        moments = {
            index: {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            | {"step": torch.tensor(float(self.progress.steps))}
            for index, (name, _) in enumerate(self.model.named_parameters())
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
