"""``hvx figure``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, common, seed_option
from hvx.cli.explain import SOME_FAILED


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "-o", "--output", required=True, type=PATH, metavar="FILE.png|FOLDER",
    help="Where the figure goes; a folder gets all figures that the config's picks name.",
)  # fmt: skip
@click.option("--rows", type=click.IntRange(min=1), show_default="3", help="Rows, chosen at random.")
@click.option(
    "--id", "ids", multiple=True, type=int, help="Draw this question_id; repeatable, in this order."
)
@click.option("--width", default=1200, show_default=True, type=click.IntRange(min=300), help="Pixels across.")
@seed_option
@common
def figure(run: Path, output: Path, rows: int | None, ids: tuple[int, ...], width: int, seed: int) -> None:
    """Draw explanations of RUN as in the paper's Figures 2-5.

    Under each row stand the question's tokens, from blue (low) to red (high z), and the answer as
    "predicted (ground truth)", marked where it is wrong. Under a token's z stands, in brackets, the one
    that a paper prints, where the config's picks (explain.pick) give it.

    Exit status 3 says that questions picked for a figure could not be explained and are missing from it.

    \b
    Example:
      hvx figure runs/daquar -o figure.png --rows 4 --seed 1
      hvx figure runs/paper_figures -o figures/
    """
    from hvx.errors import HvxError
    from hvx.store.reader import RunReader
    from hvx.view.run import choose_rows, write_figure, write_picked_figures

    to_folder = output.is_dir() or not output.suffix
    if to_folder and (rows or ids):
        raise HvxError(
            f"{output}: a folder gets the figures that explain.pick names; --rows and --id need FILE.png"
        )
    if not to_folder and output.suffix.lower() != ".png":
        raise HvxError(f"{output}: a figure is written as .png")
    reader = RunReader(run)
    if not to_folder:
        chosen = choose_rows(reader, rows or 3, list(ids), seed)
        write_figure(reader, chosen, output, width)
        click.echo(f"{output}: {len(chosen)} explanations")
        return
    drawn = write_picked_figures(reader, output, width)
    for path, count in drawn.files.items():
        click.echo(f"{path}: {count} explanations")
    for line in drawn.missing:
        click.echo(line, err=True)
    if drawn.missing:
        raise SystemExit(SOME_FAILED)
