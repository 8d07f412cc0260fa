"""``hvx measure`` on damaged caches, full disks, read-only and moved runs, replaced photographs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import REPOSITORY, Tiny
from PIL import Image

from hvx.cli.main import main
from hvx.errors import HvxError
from hvx.measure import cache
from hvx.measure.cache import open_cache
from hvx.measure.evaluate import Options, _is_sanity, measure_run
from hvx.measure.metrics import sanity
from hvx.measure.metrics.results import MetricResults
from hvx.measure.pipeline import is_table
from hvx.measure.sample import EvaluationSample
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.run.lock import ReadOnly
from hvx.store.checksum import write_checksum
from hvx.store.writer import write_view

sys.path.insert(0, str(REPOSITORY / "scripts"))
import write_results

CPU = torch.device("cpu")
FEW = ("--methods", "random", "--sample", "6", "--curves", "0", "--sanity", "0", "--device", "cpu")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["measure", *map(str, arguments)])


def one_line(done: Result) -> str:
    """What a refused command prints: one line, without a traceback."""
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    assert "Traceback" not in done.stderr
    return line


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 megabytes, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "hvx-test", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


# Full disks


def test_a_full_disk_is_one_line_and_the_cache_stays_consistent(finished_run: Path, disk: Path) -> None:
    run = disk / "run"
    shutil.copytree(finished_run, run)
    left = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(left.f_bavail * left.f_frsize - (24 << 10)))  # 6 maps take 48 KB
    line = one_line(command(run, *FEW))
    assert line.endswith("random.npy: cannot be written: No space left on device")
    assert not list((run / "measure").rglob("*.npy")) and not list((run / "measure").rglob("*.part"))
    ballast.unlink()
    done = command(run, *FEW)
    assert done.exit_code == 0, done.output
    (maps,) = (run / "measure").rglob("random.npy")
    assert np.load(maps).max(axis=(1, 2)).tolist() == [1.0] * len(np.load(maps))


def test_maps_are_written_in_any_order_each_scaled_by_its_largest_magnitude(tmp_path: Path) -> None:
    first = np.array([[[1.0, -4.0, 0.0]], [[0.0, 0.0, 0.0]]], np.float32)
    with open_cache(tmp_path, {}) as cache:
        with cache.new_maps(["cam", "gradient"], 3) as files:
            files["cam"].put([2, 0], first)
            files["cam"].put([1], np.array([[[3.0, 0.75, 1.5]]], np.float32))
            files["gradient"].put([0, 1, 2], np.full((3, 2, 2), 1e-30, np.float32))
        found = cache.maps("cam")
        assert found.dtype == np.float16
        assert found.tolist() == [[[0, 0, 0]], [[1, 0.25, 0.5]], [[0.25, -1, 0]]]
        assert cache.maps("gradient").tolist() == np.ones((3, 2, 2)).tolist()
        assert cache.has_maps("cam", 3) and not cache.has_maps("cam", 2) and not cache.has_maps("cam", 4)
        assert not cache.has_maps("attention", 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    with open_cache(tmp_path, {}) as cache:
        wanted = r"^cam: a map of the network has values that are not finite$"
        with pytest.raises(HvxError, match=wanted), cache.new_maps(["cam"], 1) as files:
            files["cam"].put([0], np.array([[[1.0, value]]], np.float32))
        assert not cache.has_maps("cam", 1)


# Caches that cannot be trusted


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 4), np.float16), np.zeros((2, 4, 4), np.float16), np.zeros((3, 4, 4), np.float32)],
    ids=["two axes", "fewer maps", "another type"],
)
def test_maps_of_another_shape_or_type_are_computed_again(tmp_path: Path, array: np.ndarray) -> None:
    with open_cache(tmp_path, {}) as cache:
        (cache.path / "maps").mkdir()
        np.save(cache.path / "maps" / "cam.npy", array)
        assert not cache.has_maps("cam", 3)
        np.save(cache.path / "maps" / "cam.npy", np.zeros((3, 4, 4), np.float16))
        assert cache.has_maps("cam", 3)


@pytest.mark.parametrize("content", [b"", b"x", b"\x93NUMPY", b"\x93NUMPY\x01\x00"])
def test_maps_cut_short_are_computed_again(tmp_path: Path, content: bytes) -> None:
    with open_cache(tmp_path, {}) as cache:
        (cache.path / "maps").mkdir()
        (cache.path / "maps" / "cam.npy").write_bytes(content)
        assert not cache.has_maps("cam", 3)
        with pytest.raises(HvxError, match=r"maps/cam\.npy: no readable maps: "):
            cache.maps("cam")


class Opened:
    """What a pickle of it runs where it is read: it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_that_a_file_of_maps_says_is_run(tmp_path: Path) -> None:
    with open_cache(tmp_path, {}) as cache:
        (cache.path / "maps").mkdir()
        file = cache.path / "maps" / "cam.npy"
        file.write_bytes(pickle.dumps(Opened(tmp_path / "opened")))
        assert not cache.has_maps("cam", 3)
        np.save(file, np.array([[[Opened(tmp_path / "opened")]]] * 3, object))
        assert not cache.has_maps("cam", 3)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ([[1, 2], [3, 4.5]], True), ([[1, 2]], False), ([[1, 2], [3]], False), ([[1, 2], [3, "x"]], False),
        ([[1, 2], [3, None]], False), ([[1, 2], [3, float("nan")]], False), (None, False), ({}, False),
        ([[1, 2], [3, 10**400]], False), ("12", False), ([[1, 2], [3, float("inf")]], False),
    ],
)  # fmt: skip
def test_a_table_has_its_shape_and_finite_numbers(value: object, right: bool) -> None:
    assert is_table(value, (2, 2)) is right


