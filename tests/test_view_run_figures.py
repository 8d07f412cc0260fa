"""From a run's items to a figure's rows: each has its item's data and the photograph that was explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_galleries import SIDE, Asked, write_run
from PIL import Image

from hvx.cli import main
from hvx.errors import ReplacedImage
from hvx.store.reader import RunReader
from hvx.view.run_figures import figure_row

ASKED = [
    Asked("is it red ?", "yes", "no", photo="a.png"),
    Asked("how many ?", "2", "2", photo="b.png", zero_gradient=1, unknown=("many",)),
    Asked("what color is it ?", "red", "", photo="a.png", zero_gradient=2),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", ASKED)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_row_is_of_its_item(run: Path, number: int) -> None:
    reader = RunReader(run)
    item, asked, row = reader[number], ASKED[number], figure_row(reader, number, 48)
    assert row.tokens == asked.question.split()
    assert (row.predicted, row.ground_truth, row.zero_gradient) == (
        asked.answer, asked.truth, asked.zero_gradient
    )  # fmt: skip
    assert row.z == item.token_z
    assert row.unknown == [token in asked.unknown for token in row.tokens]
    assert row.whole is not None and row.whole.size == (64, 48)  # of 40×30 pixels
    assert np.array_equal(row.attention, item.attention)
    assert np.array_equal(row.heatmap, item.heatmap)
    assert [answer for answer, _ in row.top_answers] == [asked.answer, "no", "two"]
    assert row.photo.size == (48, 48)
    with Image.open(run.parent / "photos" / asked.photo) as photo:
        assert row.photo.getpixel((24, 24)) == photo.convert("RGB").getpixel((20, 15))


def test_a_figure_says_which_gradients_are_zero(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(
        "hvx.view.run_figures.export_figure", lambda path, layout, rows, page_rows: drawn.extend(rows) or ""
    )
    arguments = ["figure", str(run), "-o", str(tmp_path / "f.png"), "--id", "3", "--id", "1", "--id", "2"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert [row.zero_gradient for row in drawn] == [2, 0, 1]


def test_a_replaced_photograph_is_not_drawn_under_the_old_explanation(run: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "a.png"
    Image.new("RGB", (40, 30), "red").save(photo)
    reader = RunReader(run)
    with pytest.raises(ReplacedImage):
        figure_row(reader, 2, SIDE)
    figure_row(reader, 1, SIDE)
    arguments = ["figure", str(run), "-o", str(tmp_path / "f.png"), "--id", "2", "--id", "1"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert done.stderr == (
        f"Error: {photo}: another image than the one explained (its bytes changed since)\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_more_rows_than_a_picture_holds_are_one_line_and_no_file(tmp_path: Path, kind: str) -> None:
    run = write_run(tmp_path / "run", ASKED * 34)
    arguments = ["figure", str(run), "-o", str(tmp_path / f"f.{kind}"), "--rows", "101"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert done.stderr == (
        f"Error: {tmp_path}/f.{kind}: 101 rows; a {kind.upper()} holds at most 100: write a .pdf, which "
        "has as many pages as it needs, or look at the run with `hvx gallery`\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_command_draws_each_kind_of_file_with_all_options(run: Path, tmp_path: Path, kind: str) -> None:
    options = (
        "--style color --outline --top-answers --inches 5.5 --dpi 100 --page-rows 2 --font-pt 9 --digits 3"
    )
    arguments = ["figure", str(run), "-o", str(tmp_path / f"f.{kind}"), *options.split()]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    opening = {"png": b"\x89PNG", "pdf": b"%PDF-1.4", "svg": b"<?xml"}[kind]
    assert (tmp_path / f"f.{kind}").read_bytes().startswith(opening)
