"""``hvx ask``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, common, device_option


@click.command()
@click.argument("checkpoint", type=PATH)
@click.argument("image", type=PATH)
@click.argument("question")
@click.option("-o", "--output", required=True, type=PATH, metavar="FILE.png", help="Where the figure goes.")
@click.option("--width", default=1200, show_default=True, type=click.IntRange(min=300), help="Pixels across.")
@device_option
@common
def ask(checkpoint: Path, image: Path, question: str, output: Path, width: int, device: str) -> None:
    """Ask CHECKPOINT a QUESTION on the photo IMAGE and draw why it answered so.

    Prints the likeliest answers and each token's z-score. A photo is turned as its EXIF data says.

    \b
    Example:
      hvx ask model.safetensors photo.jpg "what is on the table?" -o why.png
    """
    from hvx.errors import HvxError

    if output.suffix.lower() != ".png":
        raise HvxError(f"{output}: a figure is written as .png")

    from hvx.ask import ask as work
    from hvx.device import pick_device

    reply = work(checkpoint, image, question, output, width, pick_device(device))
    for answer, probability in reply.answers:
        click.echo(f"{probability:7.3f}  {answer}")
    click.echo("  ".join(f"{token} {z:+.2f}" for token, z in reply.tokens))
    click.echo(f"{output}: {reply.answers[0][0]}")
