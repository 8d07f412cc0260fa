"""A run folder: whose run it is, which of its shards are whole, and what stands beside them at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvx.errors import HvxError
from hvx.files import json_bytes, read_json, whole_file, write_json
from hvx.run.lock import (
    LOCK,
    Held,
    Part,
    Say,
    delete_locks_of_parts,
    no_log,
    one_part_at_a_time,
    only_writer,
    part_writer,
)
from hvx.run.plan import Shard
from hvx.store.reader import RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT, run_digest
from hvx.store.seal import Depth, damage, opened
from hvx.store.shards import check_inside, shard_mismatch, view_mismatch
from hvx.store.writer import write_solid, write_view

_MAY_CHANGE = ("config", "images", "picked")
"""Keys of run.json that may change while the run's items stay what they are: the images may have moved."""

DESCRIPTION, VIEW, FAILURES, RESULTS = "run.json", "explanations.h5", "failures.jsonl", "results.json"
SHARDS = "shards"


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process writes, alone or a part of it, and the plan of its shards."""

    path: Path
    shards: list[Shard]
    held: Held | None = None
    """The lock on it; None in a script that needs none."""
    part: Part | None = None
    """The part of the shards that is this process's; None: all."""

    @property
    def own(self) -> list[Shard]:
        """The shards that are this process's to compute."""
        return own_shards(self.shards, self.part)

    def shard_path(self, shard: Shard) -> Path:
        return self.path / SHARDS / shard.name

    def check_held(self) -> None:
        """See that the folder is still there, and this process's.

        Raises:
            HvxError: it was renamed, deleted or taken over.
        """
        if self.held:
            self.held.check()

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard is there and as long as it was written; ``missing`` sets others' aside."""
        path = self.shard_path(shard)
        return path.exists() and damage(path, "length") is None

    @property
    def digest(self) -> str:
        """What each of the run's files carries."""
        return run_digest(self._about()["identity"])

    @property
    def stands_alone(self) -> bool:
        """Whether the run is one solid file, and lacks shards, which it does not need."""
        lacks = not all(self.is_done(shard) for shard in self.shards)
        return lacks and self.is_packed and self.is_finished

    def missing(self, say: Say) -> list[Shard]:
        """The shards to compute of ``own``: those absent, and those set aside here with a line that says why.

        A shard is set aside if HDF5 could not read it, if it is another shard, or of another run.
        """
        absent, digest = [], self.digest
        for shard in self.own:
            path = self.shard_path(shard)
            if not os.path.lexists(path):
                absent.append(shard)
                continue
            reason = shard_fault(path, shard.number, digest, "core")
            if reason:
                aside = set_aside(path)
                say(f"{path}: not a whole shard of this run ({reason}); set aside as {aside.name}")
                absent.append(shard)
        return absent

    def failures_of(self, shard: Shard) -> list[dict[str, Any]]:
        """A shard's questions that could not be explained, with the reason."""
        with opened(self.shard_path(shard)) as file:
            found: list[dict[str, Any]] = json.loads(file.attrs["failures"])
            return found

    def failures(self) -> list[dict[str, Any]]:
        """All of the run's."""
        if self.stands_alone:
            with opened(self.path / VIEW) as file:
                kept: list[dict[str, Any]] = json.loads(file.attrs["failures"])
                return kept
        return [failure for shard in self.shards for failure in self.failures_of(shard)]

    def results(self, failures: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Every question with its answer, as the official evaluator wants them; "" for those that failed.

        Raises:
            HvxError: a question is neither explained nor among the failures, or is none of the split's.
        """
        with RunReader(self.path) as reader:
            ids, answers = reader.column("question_id").tolist(), reader.column("answer").tolist()
        answer_of = dict.fromkeys((failure["question_id"] for failure in failures), "")
        answer_of |= dict(zip(ids, answers, strict=True))
        images = (image for shard in self.shards for image in shard.images)
        asked = [question.question_id for _, own in images for question in own]
        odd = answer_of.keys() ^ set(asked)
        if odd:
            raise HvxError(
                f"{self.path / VIEW}: holds other questions than the split (such as {min(odd, key=str)}); "
                "delete it and run `hvx explain` again"
            )
        return [{"question_id": number, "answer": answer_of[number]} for number in asked]

    def zero_gradients(self) -> tuple[int, int]:
        """How many explanations have an Eq. 2, and an Eq. 3, that is zero everywhere."""
        with RunReader(self.path) as reader:
            if not reader.has_heatmaps:
                return 0, 0
            bits = reader.column("zero_gradient")
        return int((bits & ZERO_IMAGE_GRADIENT > 0).sum()), int((bits & ZERO_WORD_GRADIENT > 0).sum())

    @property
    def is_finished(self) -> bool:
        """Whether the one file of all shards is there and whole, and is of these shards."""
        view = self.path / VIEW
        if self._about().get("finished") is None or damage(view, "core") is not None:
            return False
        try:
            return view_mismatch(view, self.path, self.digest) is None
        except HvxError:  # it is none, though nothing damaged it
            return False

    @property
    def is_packed(self) -> bool:
        return bool(self._about().get("packed"))

    def reopen(self) -> None:
        """Mark the run as unfinished, before a shard is changed.

        A view goes, for it would show other shards than it was made of. A solid file stays until there is
        another: it may hold what no shard does.
        """
        self.note({"finished": None})
        if not self.is_packed:
            with suppress(FileNotFoundError):
                (self.path / VIEW).unlink()

    def finish(self, attributes: dict[str, Any], seconds: float, pack: bool, say: Say) -> None:
        """Write what is not there, or not right, of: failures, the one file of all shards, results.

        Args:
            attributes: what is true of the whole run, for the file's attributes.
            seconds: that this run took.
            pack: one solid file in place of a view of the shards.
            say: told which files of a finished run are written again.
        """
        self.check_held()
        failures, finished = self.failures(), self.is_finished
        repaired = say if finished else no_log
        _write(self.path / FAILURES, b"".join(map(json_bytes, failures)), repaired)
        if not finished or pack != self.is_packed:
            own = attributes | {"run_digest": self.digest} | ({"failures": failures} if pack else {})
            write = write_solid if pack else write_view
            write(self.path / VIEW, [self.shard_path(shard) for shard in self.shards], own)
        _write(self.path / RESULTS, json_bytes(self.results(failures)), repaired)
        if not finished or pack != self.is_packed:
            self.note({"finished": now(), "seconds": round(seconds, 2), "packed": pack})

    def record_versions(self, versions: dict[str, str], say: Say) -> None:
        """Keep in run.json which versions compute shards from now on; say which are new to the run."""
        about = self._about()
        later = about.get("later_versions", [])
        known = [about.get("versions"), *(later if isinstance(later, list) else [])]
        if versions in known:
            return
        last = known[-1] if isinstance(known[-1], dict) else {}
        changed = [f"{name} {new} (was {last.get(name)})" for name, new in versions.items()
                   if new != last.get(name)]  # fmt: skip
        say(f"{self.path}: resumed with other versions, which run.json records: {', '.join(changed)}")
        self.note({"later_versions": [*known[1:], versions]})

    def note(self, news: dict[str, Any]) -> None:
        """Put what is new into run.json."""
        with self._turn():
            before = self._about()
            if before | news != before:
                write_json(self.path / DESCRIPTION, before | news, indent=1, parents=False)

    def _turn(self) -> AbstractContextManager[None]:
        """Of several parts, one at a time."""
        return one_part_at_a_time(self.path) if self.part else nullcontext()

    def sweep(self) -> None:
        """Remove what killed processes left half-written, and locks of parts; nobody else may write here."""
        _sweep(self.path)
        delete_locks_of_parts(self.path)

    def _about(self) -> dict[str, Any]:
        about = read_json(self.path / DESCRIPTION, "a run folder's description")
        if not isinstance(about, dict):
            raise HvxError(f"{self.path / DESCRIPTION}: not the description of a run")
        return about


@contextmanager
def opened_run(
    path: Path,
    about: dict[str, Any],
    shards: list[Shard],
    say: Say = no_log,
    part: Part | None = None,
    finishing: bool = False,
) -> Iterator[RunFolder]:
    """A run folder, new or of the same run, held against other writers.

    Args:
        path: the folder.
        about: what run.json says; under ``identity`` all that decides what the run's items are.
        shards: the plan.
        say: told what a user should know, a line at a time.
        part: the part of the shards to hold; other processes may hold others. None: all of them.
        finishing: as of ``only_writer``; what is left half-written stays until ``sweep``.

    Raises:
        Busy: another process writes the run, or this part of it.
        HvxError: the folder holds something else, or another run.
    """
    description = path / DESCRIPTION
    check_same_run(path, about["identity"])
    try:
        (path / SHARDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HvxError(f"{path}: cannot be written: {error.strerror or error}") from None
    with part_writer(path, part) if part else only_writer(path, say, finishing) as held:
        with one_part_at_a_time(path) if part else nullcontext():
            if not description.exists():
                write_json(description, about, indent=1, parents=False)
        folder = RunFolder(path, shards, held, part)
        _same_identity(folder, about["identity"])  # again, now that nobody else begins another run here
        folder.note({key: about[key] for key in _MAY_CHANGE})
        if not part and not finishing:
            folder.sweep()
        yield folder


def own_shards(shards: list[Shard], part: Part | None) -> list[Shard]:
    """The shards of a part: every ``count``-th, so that all parts have as many, or one more."""
    return shards[part.number - 1 :: part.count] if part else shards


def check_links(run: Path) -> None:
    """Reject a run folder of which a part is a symbolic link that leads out of it.

    A run that was received would else have other files of its reader's overwritten.

    Raises:
        HvxError: names the link.
    """
    for name in (DESCRIPTION, VIEW, FAILURES, RESULTS, SHARDS):
        check_inside(run / name, run)


def shard_fault(path: Path, number: int, digest: str, depth: Depth) -> str | None:
    """Why a file is not a whole shard of a run; None if it is.

    Args:
        path: the file.
        number: the shard's.
        digest: ``run_digest`` of the run's identity.
        depth: as of ``damage``.
    """
    if path.is_symlink():
        return "a symbolic link"
    return damage(path, depth) or shard_mismatch(path, number, digest)


def set_aside(path: Path) -> Path:
    """Rename a damaged file of a run, so that `hvx explain` makes it again; the new path.

    Raises:
        HvxError: it cannot be renamed.
    """
    aside = path.with_name(f"{path.name}.damaged")
    try:
        return path.replace(aside)
    except OSError as error:
        raise HvxError(f"{path}: damaged, and cannot be renamed: {error.strerror or error}") from None


def _is_free(path: Path) -> bool:
    """Whether a folder holds nothing but what a run that began and died at once may leave."""
    left = {LOCK, SHARDS}
    return path.is_dir() and all(
        entry.name in left or entry.name.startswith(f"{LOCK}.") or entry.name.endswith(".part")
        for entry in path.iterdir()
    )


def check_same_run(path: Path, identity: dict[str, Any]) -> None:
    """Compare a run folder with the run that is to be written into it; nothing is written.

    Raises:
        HvxError: it holds something else, another run, or leads out of itself.
    """
    check_links(path)
    if (path / DESCRIPTION).exists():
        _same_identity(RunFolder(path, []), identity)
    elif path.exists() and not _is_free(path):
        raise HvxError(f"{path}: not empty and not a run; give explain.run a new folder")


def absent_shards(path: Path, shards: list[Shard]) -> list[Shard]:
    """The shards that a run still lacks, by their names; none of a finished run packed into one file."""
    folder = RunFolder(path, shards)
    if (path / DESCRIPTION).exists() and folder.stands_alone:
        return []
    return [shard for shard in shards if not folder.shard_path(shard).exists()]


def _same_identity(folder: RunFolder, wanted: dict[str, Any]) -> None:
    before = folder._about()
    found = before.get("identity")
    identity = found if isinstance(found, dict) else {}
    for key in wanted | identity:
        old, new = identity.get(key), wanted.get(key)
        if old != new:
            raise HvxError(
                f"{folder.path}: holds a run with another {key} ({old!r:.20}, now {new!r:.20}); "
                "give explain.run a new folder, or delete this one"
            )


def _sweep(path: Path) -> None:
    """Remove what a killed process left half-written; nobody else writes here now."""
    for part in [*path.glob(".*.part"), *(path / SHARDS).glob(".*.part")]:
        part.unlink(missing_ok=True)


def _write(path: Path, content: bytes, repaired: Say) -> None:
    """Write a file that is absent or holds something else."""
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    repaired(f"{path}: missing or changed; written again")
    with whole_file(path, parents=False) as part:
        part.write_bytes(content)


def now() -> str:
    """The time, UTC, as run.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
