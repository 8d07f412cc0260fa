"""``hvx figure``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, common, seed_option


@click.command()
@click.argument("run", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, metavar="FILE.png", help="Where the figure goes.")
@click.option(
    "--rows", default=3, show_default=True, type=click.IntRange(min=1), help="Rows, chosen at random."
)
@click.option(
    "--id", "ids", multiple=True, type=int, help="Draw this question_id; repeatable, in this order."
)
@click.option("--width", default=1200, show_default=True, type=click.IntRange(min=300), help="Pixels across.")
@seed_option
@common
def figure(run: Path, output: Path, rows: int, ids: tuple[int, ...], width: int, seed: int) -> None:
    """Draw explanations of RUN as in the paper's Figures 2-5.

    Under each row stand the question's tokens, from blue (low) to red (high z), and the answer as
    "predicted (ground truth)", marked where it is wrong.

    \b
    Example:
      hvx figure runs/daquar -o figure.png --rows 4 --seed 1
    """
    from hvx.errors import HvxError
    from hvx.store.reader import RunReader
    from hvx.view.run import choose_rows, write_figure

    if output.suffix.lower() != ".png":
        raise HvxError(f"{output}: a figure is written as .png")
    reader = RunReader(run)
    chosen = choose_rows(reader, rows, list(ids), seed)
    write_figure(reader, chosen, output, width)
    click.echo(f"{output}: {len(chosen)} explanations")