def test_results_that_are_json_of_something_else_are_computed_again(own_run: Path, tmp_path: Path) -> None:
    def measured() -> MetricResults:
        options = Options(("gradient", "random"), 6, 2, 1)
        return measure_run(own_run, options, CPU, [], tmp_path / "out", lambda line: None)

    before = measured().as_json()
    (about,) = (own_run / "measure").glob("*/about.json")
    others = {"curves-2/ends": "[[0.5, 0.5]]", "curves-2/gradient": "[]", "sanity-1/gradient": "[]"}
    paths = {about.parent / f"{name}.json": other for name, other in others.items()}
    kept = {path: path.read_bytes() for path in paths}
    for path, other in paths.items():
        path.write_text(other)
    assert measured().as_json() == before
    assert {path: path.read_bytes() for path in paths} == kept


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ({"another image": [[1, 2]], "top": [[3, 4]], "bottom": [[5, 6]]}, True),
        ({"another image": [[1, 2]], "top": [[3, 4]]}, False),
        ({"another image": [[1, 2]], "bottom": [[5, 6]], "top": [[3, 4]]}, False),
        ({"top": [[3, 4]], "bottom": [[5, 6]]}, False),
        ({"another image": [[1, 2]], "top": [[3, 4]], "bottom": [[5, 6], [7, 8]]}, False),
        ({"another image": [[1, 2]], "top": [[3, 4]], "bottom": [[5, None]]}, False),
        ([], False),
        (None, False),
    ],
)
def test_a_result_of_randomization_has_every_stage_in_order(
    monkeypatch: pytest.MonkeyPatch, value: object, right: bool
) -> None:
    monkeypatch.setattr(sanity, "stages", lambda model: ["top", "bottom"])
    assert _is_sanity(value, cast(EvaluationSample, SimpleNamespace(model=None)), 1) is right


# The cache's key and lock


def test_each_key_has_a_folder_of_its_own_that_names_it(tmp_path: Path) -> None:
    with open_cache(tmp_path, {"seed": 0, "b": [1, 2]}) as one:
        one.keep("a/b", {"x": [1.5]})
        assert one.result("a/b") == {"x": [1.5]}
        assert one.result("a/c") is None
    with open_cache(tmp_path, {"seed": 1, "b": [1, 2]}) as other:
        assert other.result("a/b") is None
    with open_cache(tmp_path, {"b": [1, 2], "seed": 0}) as again:
        assert again.path == one.path != other.path
        assert again.result("a/b") == {"x": [1.5]}
    assert json.loads((one.path / "about.json").read_text()) == {"version": 1, "seed": 0, "b": [1, 2]}
    assert len(one.path.name) == 12 and one.path.parent == tmp_path


def test_another_version_of_the_measures_has_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_cache(tmp_path, {"seed": 0}) as one:
        pass
    monkeypatch.setattr(cache, "VERSION", 2)
    with open_cache(tmp_path, {"seed": 0}) as other:
        assert other.path != one.path


def test_remains_of_a_killed_process_are_removed_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "key" / "maps"
    folder.mkdir(parents=True)
    for name in (".cam.npy.1.part", "cam.npy", "notes.part", ".hidden"):
        (folder / name).write_text("x")
    with open_cache(tmp_path, {}):
        assert sorted(path.name for path in folder.iterdir()) == [".hidden", "cam.npy", "notes.part"]


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    for folder, other in ((tmp_path / "run", None), (tmp_path / "run", tmp_path / "out")):
        said: list[str] = []
        with open_cache(folder, {}, other, said.append) as cache:
            cache.keep("a", [1])
            assert cache.result("a") == [1]
        assert said == [
            f"{folder}: the file system has no locks (No locks available); "
            "let no other process write this run"
        ]


