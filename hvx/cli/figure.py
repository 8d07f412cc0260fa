"""``hvx figure``"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from hvx.cli.common import PATH, RunPath, common, device_option, seed_option
from hvx.cli.explain import SOME_FAILED
from hvx.cli.figure_options import FigureOptions, figure_options, report_missing_glyphs
from hvx.errors import HvxError
from hvx.extras import require
from hvx.terminal import echo

if TYPE_CHECKING:
    from hvx.select_items import Order


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=RunPath())
@click.option(
    "-o", "--output", required=True, type=PATH, metavar="FILE.png|FILE.pdf|FILE.svg|FOLDER",
    help="Where the figure goes; a folder gets all figures that the config's picks name.",
)  # fmt: skip
@click.option("--rows", type=click.IntRange(min=1), show_default="3", help="How many rows.")
@click.option(
    "--id", "ids", multiple=True, type=str, help="Draw this question_id; repeatable, in this order."
)
@click.option(
    "--answer-type", "answer_types", multiple=True, help="Draw only answers of this type; repeatable."
)
@click.option(
    "--question-type", "question_types", multiple=True, help="Draw only questions of this type; repeatable."
)
@click.option("--only", type=click.Choice(["right", "wrong"]), help="Draw only right, or only wrong answers.")
@click.option(
    "--by", "order", type=click.Choice(["random", "agreement", "disagreement"]), show_default="random",
    help="Choose rows at random, or those whose heat map agrees most, or least, with the attention.",
)  # fmt: skip
@click.option("--top-answers", is_flag=True, help="Add a column with the five likeliest answers as bars.")
@click.option(
    "--methods", metavar="NAME,…",
    help="Columns of maps: these methods of `hvx measure`, in this order; a wrong name lists all.",
)  # fmt: skip
@figure_options
@seed_option
@device_option
@common
def figure(
    runs: tuple[Path, ...],
    output: Path,
    rows: int | None,
    ids: tuple[str, ...],
    answer_types: tuple[str, ...],
    question_types: tuple[str, ...],
    only: str | None,
    order: str | None,
    top_answers: bool,
    methods: str | None,
    options: FigureOptions,
    seed: int,
    device: str,
) -> None:
    """Draw explanations of RUN as in the paper's Figures 2-5.

    RUN may also be the folder around a run: runs/daquar for runs/daquar/run.

    Under each row stand the question's tokens, from blue (low) to red (high z), and the answer as
    "predicted (ground truth)", marked where it is wrong. Dots stand around a word that the model does not
    know; a frame shows what it saw of the photograph. Under a token's z stands, in brackets, the one
    that a paper prints, where the config's picks (explain.pick) give it.

    Of several runs on the same questions each question has a row for each run, under the run's name. Rows are
    chosen among the questions that all have: by type, right or wrong and agreement in the first run.

    With --methods, maps that `hvx measure` kept for RUN are drawn; others are computed, which needs the run's
    checkpoint and photographs.

    A PNG or SVG is one picture of at most 100 rows; a PDF has as many pages as it needs.

    Exit status 3 says that questions picked for a figure could not be explained and are missing from it.
    Needs the extra: pip install 'hvx[figures]'.

    \b
    Example:
      hvx figure runs/daquar/run -o figure.png --rows 4 --seed 1
      hvx figure runs/daquar/run -o wrong.pdf --only wrong --by disagreement --style paper
      hvx figure runs/daquar/run -o print.png --id 17 --inches 7 --dpi 300
      hvx figure runs/daquar/run -o slide.svg --font-pt 12 --digits 1
      hvx figure runs/daquar/run -o others.png --methods attention,proposed,grad-cam,gradient
      hvx figure runs/daquar/run runs/other/run -o two.png --only wrong
      hvx figure runs/paper_figures -o figures/ --style paper
    """
    require("figures", "hvx figure")
    from hvx.store.reader import RunReader
    from hvx.view.export import check_suffix

    selects_rows = bool(rows or answer_types or question_types or only or order)
    if selects_rows and ids:
        raise HvxError(f"--id {ids[0]}: goes with no other choice of rows; leave out one or the other")
    to_folder = output.is_dir() or not output.suffix
    if to_folder and (selects_rows or ids):
        raise HvxError(
            f"{output}: a folder gets the figures that explain.pick names; "
            "a choice of rows needs FILE.png, FILE.pdf or FILE.svg"
        )
    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    if to_folder:
        _check_folder(output, runs, methods)
    else:
        check_suffix(output)
    width = options.pixels
    with ExitStack() as stack:
        readers = [stack.enter_context(RunReader(run)) for run in runs]
        # Up to here, wrong arguments are reported before PyTorch is imported.

        from hvx.figures import draw_runs
        from hvx.select_items import ItemFilter
        from hvx.view.run_figures import write_picked_figures

        style, setup = options.style(top_answers), options.setup
        if not to_folder:
            right = None if only is None else only == "right"
            row_order = cast("Order", order or "random")
            choice = ItemFilter(ids, answer_types, question_types, right, row_order, rows or 3, seed)
            drawn = draw_runs(readers, choice, output, width, style, setup, names, device)
            report_missing_glyphs(drawn.missing_glyphs)
            _report(output, drawn.question_ids)
            return
        picked = write_picked_figures(readers[0], output, width, style, setup)
    report_missing_glyphs(picked.missing_glyphs)
    for path, question_ids in picked.files.items():
        _report(path, question_ids)
    for line in picked.missing:
        echo(line, err=True)
    if picked.missing:
        raise SystemExit(SOME_FAILED)


def _check_folder(output: Path, runs: tuple[Path, ...], methods: str | None) -> None:
    """Check that a folder gets the figures of one run, without methods."""
    if methods is not None or len(runs) > 1:
        raise HvxError(
            f"{output}: a folder gets the figures that explain.pick names, of one run and without --methods; "
            "give FILE.png, FILE.pdf or FILE.svg"
        )


def _report(path: Path, question_ids: list[int | str]) -> None:
    """Print the file with the number of its questions and their ids."""
    echo(f"{path}: {len(question_ids)} explanations")
    echo(f"question_id: {', '.join(map(str, question_ids))}")
