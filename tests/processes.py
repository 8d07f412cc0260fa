"""What tests that disturb a run share: `hvx explain` in a process of its own, met at a chosen moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from conftest import THREADS, Tiny
from preloaded import Preloaded

from hvx.store.schema import FIELDS

PATIENCE = 60.0
"""Seconds; far more than anything waited for takes."""


def explain_command(tiny: Tiny, run: Path, **more: object) -> list[str]:
    """`hvx explain` of the tiny split, in shards of one image each."""
    settings = tiny.settings(run, **{"explain__shard_questions": 1, **more})
    options = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "hvx", "explain", str(tiny.config), *options]


def started(command: list[str], prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """A process in a session of its own, so that a signal reaches it and its children as Ctrl-C does.

    It has as many threads as tests have: with more or fewer, sums are rounded otherwise.

    Args:
        command: see ``Preloaded``.
        prepare: called in the new process, before Python starts; then nothing is imported in advance.
    """

    def prepared() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has what it starts in the background ignore it
        prepare()

    plain = partial(subprocess.Popen, preexec_fn=prepared) if prepare else Preloaded
    return plain(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """A process's exit status and what it said."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something to be true, or for the process to be gone."""
    end = time.monotonic() + PATIENCE
    while not true() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)


def shards_there(run: Path, count: int) -> Callable[[], bool]:
    return lambda: len(list((run / "shards").glob("*.h5"))) >= count


def signalled(process: subprocess.Popen[str], number: signal.Signals, everyone: bool = False) -> None:
    """Send a signal to a process, or to its children too, if it still runs."""
    if process.poll() is None:
        (os.killpg if everyone else os.kill)(process.pid, number)


def datasets(run: Path) -> dict[str, list[bytes]]:
    """Every dataset of a run, byte by byte (NaN too is equal to itself)."""
    with h5py.File(run / "explanations.h5", "r") as file:
        held = {name: file[name][:] for name in FIELDS if name in file}
    return {
        name: values.tolist() if values.dtype == object else [np.ascontiguousarray(values).tobytes()]
        for name, values in held.items()
    }


def torn(run: Path) -> list[Path]:
    """What is neither a whole file nor plainly a temporary one: shards that h5py cannot open."""
    return [path for path in (run / "shards").glob("*.h5") if not h5py.is_hdf5(path)]
