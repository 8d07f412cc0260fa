"""The further maps of a gallery: question-specific ones, and those of other methods."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import hvx
from made_galleries import Asked, write_run
from PIL import Image
from test_gallery import data

from hvx.explain.specific import question_specific
from hvx.gallery.build import CHUNK, build_gallery
from hvx.gallery.folder import MARK
from hvx.gallery.maps import RunMaps
from hvx.gallery.pictures import MAP_SIDE, drawn_maps, picture_path
from hvx.gallery.workers import MapSource
from hvx.measure.methods import maps
from hvx.measure.methods.registry import METHODS
from hvx.store.reader import RunReader
from hvx.view.heat import warmth


def slow(reader: RunReader, number: int) -> np.ndarray | None:
    own = reader[number]
    items = [reader[n] for n in range(len(reader))]
    others = [i.heatmap for i in items if i.image_id == own.image_id and i.question != own.question]
    return question_specific(own.heatmap, np.stack(others)) if others else None


def asked() -> list[Asked]:
    """Images with 7 questions, two of them alike; the last one has an image of its own."""
    made = [
        Asked(f"is it {n % 7 if n % 7 != 5 else 2} ?", agreeing=n % 3 > 0, photo=f"{n // 7}.png")
        for n in range(CHUNK + 9)
    ]
    return [*made, Asked("is it red ?", photo="own.png")]


def test_question_specific_maps_are_those_of_the_definition(tmp_path: Path) -> None:
    """Whatever part of the run is asked for: the questions of an image may lie in two chunks."""
    run = write_run(tmp_path / "run", asked())
    with RunReader(run) as reader:
        numbers = list(range(CHUNK - 4, CHUNK + 10))
        maps = RunMaps(reader, MapSource(True))
        for part in (numbers[:4], numbers[4:]):
            for number, own in zip(part, maps.of(part, list(reader.items(part))), strict=True):
                expected = slow(reader, number)
                assert len(own) == 4
                if expected is None:
                    assert own[3] is None and number == CHUNK + 9
                else:
                    np.testing.assert_allclose(own[3], expected, atol=1e-6)
        assert any(np.ptp(own[3]) > 0.5 for own in maps.of(numbers[:4], list(reader.items(numbers[:4]))))


def test_the_page_has_a_column_for_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", asked())
    build_gallery(run, tmp_path / "gallery", workers=1)
    (about,) = data(tmp_path / "gallery", MARK)
    assert about["columns"][-2:] == ["Proposed", "Question-specific (Eq. 2)"]
    entries = data(tmp_path / "gallery", "data/items-000001.js")[1]
    assert [entry[7] for entry in entries] == [0] * 9 + [1]
    with RunReader(run) as reader, Image.open(tmp_path / "gallery" / picture_path("maps", 3)) as picture:
        gray = np.asarray(picture, np.float64)[:MAP_SIDE, 3 * MAP_SIDE :]
        (drawn,) = drawn_maps([slow(reader, 3)])
    assert np.abs(gray - 255 * warmth(drawn)).mean() < 3


def test_a_run_with_one_question_on_each_image_has_no_such_column(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Asked(f"is it {n} ?", photo=f"{n}.png") for n in range(3)])
    build_gallery(run, tmp_path / "gallery", workers=1)
    (about,) = data(tmp_path / "gallery", MARK)
    assert about["columns"][-1] == "Proposed"
    assert about["runs"][0]["specific"] == 0


METHODS_ASKED = ["gradient", "attention", "proposed", "grad-cam", "question-specific"]


def test_methods_are_further_maps_whether_kept_or_computed(finished_run: Path, tmp_path: Path) -> None:
    run, gallery = tmp_path / "run", tmp_path / "gallery"
    shutil.copytree(finished_run, run)
    measured = ["--sample", 12, "--curves", 0, "--sanity", 0, "--device", "cpu"]
    assert hvx("measure", run, "--methods", "gradient", *measured).returncode == 0
    done = hvx(
        "gallery", run, "-o", gallery, "--methods", ",".join(METHODS_ASKED), "--device", "cpu", "--workers", 1
    )
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stderr.splitlines() if "computing" in line)
    assert "gradient, grad-cam, question-specific for " in said and "MB" in said
    (about,) = data(gallery, MARK)
    with RunReader(run) as reader:
        count, glimpses = len(reader), reader.glimpses
        names = [
            name for name in METHODS_ASKED if name != "proposed" and (name != "attention" or glimpses > 1)
        ]
        assert about["columns"][glimpses + 2 :] == [METHODS[name].title for name in names]
        assert about["runs"][0]["specific"] == 0
        with maps.run_maps(reader, range(count), names, "cpu") as found:
            for number in range(0, count, 5):
                drawn = np.concatenate(
                    [warmth(map) for map in drawn_maps(found.of(number, reader[number]))], 1
                )
                with Image.open(gallery / picture_path("maps", number)) as picture:
                    gray = np.asarray(picture, np.float64)[:MAP_SIDE, (glimpses + 1) * MAP_SIDE :]
                assert np.abs(gray - 255 * drawn).mean() < 4, number


@pytest.mark.parametrize(
    ("methods", "reason"),
    [("grad-cm", "no method 'grad-cm' (did you mean"), (",", "names no method"), ("cam,cam", "named twice")],
)
def test_methods_that_are_none_are_one_line(tmp_path: Path, methods: str, reason: str) -> None:
    run = write_run(tmp_path / "run", asked()[:2])
    done = hvx("gallery", run, "-o", tmp_path / "gallery", "--methods", methods)
    assert done.returncode == 2
    assert reason in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "gallery").exists()


def test_methods_of_a_run_whose_checkpoint_is_gone_are_one_line(tmp_path: Path, finished_run: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    about = json.loads((run / "run.json").read_text())
    about["config"]["checkpoint"] = str(tmp_path / "gone.safetensors")
    (run / "run.json").write_text(json.dumps(about))
    done = hvx("gallery", run, "-o", tmp_path / "gallery", "--methods", "grad-cam")
    assert done.returncode == 2 and "gone.safetensors" in done.stderr
    assert not (tmp_path / "gallery").exists()
