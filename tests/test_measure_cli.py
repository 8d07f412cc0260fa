"""``hvx measure`` as a user runs it: the report, what is kept, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from conftest import Tiny, hvx
from PIL import Image

from hvx.cli.main import main
from hvx.config import parse
from hvx.errors import HvxError, Interrupted
from hvx.measure.evaluate import Options, measure_run
from hvx.measure.methods.registry import METHODS
from hvx.measure.metrics.faithfulness import ranks
from hvx.measure.metrics.results import MetricResults
from hvx.models.checkpoint import load_checkpoint, save_checkpoint
from hvx.models.mlb import MLB
from hvx.run.explain import explain_split
from hvx.run.local import local_engine

FEW = ["--sample", 12, "--curves", 2, "--sanity", 2]
QUICK = ("proposed", "attention", "gradient", "guided-backpropagation", "random")


def copied(run: Path, folder: Path) -> Path:
    """A run of one's own to measure; its config is that of the tiny split."""
    shutil.copytree(run, folder / "run")
    return folder / "run"


def measured(run: Path, output: Path, lines: list[str] | None = None, **options: object) -> MetricResults:
    """``hvx measure`` in this process, with few of everything."""
    few = {"methods": QUICK, "sample": 12, "curves": 3, "sanity": 2, **options}
    say = (lines if lines is not None else []).append
    return measure_run(run, Options(**few), torch.device("cpu"), [], output, say)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was measured with every method, in a process of its own, and what that printed."""
    run = copied(finished_run, tmp_path_factory.mktemp("measured"))
    done = hvx("measure", run, *FEW)
    assert done.returncode == 0, done.stderr
    return run, done.stdout


def test_the_table_has_every_method_and_each_number_its_interval(reported: tuple[Path, str]) -> None:
    _, printed = reported
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    titles = [row[0].strip() for row in rows]
    assert titles[: len(METHODS) + 1] == ["method", *(method.title for method in METHODS.values())]
    header = rows[0]
    assert all("(n = " in cell for cell in header[1:])
    for row in rows[1 : len(METHODS) + 1]:
        assert all("[" in cell or not cell.strip() for cell in row[1:]), row


def test_the_report_is_whole(reported: tuple[Path, str]) -> None:
    run, printed = reported
    folder = run / "measure"
    assert str(folder / "measure.md") in printed
    text = (folder / "measure.md").read_text(encoding="utf-8")
    for heading in ("The paper's claims", "Methods side by side", "Localization by kind of question",
                    "Agreement", "Deletion and insertion", "Sanity", "Words", "Left out"):  # fmt: skip
        assert f"## {heading}" in text
    for name in ("methods", "agreement", "curves", "sanity", "words"):
        assert f"({name}.png)" in text
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.width > 500
            assert len(set(picture.convert("L").resize((50, 50)).tobytes())) > 3
    assert not list(folder.rglob("*.part"))


def test_the_json_says_what_the_table_says(reported: tuple[Path, str]) -> None:
    run, printed = reported
    tree = json.loads((run / "measure" / "measure.json").read_text())
    assert tree["about"]["explanations"] <= 12
    assert tree["about"]["of"] == len(json.loads((run / "results.json").read_text()))
    for means in tree["means"].values():
        for own in means.values():
            assert own["n"] > 0
            assert own["low"] <= own["value"] + 1e-9 and own["value"] <= own["high"] + 1e-9
            assert f"{own['value']:.3f} [" in printed
    assert set(tree["sanity"]["proposed"]) == {
        "another image", "classifier", "V and Q", "attention", "question", "layer2", "layer1", "bn1", "conv1"
    }  # fmt: skip
    assert tree["sanity"]["proposed"]["classifier"][0]["value"] == pytest.approx(1, abs=1e-3)
    assert tree["agreement"]["attention"]["n"] == tree["about"]["explanations"]
    assert len(tree["curves"]["proposed"][0]) == len(tree["shares"])


def test_the_same_command_goes_on_from_what_is_kept(reported: tuple[Path, str], tmp_path: Path) -> None:
    run, _ = reported
    (cache,) = [path for path in (run / "measure").iterdir() if path.is_dir()]
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*") if path.name != "about.json"}
    lost = [cache / name for name in ("maps/gradient.npy", "curves-2/random.json", "sanity-2/gradient.json")]
    before = {path: path.read_bytes() for path in lost}
    lost[0].write_bytes(b"\x93NUMPY broken")
    lost[1].unlink()
    lost[2].write_text("{")
    (cache / "maps" / ".cam.npy.0.part").write_bytes(b"left by a kill")
    measured(run, tmp_path / "again", methods=(), curves=2)
    assert {path: path.read_bytes() for path in lost} == before
    untouched = [path for path in kept if path not in lost]
    assert len(untouched) > 20
    assert all(path.stat().st_mtime_ns == kept[path] for path in untouched)
    assert not list(cache.rglob("*.part"))
    first, again = (
        json.loads((folder / "measure.json").read_text()) for folder in (run / "measure", tmp_path / "again")
    )
    assert first == again


def test_an_interrupt_keeps_what_is_done_and_says_how_to_go_on(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, methods = copied(finished_run, tmp_path), ("attention", "random")

    def ranks_until_asked_to_stop(map: np.ndarray, seed: int) -> np.ndarray:
        if list((run / "measure").glob("*/curves-3/attention.json")):
            raise KeyboardInterrupt
        return ranks(map, seed)

    monkeypatch.setattr("hvx.measure.pipeline.ranks", ranks_until_asked_to_stop)
    with pytest.raises(Interrupted, match="what is done is kept, the same command resumes"):
        measured(run, tmp_path / "out", methods=methods)
    monkeypatch.undo()
    (cache,) = [path for path in (run / "measure").iterdir() if path.is_dir()]
    there = sorted(str(path.relative_to(cache)) for path in cache.rglob("*.*"))
    assert there == [
        "about.json", "curves-3/attention.json", "curves-3/ends.json", "curves-3/proposed.json",
        "maps/random.npy",
    ]  # fmt: skip
    assert not (tmp_path / "out").exists()
    found = measured(run, tmp_path / "out", methods=methods)
    assert set(found.means["deletion"]) == {"proposed", *methods}


def test_another_seed_has_a_shelf_of_its_own(finished_run: Path, tmp_path: Path) -> None:
    run = copied(finished_run, tmp_path)
    measured(run, tmp_path / "one", methods=("random",), curves=0, sanity=0)
    measured(run, tmp_path / "two", methods=("random",), curves=0, sanity=0, seed=1)
    assert len([path for path in (run / "measure").iterdir() if path.is_dir()]) == 2
    assert not (tmp_path / "one" / "curves.png").exists()


def test_a_split_without_masks_leaves_localization_out_and_says_so(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    explain_split(tiny.load(run, splits__val__objects="null"), local_engine(torch.device("cpu")))
    lines: list[str] = []
    found = measured(run, tmp_path / "out", lines)
    assert "pointing" not in found.means and "insertion" in found.means
    assert any("localization: split 'val' has no table of objects" in line for line in lines)
    text = (tmp_path / "out" / "measure.md").read_text(encoding="utf-8")
    assert "Localization by kind" not in text
    assert "localization: split 'val' has no table of objects" in text


def test_a_model_without_attention_is_measured_without(tiny: Tiny, tmp_path: Path) -> None:
    trained = load_checkpoint(tiny.root / "model.safetensors")
    config = trained.config.model_copy(update={"glimpses": 0})
    torch.manual_seed(0)
    head = MLB(config, trained.head.channels, len(trained.vocabulary), len(trained.answers))
    save_checkpoint(tmp_path / "bare.safetensors", replace(trained, config=config, head=head.eval()))
    tree = yaml.safe_load(tiny.config.read_text())
    del tree["model"]
    settings = tiny.settings(tmp_path / "run", checkpoint=tmp_path / "bare.safetensors")
    explain_split(parse(tree, "config", settings), local_engine(torch.device("cpu")))
    lines: list[str] = []
    named = ("cam", "grad-cam", "gradient")
    found = measured(tmp_path / "run", tmp_path / "out", lines, methods=named)
    assert found.methods == ["proposed", "grad-cam", "cam", "gradient"]
    assert "attention" not in found.means and "attention" not in found.agreement
    assert found.additive is None
    assert set(found.means["pointing"]) == set(found.methods)
    assert "left out: agreement with the attention: the model has none" in lines
    assert "attention" not in found.sanity["proposed"]
    with pytest.raises(HvxError, match="without attention; leave 'attention' out"):
        measured(tmp_path / "run", tmp_path / "out", methods=("attention",))


def test_human_maps_of_other_questions_are_left_out_and_said(finished_run: Path, tmp_path: Path) -> None:
    run = copied(finished_run, tmp_path)
    (tmp_path / "hat").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "hat" / "7_1.png")
    found = measured(run, tmp_path / "out", methods=("random",), human=tmp_path / "hat", curves=0, sanity=0)
    assert "agreement with people: none of their maps is of a question of the sample" in found.left_out


def human_maps(run: Path, folder: Path, people: int, inverted: bool = False) -> None:
    """The attention of a run as pictures of where people look, in VQA-HAT's layout."""
    folder.mkdir()
    with h5py.File(run / "explanations.h5") as file:
        ids, attention = file["question_id"].asstr()[:], file["attention"][:].sum(1)
    for question_id, map in zip(ids, attention, strict=True):
        ranks = map.ravel().argsort().argsort().reshape(map.shape)
        gray = np.kron(255 - ranks if inverted else ranks, np.ones((8, 8), np.uint8)).astype(np.uint8)
        for person in range(people):
            Image.fromarray(gray).save(folder / f"{question_id}_{person + 1}.png")


