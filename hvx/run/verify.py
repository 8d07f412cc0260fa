"""Every byte of a run checked against what was written; what is damaged is set aside, to be done again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hvx.errors import HvxError
from hvx.files import read_json
from hvx.progress import bar
from hvx.run.folder import DESCRIPTION, VIEW
from hvx.run.lock import only_writer
from hvx.store.schema import run_digest
from hvx.store.seal import damage
from hvx.store.shards import shard_mismatch, view_mismatch


@dataclass(frozen=True)
class Verification:
    """What a check found.

    Attributes:
        whole: shards as they were written.
        damaged: each file that is damaged or not this run's, with what is wrong with it.
        absent: shards of the plan that are not there; none of a packed run that goes without them.
        finished: whether explanations.h5 is there and whole, and so are all shards.
    """

    whole: int
    damaged: dict[Path, str]
    absent: int
    finished: bool


def verify(run: Path) -> Verification:
    """Check every shard of a run, and the one file of them all.

    A damaged file gets ``.damaged`` after its name, so that the next ``hvx explain`` makes it again. A view
    goes too where it lacks a shard, for HDF5 would fill its place in silence; a solid file stays.

    Raises:
        HvxError: no run, one that is being written, or a folder in which nothing can be renamed.
    """
    about = read_json(run / DESCRIPTION, "a run folder's description")
    planned = about.get("shards") if isinstance(about, dict) else None
    identity = about.get("identity") if isinstance(about, dict) else None
    if not isinstance(planned, int) or not isinstance(identity, dict):
        raise HvxError(f"{run / DESCRIPTION}: not the description of a run")
    paths, view = sorted((run / "shards").glob("*.h5")), run / VIEW
    with only_writer(run):
        digest = run_digest(identity)
        damaged = {path: why for path in bar(paths, "checking", "shard") if (why := _fault(path, digest))}
        reason = damage(view) if view.exists() else None
        if view.exists() and not reason and not damaged:
            reason = view_mismatch(view, run, digest)
        if reason:
            damaged[view] = reason
        alone = about.get("packed") is True and not paths and view.exists() and not reason
        absent = 0 if alone else max(0, planned - len(paths))
        shards_damaged = sum(path != view for path in damaged)
        complete = not shards_damaged and not absent
        try:
            for path in damaged:
                path.replace(path.with_name(f"{path.name}.damaged"))
            if not complete and about.get("packed") is not True:
                view.unlink(missing_ok=True)
        except OSError as error:
            names = ", ".join(f"{path} ({why})" for path, why in damaged.items())
            raise HvxError(f"damaged: {names}; cannot be set aside: {error.strerror}") from None
        return Verification(len(paths) - shards_damaged, damaged, absent, complete and view.exists())


def _fault(path: Path, digest: str) -> str | None:
    """Why a file in ``shards`` is not the run's shard that its name says."""
    reason = damage(path)
    if reason:
        return reason
    return shard_mismatch(path, int(path.stem), digest) if path.stem.isdecimal() else "no shard's name"
