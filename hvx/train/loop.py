"""The training loop: its epochs, and the files written after each epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvx.data.answers import ACCURACIES
from hvx.extras import lacking
from hvx.files import atomic_write
from hvx.progress import Log, bar
from hvx.train.evaluate import Evaluator
from hvx.train.head_trainer import HeadTrainer
from hvx.train.resume_state import Metrics, TrainingFiles, save_state

_LOSS_DIGITS = 4


@dataclass
class TrainingLoop:
    """Trains a head for the remaining epochs, from the current progress of its trainer.

    Args:
        trainer: the head and its progress.
        evaluator: of the validation split, if there is one.
        files: paths of all outputs.
        identity: of the training, stored in its state.
        keep: writes a checkpoint of the current head; its arguments are the path and the epoch's metrics.
        log: receives each epoch's metrics, a line at a time.
    """

    trainer: HeadTrainer
    evaluator: Evaluator | None
    files: TrainingFiles
    identity: dict[str, Any]
    keep: Callable[[Path, Metrics], None]
    log: Log
    _plots: bool = field(default=True, init=False)

    def run(self) -> list[Metrics]:
        """Train to the end; returns the metrics of every epoch.

        Raises:
            HvxError: a file cannot be written, or the loss is no longer finite.
        """
        progress = self.trainer.progress
        if without := lacking("figures", "the plot of the training", "matplotlib"):
            self.log(f"left out: {without}")
            self.files.plot.unlink(missing_ok=True)  # it shows fewer epochs, or another training
        self._plots = not without
        while progress.epoch <= self.trainer.train.epochs:
            self._learn()
            self._conclude(self._row())
        return progress.rows

    def _learn(self) -> None:
        """Run the remaining steps of the epoch, and save the state periodically."""
        trainer, progress = self.trainer, self.trainer.progress
        label = f"epoch {progress.epoch} of {trainer.train.epochs}"
        started = saved = time.monotonic()
        earlier = progress.seconds
        for group in bar(trainer.begin(), label, "batch"):
            trainer.step(group)
            now = time.monotonic()
            progress.seconds = earlier + now - started
            if now - saved >= 60 * trainer.train.save_minutes:
                self._save()
                saved = now
        self._save()  # validation may also take long

    def _row(self) -> Metrics:
        """The metrics of the epoch after its last step."""
        trainer, progress = self.trainer, self.trainer.progress
        row: Metrics = {
            "epoch": progress.epoch,
            "loss": round(progress.loss / progress.questions, _LOSS_DIGITS),
            "rate": float(f"{trainer.rate:.4g}"),
            "seconds": round(progress.seconds, 1),
        }
        if self.evaluator:
            row |= self.evaluator.metrics()
            if progress.epoch == trainer.train.epochs:
                row |= self.evaluator.without_image()
        return row

    def _conclude(self, row: Metrics) -> None:
        """Write the files of an epoch; the state last, so that this is repeated if the process is killed."""
        rows = [*self.trainer.progress.rows, row]
        best = best_of(rows)["best_epoch"]
        self.keep(self.files.last, row)
        if best == row["epoch"]:
            self.keep(self.files.checkpoint, row)
        with atomic_write(self.files.metrics) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if self._plots:
            from hvx.train.plot import write_plot

            write_plot(self.files.plot, rows, best if self.evaluator else None)
        self.trainer.progress.end_epoch(row)
        self._save()
        self.log(", ".join(f"{name} {value}" for name, value in row.items()))

    def _save(self) -> None:
        save_state(self.files.state, self.identity, self.trainer.progress, self.trainer.tensors())


def best_of(rows: list[Metrics]) -> Metrics:
    """``best_epoch``, the latest epoch with the highest accuracy; and that accuracy under its name.

    Without validation, the last epoch is the best.
    """
    names = [f"val_{metric}_accuracy" for metric in ACCURACIES if f"val_{metric}_accuracy" in rows[-1]]
    if not names:
        return {"best_epoch": max(row["epoch"] for row in rows)}
    best = max(rows, key=lambda row: (row[names[0]], row["epoch"]))
    return {"best_epoch": best["epoch"], f"best_{names[0]}": best[names[0]]}
