"""Prints how far explanations computed in bfloat16 differ from those in float32: docs/precision.md.

python scripts/measure_precision.py runs/float32 runs/bfloat16 --same batch=runs/batch --same gray=runs/gray

Every column compares the first run with something else:

- the second run;
- with --same, a float32 run whose difference has no meaning: another batch size, or photographs that look the
  same (scripts/precision_data.py makes them). It is the scale for the second run's differences;
- itself, the controls: another question on the same image, another image. As good a number there is useless.

Where several pixels of a map are equally large, the nearest ones count. The second table is the criterion.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
from class_masks import Masks
from measure_heatmaps import ObjectRegions
from precision_differences import ATTENDED, MOVED, SEED, Differences, Side, compare

from hvx.compare.agreement import GRID
from hvx.compare.controls import other_images, other_questions
from hvx.compare.join import join
from hvx.errors import HvxError
from hvx.store.reader import RunReader
from hvx.table import table

MARGIN = 0.01
"""Between the probabilities of the first two answers: the criterion allows a change of a closer pair."""


def rows_of(found: Differences) -> list[tuple[str, str]]:
    """The numbers of a column, each with its name."""
    rows = [
        ("explanations", f"{len(found.pixels):,}"),
        ("ρ of pixels: median, 5 %, least", _quantiles(found.pixels, (0.5, 0.05, 0))),
        (f"ρ over {GRID}×{GRID} cells: median, 5 %, least", _quantiles(found.cells, (0.5, 0.05, 0))),
        (f"maximum in the same of {GRID}×{GRID} cells", f"{found.same_cell.mean():.4f}"),
        (f"maximum farther away than {MOVED:.0%} of the width", f"{found.moved:.4f}"),
        ("distance of the maxima, % of it: median, 95 %", _quantiles(100 * found.distances, (0.5, 0.95), 2)),
        ("float32's map there, of its largest value: median, 5 %", _quantiles(found.heights, (0.5, 0.05))),
        ("attention, ½Σ|Δα|: median, 95 %, largest", _quantiles(found.attention, (0.5, 0.95, 1))),
        ("|Δz|: median, 99 %, largest", _quantiles(found.z, (0.5, 0.99, 1))),
        ("tokens whose z changes its sign", _share(found.signs)),
        (f"tokens whose |z| crosses {ATTENDED:g}", _share(found.crossings)),
        ("answers that change", _share(found.answers)),
        (f"… whose margin exceeds {MARGIN:g}", f"{int((found.answers & (found.margins > MARGIN)).sum()):,}"),
    ]  # fmt: skip
    if len(found.images):
        plain, other, apart = found.pointing
        rows += [
            ("pointing game of float32, of this", f"{plain.value:.4f}, {other.value:.4f} (n = {other.n:,})"),
            ("pointing game, paired difference", f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"),
        ]
    return rows


def _quantiles(values: np.ndarray, shares: Sequence[float], digits: int = 4) -> str:
    known = values[np.isfinite(values)]
    return ", ".join(f"{np.quantile(known, share):.{digits}f}" for share in shares) if len(known) else "none"


def _share(marks: np.ndarray) -> str:
    return f"{marks.mean():.5f} ({int(marks.sum()):,} of {len(marks):,})" if len(marks) else "none"


def criterion(found: Differences) -> list[tuple[str, str, str, str]]:
    """What bfloat16 must hold to be the default: name, limit, number, whether it holds."""
    median, fifth = np.quantile(found.pixels, [0.5, 0.05])
    changed = int((found.answers & (found.margins > MARGIN)).sum())
    largest = float(found.z.max(initial=0))
    lines = [
        ("ρ of pixels, median", "≥ 0.99", f"{median:.4f}", median >= 0.99),
        ("ρ of pixels, 5 %", "≥ 0.95", f"{fifth:.4f}", fifth >= 0.95),
        ("share of maxima that moved", "≤ 0.01", f"{found.moved:.4f}", found.moved <= 0.01),
        ("answers changed, of a margin", "0", f"{changed:,}", changed == 0),
        ("largest |Δz|", "≤ 0.02", f"{largest:.4f}", largest <= 0.02),
    ]
    if len(found.images):
        plain, _, apart = found.pointing
        limit = min(0.005, (plain.high - plain.low) / 2)
        shown, holds = f"{apart.value:+.4f}", abs(apart.value) <= limit
        lines.append(("pointing game, difference", f"±{limit:.4f}", shown, holds))
    return [(name, bound, text, "yes" if holds else "no") for name, bound, text, holds in lines]


def _named(_: click.Context, __: click.Parameter, values: Sequence[str]) -> list[tuple[str, Path]]:
    """NAME=RUN of each --same."""
    for value in values:
        if "=" not in value or not Path(value.split("=", 1)[1]).is_dir():
            raise click.BadParameter(f"'{value}': expected NAME=RUN, RUN being a folder")
    return [(name, Path(path)) for name, path in (value.split("=", 1) for value in values)]


_RUN = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("reference", type=_RUN)
@click.argument("run", type=_RUN)
@click.option("--same", multiple=True, metavar="NAME=RUN", callback=_named, help="A change of no meaning.")
@click.option("--masks", type=_RUN, help="Class masks, for a split without a table of objects.")
def main(reference: Path, run: Path, same: list[tuple[str, Path]], masks: Path | None) -> None:
    """Two Markdown tables: how RUN (bfloat16) differs from REFERENCE (float32), and the criterion."""
    try:
        print(measured(reference, run, same, Masks.opened(masks) if masks else None))
    except HvxError as error:
        raise click.ClickException(str(error)) from None


def measured(reference: Path, run: Path, same: list[tuple[str, Path]], masks: Masks | None) -> str:
    """Both tables."""
    others = [(run.name, run), *same]
    with ExitStack() as stack:
        paths = (reference, *(path for _, path in others))
        joined = join([stack.enter_context(RunReader(path)) for path in paths], allow=("images",))
        first, own = Side.of(joined, 0), np.arange(len(joined))
        finder = ObjectRegions(joined.runs[0], masks)
        items = (finder.of(joined.runs[0][number]) for number in joined.numbers[0])
        regions = {row: region for row, region in enumerate(items) if region is not None}
        found = {
            name: compare(first, Side.of(joined, number), own, regions, joined.images)
            for number, (name, _) in enumerate(others, 1)
        }
        for name, draw in (("another question", other_questions), ("another image", other_images)):
            found[name] = compare(first, first, draw(joined, SEED), regions, joined.images)
    columns = [dict(rows_of(column)) for column in found.values()]
    numbers = [(name, *(column.get(name, "none") for column in columns)) for name in columns[0]]
    limits = table(("criterion", "limit", run.name, "holds"), criterion(found[run.name]), markdown=True)
    return f"{table(('', *found), numbers, markdown=True)}\n\n{limits}"


if __name__ == "__main__":
    main()