# Read-only runs


def remounted(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def test_a_read_only_run_is_measured_into_another_folder(
    finished_run: Path, disk: Path, tmp_path: Path
) -> None:
    run, out = disk / "run", tmp_path / "out"
    shutil.copytree(finished_run, run)
    remounted(disk, "ro")
    try:
        line = one_line(command(run, *FEW))
        assert line == (
            f"Error: {run / 'measure'}: cannot be written: Read-only file system; -o FOLDER writes elsewhere"
        )
        done = command(run, *FEW, "-o", out)
        assert done.exit_code == 0, done.output
        (maps,) = out.rglob("random.npy")
        before = maps.stat().st_mtime_ns
        assert command(run, *FEW, "-o", out).exit_code == 0
        assert maps.stat().st_mtime_ns == before  # the same command resumes
    finally:
        remounted(disk, "rw")
    assert (out / "measure.md").is_file()
    assert not (run / "measure").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_may_not_be_written_gives_way_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder, other = tmp_path / "run" / "measure", tmp_path / "out"
    make = Path.mkdir

    def refuse(self: Path, *arguments: object, **named: object) -> None:
        if self == folder:
            raise OSError(number, os.strerror(number))
        make(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refuse)
    with open_cache(folder, {}, other) as cache:
        assert cache.path.parent == other
        assert (other / ".lock").is_file()
    for same in (None, folder, tmp_path / "run" / ".." / "run" / "measure"):
        with pytest.raises(HvxError) as raised, open_cache(folder, {}, same):
            pass
        wanted = f"{folder}: cannot be written: {os.strerror(number)}; -o FOLDER writes elsewhere"
        assert str(raised.value) == wanted


def test_another_error_is_no_reason_to_write_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(HvxError) as raised, open_cache(tmp_path / "run" / "measure", {}, tmp_path / "out"):
        pass
    assert not isinstance(raised.value, ReadOnly)
    assert str(raised.value) == f"{tmp_path / 'run' / 'measure'}: cannot be written: Not a directory"
    assert not (tmp_path / "out").exists()


def test_a_writable_run_keeps_its_cache_itself(tmp_path: Path) -> None:
    for folder in (tmp_path / "run", tmp_path / "not" / "there" / "yet"):
        with open_cache(folder, {}, tmp_path / "out") as cache:
            assert cache.path.parent == folder
    assert not (tmp_path / "out").exists()


# Other folders


def test_a_run_of_a_config_with_relative_paths_is_measured_from_any_folder(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.root)
    config = tiny.load(tmp_path / "run", root=".")
    explain_split(config, local_engine(CPU))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["root"] == str(tiny.root)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = command("../run", *FEW, "-o", "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "elsewhere" / "out" / "measure.json").is_file()


def test_a_folder_of_images_that_moved_can_be_named(own_run: Path, tiny: Tiny, tmp_path: Path) -> None:
    about = json.loads((own_run / "run.json").read_text())
    (own_run / "run.json").write_text(json.dumps(about | {"images": str(tmp_path / "gone")}))
    line = one_line(command(own_run, *FEW))
    assert str(tmp_path / "gone") in line and "no such image" in line
    assert line.endswith("(the run explains it; if images moved: --set splits.val.images=FOLDER)")
    moved = shutil.copytree(tiny.root / "scenes" / "images", tmp_path / "moved")
    done = command(own_run, *FEW, "--set", f"splits.val.images={moved}")
    assert done.exit_code == 0, done.output


# Photographs that were replaced


@pytest.mark.parametrize("cached", [False, True])
def test_a_photograph_that_was_replaced_under_its_name_is_refused(
    own_run: Path, tiny: Tiny, tmp_path: Path, cached: bool
) -> None:
    images = Path(shutil.copytree(tiny.root / "scenes" / "images", tmp_path / "images"))
    moved = ("--set", f"splits.val.images={images}")
    if cached:
        assert command(own_run, *FEW, *moved).exit_code == 0
    with h5py.File(own_run / "shards" / "00000.h5") as file:
        name = file["image_path"].asstr()[0]
    Image.new("RGB", (64, 64), "red").save(images / name)
    line = one_line(command(own_run, *FEW, "--sample", 0, "-o", tmp_path / "out", *moved))
    assert line == (
        f"Error: {images / name}: another image than the one explained (its bytes changed since); "
        "restore it, or run `hvx explain` into a new folder"
    )
    assert not (tmp_path / "out").exists()


# Explanations that say nothing


def with_zero_gradients(run: Path, bits: list[int]) -> None:
    """Mark the first explanations of a run as such; seal the shard and list it again."""
    path = run / "shards" / "00000.h5"
    with h5py.File(path, "r+") as file:
        zero = file["zero_gradient"][:]
        zero[: len(bits)] = bits
        file["zero_gradient"][:] = zero
    write_checksum(path)
    view = run / "explanations.h5"
    with h5py.File(view) as file:
        attributes = {"crop": json.loads(file.attrs["crop"]), "run_digest": file.attrs["run_digest"]}
    write_view(view, sorted((run / "shards").iterdir()), attributes)


def test_explanations_without_a_gradient_are_counted_and_reported(own_run: Path, tmp_path: Path) -> None:
    with_zero_gradients(own_run, [1, 3, 2, 2, 0])
    done = command(own_run, *FEW, "--sample", "0", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "measure.json").read_text())
    count = report["about"]["of"]
    assert (report["zero_maps"], report["zero_words"]) == (2, 3)
    lines = [
        f"Eq. 2 is zero everywhere for 2 of the {count} explanations: their maps are blank. "
        "A blank map points nowhere, has no energy inside, overlaps nothing and correlates by 0; "
        "pixels are taken in random order.",
        f"Eq. 3 is zero everywhere for 3 of the run's {count} explanations: all of their z are 0.",
    ]
    text = (tmp_path / "out" / "measure.md").read_text(encoding="utf-8")
    for line in lines:
        assert line in done.stderr.splitlines()
        assert line in text.splitlines()


def test_only_those_of_the_sample_have_their_maps_counted(own_run: Path, tmp_path: Path) -> None:
    with h5py.File(own_run / "shards" / "00000.h5") as file:
        items = len(file["question_id"])
    with_zero_gradients(own_run, [3] * items)
    done = command(own_run, *FEW, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "measure.json").read_text())
    assert report["zero_words"] == items
    assert 0 < report["zero_maps"] <= report["about"]["explanations"] < items


