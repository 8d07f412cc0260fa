"""Strikes runs with faults at length, and writes what came of it to docs/reliability.md.

python scripts/reliability.py               every row
python scripts/reliability.py kills plan    some; the others as they last were

What a row found is kept as it is found, so that a run that was cut short goes on with the rows it lacks.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch, and for the processes started here

import click
import torch
from fuzz_files import HEADING, Tally
from reliability_rows import MUTATIONS, REPOSITORY, ROWS

KEPT = REPOSITORY / "runs" / "reliability.json"
PAGE = REPOSITORY / "docs" / "reliability.md"

TABLE = [
    ("SIGKILL at 20 random moments, then finished", "every dataset equal to an undisturbed run's", "kills"),
    ("killed amid the last step; Ctrl-C, SIGTERM",
     "as above; exit 130 and one line that says how to resume; no torn file", "faults"),
    ("a Ray worker killed in mid-shard; a (simulated) node lost",
     "every dataset equal; the run continues by itself", "ray"),
    ("disk full, file-size limit, read-only folder",
     "a clear line, exit 2, no torn file; resumes once there is room", "faults, sink"),
    ("200 damaged images of a 2,000-image split",
     "exactly their questions in `failures.jsonl`, the rest done", "images"),
    ("a bit flipped, a shard truncated, a view missing", "found, named, redone", "seal"),
    ("10,000 mutations of each file that hvx reads",
     "hvx's own error or success: no crash, hang, unbounded memory or other exception", "mutations"),
    ("a pickle, YAML or checkpoint that tries to run code; an image path that leaves the images' folder",
     "refused", "hostile_files"),
    ("5,000 explanations in one process", "memory grows < 50 MB after the first 500", "memory"),
    ("a plan for 1,000,000 questions", "within 10 s and 1.5 GB", "plan"),
    ("a view over 4,000 shards", "opens within 2 s", "view"),
    ("a second process on the same run folder; a lock whose holder was killed",
     "says who holds it, exit 2; recognized as stale", "lock"),
    ("what stands next to the shards is missing or changed; shards of a packed run deleted; the run folder "
     "renamed meanwhile; a part of it a link that leads out; a run that may only be read",
     "written again; the solid file stays; not made again under the old name; refused; checked and left as "
     "it is", "run_folder"),
    ("a setting, a file, hvx or torch replaced between runs, workers, or while it is read",
     "refused by the name of what differs; other versions recorded and said", "run_folder, ray_engine"),
    ("several signals in a row; one that comes where Python drops exceptions",
     "one line, exit 130; none is lost", "stop"),
    ("a file system without locks, modes or flushes; little address space; few open files",
     "all commands work, with a warning; or one line, exit 2", "poor_file_systems, lock"),
    ("an output path that is a link, in a circle or to nowhere",
     "what it leads to is written, the link stays; or one line, exit 2", "files"),
    ("`--address` of an open port that is not Ray",
     "one line within 20 s", "connection"),
]  # fmt: skip
"""Fault, what is required, and the rows or files of tests that show it."""

NOTES = """

## How a run guards itself

Each shard, and `explanations.h5`, carries a *seal* in the block that HDF5 leaves to its user: the SHA-256 of
all bytes, and that of the file's core, which is all but the chunked numbers. `hvx info RUN --verify`
checks the first. Every other reader checks the core before HDF5 opens the file, for on damaged tables HDF5's
library may crash or loop; the chunked numbers carry HDF5's own checksums. So a damaged run is read right
or refused, never read wrong. A seal tells damage, not malice: open runs of people whom you would trust with a
program.

HDF5 writes by way of `hvx/store/sink.py`: where a write fails, its library (2.0) crashes the process as it
closes the file; the sink takes the failure aside, and hvx raises it.

The lock of a run folder is opened without following links, and its holder sees between shards that the
folder is still there. Where the file system has no locks, a line says so; two processes that write one run
there notice each other between shards. `--verify` and `hvx explain` refuse a run of which a part is a link
that leads out of it.