@pytest.mark.parametrize(("inverted", "sign"), [(False, 1), (True, -1)])
def test_people_who_look_where_the_attention_does_agree_with_it(
    finished_run: Path, tmp_path: Path, inverted: bool, sign: int
) -> None:
    run = copied(finished_run, tmp_path)
    human_maps(run, tmp_path / "hat", people=2, inverted=inverted)
    (tmp_path / "hat" / "notes.txt").write_text("x")
    found = measured(run, tmp_path / "out", human=tmp_path / "hat", curves=0, sanity=0)
    assert found.means["human"]["attention"].value == pytest.approx(sign, abs=0.02)
    assert found.means["human"]["attention"].n == found.about["explanations"]
    assert abs(found.means["human"]["random"].value) < 0.3
    assert "ρ with people" in (tmp_path / "out" / "measure.md").read_text(encoding="utf-8")


def test_the_command_reads_human_maps(finished_run: Path, tmp_path: Path) -> None:
    run = copied(finished_run, tmp_path)
    human_maps(run, tmp_path / "hat", people=1)
    few = ["--methods", "attention", "--sample", "6", "--curves", "0", "--sanity", "0", "--device", "cpu"]
    done = CliRunner().invoke(main, ["measure", str(run), *few, "--human", str(tmp_path / "hat")])
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines() == [
        "left out: deletion and insertion: not asked for", "left out: sanity: not asked for"
    ]  # fmt: skip
    means = json.loads((run / "measure" / "measure.json").read_text())["means"]["human"]
    assert list(means) == ["proposed", "attention"]
    assert means["attention"]["value"] == pytest.approx(1, abs=0.02)
    assert "| ρ with people (n = " in done.stdout


