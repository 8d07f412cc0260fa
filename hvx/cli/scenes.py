"""``hvx scenes``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, common, seed_option
from hvx.terminal import echo


@click.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--train", default=2500, show_default=True, type=click.IntRange(min=1), help="Scenes to train on."
)
@click.option("--val", default=500, show_default=True, type=click.IntRange(min=1), help="Scenes to explain.")
@click.option(
    "--size", default=112, show_default=True, type=click.IntRange(min=1), help="Pixels along a side."
)
@seed_option
@common
def scenes(folder: Path, train: int, val: int, size: int, seed: int) -> None:
    """Write the built-in split into DIR: images, VQA JSON, object masks.

    \b
    Example:
      hvx scenes data/scenes --train 100 --val 20
    """
    from hvx.data.scenes import write_scenes

    write_scenes(folder, train, val, size, seed)
    echo(f"{folder}: {train} train and {val} val scenes of {size}×{size} pixels")
