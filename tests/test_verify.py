"""A check of a run: what it counts, what it sets aside and removes, what it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import DIGEST, items, written

from hvx.errors import HvxError
from hvx.run.lock import LOCK
from hvx.run.verify import verify
from hvx.store.writer import write_shard

FIRST, SECOND, VIEW = "shards/00000.h5", "shards/00001.h5", "explanations.h5"


def names(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} - {LOCK}


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def third(run: Path) -> None:
    """A whole shard of the run, but of a number that its plan does not have."""
    write_shard(run / "shards" / "00002.h5", items(2), {"shard": 2, "run_digest": DIGEST}, [])


NO_NAME = "no shard's name"
LONGER = "another length than its seal says"


@pytest.mark.parametrize(
    ("change", "whole", "damaged", "absent", "finished"),
    [
        (lambda run: None, 2, {}, 0, True),
        (lambda run: (run / SECOND).unlink(), 1, {}, 1, False),
        (lambda run: shutil.rmtree(run / "shards"), 0, {}, 2, False),
        (lambda run: (run / VIEW).unlink(), 2, {}, 0, False),
        (lambda run: spoil(run / SECOND), 1, {SECOND: LONGER}, 0, False),
        (lambda run: spoil(run / VIEW), 2, {VIEW: LONGER}, 0, False),
        (third, 2, {"shards/00002.h5": NO_NAME}, 0, True),
        # Two files of the same shard are one, whatever their names.
        (lambda run: shutil.copy(run / FIRST, run / "shards/0.h5"), 2, {"shards/0.h5": NO_NAME}, 0, True),
        (lambda run: (run / SECOND).rename(run / "shards/1.h5"), 1, {"shards/1.h5": NO_NAME}, 1, False),
        (lambda run: (run / SECOND).rename(run / "shards/b.h5"), 1, {"shards/b.h5": NO_NAME}, 1, False),
        (lambda run: (run / "shards/notes").touch(), 2, {}, 0, True),
    ],
)
def test_a_check_counts_what_is_whole_damaged_and_absent(
    tmp_path: Path,
    change: Callable[[Path], None],
    whole: int,
    damaged: dict[str, str],
    absent: int,
    finished: bool,
) -> None:
    run = written(tmp_path / "run", solid=False)
    change(run)
    before = names(run)
    found = verify(run)
    assert (found.whole, found.absent, found.finished, found.read_only) == (whole, absent, finished, False)
    assert found.damaged == {run / name: why for name, why in damaged.items()}
    # A view that lacks a shard goes; what is damaged has another name; nothing else changes.
    gone = {VIEW} if not finished else set()
    assert names(run) == before - set(damaged) - gone | {f"{name}.damaged" for name in damaged}


def test_a_stray_file_does_not_hide_that_the_view_is_of_other_shards(tmp_path: Path) -> None:
    run = written(tmp_path / "run", solid=False)
    write_shard(run / SECOND, items(2), {"shard": 1, "run_digest": DIGEST}, [])
    shutil.copy(run / FIRST, run / "shards/b.h5")
    found = verify(run)
    assert found.damaged == {
        run / "shards/b.h5": NO_NAME, run / VIEW: "00001.h5 was replaced after it was listed",
    }  # fmt: skip
    assert (found.whole, found.finished) == (2, False)


@pytest.mark.parametrize("packed", [None, False, 1, "yes"])
def test_what_is_not_said_to_be_packed_needs_its_shards(tmp_path: Path, packed: object) -> None:
    run = written(tmp_path / "run", solid=True)
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | {"packed": packed}))
    (run / SECOND).unlink()
    found = verify(run)
    assert (found.absent, found.finished) == (1, False)


def test_a_solid_file_stays_where_the_run_is_unfinished(tmp_path: Path) -> None:
    """It may hold what no shard does."""
    run = written(tmp_path / "run", solid=True)
    spoil(run / VIEW)
    (run / SECOND).unlink()
    found = verify(run)
    assert (found.whole, found.absent, found.finished) == (1, 1, False)
    assert names(run) == {"run.json", FIRST, f"{VIEW}.damaged"}


def test_a_view_that_cannot_be_deleted_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written(tmp_path / "run", solid=False)
    (run / SECOND).unlink()

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(HvxError) as refused:
        verify(run)
    assert str(refused.value) == f"{run / VIEW}: lacks a shard, and cannot be deleted: Permission denied"


@pytest.mark.parametrize("about", [[], {}, {"shards": 2}, {"identity": {}}, {"identity": [], "shards": 2}])
def test_what_is_no_description_of_a_run_is_refused(tmp_path: Path, about: object) -> None:
    run = written(tmp_path / "run", solid=False)
    (run / "run.json").write_text(json.dumps(about))
    with pytest.raises(HvxError) as refused:
        verify(run)
    assert str(refused.value) == f"{run / 'run.json'}: not the description of a run"
