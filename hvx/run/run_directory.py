"""A run folder: its description (run.json), its shards, and the files written when the run is finished."""

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
from hvx.files import atomic_write, json_bytes, read_json, write_json
from hvx.progress import Log, no_log
from hvx.run.lock import (
    LOCK,
    Held,
    Part,
    delete_locks_of_parts,
    exclusive_lock,
    one_part_at_a_time,
    part_writer,
)
from hvx.run.shards import Shard
from hvx.store.checksum import Depth, open_verified, verify_checksum
from hvx.store.names import DESCRIPTION, FAILURES, RESULTS, VIEW
from hvx.store.reader import RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT, run_digest
from hvx.store.shards import check_inside, shard_mismatch, view_mismatch
from hvx.store.writer import write_solid, write_view

_MAY_CHANGE = ("config", "images", "picked")
"""Keys of run.json that may change without changing the run's items: the images may have moved."""

SHARDS = "shards"


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process writes, the whole or a part of it, and the plan of its shards."""

    path: Path
    shards: list[Shard]
    held: Held | None = None
    """The lock on the folder; None in a script that needs none."""
    part: Part | None = None
    """The part of the shards that this process computes; all if None."""

    @property
    def own(self) -> list[Shard]:
        """The shards that this process computes."""
        return own_shards(self.shards, self.part)

    def shard_path(self, shard: Shard) -> Path:
        return self.path / SHARDS / shard.name

    def check_held(self) -> None:
        """Check that the folder still exists and that this process still holds it.

        Raises:
            HvxError: it was renamed, deleted or taken over.
        """
        if self.held:
            self.held.check()

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard exists with the length that was written; ``missing`` sets aside foreign ones."""
        path = self.shard_path(shard)
        return path.exists() and verify_checksum(path, "length") is None

    @property
    def digest(self) -> str:
        """The digest of the run's identity, stored in each of its files."""
        return run_digest(self._about()["identity"])

    @property
    def stands_alone(self) -> bool:
        """Whether the run is one solid file and some of its shards, which it does not need, are absent."""
        lacks = not all(self.is_done(shard) for shard in self.shards)
        return lacks and self.is_packed and self.is_finished

    def missing(self, log: Log) -> list[Shard]:
        """The shards of ``own`` to compute: absent ones, and those that are set aside here with a message.

        A shard is set aside if HDF5 could not read it, or if it is another shard or another run's.
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
                log(f"{path}: not a whole shard of this run ({reason}); set aside as {aside.name}")
                absent.append(shard)
        return absent

    def failures_of(self, shard: Shard) -> list[dict[str, Any]]:
        """A shard's questions that could not be explained, with the reason."""
        with open_verified(self.shard_path(shard)) as file:
            failures: list[dict[str, Any]] = json.loads(file.attrs["failures"])
            return failures

    def failures(self) -> list[dict[str, Any]]:
        """All failures of the run."""
        if self.stands_alone:
            with open_verified(self.path / VIEW) as file:
                failures: list[dict[str, Any]] = json.loads(file.attrs["failures"])
                return failures
        return [failure for shard in self.shards for failure in self.failures_of(shard)]

    def results(self, failures: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Every question with its answer, in the official evaluator's format; "" for those that failed.

        Raises:
            HvxError: a question is neither explained nor among the failures, or is not in the split.
        """
        with RunReader(self.path) as reader:
            ids, answers = reader.column("question_id").tolist(), reader.column("answer").tolist()
        answer_of = dict.fromkeys((failure["question_id"] for failure in failures), "")
        answer_of |= dict(zip(ids, answers, strict=True))
        images = (image for shard in self.shards for image in shard.images)
        question_ids = [question.question_id for _, questions in images for question in questions]
        wrong = answer_of.keys() ^ set(question_ids)
        if wrong:
            raise HvxError(
                f"{self.path / VIEW}: holds other questions than the split (such as {min(wrong, key=str)}); "
                "delete it and run `hvx explain` again"
            )
        return [
            {"question_id": question_id, "answer": answer_of[question_id]} for question_id in question_ids
        ]

    def zero_gradients(self) -> tuple[int, int]:
        """The number of explanations whose Eq. 2 is zero everywhere, and of those whose Eq. 3 is."""
        with RunReader(self.path) as reader:
            if not reader.has_heatmaps:
                return 0, 0
            bits = reader.column("zero_gradient")
        return int((bits & ZERO_IMAGE_GRADIENT > 0).sum()), int((bits & ZERO_WORD_GRADIENT > 0).sum())

    @property
    def is_finished(self) -> bool:
        """Whether explanations.h5 exists, is undamaged, and matches these shards."""
        view = self.path / VIEW
        if self._about().get("finished") is None or verify_checksum(view, "core") is not None:
            return False
        try:
            return view_mismatch(view, self.path, self.digest) is None
        except HvxError:  # undamaged, but not a view
            return False

    @property
    def is_packed(self) -> bool:
        return bool(self._about().get("packed"))

    def reopen(self) -> None:
        """Mark the run as unfinished, before a shard is changed.

        A view is deleted, since it would no longer match its shards. A solid file stays until it is replaced:
        it may contain items that no shard has.
        """
        self.note({"finished": None})
        if not self.is_packed:
            with suppress(FileNotFoundError):
                (self.path / VIEW).unlink()

    def finish(self, attributes: dict[str, Any], seconds: float, pack: bool, log: Log) -> None:
        """Write failures.jsonl, explanations.h5 and results.json where they are missing or wrong.

        Args:
            attributes: facts about the whole run, for the attributes of explanations.h5.
            seconds: that this run took.
            pack: write one solid file instead of a view of the shards.
            log: is told which files of a finished run are written again.
        """
        self.check_held()
        failures, finished = self.failures(), self.is_finished
        repaired = log if finished else no_log
        _write(self.path / FAILURES, b"".join(map(json_bytes, failures)), repaired)
        if not finished or pack != self.is_packed:
            metadata = attributes | {"run_digest": self.digest} | ({"failures": failures} if pack else {})
            write = write_solid if pack else write_view
            write(self.path / VIEW, [self.shard_path(shard) for shard in self.shards], metadata)
        _write(self.path / RESULTS, json_bytes(self.results(failures)), repaired)
        if not finished or pack != self.is_packed:
            self.note({"finished": now(), "seconds": round(seconds, 2), "packed": pack})

    def record_versions(self, versions: dict[str, str], log: Log) -> None:
        """Record in run.json which versions compute shards from now on; report those new to the run."""
        about = self._about()
        later = about.get("later_versions", [])
        known = [about.get("versions"), *(later if isinstance(later, list) else [])]
        if versions in known:
            return
        latest = known[-1] if isinstance(known[-1], dict) else {}
        changed = [f"{name} {new} (was {latest.get(name)})" for name, new in versions.items()
                   if new != latest.get(name)]  # fmt: skip
        log(f"{self.path}: resumed with other versions, which run.json records: {', '.join(changed)}")
        self.note({"later_versions": [*known[1:], versions]})

    def note(self, news: dict[str, Any]) -> None:
        """Update keys of run.json."""
        with self._turn():
            before = self._about()
            if before | news != before:
                write_json(self.path / DESCRIPTION, before | news, indent=1, parents=False)

    def _turn(self) -> AbstractContextManager[None]:
        """Let only one of several parts in at a time."""
        return one_part_at_a_time(self.path) if self.part else nullcontext()

    def sweep(self) -> None:
        """Remove partial files of killed processes and the parts' locks; requires the lock on the folder."""
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
    log: Log = no_log,
    part: Part | None = None,
    finishing: bool = False,
) -> Iterator[RunFolder]:
    """Open a run folder, new or of the same run, with a lock against other writers.

    Args:
        path: the folder.
        about: the content of run.json; ``identity`` has everything that determines the run's items.
        shards: the plan.
        log: receives messages for the user, a line at a time.
        part: the part of the shards to hold; other processes may hold other parts. All shards if None.
        finishing: as for ``exclusive_lock``; partial files then stay until ``sweep``.

    Raises:
        Busy: another process writes the run, or this part of it.
        HvxError: the folder contains another run, or something else.
    """
    description = path / DESCRIPTION
    check_same_run(path, about["identity"])
    try:
        (path / SHARDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HvxError(f"{path}: cannot be written: {error.strerror or error}") from None
    with part_writer(path, part) if part else exclusive_lock(path, log, finishing) as held:
        with one_part_at_a_time(path) if part else nullcontext():
            if not description.exists():
                write_json(description, about, indent=1, parents=False)
        folder = RunFolder(path, shards, held, part)
        _same_identity(folder, about["identity"])  # again, now that the folder is locked
        folder.note({key: about[key] for key in _MAY_CHANGE})
        if not part and not finishing:
            folder.sweep()
        yield folder


def own_shards(shards: list[Shard], part: Part | None) -> list[Shard]:
    """The shards of a part: every ``count``-th, so that the sizes of parts differ by one at most."""
    return shards[part.number - 1 :: part.count] if part else shards


def check_links(run: Path) -> None:
    """Reject a run folder with a symbolic link that leads out of it.

    Otherwise a run from someone else could make hvx overwrite the user's other files.

    Raises:
        HvxError: names the link.
    """
    for name in (DESCRIPTION, VIEW, FAILURES, RESULTS, SHARDS):
        check_inside(run / name, run)


def shard_fault(path: Path, number: int, digest: str, depth: Depth) -> str | None:
    """Why a file is not an undamaged shard of a run; None if it is one.

    Args:
        path: the file.
        number: of the shard.
        digest: ``run_digest`` of the run's identity.
        depth: as for ``verify_checksum``.
    """
    if path.is_symlink():
        return "a symbolic link"
    return verify_checksum(path, depth) or shard_mismatch(path, number, digest)


def set_aside(path: Path) -> Path:
    """Rename a damaged file of a run, so that `hvx explain` computes it again; returns the new path.

    Raises:
        HvxError: it cannot be renamed.
    """
    aside = path.with_name(f"{path.name}.damaged")
    try:
        return path.replace(aside)
    except OSError as error:
        raise HvxError(f"{path}: damaged, and cannot be renamed: {error.strerror or error}") from None


def _is_free(path: Path) -> bool:
    """Whether a folder contains at most what a run leaves that was killed right after its start."""
    leftovers = {LOCK, SHARDS}
    return path.is_dir() and all(
        entry.name in leftovers or entry.name.startswith(f"{LOCK}.") or entry.name.endswith(".part")
        for entry in path.iterdir()
    )


def check_same_run(path: Path, identity: dict[str, Any]) -> None:
    """Check that a run can be written into a folder; nothing is written.

    Raises:
        HvxError: the folder contains another run or something else, or a link that leads out of it.
    """
    check_links(path)
    if (path / DESCRIPTION).exists():
        _same_identity(RunFolder(path, []), identity)
    elif path.exists() and not _is_free(path):
        raise HvxError(f"{path}: not empty and not a run; give explain.run a new folder")


def absent_shards(path: Path, shards: list[Shard]) -> list[Shard]:
    """The shards whose files are absent; none for a finished run packed into one file."""
    folder = RunFolder(path, shards)
    if (path / DESCRIPTION).exists() and folder.stands_alone:
        return []
    return [shard for shard in shards if not folder.shard_path(shard).exists()]


def _same_identity(folder: RunFolder, identity: dict[str, Any]) -> None:
    stored = folder._about().get("identity")
    previous = stored if isinstance(stored, dict) else {}
    for key in identity | previous:
        old, new = previous.get(key), identity.get(key)
        if old != new:
            raise HvxError(
                f"{folder.path}: holds a run with another {key} ({old!r:.20}, now {new!r:.20}); "
                "give explain.run a new folder, or delete this one"
            )


def _sweep(path: Path) -> None:
    """Remove partial files of killed processes; requires the lock on the folder."""
    for part in [*path.glob(".*.part"), *(path / SHARDS).glob(".*.part")]:
        part.unlink(missing_ok=True)


def _write(path: Path, content: bytes, repaired: Log) -> None:
    """Write a file unless it has this content already."""
    with suppress(OSError):
        if path.read_bytes() == content:
            return
    repaired(f"{path}: missing or changed; written again")
    with atomic_write(path, parents=False) as part:
        part.write_bytes(content)


def now() -> str:
    """The current time, UTC, in the format of run.json."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
