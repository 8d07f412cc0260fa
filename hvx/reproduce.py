"""The whole method on the synthetic dataset: scenes, training, explanation, figures, checks, measures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from hvx.config import load
from hvx.data.scenes import write_scenes
from hvx.errors import HvxError
from hvx.files import atomic_write, read_json, write_json
from hvx.measure.cache import FOLDER
from hvx.measure.evaluate import Options, check_installed, measure_run
from hvx.measure.metrics.results import MetricResults
from hvx.progress import Log
from hvx.reproduce_checks import SINGLE, Check, as_json, as_table, check_run
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.store.names import DESCRIPTION
from hvx.store.reader import RunReader
from hvx.train.trainer import train_model
from hvx.view.run_figures import write_figure
from hvx.view.style import AS_IN_THE_PAPER

REPORT = "reproduce.json"
"""Marks a folder that a reproduction may replace."""

VALIDATION = "val"
"""The split that configs/scenes.yaml explains."""
_ROWS = 3
_WIDTH = 1200
_MEASURED = Options(sample=120, curves=40, sanity=12)
"""Sample sizes of the measurements; the whole reproduction takes less than ten minutes on two cores."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Reproduction:
    """The results: the checks, the measures of a sample and their report, the figures' files with captions,
    the seconds of each stage."""

    checks: list[Check]
    measures: MetricResults
    report: Path
    figures: dict[Path, str]
    seconds: dict[str, float]


def reproduce(
    folder: Path,
    train: int,
    val: int,
    seed: int,
    device: torch.device,
    overrides: list[str],
    log: Log,
) -> Reproduction:
    """Draw a split, train on it, explain its val scenes, draw Figures 2-5, check and measure the claims.

    Everything comes from the seed. The folder then holds ``scenes/``, ``model.safetensors``, ``run/``,
    ``figures/``, ``report.md`` and ``reproduce.json``.

    Args:
        folder: a new folder, or one of an earlier reproduction, which is replaced.
        train: scenes to train on.
        val: scenes to explain.
        seed: of everything.
        device: where the networks run.
        overrides: ``key=value`` strings that override ``configs/scenes.yaml``.
        log: receives a line at the end of each stage and of each training epoch.

    Raises:
        HvxError: the folder holds something else, or packages for measuring are not installed.
    """
    options = replace(_MEASURED, seed=seed)
    check_installed(options)
    with as_file(files("hvx") / "configs" / "scenes.yaml") as path:
        config = load(path, [f"root={folder}", f"seed={seed}", *overrides])
    _clear(folder)
    seconds: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 1)
        log(f"{name}: {seconds[name]:.1f} s")
        return result

    write_json(folder / REPORT, {"finished": False})
    stage("scenes", lambda: write_scenes(folder / "scenes", train, val, config.model.image.size, seed))
    metrics = stage("training", lambda: train_model(config, device, lambda line: log(f"training: {line}")))
    seconds |= {f"training: {part}": value for part, value in metrics["seconds"].items()}
    summary = stage("explanation", lambda: explain_split(config, local_engine(device)))
    reader = RunReader(summary.run)
    figures = stage("figures", lambda: _figures(reader, folder / "figures", seed))
    checks = stage("checks", lambda: check_run(reader, config.split(VALIDATION)))
    reader.close()
    target = summary.run / FOLDER
    measures = stage("measures", lambda: measure_run(summary.run, options, device, [], target, _discard_line))
    _report(folder, checks, figures, seconds)
    return Reproduction(checks, measures, target / "measure.md", figures, seconds)


def _discard_line(line: str) -> None:
    """Discard a line; the report has this information."""
    del line


def _clear(folder: Path) -> None:
    """Remove the folder of an earlier reproduction; raise an ``HvxError`` for any other folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / REPORT).is_file():
            raise HvxError(
                f"{folder}: not empty and not of an earlier reproduction; give a new folder with -o"
            )
        shutil.rmtree(folder)


def _figures(reader: RunReader, folder: Path, seed: int) -> dict[Path, str]:
    """The paper's four figures. Rows are sampled at random, not selected."""
    kinds, right = reader.column("question_type"), reader.column("answer") == reader.column("ground_truth")
    rng = np.random.default_rng(seed)

    def draw(mask: np.ndarray, count: int) -> list[int]:
        return [int(n) for n in rng.permutation(np.flatnonzero(mask))[:count]]

    figures = {
        "figure2": (
            "one question each: attribute, shape, existence",
            [n for kind in SINGLE for n in draw(kinds == kind, 1)],
        ),
        "figure3": ("attribute, shape and existence", draw(np.isin(kinds, SINGLE), _ROWS)),
        "figure4": ("counts and relations", draw(~np.isin(kinds, SINGLE), _ROWS)),
        "figure5": ("wrong answers", draw(~right, _ROWS) or draw(right, _ROWS)),
    }
    for name, (_, numbers) in figures.items():
        write_figure(reader, numbers, folder / f"{name}.png", _WIDTH, AS_IN_THE_PAPER)
    return {folder / f"{name}.png": caption for name, (caption, _) in figures.items()}


def _report(folder: Path, checks: list[Check], figures: dict[Path, str], seconds: dict[str, float]) -> None:
    with atomic_write(folder / "report.md") as part:
        part.write_text(as_table(checks) + "\n", encoding="utf-8")
    run = read_json(folder / "run" / DESCRIPTION, "the run's description")
    report = {
        "finished": True,
        "checks": as_json(checks),
        "figures": {path.name: caption for path, caption in figures.items()},
        "seconds": seconds,
        "versions": run["versions"],
        "device": run["device"],
    }
    write_json(folder / REPORT, report, indent=1)