# Bad requests


def refused(run: Path, output: Path, **options: object) -> str:
    """What ``measure_run`` refuses a request with; nothing is written."""
    overrides = options.pop("overrides", [])
    few = Options(**{"methods": QUICK, "sample": 12, "curves": 3, "sanity": 2, **options})  # type: ignore[arg-type]
    with pytest.raises(HvxError) as raised:
        measure_run(run, few, torch.device("cpu"), overrides, output, print)  # type: ignore[arg-type]
    assert not output.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_bad_request_is_one_line_and_exit_status_2(finished_run: Path) -> None:
    done = hvx("measure", finished_run, "--methods", "grad-camm")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(
        "Error: --methods: no method 'grad-camm' (did you mean 'grad-cam'?); known are:"
    )
    assert done.stderr.count("\n") == 1
    assert not (finished_run / "measure").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "run.json: no such file" in refused(tmp_path, tmp_path / "out")


def test_a_checkpoint_that_moved_or_changed_is_refused_and_can_be_named(
    finished_run: Path, tiny: Tiny, tmp_path: Path
) -> None:
    run, out = copied(finished_run, tmp_path), tmp_path / "out"
    line = refused(run, out, overrides=[f"checkpoint={tmp_path / 'gone.safetensors'}"])
    assert "gone.safetensors: no such checkpoint" in line and "--set checkpoint=FILE" in line
    other, moved = tmp_path / "other.safetensors", tmp_path / "moved.safetensors"
    other.write_bytes((tiny.root / "model.safetensors").read_bytes() + b" ")
    line = refused(run, out, overrides=[f"checkpoint={other}"])
    assert "other.safetensors: not the checkpoint that the run was made with" in line
    assert not (run / "measure").exists()
    shutil.copy(tiny.root / "model.safetensors", moved)
    options = Options(("random",), 5, 0, 0)
    measure_run(run, options, torch.device("cpu"), [f"checkpoint={moved}"], out, print)
    assert (out / "measure.json").exists()


def test_images_that_are_gone_are_named_and_no_half_of_a_file_stays(
    finished_run: Path, tmp_path: Path
) -> None:
    run = copied(finished_run, tmp_path)
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | {"images": str(tmp_path / "gone")}))
    line = refused(run, tmp_path / "out")
    assert "no such image" in line and "--set splits.val.images=FOLDER" in line
    assert not list((run / "measure").rglob("*.npy"))
    assert not list((run / "measure").rglob("*.part"))


def test_masks_and_human_maps_that_are_gone_are_named(finished_run: Path, tmp_path: Path) -> None:
    run, out = copied(finished_run, tmp_path), tmp_path / "out"
    assert "gone.json: no such file" in refused(run, out, overrides=["splits.val.objects=gone.json"])
    assert "no such folder of human attention maps" in refused(run, out, human=tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    line = refused(run, out, human=tmp_path / "empty")
    assert "expected files named as {question_id}_1.png" in line


@pytest.mark.parametrize(("package", "named"), [("skimage", "scikit-image"), ("textblob", "TextBlob")])
def test_a_library_that_is_not_installed_is_named_ahead_of_any_work(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, named: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(finished_run, tmp_path / "out", methods=())
    assert named in line and "pip install 'hvx[measure]'" in line
    assert not (finished_run / "measure").exists()


def test_a_run_that_is_being_measured_is_refused(finished_run: Path, tmp_path: Path) -> None:
    run = copied(finished_run, tmp_path)
    (run / "measure").mkdir()
    holder = (
        "import sys, pathlib; from hvx.run.lock import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1])):\n"
        " print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(run / "measure")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout and other.stdout.readline()
        line = refused(run, tmp_path / "out")
        other.communicate()
    assert f"process {other.pid} " in line and "is writing this run" in line