def test_a_run_whose_gradients_are_all_something_says_nothing_of_it(own_run: Path, tmp_path: Path) -> None:
    done = command(own_run, *FEW, "-o", tmp_path / "out")
    assert "zero everywhere" not in done.stderr
    assert "zero everywhere" not in (tmp_path / "out" / "measure.md").read_text(encoding="utf-8")


# Runs without anything to measure


def explained(tiny: Tiny, run: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """A run of the tiny split whose questions were changed."""
    source = next((tiny.root / "scenes").glob("*val_questions.json"))
    tree = json.loads(source.read_text())
    for question in tree["questions"]:
        change(question)
    own = run.parent / "questions.json"
    own.write_text(json.dumps(tree))
    explain_split(tiny.load(run, splits__val__questions=own), local_engine(CPU))
    return run


def test_a_run_of_empty_questions_is_measured_without_words(tiny: Tiny, tmp_path: Path) -> None:
    run = explained(tiny, tmp_path / "run", lambda question: question.update(question=""))
    done = command(run, *FEW, "--curves", "1", "--sanity", "1")
    assert done.exit_code == 0, done.output
    assert "left out: words: no question of the run has a token" in done.stderr.splitlines()
    text = (run / "measure" / "measure.md").read_text(encoding="utf-8")
    assert "- words: no question of the run has a token" in text.splitlines()
    assert "## Words" not in text and not (run / "measure" / "words.png").exists()
    assert "Nouns are significantly attended" not in done.stdout


# The page of results


def test_the_page_of_results_has_the_report_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, run = tmp_path / "docs" / "results.md", tmp_path / "reproduce"
    monkeypatch.setattr(write_results, "PAGE", page)
    monkeypatch.setattr(write_results, "PLOTS", page.parent / "results")
    page.parent.mkdir()
    page.write_text(f"# Results\n\nProse.\n\n{write_results.MARK}\n\nold", encoding="utf-8")
    (run / "measure").mkdir(parents=True)
    report = "# What the explanations of . show\n\n## A\n\n0.123 of . show\n\n![b](methods.png)\n"
    (run / "measure" / "measure.md").write_text(report, encoding="utf-8")
    about = {"run": ".", "explanations": 1234}
    (run / "measure" / "measure.json").write_text(json.dumps({"about": about}))
    (run / "measure" / "methods.png").write_bytes(b"plot")
    monkeypatch.chdir(run)
    done = CliRunner().invoke(write_results.write_results, ["."])
    assert done.stdout == f"{page}: reproduce, 1,234 explanations\n", done.output
    assert page.read_text(encoding="utf-8") == (
        f"# Results\n\nProse.\n\n{write_results.MARK}\n\n## What the explanations of reproduce show\n\n"
        "### A\n\n0.123 of . show\n\n![b](results/methods.png)\n"
    )
    assert (page.parent / "results" / "methods.png").read_bytes() == b"plot"
