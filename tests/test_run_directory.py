"""A run folder: what makes it another run, what is written again, what is never lost or written elsewhere.

The shards are made up by an engine without a network, so that each run takes a moment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import Tiny
from made_runs import items

from hvx.cli import main
from hvx.config import Config
from hvx.data.questions import read_questions
from hvx.errors import HvxError, Interrupted
from hvx.info import describe
from hvx.models.checkpoint import load_checkpoint, save_checkpoint
from hvx.models.header import read_header
from hvx.run import explain, source
from hvx.run.explain import Options, StartEngine, Summary, explain_split
from hvx.run.identity import RunIdentity, versions
from hvx.run.local import LocalEngine, local_engine
from hvx.run.lock import ReadOnly
from hvx.run.shards import Shard
from hvx.run.verify import verify
from hvx.store.reader import RunReader
from hvx.store.writer import write_shard

CPU = torch.device("cpu")
REASON = "no\u2028image\u0085here"
"""Of failures. Both characters end a line for Python's ``str.splitlines``, not for JSON Lines."""


class Made:
    """An engine that makes explanations up; ``fails`` are questions that it cannot explain."""

    about = "made up"

    def __init__(self, fails: Sequence[int] = (), each: Callable[[Path], None] = lambda folder: None) -> None:
        self.fails, self._each = fails, each
        self.computed: list[int] = []
        self._digest = ""

    def __call__(self, config: Config, identity: RunIdentity) -> Made:
        self._digest = identity.digest
        return self

    def compute(self, shards: Sequence[Shard], folder: Path) -> Generator[Shard, None, None]:
        for shard in shards:
            self._each(folder)
            asked = [question.question_id for _, own in shard.images for question in own]
            good = [number for number in asked if number not in self.fails]
            made = items(shard.number, len(good)) | {"question_id": np.array(good, np.int64)}
            failures = [{"question_id": n, "reason": REASON} for n in asked if n in self.fails]
            label = {"crop": {}, "shard": shard.number, "run_digest": self._digest}
            write_shard(folder / shard.name, made, label, failures)
            self.computed.append(shard.number)
            yield shard


def in_shards(tiny: Tiny, run: Path, **more: Any) -> Config:
    return tiny.load(run, explain__shard_questions=10, **more)


def made(
    tiny: Tiny, run: Path, engine: StartEngine | None = None, said: list[str] | None = None, **options: bool
) -> Summary:
    """The tiny split explained by an engine that makes explanations up."""
    say = (said if said is not None else []).append
    return explain_split(in_shards(tiny, run), engine or Made(), Options(**options), say)


@pytest.fixture(scope="module")
def asked(tiny: Tiny) -> list[int]:
    """The tiny split's questions, in the order of the plan."""
    return [question.question_id for question in read_questions(tiny.load(tiny.root).split("val"))]


@pytest.fixture
def failing(asked: list[int]) -> Made:
    """Fails on the first, and the last two questions."""
    return Made([asked[0], *asked[-2:]])


def bytes_of(run: Path) -> dict[str, bytes]:
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def invoked(tiny: Tiny, run: Path, *options: str) -> Result:
    """``hvx explain`` in this process."""
    settings = [part for s in tiny.settings(run, explain__shard_questions=10) for part in ("--set", s)]
    return CliRunner().invoke(main, ["explain", str(tiny.config), *settings, *options])


# What stands beside the shards.


def test_results_hold_every_question_and_failures_each_with_its_reason(
    tiny: Tiny, tmp_path: Path, asked: list[int], failing: Made
) -> None:
    run = tmp_path / "run"
    summary = made(tiny, run, failing)
    count = len(failing.computed)
    assert count > 2 and failing.computed == list(range(count))
    found = dataclasses.asdict(summary) | {"seconds": 0}
    assert found == {
        "run": run, "seconds": 0,
        "explained": len(asked) - 3, "failed": 3, "done_now": count, "done_before": 0,
        "zero_image_gradients": summary.zero_image_gradients,
        "zero_word_gradients": summary.zero_word_gradients, "selected": False, "part": None,
        "left": 0,
    }  # fmt: skip
    results = json.loads((run / "results.json").read_text())
    assert [row["question_id"] for row in results] == asked
    assert [row["question_id"] for row in results if row["answer"] == ""] == failing.fails
    with RunReader(run) as reader:
        answers = {reader[n].question_id: reader[n].answer for n in range(len(reader))}
    assert {row["question_id"]: row["answer"] for row in results if row["answer"]} == answers
    lines = (run / "failures.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [
        {"question_id": number, "reason": REASON} for number in failing.fails
    ]


