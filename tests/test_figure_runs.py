"""Figures of several runs, of other methods, and what their files say of where they come from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import hvx
from made_galleries import Asked, write_run
from PIL import Image

from hvx.measure.methods import maps
from hvx.store.reader import RunReader

A = [Asked("is it red ?", "yes", "no"), Asked("how many ?", "2", "2"), Asked("which one ?", "a", "b")]
B = [Asked("is it red ?", "no", "no"), Asked("how many ?", "3", "2")]


def made(folder: Path, asked: list[Asked]) -> Path:
    run = write_run(folder / "run", asked)
    about = json.loads((run / "run.json").read_text())
    assert about["identity"] == {}
    return run


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_file_says_which_runs_and_questions_it_shows(tmp_path: Path, kind: str) -> None:
    runs = [made(tmp_path / "first", A), made(tmp_path / "second", B)]
    file = tmp_path / f"f.{kind}"
    done = hvx("figure", *runs, "-o", file, "--id", 2, "--id", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file}: 2 explanations\nquestion_id: 2, 1\n"
    if kind == "png":
        with Image.open(file) as picture:
            said = picture.info["Description"]
    elif kind == "svg":
        found = ElementTree.parse(file).iter("{http://purl.org/dc/elements/1.1/}description")
        said = "".join(next(found).itertext())
    else:
        raw = re.search(rb"/Subject \((.*?[^\\])\)", file.read_bytes(), re.DOTALL)
        assert raw
        said = raw[1].decode("latin-1").replace("\\(", "(").replace("\\)", ")")
    names = [{"run": name, "checkpoint_sha256": None} for name in ("first/run", "second/run")]
    assert json.loads(said) == {"runs": names, "question_ids": [2, 1]}
    assert str(tmp_path).encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("asked", "options", "reason"),
    [
        (B, ["--id", 3], "second/run: holds no explanation of question_id 3"),
        ([A[0], Asked("how much ?")], ["--id", 2], "question_id 2: its text differs between"),
        (
            [Asked("is it red ?", photo="1.png"), A[1]],
            ["--id", 1],
            "question_id 1: its image file differs between",
        ),
    ],
)
def test_questions_that_cannot_be_compared_are_refused(
    tmp_path: Path, asked: list[Asked], options: list[object], reason: str
) -> None:
    runs = [made(tmp_path / "first", A), made(tmp_path / "second", asked)]
    done = hvx("figure", *runs, "-o", tmp_path / "f.png", *options)
    assert done.returncode == 2
    assert reason in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "f.png").exists()


def test_rules_choose_among_common_questions_by_the_first_run(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first", A), made(tmp_path / "second", B)
    done = hvx("figure", first, second, "-o", tmp_path / "f.png", "--only", "wrong")
    assert done.stdout.endswith("question_id: 1\n")
    done = hvx("figure", second, first, "-o", tmp_path / "f.png", "--only", "wrong")
    assert done.stdout.endswith("question_id: 2\n")


def test_a_run_given_twice_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path / "first", A)
    done = hvx("figure", run, run.parent, "-o", tmp_path / "f.png")
    assert done.returncode == 2 and "given twice" in done.stderr


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        ("grad-cm", "no method 'grad-cm' (did you mean"),
        (",", "names no method"),
        ("proposed,proposed", "'proposed' is named twice"),
    ],
)
def test_methods_that_are_none_are_one_line(tmp_path: Path, methods: str, reason: str) -> None:
    done = hvx("figure", made(tmp_path, A), "-o", tmp_path / "f.png", "--methods", methods)
    assert done.returncode == 2
    assert reason in done.stderr and done.stderr.count("\n") == 1


def test_attention_of_a_network_without_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", A, glimpses=0)
    done = hvx("figure", run, "-o", tmp_path / "f.png", "--methods", "attention,proposed")
    assert done.returncode == 2 and "the network has no attention" in done.stderr


def test_kept_maps_are_drawn_and_are_those_of_their_questions(finished_run: Path, tmp_path: Path) -> None:
    """Each question's kept map against the one that is computed for it alone."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    names = ["gradient", "grad-cam", "cam"]
    with RunReader(run) as reader:
        numbers = list(range(len(reader)))
        with maps.run_maps(reader, numbers, names, "cpu") as found:
            computed = [found.of(number, reader[number]) for number in numbers]
        options = ["--sample", 12, "--curves", 0, "--sanity", 0]
        assert hvx("measure", run, "--methods", ",".join(names), *options, "--device", "cpu").returncode == 0
        kept = maps._kept_maps(reader, numbers, names)
        assert 0 < len(kept["gradient"]) < len(numbers)
        for name, place in zip(names, range(3), strict=True):
            for number, (stored, row) in kept[name].items():
                assert np.allclose(stored[row], computed[number][place], atol=2e-3)
        about = next((run / "measure").glob("*/about.json"))
        other = json.loads(about.read_text()) | {"made": ["another"]}
        about.write_text(json.dumps(other))
        assert not any(maps._kept_maps(reader, numbers, names).values())
