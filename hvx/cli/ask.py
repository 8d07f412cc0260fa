"""``hvx ask``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, Existing, common, device_option
from hvx.cli.look import Asked, look_options, say_undrawn
from hvx.terminal import echo


@click.command()
@click.argument("checkpoint", type=Existing("checkpoint"))
@click.argument("image", type=Existing("image"))
@click.argument("question")
@click.option(
    "-o", "--output", required=True, type=PATH, metavar="FILE.png|FILE.pdf", help="Where the figure goes."
)
@look_options
@device_option
@common
def ask(checkpoint: Path, image: Path, question: str, output: Path, asked: Asked, device: str) -> None:
    """Ask CHECKPOINT a QUESTION on the photo IMAGE and draw why it answered so.

    The figure has the likeliest answers as bars. Prints them too, and each token's z-score. A photo is turned
    as its EXIF data says.

    \b
    Example:
      hvx ask model.safetensors photo.jpg "what is on the table?" -o why.png
      hvx ask model.safetensors photo.jpg "is it red?" -o why.pdf --style colour --outline
    """
    from hvx.view.sheet import check_suffix

    check_suffix(output)
    width = asked.pixels  # up to here, a wrong argument is told before PyTorch is imported

    from hvx.ask import ask as work
    from hvx.device import pick_device

    look = asked.look(top_answers=True)
    reply = work(checkpoint, image, question, output, width, pick_device(device), look, asked.paper)
    say_undrawn(reply.undrawn)
    for answer, probability in reply.answers:
        echo(f"{probability:7.3f}  {answer}")
    echo("  ".join(f"{token} {z:+.2f}" for token, z in reply.tokens))
    echo(f"{output}: {reply.answers[0][0]}")