def test_a_question_that_is_neither_explained_nor_failed_is_an_error(
    tiny: Tiny, tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, engine = tmp_path / "run", Made([asked[4]])
    monkeypatch.setattr("hvx.run.run_directory.RunFolder.failures", lambda folder: [])
    with pytest.raises(HvxError) as refused:
        made(tiny, run, engine)
    assert str(refused.value) == (
        f"{run / 'explanations.h5'}: holds other questions than the split (such as {asked[4]}); "
        "delete it and run `hvx explain` again"
    )
    assert json.loads((run / "run.json").read_text())["finished"] is None


@pytest.mark.parametrize("name", ["results.json", "failures.jsonl"])
@pytest.mark.parametrize("content", [None, b"{"])
@pytest.mark.parametrize("pack", [False, True])
def test_what_stands_beside_the_shards_of_a_finished_run_is_written_again(
    tiny: Tiny, tmp_path: Path, failing: Made, name: str, content: bytes | None, pack: bool
) -> None:
    run = tmp_path / "run"
    made(tiny, run, failing, pack=pack)
    if pack:
        shutil.rmtree(run / "shards")
    before = bytes_of(run)
    (run / name).unlink() if content is None else (run / name).write_bytes(content)
    said: list[str] = []
    again = Made()
    summary = made(tiny, run, again, said)
    assert said == [f"{run / name}: missing or changed; written again"]
    assert (summary.done_now, summary.failed, again.computed) == (0, 3, [])
    assert bytes_of(run) == before
    made(tiny, run, again, said)
    assert len(said) == 1


def test_a_view_goes_before_a_shard_is_computed_again_and_the_run_is_unfinished(
    tiny: Tiny, tmp_path: Path, failing: Made
) -> None:
    run = tmp_path / "run"
    made(tiny, run, failing)
    seen: list[tuple[bool, Any]] = []

    def look(folder: Path) -> None:
        finished = json.loads((run / "run.json").read_text())["finished"]
        seen.append(((run / "explanations.h5").exists(), finished))

    again = Made(each=look)
    summary = made(tiny, run, again, retry_failed=True)
    assert again.computed == [0, len(failing.computed) - 1]
    assert seen == [(False, None)] * 2
    assert (summary.done_now, summary.done_before, summary.failed) == (2, len(failing.computed) - 2, 0)
    assert (run / "failures.jsonl").read_bytes() == b""
    assert json.loads((run / "run.json").read_text())["finished"]


def test_an_interruption_says_how_many_shards_are_done(tiny: Tiny, tmp_path: Path) -> None:
    run, engine = tmp_path / "run", Made()

    def stop(folder: Path) -> None:
        if len(engine.computed) == 2:
            raise KeyboardInterrupt

    engine._each = stop
    with pytest.raises(Interrupted) as stopped:
        made(tiny, run, engine)
    whole = Made()
    assert made(tiny, run, whole).done_before == 2
    total = 2 + len(whole.computed)
    assert whole.computed == list(range(2, total))
    assert str(stopped.value) == (
        f"{run}: interrupted; 2 of {total} shards are done; the same command resumes from there"
    )
    assert stopped.value.exit_status == 130


def test_an_error_that_no_signal_led_to_is_not_an_interruption(tiny: Tiny, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise HvxError("the engine failed")

    with pytest.raises(HvxError, match=r"^the engine failed$") as failed:
        made(tiny, tmp_path / "run", Made(each=fail))
    assert type(failed.value) is HvxError


# A packed run.


def test_a_packed_run_that_lacks_some_shards_is_left_as_it_is(
    tiny: Tiny, tmp_path: Path, asked: list[int], failing: Made
) -> None:
    run = tmp_path / "run"
    made(tiny, run, failing, pack=True)
    assert json.loads((run / "run.json").read_text())["packed"] is True
    (run / "shards" / "00001.h5").unlink()
    before = bytes_of(run)
    again = Made()
    summary = made(tiny, run, again)
    assert (again.computed, summary.done_now, summary.failed) == ([], 0, 3)
    assert summary.explained == len(asked) - 3
    assert bytes_of(run) == before
    with pytest.raises(HvxError) as refused:
        made(tiny, run, again, retry_failed=True)
    assert str(refused.value) == (
        f"{run}: packed, and some of its shards are gone; give explain.run a new folder to try again"
    )
    assert bytes_of(run) == before
    found = verify(run)
    assert (found.whole, found.absent, found.finished) == (len(failing.computed) - 1, 0, True)


def test_a_packed_run_without_failures_has_none_to_try_again(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(tiny, run, pack=True)
    shutil.rmtree(run / "shards")
    assert made(tiny, run, retry_failed=True).done_now == 0


def test_a_packed_run_whose_one_file_is_damaged_is_computed_again(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(tiny, run, pack=True)
    before = bytes_of(run)
    (run / "shards" / "00001.h5").unlink()
    (run / "explanations.h5").write_bytes(before["explanations.h5"][:-1])
    again = Made()
    made(tiny, run, again)
    assert again.computed == [1]
    after = bytes_of(run)
    assert set(after) == set(before) and after["results.json"] == before["results.json"]
    assert json.loads(after["run.json"])["packed"] is True


def test_the_solid_file_stays_until_there_is_another(tiny: Tiny, tmp_path: Path, failing: Made) -> None:
    run = tmp_path / "run"
    made(tiny, run, failing, pack=True)
    solid = (run / "explanations.h5").read_bytes()

    def stop(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        made(tiny, run, Made(each=stop), retry_failed=True)
    assert (run / "explanations.h5").read_bytes() == solid
    again = Made()
    assert made(tiny, run, again, retry_failed=True).failed == 0
    assert again.computed == [0, len(failing.computed) - 1]
    with RunReader(run) as reader:
        assert len(reader) == len(json.loads((run / "results.json").read_text()))


# On the command line.


@pytest.fixture
def engine_of_the_command(monkeypatch: pytest.MonkeyPatch, failing: Made) -> Made:
    monkeypatch.setattr("hvx.run.local.local_engine", lambda device: failing)
    return failing


def test_pack_on_the_command_line(tiny: Tiny, tmp_path: Path, engine_of_the_command: Made) -> None:
    engine_of_the_command.fails = ()
    assert invoked(tiny, tmp_path / "view").exit_code == 0
    assert invoked(tiny, tmp_path / "solid", "--pack").exit_code == 0
    for name, packed in (("view", False), ("solid", True)):
        assert json.loads((tmp_path / name / "run.json").read_text())["packed"] is packed
        shutil.rmtree(tmp_path / name / "shards")
    assert len(RunReader(tmp_path / "solid")) > 0
    with pytest.raises(HvxError, match="shards are missing"):
        RunReader(tmp_path / "view")


def test_retry_failed_on_the_command_line(
    tiny: Tiny, tmp_path: Path, asked: list[int], engine_of_the_command: Made
) -> None:
    run = tmp_path / "run"
    done = invoked(tiny, run)
    count = len(engine_of_the_command.computed)
    assert done.exit_code == 3
    first, *lines = [line for line in done.stdout.splitlines() if "zero everywhere" not in line]
    assert re.fullmatch(rf"{re.escape(str(run))}: {len(asked) - 3} questions explained in \d+\.\d s", first)
    assert lines == [
        f"3 questions could not be explained; see {run / 'failures.jsonl'}; "
        "results.json holds them with the answer ''"
    ]
    engine_of_the_command.fails = ()
    engine_of_the_command.computed.clear()
    done = invoked(tiny, run)
    assert done.exit_code == 3 and engine_of_the_command.computed == []  # not unless asked
    assert f" ({count} shards were done before)" in done.stdout
    done = invoked(tiny, run, "--retry-failed")
    assert done.exit_code == 0 and engine_of_the_command.computed == [0, count - 1]
    assert f" ({count - 2} shards were done before)" in done.stdout
    assert "could not be explained" not in done.stdout


@pytest.mark.parametrize("by", ["limit", "pick"])
def test_questions_that_were_selected_are_counted(
    tiny: Tiny, tmp_path: Path, asked: list[int], engine_of_the_command: Made, by: str
) -> None:
    run = tmp_path / "run"
    engine_of_the_command.fails = ()
    setting = "splits.val.limit=7" if by == "limit" else f"explain.pick={picking_first(tiny)}"
    done = invoked(tiny, run, "--set", setting)
    results = json.loads((run / "results.json").read_text())
    assert 0 < len(results) < len(asked)
    line = f"results.json holds the {len(results)} questions that limit or explain.pick selects, not all"
    assert line in done.stdout.splitlines(), done.output


def picking_first(tiny: Tiny) -> str:
    """``explain.pick`` that picks the split's first question."""
    first = read_questions(tiny.load(tiny.root).split("val"))[0]
    return json.dumps([{"question": first.question, "question_id": first.question_id}])


# What makes another run.


@pytest.fixture
def other_files(tiny: Tiny, tmp_path: Path) -> dict[str, Path]:
    """Files like the split's that differ in a byte, the images under other names, another checkpoint."""
    split = tiny.load(tiny.root).split("val")
    assert split.annotations is not None
    files = {"questions": split.questions, "annotations": split.annotations}
    for name, path in files.items():
        (tmp_path / name).write_bytes(path.read_bytes() + b"\n")
    (tmp_path / "images").mkdir()
    for path in split.images.glob("SCENES_val_*"):
        shutil.copy(path, tmp_path / "images" / path.name.replace("SCENES", "OTHER"))
    model = load_checkpoint(tiny.root / "model.safetensors")
    model.training["note"] = "another"
    save_checkpoint(tmp_path / "checkpoint", model)
    return {name: tmp_path / name for name in ("questions", "annotations", "images", "checkpoint")}


def test_each_part_of_the_identity_makes_another_run(
    tiny: Tiny, tmp_path: Path, other_files: dict[str, Path]
) -> None:
    run = tmp_path / "run"
    made(tiny, run)
    before = bytes_of(run)
    changes: dict[str, dict[str, Any]] = {
        "checkpoint_sha256": {"checkpoint": other_files["checkpoint"]},
        "questions_sha256": {"splits__val__questions": other_files["questions"]},
        "annotations_sha256": {"splits__val__annotations": other_files["annotations"]},
        "format": {"splits__val__format": "vqa"},
        "image_name": {
            "splits__val__images": other_files["images"],
            "splits__val__image_name": "OTHER_val_{image_id:012d}.png",
        },
        "exif_orientation": {"splits__val__exif_orientation": "true"},
        "limit": {"splits__val__limit": 3},
        "picked": {"explain__pick": picking_first(tiny)},
        "precision": {"explain__precision": "bfloat16"},
        "product": {"explain__product": "free"},
        "heatmap": {"explain__heatmap__size": 32},
        "gradient": {"explain__gradient": "true"},
        "shard_questions": {"explain__shard_questions": 11},
    }
    identity = json.loads(before["run.json"])["identity"]
    assert set(changes) | {"schema_version"} == set(identity)
    for key, changed in changes.items():
        config = tiny.load(run, **{"explain__shard_questions": 10, **changed})
        with pytest.raises(HvxError) as refused:
            explain_split(config, Made())
        assert re.fullmatch(
            rf"{re.escape(str(run))}: holds a run with another {key} \(.*, now .*\); "
            "give explain.run a new folder, or delete this one",
            str(refused.value),
        ), key
        assert bytes_of(run) == before
    summary = made(tiny, run)
    assert summary.done_now == 0


@pytest.mark.parametrize(
    ("identity", "named"),
    [
        ({"schema_version": 1}, r"another schema_version \(1, now 6\)"),
        ({"added_later": 1}, r"another added_later \(1, now None\)"),
        (None, "another schema_version"),
    ],
)
def test_a_run_of_another_hvx_is_refused(
    tiny: Tiny, tmp_path: Path, identity: dict[str, Any] | None, named: str
) -> None:
    run = tmp_path / "run"
    made(tiny, run)
    about = json.loads((run / "run.json").read_text())
    about["identity"] = about["identity"] | identity if identity else "none"
    (run / "run.json").write_text(json.dumps(about))
    before = bytes_of(run)
    with pytest.raises(HvxError, match=named):
        made(tiny, run)
    assert bytes_of(run) == before


def test_what_may_change_is_noted_and_nothing_is_computed_again(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(tiny, run)
    images = tmp_path / "moved"
    shutil.copytree(tiny.root / "scenes" / "images", images)
    engine = Made()
    explain_split(in_shards(tiny, run, splits__val__images=images), engine)
    about = json.loads((run / "run.json").read_text())
    assert (about["images"], engine.computed) == (str(images), [])
    assert about["config"]["splits"]["val"]["images"] == str(images)
    assert about["device"] == "made up"


# What is replaced while it is read.


@pytest.mark.parametrize("name", ["questions", "annotations"])
def test_data_replaced_while_they_are_read_are_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_files: dict[str, Path], name: str
) -> None:
    path = other_files[name]

    def replaced(split: Any, say: Any) -> Any:
        questions = read_questions(split, say)
        path.write_bytes(path.read_bytes() + b" ")
        return questions

    monkeypatch.setattr(explain, "read_questions", replaced)
    config = in_shards(tiny, tmp_path / "run", **{f"splits__val__{name}": path})
    with pytest.raises(HvxError) as refused:
        explain_split(config, Made())
    assert str(refused.value) == (
        f"{config.split('val').questions}: changed while it, or its annotations, was read; run this again"
    )
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_replaced_before_it_is_loaded_is_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_files: dict[str, Path]
) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(tiny.root / "model.safetensors", path)

    def replaced(found: Path) -> Any:
        if other_files["checkpoint"].exists():  # the header is read several times
            other_files["checkpoint"].replace(path)
        return read_header(found)

    monkeypatch.setattr(source, "read_header", replaced)
    with pytest.raises(HvxError) as refused:
        explain_split(in_shards(tiny, tmp_path / "run", checkpoint=path), local_engine(CPU))
    assert str(refused.value) == (
        f"{path}: replaced since this run began; restore it, or give explain.run a new folder"
    )
    assert not (tmp_path / "run").exists()


# Versions.


def test_a_run_resumed_with_other_versions_says_and_records_so(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Made
) -> None:
    run, now = tmp_path / "run", versions()
    said: list[str] = []

    def with_torch(version: str) -> None:
        monkeypatch.setattr(explain, "versions", lambda: now | {"torch": version})

    def recorded() -> list[Any]:
        about = json.loads((run / "run.json").read_text())
        return [about["versions"]["torch"], *(later["torch"] for later in about.get("later_versions", []))]

    with_torch("3.0")
    made(tiny, run, failing, said)
    assert (said, recorded()) == ([], ["3.0"])
    with_torch("3.1")
    made(tiny, run, failing, said)  # nothing is computed
    assert (said, recorded()) == ([], ["3.0"])
    made(tiny, run, failing, said, retry_failed=True)
    line = f"{run}: resumed with other versions, which run.json records: torch"
    assert (said, recorded()) == ([f"{line} 3.1 (was 3.0)"], ["3.0", "3.1"])
    monkeypatch.setattr(explain, "versions", lambda: now | {"torch": "3.2", "hvx": "9"})
    made(tiny, run, failing, said, retry_failed=True)
    assert said[1:] == [
        f"{run}: resumed with other versions, which run.json records: hvx 9 (was {now['hvx']}), "
        "torch 3.2 (was 3.1)"
    ]
    assert recorded() == ["3.0", "3.1", "3.2"]
    made(tiny, run, failing, said, retry_failed=True)  # known already
    assert len(said) == 2 and recorded() == ["3.0", "3.1", "3.2"]
    assert describe(run)["computed by"] == (
        f"hvx {now['hvx']}, torch 3.0; then hvx {now['hvx']}, torch 3.1; then hvx 9, torch 3.2"
    )


def test_a_worker_of_other_versions_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    here_now = versions()
    for name in ("hvx", "torch"):
        identity = RunIdentity({"checkpoint_sha256": ""}, here_now | {name: "0.0"})
        with pytest.raises(HvxError) as refused:
            LocalEngine(tiny.load(tmp_path / "run"), CPU, identity)
        assert str(refused.value) == (
            f"a worker has {name} {here_now[name]}, the run 0.0; install the same version everywhere"
        )
    RunIdentity({}, here_now | {"python": "0.0", "h5py": "0.0", "torchvision": "0.0"}).check_versions()


# Folders that go, and links that lead away.


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_folder_renamed_meanwhile_is_not_made_again(tiny: Tiny, tmp_path: Path, replaced: bool) -> None:
    run, moved, engine = tmp_path / "run", tmp_path / "moved", Made()

    def move(folder: Path) -> None:
        if len(engine.computed) == 1:
            run.rename(moved)
            if replaced:
                (run / "shards").mkdir(parents=True)

    engine._each = move
    with pytest.raises(HvxError) as refused:
        made(tiny, run, engine)
    assert not (run / "run.json").exists() and not (run / "explanations.h5").exists()
    if replaced:
        assert str(refused.value) == (
            f"{run}: renamed, deleted or taken over by another process while this one wrote it; "
            "nothing more is written there"
        )
    assert sorted(path.name for path in (moved / "shards").iterdir()) == ["00000.h5"]
    again = Made()
    made(tiny, moved, again)
    assert 0 not in again.computed and 1 in again.computed


def test_a_worker_does_not_make_a_folder_that_is_gone(tiny: Tiny, tmp_path: Path) -> None:
    """As of a run folder that was renamed while a shard was explained."""
    run = tmp_path / "run"
    started: list[tuple[LocalEngine, Any]] = []

    def start(config: Config, identity: RunIdentity) -> LocalEngine:
        started.append((LocalEngine(config, CPU, identity), identity))
        return started[0][0]

    class Moved:
        about = "cpu"

        def compute(self, shards: Sequence[Shard], folder: Path) -> Iterator[Shard]:
            run.rename(tmp_path / "moved")
            yield from started[0][0].compute(shards, folder)

    def moved(config: Config, identity: RunIdentity) -> Any:
        start(config, identity)
        return Moved()

    config = tiny.load(run, splits__val__limit=2)
    with pytest.raises(HvxError) as refused:
        explain_split(config, moved)
    assert str(refused.value) == (
        f"{run / 'shards'}: the folder is gone; it was renamed or deleted during the run"
    )
    assert not run.exists()


PARTS = ["run.json", "explanations.h5", "failures.jsonl", "results.json", "shards", ".lock"]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("use", ["explain", "verify"])
def test_a_run_of_which_a_part_leads_out_of_it_is_refused(
    tiny: Tiny, tmp_path: Path, name: str, use: str
) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    made(tiny, run)
    if (run / name).is_dir():
        (run / name).rename(outside)
    else:
        outside.write_bytes((run / name).read_bytes())
        (run / name).unlink()
    (run / name).symlink_to("../outside")
    before = bytes_of(tmp_path)
    with pytest.raises(HvxError) as refused:
        made(tiny, run) if use == "explain" else verify(run)
    reason = (
        "is a symbolic link; delete it"
        if name == ".lock"
        else ("leads out of the run folder; copy the file into it")
    )
    assert str(refused.value) == f"{run / name}: {reason}"
    assert bytes_of(tmp_path) == before


def test_links_in_a_circle_are_an_error(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(tiny, run)
    (run / "results.json").unlink()
    (run / "results.json").symlink_to("results.json")
    with pytest.raises(HvxError, match=f"^{run / 'results.json'}: cannot be written: Too many levels"):
        made(tiny, run)


@pytest.mark.parametrize("leads_to", ["../../outside", "../../absent", "00000.h5"])
def test_a_shard_that_is_a_link_is_set_aside(tiny: Tiny, tmp_path: Path, leads_to: str) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    made(tiny, run)
    shard = run / "shards" / "00001.h5"
    shutil.copy(shard, outside)
    mine = outside.read_bytes()
    shard.unlink()
    shard.symlink_to(leads_to)
    found = verify(run)
    assert found.damaged == {shard: "a symbolic link"} and not found.finished
    shard.with_name("00001.h5.damaged").rename(shard)
    again, said = Made(), list[str]()
    made(tiny, run, again, said)
    assert again.computed == [1]
    assert said == [
        f"{shard}: not a whole shard of this run (a symbolic link); set aside as 00001.h5.damaged"
    ]
    assert not shard.is_symlink() and outside.read_bytes() == mine
    assert not (tmp_path / "absent").exists()


# A check of a run that may only be read.


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A folder ``disk``, and a call that has it read-only from then on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "hvx-test", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield lambda: subprocess.run(["mount", "-o", "remount,ro", disk], check=True) and None
    subprocess.run(["umount", disk], check=True)


def test_a_run_that_may_only_be_read_is_checked_and_left_as_it_is(
    tiny: Tiny, tmp_path: Path, read_only: Callable[[], None]
) -> None:
    run = tmp_path / "disk" / "run"
    made(tiny, run)
    with (run / "shards" / "00001.h5").open("ab") as file:
        file.write(b"x")
    (run / ".lock").unlink()
    read_only()
    before = bytes_of(run)
    found = verify(run)
    assert found.read_only and not found.finished
    assert found.damaged == {run / "shards" / "00001.h5": "another length than its seal says"}
    done = CliRunner().invoke(main, ["info", str(run), "--verify"])
    assert done.exit_code == 3
    assert done.stdout.splitlines()[0] == (
        f"{run / 'shards' / '00001.h5'}: damaged (another length than its seal says); "
        "left in place (read-only)"
    )
    assert bytes_of(run) == before


def test_what_cannot_be_set_aside_is_an_error(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    made(tiny, run)
    shard = run / "shards" / "00001.h5"
    shard.write_bytes(b"x")

    def refuse(*given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    for check in (lambda: verify(run), lambda: made(tiny, run)):
        with pytest.raises(HvxError) as refused:
            check()
        assert str(refused.value) == f"{shard}: damaged, and cannot be renamed: Permission denied"


def test_a_run_that_may_only_be_read_is_not_explained(
    tiny: Tiny, tmp_path: Path, read_only: Callable[[], None]
) -> None:
    run = tmp_path / "disk" / "run"
    made(tiny, run)
    read_only()
    with pytest.raises(ReadOnly, match=f"^{run / '.lock'}: cannot be written: Read-only file system$"):
        made(tiny, run)


# Names that are not UTF-8.


def test_a_folder_whose_name_is_not_utf_8(
    tiny: Tiny, tmp_path: Path, engine_of_the_command: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        shutil.copytree(tiny.root, root)
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    monkeypatch.chdir(root)
    run = root / "run"
    done = CliRunner().invoke(main, ["explain", "config.yaml", "--set", "explain.run=run"])
    assert done.exit_code == 3, done.output
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert about["finished"] and about["images"] == str(root / "scenes" / "images")
    assert describe(run)["images"] == about["images"]
    assert verify(run).finished
