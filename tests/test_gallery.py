"""What a gallery's folder holds, without a browser: data as scripts, pictures; and when it is replaced."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from made_galleries import Asked, write_run
from PIL import Image

from hvx.cli import main
from hvx.files import sha256
from hvx.gallery.build import CHUNK, Built, build_gallery
from hvx.gallery.folder import MANIFEST, MARK
from hvx.gallery.pictures import MAP_SIDE, drawn_maps, outline_path, picture_path, save_maps
from hvx.gallery.scripts import as_script
from hvx.store.reader import RunReader
from hvx.view.heat import emphasis, enlarge, outline, warmth

HOSTILE = "</script><script>alert(1)</script> \u2028 \" ' & <!-- \\"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=12
)


def asked(count: int) -> list[Asked]:
    return [Asked(f"is it {n} ?", photo=f"{n // 3}.png", probability=n / count) for n in range(count)]


def called(text: str) -> tuple[str, list[Any]]:
    """The function that a script calls, and its arguments."""
    match = re.fullmatch(r"([\w.]+)\((.*)\);\n", text)
    assert match
    return match[1], json.loads(f"[{match[2]}]")


def data(gallery: Path, name: str) -> list[Any]:
    return called((gallery / name).read_text(encoding="ascii"))[1]


@given(st.lists(PLAIN, max_size=3))
def test_no_text_can_leave_a_script(values: list[Any]) -> None:
    script = as_script("hvx.f", *values)
    assert script.isascii()
    assert not set(script) & set("<>&")
    assert called(script) == ("hvx.f", values)


def test_hostile_text_arrives_whole() -> None:
    assert called(as_script("f", HOSTILE))[1] == [HOSTILE]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of two chunks and its gallery, made in this process."""
    folder = tmp_path_factory.mktemp("gallery")
    questions = asked(CHUNK + 10)
    questions[CHUNK + 3] = replace(questions[CHUNK + 3], unknown=("is", "?"))
    run = write_run(folder / "run", questions)
    assert build_gallery(run, folder / "gallery", workers=1).items == CHUNK + 10
    return run, folder / "gallery"


