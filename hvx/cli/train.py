"""``hvx train``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import common, config_argument, device_option, set_option


@click.command()
@config_argument
@set_option
@device_option
@common
def train(config: Path, overrides: tuple[str, ...], device: str) -> None:
    """Train the model that CONFIG describes and write its checkpoint.

    The backbone is frozen; its features are computed once and kept beside the checkpoint.

    \b
    Example:
      hvx train configs/daquar.yaml --set train.epochs=4
    """
    from hvx.config import load

    loaded = load(config, list(overrides))  # a wrong config is told before PyTorch is imported

    from hvx.device import pick_device
    from hvx.train.model import train_model

    metrics = train_model(loaded, pick_device(device))
    click.echo(f"{loaded.path(loaded.checkpoint)}: trained")
    for name, value in metrics.items():
        click.echo(f"  {name}: {value}")
