"""``hvx gallery``"""

from __future__ import annotations

from pathlib import Path

import click

from hvx.cli.common import PATH, RunPath, common, device_option, seed_option
from hvx.cli.explain import SOME_FAILED
from hvx.extras import require
from hvx.terminal import echo


@click.command()
@click.argument("run", type=RunPath())
@click.argument("other", type=RunPath(), required=False)
@click.option("-o", "--output", required=True, type=PATH, metavar="FOLDER", help="Where the gallery goes.")
@click.option(
    "--size",
    default=320,
    show_default=True,
    type=click.IntRange(64, 2048),
    help="Photos' shorter side in pixels.",
)
@click.option(
    "--workers", type=click.IntRange(1, 256), show_default="one for each processor",
    help="Processes that make pictures.",
)  # fmt: skip
@click.option(
    "--methods", metavar="NAME,…",
    help="Further maps: of these methods of `hvx measure`, in this order; a wrong name lists all.",
)  # fmt: skip
@seed_option
@device_option
@common
def gallery(
    run: Path,
    other: Path | None,
    output: Path,
    size: int,
    workers: int | None,
    methods: str | None,
    seed: int,
    device: str,
) -> None:
    """Write RUN as a web page to search, filter and sort its explanations.

    With a second run, OTHER, the page shows the questions that both explain, joined by question_id, with the
    answer, the maps and the z-scores of each. It filters by which of the two is right and sorts by how far
    their heat maps disagree.

    With --methods, items have further maps, to be switched on in the page. Those that `hvx measure` kept are
    shown; others are computed, which needs the run's checkpoint and photographs.

    Open FOLDER/index.html: it needs no server and no network, and the folder can be copied anywhere. Files of
    an earlier gallery in FOLDER are replaced; other files there stay.

    Exit status 3 says that photographs could not be read, or were replaced after the run; their items are
    there without them. Needs the extra: pip install 'hvx[figures]'.

    \b
    Example:
      hvx gallery runs/daquar/run -o gallery
      hvx gallery runs/daquar/run runs/other/run -o side-by-side
      hvx gallery runs/daquar/run -o methods --methods grad-cam,gradient
    """
    require("figures", "hvx gallery")
    from hvx.gallery.build import build_gallery
    from hvx.gallery.further import FurtherMaps

    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    further = FurtherMaps(names, device, seed, lambda line: echo(line, err=True))
    built = build_gallery(run, output, workers, size, other, further)
    shown = "explanations" if other is None else "questions explained by both runs"
    echo(f"{output / 'index.html'}: {built.items:,} {shown}")
    for line in built.notes:
        echo(f"note: {line}", err=True)
    for line in built.missing:
        echo(line, err=True)
    if built.missing:
        raise SystemExit(SOME_FAILED)