def test_the_index_holds_all_that_the_page_searches(built: tuple[Path, Path]) -> None:
    _, gallery = built
    place, index = data(gallery, "data/index-0000.js")
    assert place == 0
    assert index["id"] == [str(n + 1) for n in range(CHUNK + 10)]
    assert index["question"][7] == "is it 7 ?"
    assert index["photo"] == [n // 3 for n in range(CHUNK + 10)]
    assert index["right"] == [True] * (CHUNK + 10)
    assert index["agreement"] == [1.0] * (CHUNK + 10)
    kinds, pieces = data(gallery, "data/kinds.js")
    assert kinds == {"question_type": ["is the"], "answer_type": ["yes/no"]}
    assert pieces == 1


def test_a_chunk_holds_what_its_cards_show(built: tuple[Path, Path]) -> None:
    run, gallery = built
    place, entries = data(gallery, "data/items-000001.js")
    assert place == 1
    assert len(entries) == 10
    tokens, z, top, image_id, path, unknown, line, alone = entries[3]
    item = RunReader(run)[CHUNK + 3]
    assert tokens == item.tokens == ["is", "it", str(CHUNK + 3), "?"]
    assert z == [round(one, 4) for one in item.token_z]
    assert [answer for answer, _ in top] == ["yes", "no", "two"]
    assert (image_id, path) == (str(item.image_id), item.image_path)
    assert unknown == [0, 3]
    assert alone == 0
    assert line == outline_path(drawn_maps([item.heatmap])[0])


def test_each_photograph_is_there_once_and_each_item_has_its_maps(built: tuple[Path, Path]) -> None:
    _, gallery = built
    photos = sorted((gallery / "photos").rglob("*.jpg"))
    assert [path.relative_to(gallery).as_posix() for path in photos] == [
        picture_path("photos", n) for n in range(20)
    ]
    maps = sorted((gallery / "maps").rglob("*.jpg"))
    assert len(maps) == CHUNK + 10
    with Image.open(maps[0]) as picture:
        assert picture.size == (4 * MAP_SIDE, 2 * MAP_SIDE)  # and the question-specific map
        assert picture.mode == "L"


def test_maps_are_drawn_as_figures_draw_them(built: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = built
    item = RunReader(run)[0]
    own = [*item.attention, item.heatmap]
    save_maps(drawn_maps(own), tmp_path, 0)
    maps = [enlarge(map, MAP_SIDE) for map in own]
    with Image.open(tmp_path / picture_path("maps", 0)) as picture:
        gray = np.asarray(picture, np.float64) / 255
    drawn = np.concatenate([np.concatenate(list(map(rule, maps)), axis=1) for rule in (warmth, emphasis)])
    assert np.abs(gray - drawn).mean() < 0.01
    assert np.abs(gray - drawn).max() < 0.15


def test_an_outline_in_the_gallery_is_that_of_figures() -> None:
    """But for the simplification: no point is further than a pixel from the line of figures."""
    heat = np.zeros((80, 80))
    heat[20:40, 10:30] = 1
    heat[70:, 70:] = 1  # at the edge
    parts = outline_path(drawn_maps([heat])[0]).split("Z")[:-1]
    lines = outline(heat, MAP_SIDE)
    assert len(parts) == len(lines) == 2
    for part, line in zip(parts, lines, strict=True):
        points = np.array(part[1:].split(), float).reshape(-1, 2)
        inner = line.clip(1.25, MAP_SIDE - 1.25)
        assert np.abs(points[:, None] - inner[None]).max(2).min(1).max() < 1
        assert np.abs(points.min(0) - inner.min(0)).max() < 1
        assert np.abs(points.max(0) - inner.max(0)).max() < 1
        assert len(points) < len(line)
    assert outline_path(drawn_maps([np.ones((80, 80))])[0]) == ""


def test_two_processes_build_what_one_builds(built: tuple[Path, Path], tmp_path: Path) -> None:
    run, alone = built
    build_gallery(run, tmp_path / "gallery", workers=2)
    files = [path.relative_to(alone) for path in sorted(alone.rglob("*")) if path.is_file()]
    assert files == [
        path.relative_to(tmp_path / "gallery")
        for path in sorted((tmp_path / "gallery").rglob("*"))
        if path.is_file()
    ]
    for path in files:
        assert (alone / path).read_bytes() == (tmp_path / "gallery" / path).read_bytes(), path


def test_a_gallery_over_an_earlier_one_lists_its_own_files_and_keeps_others(tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    build_gallery(write_run(tmp_path / "run", asked(CHUNK + 1)), gallery, workers=1)
    assert (gallery / "data" / "items-000001.js").is_file()
    (gallery / "notes.txt").write_text("mine")
    (gallery / "photos" / "0000" / "mine.jpg").write_text("mine")
    build_gallery(write_run(tmp_path / "few" / "run", asked(2)), gallery, workers=1)
    there = {path.relative_to(gallery).as_posix() for path in gallery.rglob("*") if path.is_file()}
    listed = (gallery / MANIFEST).read_text().split()
    assert listed == [
        "cards.js", "data/index-0000.js", "data/items-000000.js", "data/kinds.js", "gallery.css",
        "hvx-gallery.js", "index.html", "maps/0000/0000000.jpg", "maps/0000/0000001.jpg", "page.js",
        "photos/0000/0000000.jpg", "selection.js", "state.js", "store.js", "summary.js", "words.js",
    ]  # fmt: skip
    assert there == {*listed, MANIFEST, "notes.txt", "photos/0000/mine.jpg"}


def test_a_photograph_that_is_gone_is_named_and_its_items_are_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", asked(6))
    (tmp_path / "photos" / "1.png").unlink()
    arguments = ["gallery", str(run), "-o", str(tmp_path / "gallery"), "--workers", "1"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 3
    assert done.stdout == f"{tmp_path / 'gallery' / 'index.html'}: 6 explanations\n"
    assert done.stderr == f"{tmp_path / 'photos' / '1.png'}: no such image\n"
    (about,) = data(tmp_path / "gallery", MARK)
    assert about["missingPhotos"] == [[1, "unreadable"]]
    assert len(data(tmp_path / "gallery", "data/index-0000.js")[1]["id"]) == 6


def test_a_photograph_that_was_replaced_is_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", asked(6))
    photos = tmp_path / "photos"
    digests = RunReader(run).column("image_digest")
    Image.new("RGB", (40, 30), "red").save(photos / "1.png")
    digests[5] = sha256(photos / "1.png")  # replaced during the run: the last item is of the new image
    column = RunReader.column
    monkeypatch.setattr(
        RunReader, "column", lambda self, name: digests if name == "image_digest" else column(self, name)
    )
    built = build_gallery(run, tmp_path / "gallery", workers=1)
    assert built.missing == [
        f"{photos / '1.png'}: another image than the one explained (its bytes changed since)"
    ]
    (about,) = data(tmp_path / "gallery", MARK)
    assert about["missingPhotos"] == [[1, "replaced"]]
    assert data(tmp_path / "gallery", "data/index-0000.js")[1]["photo"] == [0, 0, 0, 1, 1, 2]
    shown = sorted((tmp_path / "gallery" / "photos").rglob("*.jpg"))
    assert [path.name for path in shown] == ["0000000.jpg", "0000002.jpg"]


def test_the_index_says_which_gradients_are_zero(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [replace(one, zero_gradient=n) for n, one in enumerate(asked(4))])
    build_gallery(run, tmp_path / "gallery", workers=1)
    assert data(tmp_path / "gallery", "data/index-0000.js")[1]["zero"] == [0, 1, 2, 3]


def test_a_run_of_no_items_has_a_gallery_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", asked(1))

    class Empty(RunReader):
        def column(self, name: str) -> np.ndarray:
            return super().column(name)[:0]

    monkeypatch.setattr("hvx.gallery.content.RunReader", Empty)
    assert build_gallery(run, tmp_path / "gallery") == Built(0, [])
    assert data(tmp_path / "gallery", "data/kinds.js")[1] == 1
    assert data(tmp_path / "gallery", "data/index-0000.js")[1]["id"] == []


def test_a_gallery_of_no_run_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["gallery", str(tmp_path / "absent"), "-o", str(tmp_path / "gallery")])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_without_attention_has_a_gallery(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", asked(3), glimpses=0)
    build_gallery(run, tmp_path / "gallery", workers=1)
    (about,) = data(tmp_path / "gallery", MARK)
    assert about["columns"] == ["Original", "Proposed", "Question-specific (Eq. 2)"]
    assert data(tmp_path / "gallery", "data/index-0000.js")[1]["agreement"] == [None] * 3


def test_the_page_asks_for_nothing_from_elsewhere(built: tuple[Path, Path]) -> None:
    _, gallery = built
    for path in gallery.glob("*.*"):
        assert not re.search(r"https?://|//[a-z]+\.", path.read_text(encoding="utf-8")), path
    assert "default-src 'none'" in (gallery / "index.html").read_text(encoding="utf-8")
