"""``hvx.open_run``: numbers and ids, items, the table, figures, and what is no run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from made_runs import written

import hvx as face
from hvx.store.reader import RunReader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Integer ids 0, 1, 2, 100, 101, 102, which are not the items' numbers."""
    return written(tmp_path / "run", solid=False)


def test_a_number_is_never_an_id_and_an_id_never_a_number(folder: Path) -> None:
    with face.open_run(folder) as run:
        assert len(run) == 6 and [item.number for item in run] == [0, 1, 2, 3, 4, 5]
        assert run[3].question_id == 100 and run.id(100).number == 3 and run[-1].question_id == 102
        assert [item.question_id for item in run[1:4]] == [1, 2, 100]
        assert run[np.int64(3)].number == run.id(np.int64(100)).number == 3
        with pytest.raises(IndexError, match=r"run\[100\]: the run has 6 items"):
            run[100]
        with pytest.raises(face.HvxError, match=r"an id is for run\.id\('100'\)"):
            run["100"]  # type: ignore[call-overload]
        with pytest.raises(face.HvxError, match=r"question_id .100.: the ids of .* are integers"):
            run.id("100")
        for wrong in (3, -1):
            with pytest.raises(face.HvxError, match=f"question_id {wrong}: not in"):
                run.id(wrong)
        with pytest.raises(face.HvxError, match="neither an integer nor a text"):
            run.id(True)


def test_ids_that_look_like_numbers_are_texts_where_the_split_has_texts(folder: Path) -> None:
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**about, "integer_ids": []}))
    with face.open_run(folder) as run:
        assert run.id("100").question_id == "100"
        with pytest.raises(face.HvxError, match="are texts"):
            run.id(100)


def test_items_and_the_table_hold_what_the_reader_reads(folder: Path) -> None:
    pytest.importorskip("pandas")
    with face.open_run(str(folder)) as run, RunReader(folder) as reader:
        table = run.to_dataframe()
        assert len(table) == 6 and not {"heatmap", "attention"} & set(table.columns)
        for number, item in enumerate(run):
            own = reader[number]
            np.testing.assert_array_equal(item.heatmap, own.heatmap)
            np.testing.assert_array_equal(item.attention, own.attention)
            np.testing.assert_allclose(item.token_z, own.token_z)
            row = table.iloc[number]
            assert (row.question_id, row.answer) == (own.question_id, own.answer)
            assert row.tokens == own.tokens and row.z == pytest.approx(own.token_z)
            assert len(repr(item).splitlines()) == 1 and len(repr(item)) < 250
        assert repr(run) == f"Run({str(folder)!r}: 6 explanations)"


def test_without_pandas_one_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with face.open_run(folder) as run, pytest.raises(face.HvxError, match="pip install pandas"):
        run.to_dataframe()


def test_what_is_no_run_or_is_closed_is_one_line(folder: Path, tmp_path: Path) -> None:
    run = face.open_run(folder)
    run.close()
    run.close()
    assert repr(run).endswith(", closed)")
    for use in (lambda: run[0], lambda: run.id(100), run.to_dataframe, lambda: list(run)):
        with pytest.raises(face.HvxError, match="was closed"):
            use()
    (tmp_path / "file").write_text("no run")
    (tmp_path / "empty").mkdir()
    shutil.copytree(folder, tmp_path / "damaged")
    with (tmp_path / "damaged" / "explanations.h5").open("r+b") as file:
        file.truncate(100)
    for name in ("nowhere", "file", "empty", "damaged"):
        with pytest.raises(face.HvxError) as caught:
            face.open_run(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_figure_is_drawn_in_the_style_asked_for(finished_run: Path) -> None:
    with face.open_run(finished_run) as run:
        item = run[0]
        pictures = [item.figure(600, style, outline) for style, outline in ((None, None), ("color", True))]
        assert [picture.width for picture in pictures] == [600, 600]
        other = item.figure(600, "color", False)
        assert not np.array_equal(np.asarray(pictures[1]), np.asarray(other))
        assert np.array_equal(
            np.asarray(other),
            np.asarray(item.figure(600, face.FigureStyle("color", outline=False, top_answers=True))),
        )
        with pytest.raises(face.HvxError, match="style: 'bright': give one of color, paper"):
            item.figure(style="bright")
