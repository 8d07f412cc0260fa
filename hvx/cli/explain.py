"""``hvx explain``"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvx.cli.common import (
    common,
    config_argument,
    device_option,
    json_option,
    model_option,
    print_json,
    set_option,
)
from hvx.errors import HvxError
from hvx.progress import Log
from hvx.run.lock import Part
from hvx.run.ray.placement import Workers
from hvx.terminal import echo

if TYPE_CHECKING:
    from hvx.run.explain import StartEngine, Summary

SOME_FAILED = 3


def _part(context: click.Context, option: click.Parameter, text: str | None) -> Part | None:
    """The part that K/N names, with 1 ≤ K ≤ N."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise click.BadParameter(
            f"'{text}' is no part; expected K/N with K from 1 to N, such as 3/8", context, option
        )
    return Part(number, count)


@click.command()
@config_argument
@set_option
@model_option
@click.option(
    "--on-error", type=click.Choice(["skip", "stop"]),
    help="On an image that cannot be read: list its questions in failures.jsonl (the default), or stop.",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try the questions in failures.jsonl again.")
@click.option(
    "--part", metavar="K/N", callback=_part,
    help="Compute the K-th of N parts of the run, at the same time as others or not; the last completes it.",
)  # fmt: skip
@click.option("--pack", is_flag=True, help="Make explanations.h5 one solid file that can go without shards/.")
@device_option
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="This process alone, or workers on several GPUs or machines (docs/clusters.md).",
)  # fmt: skip
@click.option(
    "--address",
    metavar="auto|HOST:PORT",
    help="With --engine ray: join this cluster; else one is started here.",
)
@click.option(
    "--workers", type=click.IntRange(min=1),
    help="With --engine ray: so many; else as many as there are GPUs, or one for 8 CPUs of a machine.",
)  # fmt: skip
@click.option(
    "--gpus-per-worker", type=click.FloatRange(0, 1),
    help="With --engine ray: 1 where there are GPUs (the default), a share such as 0.5, or 0 for CPUs.",
)  # fmt: skip
@json_option
@common
def explain(
    config: Path,
    overrides: tuple[str, ...],
    model: str | None,
    on_error: str | None,
    retry_failed: bool,
    part: Part | None,
    pack: bool,
    device: str,
    engine: str,
    address: str | None,
    workers: int | None,
    gpus_per_worker: float | None,
    as_json: bool,
) -> None:
    """Explain the split that CONFIG names into its run folder; an interrupted run is continued.

    Exit status 3 says that some questions could not be explained and are listed in failures.jsonl.

    \b
    Example:
      hvx explain configs/daquar.yaml --set explain.batch_images=4
      hvx explain configs/vqa_v2_val.yaml --engine ray --workers 4
      hvx explain configs/vqa_v2_val.yaml --part 3/8
      hvx explain configs/vqa_v2_val.yaml --model my_network.py:adapter
    """
    from hvx.config import load

    ray_workers = Workers(address, workers, gpus_per_worker)
    _check_engine(engine, device, ray_workers)
    if on_error:
        overrides += (f"explain.on_error={on_error}",)
    loaded = load(config, list(overrides), model is None)  # reports a wrong config before PyTorch is imported

    from hvx.adapters.source import source_for
    from hvx.run.explain import Options, explain_split

    def log(line: str) -> None:
        echo(line, err=True)

    with _engine(engine, device, ray_workers, log) as start:
        summary = explain_split(
            loaded, start, Options(retry_failed, pack, part), log, source_for(loaded, model)
        )
    if as_json:
        print_json(asdict(summary) | {"run": str(summary.run)})
    else:
        _report(summary)
    _warn_zero(summary.zero_image_gradients, "Eq. 2 (image)", "heat maps", summary.explained)
    _warn_zero(summary.zero_word_gradients, "Eq. 3 (words)", "token z-scores", summary.explained)
    if summary.failed:
        raise SystemExit(SOME_FAILED)


def _report(summary: Summary) -> None:
    """Print a summary of a run, or of a part of an incomplete run."""
    subject = f"{summary.run}, part {summary.part}" if summary.part else summary.run
    before = f" ({summary.done_before} shards were done before)" if summary.done_before else ""
    echo(f"{subject}: {summary.explained:,} questions explained in {summary.seconds:.1f} s{before}")
    where = f"see {summary.run / 'failures.jsonl'}; results.json holds them with the answer ''"
    if summary.part:
        left = f"{summary.left:,} shards are not done" if summary.left else "another part is at work"
        echo(f"the run is not complete: {left}; the last part to end completes it")
        where = "the last part lists them in failures.jsonl"
    elif summary.selected:
        total = summary.explained + summary.failed
        echo(f"results.json holds the {total:,} questions that limit or explain.pick selects, not all")
    if summary.failed:
        echo(f"{summary.failed:,} questions could not be explained; {where}")


def _warn_zero(count: int, equation: str, shown: str, total: int) -> None:
    """Warn of explanations without content because their gradient is zero everywhere."""
    if count:
        echo(
            f"{equation} is zero everywhere for {count:,} of {total:,} questions: their {shown} say nothing "
            "(dead ReLUs, or a saturated tanh or sigmoid)",
            err=True,
        )


def _check_engine(engine: str, device: str, workers: Workers) -> None:
    """Reject options of the other engine.

    Raises:
        HvxError: an option does not belong to the engine.
    """
    ray_options = {
        "--address": workers.address,
        "--workers": workers.count,
        "--gpus-per-worker": workers.gpus,
    }
    used = [name for name, value in ray_options.items() if value is not None]
    if engine == "local" and used:
        raise HvxError(f"{used[0]} is for --engine ray; without that, one process does all the work")
    if engine == "ray" and device != "auto":
        raise HvxError(f"--device {device} is for --engine local; Ray's workers have --gpus-per-worker")


def _engine(engine: str, device: str, workers: Workers, log: Log) -> AbstractContextManager[StartEngine]:
    """A context manager that starts the chosen engine and stops it at the end."""
    if engine == "ray":
        from hvx.run.ray.engine import ray_engine

        return ray_engine(workers, log)

    from hvx.device import pick_device
    from hvx.run.local import local_engine

    return nullcontext(local_engine(pick_device(device)))
