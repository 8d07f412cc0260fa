"""``hvx``: the group of commands."""

from __future__ import annotations

import click

from hvx import __version__
from hvx.cli.common import Main

COMMANDS = {
    name: f"hvx.cli.{name}"
    for name in (
        "ask", "check", "compare", "config", "explain", "figure", "gallery", "info", "measure", "reproduce",
        "scenes", "train",
    )
} | {"import": "hvx.cli.import_"}  # fmt: skip
"""Command → its module, which is imported when the command is needed."""


@click.group(cls=Main, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hvx")
def main() -> None:
    """Explain why a network that joins image and question answered as it did.

    \b
    hvx reproduce                           the whole method on synthetic images, checked
    hvx train configs/daquar.yaml           train a model
    hvx check configs/daquar.yaml           see what is missing, how long it takes, how large it gets
    hvx explain configs/daquar.yaml         explain a split
    hvx figure runs/daquar/run -o fig.png   draw explanations as in the paper
    hvx gallery runs/daquar/run -o pages    browse explanations in a web browser
    hvx measure runs/daquar/run             measure what explanations show
    hvx compare runs/mlb/run runs/dan/run   compare two runs, or more
    hvx config show configs/daquar.yaml     show every key of a config with its value
    hvx import torch7 -h                    convert a checkpoint of other software
    """
