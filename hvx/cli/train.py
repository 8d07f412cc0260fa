"""``hvx train``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import common, config_argument, device_option, set_option
from hvx.terminal import echo


@click.command()
@config_argument
@set_option
@click.option("--restart", is_flag=True, help="Forget an earlier training of CONFIG and start again.")
@device_option
@common
def train(config: Path, overrides: tuple[str, ...], restart: bool, device: str) -> None:
    """Train the model that CONFIG describes and write its checkpoint; a killed training resumes.

    The backbone is frozen; its features are computed once and kept next to the checkpoint. So are the
    training's state, the last epoch's checkpoint, the metrics of each epoch and a plot of them. The plot is
    left out without the extra: pip install 'hvx[figures]'.

    \b
    Example:
      hvx train configs/daquar.yaml --set train.epochs=4
    """
    from hvx.config import load

    loaded = load(config, list(overrides))  # reports a wrong config before PyTorch is imported

    from hvx.device import pick_device
    from hvx.errors import Interrupted
    from hvx.train.resume_state import TrainingFiles
    from hvx.train.trainer import train_model

    try:
        metrics = train_model(loaded, pick_device(device), lambda line: echo(line, err=True), restart)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{config}: interrupted; the same command, without --restart, resumes from the last save"
        ) from None
    files = TrainingFiles(loaded.path(loaded.checkpoint))
    echo(f"{files.checkpoint}: trained, the checkpoint of the best epoch")
    echo(f"{files.last}: of the last epoch")
    echo(f"{files.metrics}: each epoch's metrics")
    if files.plot.exists():
        echo(f"{files.plot}: loss and accuracy")
    for name, value in metrics.items():
        echo(f"  {name}: {value}")
