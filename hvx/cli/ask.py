"""``hvx ask``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, Existing, common, device_option, json_option, print_json
from hvx.cli.figure_options import FigureOptions, figure_options, report_missing_glyphs
from hvx.extras import require
from hvx.terminal import echo


@click.command()
@click.argument("checkpoint", type=Existing("checkpoint"))
@click.argument("image", type=Existing("image"))
@click.argument("question")
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    metavar="FILE.png|FILE.pdf|FILE.svg",
    help="Where the figure goes.",
)
@figure_options
@json_option
@device_option
@common
def ask(
    checkpoint: Path,
    image: Path,
    question: str,
    output: Path,
    options: FigureOptions,
    as_json: bool,
    device: str,
) -> None:
    """Ask CHECKPOINT a QUESTION on the photo IMAGE and draw why it answered so.

    The figure has the likeliest answers as bars. Prints them too, each token's z-score, and which words the
    model does not know. A photo is turned as its EXIF data says. Needs the
    extra: pip install 'hvx[figures]'.

    \b
    Example:
      hvx ask model.safetensors photo.jpg "what is on the table?" -o why.png
      hvx ask model.safetensors photo.jpg "is it red?" -o why.pdf --style paper
    """
    require("figures", "hvx ask")
    from hvx.view.export import check_suffix

    check_suffix(output)
    width = options.pixels  # up to here, wrong arguments are reported before PyTorch is imported

    from hvx.ask import ask as work
    from hvx.device import pick_device

    style = options.style(top_answers=True)
    reply = work(checkpoint, image, question, output, width, pick_device(device), style, options.setup)
    report_missing_glyphs(reply.missing_glyphs)
    if as_json:
        print_json(reply.as_json() | {"question": question, "image": str(image), "figure": str(output)})
        return
    for answer, probability in reply.answers:
        echo(f"{probability:7.3f}  {answer}")
    echo("  ".join(token if z is None else f"{token} {z:+.2f}" for token, z in reply.tokens))
    if reply.unknown:
        echo(f"unknown to the model: {', '.join(reply.unknown)}")
    for line in reply.zero:
        echo(line)
    echo(f"{output}: {reply.answers[0][0]}")
