"""A run folder: whose run it is, which of its shards are whole, and what stands beside them at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvx.errors import HvxError
from hvx.files import read_json, whole_file, write_json
from hvx.run.lock import LOCK, only_writer
from hvx.run.plan import Shard
from hvx.store.reader import RunReader
from hvx.store.schema import ZERO_IMAGE_GRADIENT, ZERO_WORD_GRADIENT, run_digest
from hvx.store.seal import damage, opened
from hvx.store.shards import shard_mismatch, view_mismatch
from hvx.store.writer import write_solid, write_view

_MAY_CHANGE = ("config", "images", "picked")
"""Keys of run.json that may change while the run's items stay what they are: the images may have moved."""

Say = Callable[[str], None]

DESCRIPTION, VIEW, FAILURES, RESULTS = "run.json", "explanations.h5", "failures.jsonl", "results.json"


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process alone writes, and the plan of its shards."""

    path: Path
    shards: list[Shard]

    def shard_path(self, shard: Shard) -> Path:
        return self.path / "shards" / shard.name

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
        """Whether the run is one solid file that goes without its shards."""
        return self.is_packed and self.is_finished and not any((self.path / "shards").glob("*.h5"))

    def missing(self, say: Say) -> list[Shard]:
        """The shards to compute: those absent, and those set aside here with a line that says why.

        A shard is set aside if HDF5 could not read it, if it is another shard, or of another run.
        """
        absent, digest = [], self.digest
        for shard in self.shards:
            path = self.shard_path(shard)
            reason = damage(path, "core") if path.exists() else None
            if path.exists() and not reason:
                reason = shard_mismatch(path, shard.number, digest)
            if reason:
                aside = path.with_name(f"{path.name}.damaged")
                path.replace(aside)
                say(f"{path}: not a whole shard of this run ({reason}); set aside as {aside.name}")
            if not path.exists():
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
            return _lines(self.path / FAILURES)
        return [failure for shard in self.shards for failure in self.failures_of(shard)]

    def results(self) -> list[dict[str, Any]]:
        """Every question with its answer, as the official evaluator wants them; "" for those that failed."""
        with RunReader(self.path) as reader:
            ids, answers = reader.column("question_id").tolist(), reader.column("answer").tolist()
        answer_of = dict(zip(ids, answers, strict=True))
        images = (image for shard in self.shards for image in shard.images)
        asked = (question.question_id for _, own in images for question in own)
        return [{"question_id": number, "answer": answer_of.get(number, "")} for number in asked]

    def zero_gradients(self) -> tuple[int, int]:
        """How many explanations have an Eq. 2, and an Eq. 3, that is zero everywhere."""
        with RunReader(self.path) as reader:
            bits = reader.column("zero_gradient")
        return int((bits & ZERO_IMAGE_GRADIENT > 0).sum()), int((bits & ZERO_WORD_GRADIENT > 0).sum())

    @property
    def is_finished(self) -> bool:
        """Whether all that stands beside the shards is there, and the one file of them all is theirs."""
        view = self.path / VIEW
        if self._about().get("finished") is None or damage(view, "core") is not None:
            return False
        return view_mismatch(view, self.path, self.digest) is None

    @property
    def is_packed(self) -> bool:
        return bool(self._about().get("packed"))

    def reopen(self) -> None:
        """Take back what stands beside the shards, ahead of changing one of them."""
        self.note({"finished": None})
        (self.path / VIEW).unlink(missing_ok=True)

    def finish(self, attributes: dict[str, Any], seconds: float, pack: bool) -> None:
        """Write what stands beside the shards: failures, the one file of them all, results.

        Args:
            attributes: what is true of the whole run, for the file's attributes.
            seconds: that this run took.
            pack: one solid file in place of a view of the shards.
        """
        with whole_file(self.path / FAILURES) as part:
            lines = (json.dumps(failure, ensure_ascii=False) + "\n" for failure in self.failures())
            part.write_text("".join(lines), encoding="utf-8")
        write = write_solid if pack else write_view
        attributes = attributes | {"run_digest": self.digest}
        write(self.path / VIEW, [self.shard_path(shard) for shard in self.shards], attributes)
        write_json(self.path / RESULTS, self.results())
        self.note({"finished": now(), "seconds": round(seconds, 2), "packed": pack})

    def note(self, news: dict[str, Any]) -> None:
        """Put what is new into run.json."""
        before = self._about()
        if before | news != before:
            write_json(self.path / DESCRIPTION, before | news, indent=1)

    def _about(self) -> dict[str, Any]:
        about = read_json(self.path / DESCRIPTION, "a run folder's description")
        if not isinstance(about, dict):
            raise HvxError(f"{self.path / DESCRIPTION}: not the description of a run")
        return about


@contextmanager
def opened_run(path: Path, about: dict[str, Any], shards: list[Shard]) -> Iterator[RunFolder]:
    """A run folder, new or of the same run, held against other writers.

    Args:
        path: the folder.
        about: what run.json says; under ``identity`` all that decides what the run's items are.
        shards: the plan.

    Raises:
        HvxError: the folder holds something else, another run, or is being written.
    """
    description = path / DESCRIPTION
    if not description.exists() and path.exists() and not _is_free(path):
        raise HvxError(f"{path}: not empty and not a run; give explain.run a new folder")
    try:
        (path / "shards").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HvxError(f"{path}: cannot be written: {error.strerror or error}") from None
    with only_writer(path):
        if not description.exists():
            write_json(description, about, indent=1)
        folder = RunFolder(path, shards)
        _same_run(folder, about)
        folder.note({key: about[key] for key in _MAY_CHANGE})
        _sweep(path)
        yield folder


def _is_free(path: Path) -> bool:
    """Whether a folder holds nothing but what a run that began and died at once may leave."""
    left = {LOCK, "shards"}
    return path.is_dir() and all(
        entry.name in left or entry.name.endswith(".part") for entry in path.iterdir()
    )


def _same_run(folder: RunFolder, about: dict[str, Any]) -> None:
    before = folder._about().get("identity")
    for key, value in about["identity"].items():
        found = before.get(key) if isinstance(before, dict) else None
        if found != value:
            raise HvxError(
                f"{folder.path}: holds a run with another {key} ({found!r:.20}, now {value!r:.20}); "
                "give explain.run a new folder, or delete this one"
            )


def _sweep(path: Path) -> None:
    """Remove what a killed process left half-written; nobody else writes here now."""
    for part in [*path.glob(".*.part"), *(path / "shards").glob(".*.part")]:
        part.unlink(missing_ok=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON Lines."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise HvxError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise HvxError(f"{path}: not JSON Lines: {error}") from None


def now() -> str:
    """The time, UTC, as run.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
