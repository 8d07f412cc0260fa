"""``hvx explain``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import common, config_argument, device_option, set_option

SOME_FAILED = 3


@click.command()
@config_argument
@set_option
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]),
    help="On an image that cannot be read: stop (the default), or list its questions in failures.jsonl.",
)  # fmt: skip
@device_option
@common
def explain(config: Path, overrides: tuple[str, ...], on_error: str | None, device: str) -> None:
    """Explain the split that CONFIG names into its run folder; an interrupted run is continued.

    Exit status 3 says that some questions could not be explained and are listed in failures.jsonl.

    \b
    Example:
      hvx explain configs/daquar.yaml --set explain.batch_images=4
    """
    from hvx.config import load

    if on_error:
        overrides += (f"explain.on_error={on_error}",)
    loaded = load(config, list(overrides))  # a wrong config is told before PyTorch is imported

    from hvx.device import pick_device
    from hvx.run.local import explain_split

    summary = explain_split(loaded, pick_device(device))
    before = f" ({summary.done_before} shards were done before)" if summary.done_before else ""
    click.echo(f"{summary.run}: {summary.explained:,} questions explained in {summary.seconds:.1f} s{before}")
    if summary.failed:
        click.echo(
            f"{summary.failed:,} questions could not be explained; see {summary.run / 'failures.jsonl'}"
        )
        raise SystemExit(SOME_FAILED)
