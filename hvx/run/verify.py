"""Checks every byte of a run against its checksums; damaged files are set aside."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hvx.errors import HvxError
from hvx.files import read_json
from hvx.progress import Log, bar, no_log
from hvx.run.lock import ReadOnly, exclusive_lock
from hvx.run.run_directory import SHARDS, check_links, set_aside, shard_fault
from hvx.store.checksum import verify_checksum
from hvx.store.names import DESCRIPTION, VIEW
from hvx.store.schema import run_digest
from hvx.store.shards import shard_name, view_mismatch


@dataclass(frozen=True)
class Verification:
    """The result of a check.

    Attributes:
        whole: number of undamaged shards.
        damaged: each file that is damaged or not this run's, with the reason.
        absent: number of shards of the plan that are absent; 0 for a packed run, which does not need them.
        finished: whether explanations.h5 and each shard that it needs exist and are undamaged.
        read_only: the run may not be written, so that damaged files were not renamed.
    """

    whole: int
    damaged: dict[Path, str]
    absent: int
    finished: bool
    read_only: bool


def verify(run: Path, log: Log = no_log) -> Verification:
    """Check every shard of a run, and explanations.h5.

    ``.damaged`` is added to the name of a damaged file, so that the next ``hvx explain`` computes it again. A
    view that lacks a shard is deleted; a solid file stays. A read-only run is not changed.

    Args:
        run: the folder.
        log: receives messages for the user, a line at a time.

    Raises:
        HvxError: not a run, a run that is being written, or one with a file that cannot be renamed.
    """
    check_links(run)
    about = read_json(run / DESCRIPTION, "a run folder's description")
    planned = about.get("shards") if isinstance(about, dict) else None
    identity = about.get("identity") if isinstance(about, dict) else None
    if not isinstance(planned, int) or not isinstance(identity, dict):
        raise HvxError(f"{run / DESCRIPTION}: not the description of a run")
    packed, read_only = about.get("packed") is True, False
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(run, log))
        except ReadOnly:
            read_only = True
        verification = _check(run, planned, run_digest(identity), packed, read_only)
        if not read_only:
            for path in verification.damaged:
                set_aside(path)
            if not verification.finished:  # an undamaged solid file makes a run finished
                _remove(run / VIEW)
        return verification


def _check(run: Path, planned: int, digest: str, packed: bool, read_only: bool) -> Verification:
    paths, view = sorted((run / SHARDS).glob("*.h5")), run / VIEW
    damaged = {
        path: why for path in bar(paths, "checking", "shard") if (why := _fault(path, planned, digest))
    }
    whole = len(paths) - len(damaged)
    reason = verify_checksum(view) if view.exists() else None
    if view.exists() and not reason and (whole == planned or not damaged):
        reason = view_mismatch(view, run, digest)
    if reason:
        damaged[view] = reason
    view_whole = view.exists() and not reason
    absent = (
        0 if packed and view_whole else planned - sum(_number(path, planned) is not None for path in paths)
    )
    finished = view_whole and (packed or whole == planned)
    return Verification(whole, damaged, absent, finished, read_only)


def _number(path: Path, planned: int) -> int | None:
    """The shard number in the name of a file in ``shards``; None if it is not in the plan."""
    number = int(path.stem) if path.stem.isdecimal() else -1
    return number if path.name == shard_name(number) and number < planned else None


def _fault(path: Path, planned: int, digest: str) -> str | None:
    """Why a file in ``shards`` is not the run's shard with that name; None if it is."""
    number = _number(path, planned)
    return "no shard's name" if number is None else shard_fault(path, number, digest, "all")


def _remove(view: Path) -> None:
    try:
        view.unlink(missing_ok=True)
    except OSError as error:
        raise HvxError(f"{view}: lacks a shard, and cannot be deleted: {error.strerror or error}") from None
