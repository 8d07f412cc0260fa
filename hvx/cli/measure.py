"""``hvx measure``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import (
    PATH,
    Existing,
    RunPath,
    common,
    device_option,
    json_option,
    print_json,
    seed_option,
    set_option,
)
from hvx.extras import require
from hvx.terminal import echo, echo_lines


@click.command()
@click.argument("run", type=RunPath())
@click.option(
    "--methods", default="", metavar="NAME,…",
    help="Compare the proposed one with just these; a wrong name lists all.",
)  # fmt: skip
@click.option(
    "--sample", default=1000, show_default=True, type=click.IntRange(min=0),
    help="Explanations to draw at random, in whole images; 0: all.",
)  # fmt: skip
@click.option(
    "--curves", default=200, show_default=True, type=click.IntRange(min=0),
    help="Of these, explanations for deletion and insertion; 0: none.",
)  # fmt: skip
@click.option(
    "--sanity", default=50, show_default=True, type=click.IntRange(min=0),
    help="Of these, explanations for randomized weights; 0: none.",
)  # fmt: skip
@click.option(
    "--human", type=Existing("folder of human attention maps"), metavar="FOLDER",
    help="People's attention maps, {question_id}_1.png, … as in VQA-HAT.",
)  # fmt: skip
@click.option(
    "--target", metavar="NAME",
    help="Localize this target, where the split's table of objects has several; else its first.",
)  # fmt: skip
@click.option(
    "--with-target", is_flag=True,
    help="Draw only explanations whose question has a target in the table of objects.",
)  # fmt: skip
@click.option("-o", "--output", type=PATH, metavar="FOLDER", help="For the report; else RUN/measure.")
@seed_option
@set_option
@json_option
@device_option
@common
def measure(
    run: Path,
    methods: str,
    sample: int,
    curves: int,
    sanity: int,
    human: Path | None,
    target: str | None,
    with_target: bool,
    output: Path | None,
    seed: int,
    overrides: tuple[str, ...],
    as_json: bool,
    device: str,
) -> None:
    """Measure what the explanations of RUN show, compared with other methods on the same model and questions.

    Localization where the split has masks, agreement with the attention, deletion and insertion, sanity
    under randomized weights, words by part of speech: each with a bootstrap interval and n. Writes
    measure.md, measure.json and plots. What takes time is kept in RUN/measure by method: the same command
    resumes from there. Needs the extra: pip install 'hvx[measure]'.

    \b
    Example:
      hvx measure runs/daquar/run
      hvx measure runs/reproduce/run --methods attention,grad-cam,gradient --sample 200
    """
    require("measure", "hvx measure", "matplotlib", "scipy")
    from hvx.measure.methods.registry import check_known

    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    check_known(names)  # reports a wrong name before PyTorch is imported

    from hvx.device import pick_device
    from hvx.measure.cache import FOLDER
    from hvx.measure.evaluate import Options, measure_run
    from hvx.measure.report.claims import as_json as whole
    from hvx.measure.report.markdown import claims_table, overview

    options = Options(names, sample, curves, sanity, human, seed, target, with_target)
    folder = output or run / FOLDER
    measures = measure_run(
        run, options, pick_device(device), list(overrides), folder, lambda line: echo(line, err=True)
    )
    if as_json:
        print_json(whole(measures))
        return
    echo_lines(overview(measures, None) + "\n\n" + claims_table(measures, None) + "\n")
    echo(f"{folder / 'measure.md'}: {measures.about['explanations']:,} explanations measured")