A SIGKILL loses the open shard. Ctrl-C and SIGTERM drop it too, unless it is being written. Power that fails
may lose files that the operating system had not yet put on disk: contents are flushed before the rename,
the rename is not.
"""


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(ROWS)))
@click.option("--page-only", is_flag=True, help="Write the page of what is kept; run nothing.")
def main(names: Sequence[str], page_only: bool) -> None:
    """Run the rows NAMES (none: those that are not kept yet)."""
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    wanted = [] if page_only else names or [name for name in ROWS if name not in kept]
    for name in wanted:
        folder = Path(tempfile.mkdtemp(prefix=f"hvx-{name}-"))
        start = time.monotonic()
        try:
            figures = ROWS[name](folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        kept[name] = {
            "figures": figures,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "minutes": (time.monotonic() - start) / 60,
        }
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        KEPT.write_text(json.dumps(kept, indent=1))
        click.echo(f"{name}: {figures}")
    PAGE.write_text(page(kept), encoding="utf-8")


def page(kept: dict[str, Any]) -> str:
    """docs/reliability.md: the table of faults with what the last run of each row showed."""
    lines = [
        "# Reliability",
        "",
        "What a run meets, what is asked of it then, and what the last run of `scripts/reliability.py` "
        f"showed, on {_machine()}. Each process had one thread, and others were at work on the machine. "
        "*Equal* is to the last bit, on one machine with one number of threads: with another, sums round "
        "otherwise.",
        "",
        "| fault | required | shown | by |",
        "|---|---|---|---|",
    ]
    for fault, required, shown in TABLE:
        found, command = _shown(shown, kept)
        lines.append(f"| {fault} | {required} | {found} | {command} |")
    return "\n".join([*lines, *_mutations(kept), NOTES.rstrip("\n"), ""])


def _machine() -> str:
    names = ("h5py", "torch", "pillow", "safetensors")
    versions = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in names)
    cores = {2: "two"}.get(os.cpu_count() or 0, str(os.cpu_count()))
    cuda = "a CUDA device" if torch.cuda.is_available() else "no GPU"
    return f"{cores} CPU cores, {cuda}, {platform.system()}, Python {platform.python_version()}, {versions}"


def _shown(rows: str, kept: dict[str, Any]) -> tuple[str, str]:
    """What a line of the table says was found, and the command that finds it again."""
    names = rows.split(", ")
    if names[0] not in ROWS:
        files = " ".join(f"tests/test_{name}.py" for name in names)
        if "tests" not in kept:
            return "not run", f"`pytest {files}`"
        counts = json.loads(kept["tests"]["figures"])
        passed, skipped = (sum(counts[name][place] for name in names) for place in (0, 1))
        also = f", {skipped} skipped" if skipped else ""
        return f"{passed} tests passed{also} ({kept['tests']['date']})", f"`pytest {files}`"
    command = f"`python scripts/reliability.py {rows}`"
    if rows not in kept:
        return "not run", command
    said, date = kept[rows]["figures"], kept[rows]["date"]
    if rows == "mutations":
        tallies = [Tally(**tally) for tally in json.loads(said)]
        faults = sum(len(tally.faults) for tally in tallies)
        said = (
            f"{sum(tally.mutations for tally in tallies):,} mutations of {len(tallies)} kinds, {faults} "
            f"faults; slowest {max(tally.slowest_ms for tally in tallies) / 1000:.1f} s, most memory "
            f"{max(tally.peak_mb for tally in tallies):.0f} MB; see below"
        )
    return f"{said} ({date})", command


def _mutations(kept: dict[str, Any]) -> list[str]:
    if "mutations" not in kept:
        return []
    tallies = [Tally(**tally) for tally in json.loads(kept["mutations"]["figures"])]
    return [
        "",
        f"## {MUTATIONS:,} mutations of each kind",
        "",
        "Each kind is read by what the commands call, in a process of its own, with 20 s for each mutation "
        "and 2 GB beyond what reading the whole file takes. A fault is whatever is neither success nor an "
        "`HvxError` of one line. +MB is memory beyond that of reading the whole file.",
        "",
        "```",
        HEADING,
        *map(str, tallies),
        "```",
    ]


if __name__ == "__main__":
    sys.exit(main())
