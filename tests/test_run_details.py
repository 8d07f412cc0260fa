"""A run folder, continued: what is swept, what is described, which shards are done, how a request ends it.

The shards are made up by an engine without a network, as in test_run_directory.py.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest
import torch
from conftest import Tiny
from test_run_directory import REASON, Made, bytes_of, in_shards, made
from test_store_shards import resealed

from hvx.data.questions import read_questions
from hvx.errors import HvxError, Interrupted
from hvx.files import sha256
from hvx.models.header import read_header
from hvx.run import explain, local, signals
from hvx.run.explain import explain_split
from hvx.run.identity import versions
from hvx.run.lock import LOCK
from hvx.store.reader import RunReader
from hvx.store.schema import VERSION


@pytest.fixture(scope="module")
def asked(tiny: Tiny) -> list[int]:
    """The tiny split's questions, in the order of the plan."""
    return [question.question_id for question in read_questions(tiny.load(tiny.root).split("val"))]


def about(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def rewritten(run: Path, **news: Any) -> None:
    (run / "run.json").write_text(json.dumps(about(run) | news))


# What a killed process leaves.


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(
    tiny: Tiny, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    made(tiny, run)
    kept = [run / name for name in ("notes.part", ".notes", "shards/notes.part", "shards/.notes")]
    left = [run / name for name in (".run.json.1.part", ".results.json.2.part", "shards/.00001.h5.3.part")]
    for path in kept + left:
        path.touch()
    made(tiny, run)
    assert [path.exists() for path in kept + left] == [True] * 4 + [False] * 3


@pytest.mark.parametrize("names", [[LOCK], ["shards/"], [".run.json.ab.part"], [LOCK, "shards/", "x.part"]])
def test_a_run_that_began_and_died_at_once_is_begun_again(
    tiny: Tiny, tmp_path: Path, names: list[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in names:
        (run / name).mkdir() if name.endswith("/") else (run / name).touch()
    assert made(tiny, run).done_before == 0
    assert about(run)["finished"]


@pytest.mark.parametrize("name", ["notes", "notes.parts", "explanations.h5", "lock"])
def test_a_folder_that_holds_anything_else_is_no_place_for_a_run(
    tiny: Tiny, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    (run / "shards").mkdir(parents=True)
    (run / name).touch()
    with pytest.raises(HvxError) as refused:
        made(tiny, run)
    assert str(refused.value) == f"{run}: not empty and not a run; give explain.run a new folder"
    assert {path.name for path in run.iterdir()} == {"shards", name}


def test_a_file_is_no_place_for_a_run(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HvxError, match=r"file: not empty and not a run; give explain.run a new folder$"):
        made(tiny, tmp_path / "file")
    with pytest.raises(HvxError) as refused:
        made(tiny, tmp_path / "file" / "run")
    assert str(refused.value) == f"{tmp_path / 'file' / 'run'}: cannot be written: Not a directory"


# What run.json says.


def test_run_json_says_what_the_run_is_and_how_long_it_took(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    clock = iter([1000.0, 1007.126, 1009.0])
    monkeypatch.setattr(explain, "time", SimpleNamespace(time=lambda: next(clock)))
    monkeypatch.chdir(tiny.root.parent)
    run = tmp_path / "run"
    config = in_shards(tiny, run, root=tiny.root.name, seed=5)
    engine = Made()
    summary = explain_split(config, engine)
    assert summary.seconds == 9
    split, checkpoint = config.split("val"), tiny.root / "model.safetensors"
    assert split.annotations is not None
    found = about(run)
    times = [found.pop(key) for key in ("started", "finished")]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times)
    assert found.pop("config") == config.model_copy(update={"root": tiny.root}).model_dump(mode="json")
    assert found == {
        "identity": {
            "schema_version": VERSION, "checkpoint_sha256": sha256(checkpoint),
            "questions_sha256": sha256(split.questions), "annotations_sha256": sha256(split.annotations),
            "format": None,
            "image_name": "SCENES_val_{image_id:012d}.png", "exif_orientation": False, "limit": None,
            "picked": None, "precision": "float32", "product": "constant",
            "heatmap": {"size": None, "dtype": "float16"}, "gradient": False,
            "shard_questions": 10,
        },
        "image": read_header(checkpoint).config.image.model_dump(mode="json"),
        "images": str(tiny.root / "scenes" / "images"), "integer_ids": ["question_id", "image_id"],
        "exif_orientation": False, "picked": None, "shards": len(engine.computed), "versions": versions(),
        "seed": 5, "device": "made up", "seconds": 7.13, "packed": False,
    }  # fmt: skip


def test_a_split_without_annotations_has_no_digest_of_them(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made_up = in_shards(tiny, run, splits__val__annotations="null")
    explain_split(made_up, Made())
    assert about(run)["identity"]["annotations_sha256"] is None
    assert len(about(run)["identity"]["questions_sha256"]) == 64


@pytest.mark.parametrize(
    ("recorded", "later", "was"),
    [
        ({"torch": "1.0"}, "none", "1.0"),
        ({"torch": "1.0"}, [{"torch": "1.1"}], "1.1"),
        ({"torch": "1.0"}, [7], "None"),
        ([], None, "None"),
    ],
)
def test_versions_that_cannot_be_read_are_other_versions(
    tiny: Tiny, tmp_path: Path, recorded: Any, later: Any, was: str
) -> None:
    run, said, now = tmp_path / "run", list[str](), versions()
    made(tiny, run)
    rewritten(run, versions=recorded, later_versions=later)
    (run / "shards" / "00001.h5").unlink()
    made(tiny, run, said=said)
    changed = [f"{name} {new} (was {was if name == 'torch' else None})" for name, new in now.items()]
    assert said == [
        f"{run}: resumed with other versions, which run.json records: {', '.join(changed)}",
    ]
    assert about(run)["versions"] == recorded
    assert about(run)["later_versions"] == [*(later if isinstance(later, list) else []), now]


# Which shards are done.


def test_absent_and_failed_shards_are_done_again_in_the_order_of_the_plan(
    tiny: Tiny, tmp_path: Path, asked: list[int]
) -> None:
    run, first = tmp_path / "run", Made([asked[0], asked[-1]])
    made(tiny, run, first)
    last = len(first.computed) - 1
    assert last > 2
    for number in (1, last):  # the last one both failed and is absent
        (run / "shards" / f"{number:05d}.h5").unlink()
    again = Made()
    summary = made(tiny, run, again, retry_failed=True)
    assert again.computed == [0, 1, last]
    assert (summary.done_now, summary.done_before) == (3, last - 2)


def test_a_packed_run_does_not_need_a_shard_that_is_cut_short_either(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(tiny, run, pack=True)
    shard = run / "shards" / "00001.h5"
    shard.write_bytes(shard.read_bytes()[:-1])
    before = bytes_of(run)
    again, said = Made(), list[str]()
    made(tiny, run, again, said)
    assert (again.computed, said) == ([], [])
    assert bytes_of(run) == before


def test_a_shard_that_is_cut_short_is_not_counted_as_done(tiny: Tiny, tmp_path: Path) -> None:
    run, engine = tmp_path / "run", Made()

    def cut(folder: Path) -> None:
        if len(engine.computed) == 2:
            path = folder / "00001.h5"
            path.write_bytes(path.read_bytes()[:-1])
            raise KeyboardInterrupt

    engine._each = cut
    with pytest.raises(
        Interrupted, match=r": interrupted; 1 of \d+ shards are done; the same command resumes"
    ):
        made(tiny, run, engine)


def test_a_view_that_lists_what_is_no_shard_is_written_again(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(tiny, run)

    def change(file: h5py.File) -> None:
        file["index/shard"][0] = "elsewhere.h5"

    resealed(run / "explanations.h5", change)
    again = Made()
    made(tiny, run, again)
    assert again.computed == []
    assert len(RunReader(run)) == len(json.loads((run / "results.json").read_text()))


def test_a_question_that_the_split_does_not_have_is_an_error(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    other = [{"question_id": 123_456_789, "reason": REASON}]
    monkeypatch.setattr("hvx.run.run_directory.RunFolder.failures", lambda folder: other)
    with pytest.raises(HvxError) as refused:
        made(tiny, run)
    assert str(refused.value) == (
        f"{run / 'explanations.h5'}: holds other questions than the split (such as 123456789); delete it and "
        "run `hvx explain` again"
    )


# What is refused, or said, before the work.


def test_a_config_without_explain_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    config = in_shards(tiny, tmp_path / "run").model_copy(update={"explain": None})
    with pytest.raises(HvxError) as refused:
        explain_split(config, Made())
    assert str(refused.value) == "config: key 'explain' is missing; it names the run folder (explain.run)"


def test_a_checkpoint_that_is_not_there_is_refused_before_the_folder_is_made(
    tiny: Tiny, tmp_path: Path
) -> None:
    for path in (tmp_path / "absent", tmp_path):  # a folder is none either
        with pytest.raises(HvxError) as refused:
            explain_split(in_shards(tiny, tmp_path / "run", checkpoint=path), Made())
        assert str(refused.value) == f"{path}: no such checkpoint"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("missing", "on_error", "said", "count"),
    [
        ([1], "stop", "{0}: no such image ({1}; --on-error skip explains the others)", "1 of the split's 3"),
        (
            [0, 2],
            "stop",
            "{0}: no such image ({1}; --on-error skip explains the others)",
            "2 of the split's 3",
        ),
        ([0, 1, 2], "stop", "{0}: no such image ({1})", "3 of the split's 3"),
        ([0, 1, 2], "skip", "{0}: no such image ({1})", "3 of the split's 3"),
        ([1], "skip", None, "1 of the split's 3"),
        ([0, 2], "skip", None, "2 of the split's 3"),
    ],
)
def test_missing_images_stop_a_run_before_its_folder_is_made_or_are_said(
    tiny: Tiny, tmp_path: Path, missing: list[int], on_error: str, said: str | None, count: str
) -> None:
    run, images = tmp_path / "run", tmp_path / "images"
    questions = read_questions(tiny.load(run).split("val"))
    ids = list(dict.fromkeys(question.image_id for question in questions))[:3]
    limit = sum(question.image_id in ids for question in questions)
    assert [question.image_id in ids for question in questions[: limit + 1]] == [True] * limit + [False]
    images.mkdir()
    names = [f"SCENES_val_{image_id:012d}.png" for image_id in ids]
    for place, name in enumerate(names):
        if place not in missing:
            (images / name).touch()
    more = {"splits__val__images": images, "splits__val__limit": limit, "explain__on_error": on_error}
    config, told, engine = in_shards(tiny, run, **more), list[str](), Made()
    counted = f"{count} images are missing"
    if said is None:
        explain_split(config, engine, log=told.append)
        (line,) = told
        assert line.startswith(f"{images}: {counted}: {names[missing[0]]}")
        assert line.endswith("; their questions will be listed in failures.jsonl")
        return
    with pytest.raises(HvxError) as refused:
        explain_split(config, engine, log=told.append)
    assert str(refused.value) == said.format(images / names[missing[0]], counted)
    assert (told, engine.computed, run.exists()) == ([], [], False)


def test_a_pick_that_several_questions_fit_is_said(tiny: Tiny, tmp_path: Path) -> None:
    texts = [question.question for question in read_questions(tiny.load(tmp_path).split("val"))]
    text = next(text for text in texts if texts.count(text) > 1)
    told: list[str] = []
    pick = json.dumps([{"question": text}])
    summary = explain_split(in_shards(tiny, tmp_path / "run", explain__pick=pick), Made(), log=told.append)
    assert f"'{text}' fits {texts.count(text)} questions:" in told[0]
    assert len(told) == texts.count(text) + 2
    assert (summary.explained, summary.selected) == (1, True)


# A request to end.


class Closing:
    """Asks the process to end as it is finalized, where nothing can be raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_a_request_that_could_not_be_raised_ends_a_run_after_the_shard(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_LATER", 600)
    engine = Made()

    def ask(folder: Path) -> None:
        if len(engine.computed) == 1:
            Closing()

    engine._each = ask
    with pytest.raises(Interrupted, match="interrupted; 2 of "):
        made(tiny, tmp_path / "run", engine)
    assert engine.computed == [0, 1]


def test_an_error_that_a_request_led_to_is_an_interruption(tiny: Tiny, tmp_path: Path) -> None:
    """The same signal ends a decoding process, of which the error tells."""
    closed: list[bool] = []

    class Failing(Made):
        def compute(self, *given: Any) -> Any:
            try:
                yield from super().compute(*given)
            finally:
                closed.append(True)

    def fail(folder: Path) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise HvxError("a decoding process ended") from None

    with pytest.raises(Interrupted, match="interrupted; 0 of "):
        made(tiny, tmp_path / "run", Failing(each=fail))
    assert closed == [True]


# The engine of this process.


@pytest.mark.parametrize(("device", "name"), [("cpu", "cpu"), ("cuda:1", "cuda:1 (a card)")])
def test_the_local_engine_says_what_it_runs_on(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, name: str
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(local, "ShardWorker", lambda *all: given.append(all))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    config = in_shards(tiny, tmp_path / "run")
    engine = local.local_engine(torch.device(device))(config, "identity")  # type: ignore[arg-type]
    assert engine.about == name
    assert given == [(config, torch.device(device), "identity")]
