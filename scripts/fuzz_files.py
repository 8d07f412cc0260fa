"""Damages each kind of file that hvx reads in many ways, and says how hvx took it.

python scripts/fuzz_files.py png checkpoint --mutations 1000

Each kind is read in a process of its own, by the function that the commands call, with 2 GB of memory beyond
what it starts with and 20 seconds for each mutation. Good are only success and hvx's own error.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from fuzz_kinds import KINDS

MEMORY = 2 << 30
"""Bytes that a process may take beyond what it starts with."""
PATIENCE = 20.0
"""Seconds for one mutation."""
EDGE = 512
"""Bytes at a file's beginning and end, where its tables of contents lie: two strikes of three fall there."""
INTEGERS = [0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
WORDS = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"-1", b"1e999", b"NaN", b"9" * 30, b"\0", b"\xff",
    b"\n", b"../", b"\xed\xa0\x80", b"(", b".", b"c", b"R", b"!!python/object/apply:os.system",
]  # fmt: skip


@dataclass
class Tally:
    """What became of a kind's mutations."""

    kind: str
    mutations: int
    accepted: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    """Each mutation that ended in anything else, with its number."""
    slowest_ms: float = 0.0
    peak_mb: float = 0.0
    """Memory taken beyond that of reading the whole file."""

    def __str__(self) -> str:
        return (
            f"{self.kind:<12}{self.mutations:>8,}{self.accepted:>9,}{self.refused:>9,}{len(self.faults):>8,}"
            f"{self.slowest_ms:>9.0f}{self.peak_mb:>8.0f}"
        )


HEADING = f"{'kind':<12}{'mutants':>8}{'accepted':>9}{'refused':>9}{'faults':>8}{'max ms':>9}{'+MB':>8}"


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four pieces of a file changed, dropped, doubled, moved, or put in; or the file cut off."""
    broken = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        size = len(broken)
        at = chance.choice(
            [
                chance.randrange(size + 1),
                chance.randrange(min(EDGE, size) + 1),
                size - chance.randrange(min(EDGE, size) + 1),
            ]
        )
        length = chance.choice([1, 1, 2, 4, 8, chance.randint(1, 64), chance.randint(1, max(1, size // 4))])
        piece = broken[at : at + length]
        match chance.randrange(9):
            case 0 | 1:
                if piece:
                    broken[at] ^= 1 << chance.randrange(8)
            case 2:
                broken[at : at + length] = chance.randbytes(len(piece))
            case 3:
                del broken[at : at + length]
            case 4:
                broken[at:at] = piece * chance.randint(1, 4)
            case 5:
                other = chance.randrange(size + 1)
                broken[other : other + len(piece)] = piece
            case 6:
                width = chance.choice([1, 2, 4, 8])
                number = chance.choice(INTEGERS) % 2 ** (8 * width)
                broken[at : at + width] = number.to_bytes(width, chance.choice(["little", "big"]))
            case 7:
                broken[at : at + chance.randrange(2)] = chance.choice(WORDS)
            case 8:
                _digit(broken, at, chance) if chance.randrange(4) else broken.__delitem__(slice(at, None))
    return bytes(broken)


def _digit(broken: bytearray, start: int, chance: random.Random) -> None:
    """Change the next digit, or put more after it."""
    for at in range(start, min(len(broken), start + 2000)):
        if chr(broken[at]).isdigit():
            broken[at : at + 1] = str(chance.choice([0, 9, 10**6, 10**12, -1])).encode()
            return


def strike(kind: str, first: int, count: int, seed: int, folder: Path) -> None:
    """Read mutations ``first`` … of a kind; prints a line for each, as it is read, and the memory taken."""
    from hvx.errors import HvxError

    files, read = KINDS[kind](folder)
    whole = {path: path.read_bytes() for path in files}
    read()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in range(first, first + count):
        chance = random.Random(f"{seed} {kind} {number}")
        path = chance.choice(files)
        path.write_bytes(mutated(whole[path], chance))
        start = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)  # ends this process, whatever it is in
        try:
            read()
            end = "accepted"
        except HvxError as error:
            end = "refused" if "\n" not in str(error) else f"an error of several lines: {error!r:.300}"
        except BaseException as error:
            end = f"{type(error).__name__}: {error!s:.300}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps([end, 1000 * (time.perf_counter() - start)]), flush=True)
        path.write_bytes(whole[path])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(["", (peak - before) / 1024]), flush=True)


def struck(kind: str, mutations: int, seed: int, log: Callable[[str], None] = print) -> Tally:
    """What becomes of a kind's mutations; a process that dies of one is followed by another."""
    tally, done = Tally(kind, mutations), 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    while done < mutations:
        folder = Path(tempfile.mkdtemp(prefix="hvx-fuzz-", dir=_fast()))
        order = [str(part) for part in (kind, done, mutations - done, seed, folder)]
        command = [sys.executable, __file__, "--strike", *order]
        begun = done
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                end, number = json.loads(line)
                if not end:
                    tally.peak_mb = max(tally.peak_mb, number)
                    continue
                tally.accepted += end == "accepted"
                tally.refused += end == "refused"
                tally.slowest_ms = max(tally.slowest_ms, number)
                if end not in ("accepted", "refused"):
                    tally.faults.append(f"{done}: {end}")
                    log(f"{kind} {tally.faults[-1]}")
                done += 1
        shutil.rmtree(folder, ignore_errors=True)
        if process.returncode:
            if done == begun and not tally.faults:
                raise click.ClickException(f"{kind}: could not be begun")
            tally.faults.append(f"{done}: ended by signal or status {process.returncode}")
            log(f"{kind} {tally.faults[-1]}")
            done += 1
    return tally


def _fast() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(sorted(KINDS)))
@click.option("--mutations", default=10_000, show_default=True, help="Of each kind.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the tallies as JSON.")
def main(kinds: Sequence[str], mutations: int, seed: int, output: Path | None) -> None:
    """Strike each of KINDS (none: all)."""
    click.echo(HEADING)
    tallies = []
    for kind in kinds or sorted(KINDS):
        tallies.append(struck(kind, mutations, seed, lambda line: click.echo(line, err=True)))
        click.echo(tallies[-1])
        if output:
            output.write_text(json.dumps([asdict(tally) for tally in tallies], indent=1))
    sys.exit(1 if any(tally.faults for tally in tallies) else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--strike"]:
        strike(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), Path(sys.argv[6]))
    else:
        main()
