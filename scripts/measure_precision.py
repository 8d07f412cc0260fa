"""Prints how far explanations computed in bfloat16 differ from those in float32: docs/precision.md.

python scripts/measure_precision.py runs/float32 runs/bfloat16 --same batch=runs/batch --same gray=runs/gray

Every column compares the first run with something else:

- the second run;
- with --same, a float32 run whose difference has no meaning: another batch size, or photographs that look the
  same (scripts/precision_data.py makes them). It is the scale for the second run's differences;
- itself, the controls: another question on the same image, and another image. A number as good there is useless.

Where several pixels of a map are equally large, the nearest ones count. The second table is the criterion.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from class_masks import Masks
from measure_heatmaps import Regions

from hvx.compare.agreement import GRID, Words, correlations, heatmap_ranks
from hvx.compare.controls import other_images, other_questions
from hvx.compare.join import Joined, join
from hvx.errors import HvxError
from hvx.measure.agreement import rank_correlation
from hvx.measure.bootstrap import Estimate, mean
from hvx.measure.localization import Peaks, covers, peaks
from hvx.store.reader import RunReader
from hvx.table import table

SEED = 0
MOVED = 0.05
"""Of the image's width: a maximum that is farther away has moved."""
MARGIN = 0.01
"""Between the probabilities of the first two answers: the criterion allows a change of a closer pair."""
ATTENDED = 2.0
"""The paper's threshold of z-scores."""


@dataclass(frozen=True)
class Side:
    """What a run has of the n common questions, in their order; ``margins``: p₁ − p₂ (n)."""

    maps: np.ndarray
    ranks: np.ndarray
    attention: np.ndarray | None
    z: np.ndarray
    lengths: np.ndarray
    answers: np.ndarray
    margins: np.ndarray

    @classmethod
    def of(cls, joined: Joined, run: int) -> Side:
        words, top = Words(joined, run), joined.column(run, "top_probabilities")
        return cls(
            joined.column(run, "heatmap"),
            heatmap_ranks(joined, run),
            joined.column(run, "attention") if joined.runs[run].glimpses else None,
            words.z,
            words.lengths,
            joined.column(run, "answer").astype(str),
            top[:, 0] - top[:, 1],
        )


@dataclass(frozen=True)
class Differences:
    """Of two sides, for each question that has a partner; those of z per token, where lengths are equal.

    Attributes:
        hits: of the questions with a region, whether each side's maximum is in it.
        images: the image of each of ``hits``.
    """

    pixels: np.ndarray
    cells: np.ndarray
    distances: np.ndarray
    same_cell: np.ndarray
    attention: np.ndarray
    z: np.ndarray
    signs: np.ndarray
    crossings: np.ndarray
    answers: np.ndarray
    margins: np.ndarray
    hits: np.ndarray
    images: np.ndarray

    @property
    def moved(self) -> float:
        """Share of explanations whose maximum is farther away than ``MOVED``; NaN counts as moved."""
        return float(np.mean(~(self.distances <= MOVED)))

    @property
    def pointing(self) -> list[Estimate]:
        """The pointing game of each side, and the paired difference."""
        return [mean(values, self.images, SEED) for values in (*self.hits, self.hits[1] - self.hits[0])]


def compare(
    first: Side, second: Side, partners: np.ndarray, regions: dict[int, np.ndarray], images: np.ndarray
) -> Differences:
    """The first side's explanation of each question with the second's of its partner (−1: none)."""
    rows = np.flatnonzero((partners >= 0) & (first.maps.max((1, 2)) > first.maps.min((1, 2))))
    others = partners[rows]
    pairs = list(zip(rows.tolist(), others.tolist(), strict=True))
    tops = {row: (peaks(first.maps[row]), peaks(second.maps[other])) for row, other in pairs}
    hits = [[covers(regions[row], top) for top in tops[row]] for row in tops if row in regions]
    alike = rows[first.lengths[rows] == second.lengths[others]]
    known = np.isfinite(first.z[alike])
    one, two = first.z[alike][known], second.z[partners[alike]][known]
    attention = np.zeros(0)
    if first.attention is not None and second.attention is not None:
        attention = np.abs(first.attention[rows] - second.attention[others]).sum((2, 3)).ravel() / 2
    return Differences(
        pixels=np.array([rank_correlation(first.maps[row], second.maps[other]) for row, other in pairs]),
        cells=correlations(first.ranks[rows], second.ranks[others]),
        distances=np.array([distance(*both) for both in tops.values()]),
        same_cell=np.array([_share_a_cell(*both) for both in tops.values()]),
        attention=attention,
        z=np.abs(one - two),
        signs=np.sign(one) != np.sign(two),
        crossings=(np.abs(one) > ATTENDED) != (np.abs(two) > ATTENDED),
        answers=first.answers[rows] != second.answers[others],
        margins=first.margins[rows],
        hits=np.array(hits).reshape(-1, 2).T,
        images=images[[row for row in tops if row in regions]],
    )


def distance(first: Peaks, second: Peaks) -> float:
    """Between the nearest maxima of two maps, in shares of the side; NaN if either map is constant."""
    if first is None or second is None:
        return np.nan
    return float(np.linalg.norm(first[:, None] - second[None], axis=2).min())


def _share_a_cell(first: Peaks, second: Peaks) -> bool:
    cells = [set(map(tuple, (points * GRID).astype(int))) for points in (first, second) if points is not None]
    return len(cells) == 2 and bool(cells[0] & cells[1])


def rows_of(found: Differences) -> list[tuple[str, str]]:
    """The numbers of a column, each with its name."""
    rows = [
        ("explanations", f"{len(found.pixels):,}"),
        ("ρ of pixels: median, 5 %, least", _quantiles(found.pixels, (0.5, 0.05, 0))),
        (f"ρ over {GRID}×{GRID} cells: median, 5 %, least", _quantiles(found.cells, (0.5, 0.05, 0))),
        (f"maximum in the same of {GRID}×{GRID} cells", f"{found.same_cell.mean():.4f}"),
        (f"maximum farther away than {MOVED:.0%} of the width", f"{found.moved:.4f}"),
        ("distance of the maxima, % of it: median, 95 %", _quantiles(100 * found.distances, (0.5, 0.95), 2)),
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
        finder = Regions(joined.runs[0], masks)
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
