"""How the time of each step grows with a run: 1, 2, 4 and 8 times as many images, questions and shards.

python scripts/measure_growth.py runs/reproduce/run -o docs/growth.md

Runs are made up (scripts/made_up.py), five questions on each photograph, heat maps of 224×224 pixels.
`hvx explain` has a network that answers at once (scripts/benchmark_pipeline.py), and `hvx measure` takes
samples of the run that is given. The slope is that of log seconds over log size: 1 is linear, 0 is
constant.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from benchmark_pipeline import QUESTIONS, measured, photographs
from click.testing import CliRunner
from made_up import write_made_up_run

from hvx.cli import main as hvx
from hvx.store.reader import RunReader

FACTORS = (1, 2, 4, 8)
IMAGES, SIDE, SAMPLE = 50, 224, 40
ITEMS = 100
"""Explanations that are read one by one, whatever the size of the run."""
PAGE = """# Growth

Written by `python scripts/measure_growth.py` ({date}), on two CPU cores: seconds for a run of {images}
photographs with {questions} questions on each, and of 2, 4 and 8 times as many photographs, questions
and shards. `hvx explain` has a network that answers at once; `hvx measure` takes samples of {sample}, 2,
4 and 8 times as many explanations of the built-in split's run. The slope is that of log seconds over log
size, by least squares: 1 is linear, 0 is constant.

| | ×1 | ×2 | ×4 | ×8 | slope |
|---|---:|---:|---:|---:|---:|
{rows}
"""


def seconds(work: Callable[[], object], rounds: int = 1) -> float:
    """The median of a few rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def command(*arguments: object) -> None:
    done = CliRunner().invoke(hvx, [str(argument) for argument in arguments])
    if done.exit_code:
        raise click.ClickException(done.output)


def explain(folder: Path, factor: int) -> float:
    images = IMAGES * factor
    place = folder / f"explained{factor}"
    place.mkdir()
    return images * QUESTIONS / measured(place, images).rate


def reading(run: Path) -> dict[str, float]:
    """Of a made-up run: a column, some explanations, a figure, the gallery."""

    def column() -> None:
        with RunReader(run) as reader:
            reader.column("token_z")

    def items() -> None:
        with RunReader(run) as reader:
            for number in np.random.default_rng(0).integers(len(reader), size=ITEMS):
                reader[int(number)]

    gallery = run.parent / "gallery"
    return {
        "a column": seconds(column, 5),
        f"{ITEMS} explanations by number": seconds(items, 5),
        "`hvx figure` of 4 rows": seconds(
            lambda: command("figure", run, "-o", run.parent / "figure.png", "--rows", "4"), 3
        ),
        "`hvx gallery`": seconds(lambda: command("gallery", run, "-o", gallery, "--quiet")),
    }


def measure(run: Path, folder: Path, factor: int) -> float:
    """Of a copy of the run, which holds no maps yet."""
    copied = folder / f"measured{factor}"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("measure"))
    options = ["--methods", "attention,gradient", "--sample", SAMPLE * factor, "--curves", 0, "--sanity", 0]
    return seconds(lambda: command("measure", copied, *options, "--quiet"))


def grown(run: Path, folder: Path) -> dict[str, list[float]]:
    """Step → its seconds by factor."""
    taken: dict[str, list[float]] = {}
    for factor in FACTORS:
        place = folder / f"times{factor}"
        photographs_of(place, factor)
        write_made_up_run(place / "run", place / "photos", IMAGES * QUESTIONS * factor, SIDE)
        if factor == FACTORS[0]:  # what is imported once is not of the first size's time
            reading(place / "run")
            measure(run, place, 1)
            shutil.rmtree(place / "measured1")
        steps = {"`hvx explain`": explain(folder, factor)} | reading(place / "run")
        steps["`hvx measure`"] = measure(run, place, factor)
        for name, value in steps.items():
            taken.setdefault(name, []).append(value)
            click.echo(f"×{factor} {name}: {value:.3f} s", err=True)
        shutil.rmtree(place)
    return taken


def photographs_of(place: Path, factor: int) -> None:
    place.mkdir()
    photographs(place / "photos", IMAGES * factor)


def row(name: str, values: list[float]) -> str:
    slope = np.polyfit(np.log(FACTORS), np.log(values), 1)[0]
    return f"| {name} | {' | '.join(f'{value:.3g}' for value in values)} | {slope:.2f} |"


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the page here.")
def main(run: Path, output: Path | None) -> None:
    """Print the table; RUN is what `hvx reproduce` left."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, values) for name, values in grown(run, Path(folder)).items()]
    page = PAGE.format(
        date=time.strftime("%Y-%m-%d"),
        images=IMAGES,
        questions=QUESTIONS,
        sample=SAMPLE,
        rows="\n".join(rows),
    )
    click.echo(page)
    if output:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
