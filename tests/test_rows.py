"""Rows of VQA files: the same whether a file is read whole or a piece at a time."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvx.data import rows
from hvx.data.rows import Rows
from hvx.errors import HvxError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(st.sampled_from(["info", "questions", "a", "]"]), VALUES, max_size=4)


def rows_of(text: str, piece: int) -> list[Any]:
    """The rows of a file of this text, read so many characters at a time."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_CHUNK", piece)
        path = Path(folder) / "questions.json"
        path.write_text(text, encoding="utf-8")
        return [row for _, row in Rows(path, "questions")]


@settings(deadline=None, max_examples=200)
@given(TREES, st.lists(VALUES, max_size=4), st.integers(1, 9), st.sampled_from([None, 0, 2]), st.booleans())
def test_rows_are_those_of_the_whole_tree(
    tree: dict[str, Any], listed: list[Any], piece: int, indent: int | None, escaped: bool
) -> None:
    tree = {key: value for key, value in tree.items() if key != "questions"} | {"questions": listed} | tree
    text = json.dumps(tree, indent=indent, ensure_ascii=escaped)
    wanted = json.loads(text)["questions"]
    if isinstance(wanted, list):
        assert rows_of(text, piece) == wanted
    else:
        with pytest.raises(HvxError, match="expected an object with a list 'questions'"):
            rows_of(text, piece)


TEXTS = st.sampled_from(["a", '{"id": ', ', {"id": ', "null]", "é😀", '\\"', "\0", "\ud800", "]}"])
LEAVES = TEXTS | st.integers() | st.just(1e400)
ALIKE = st.lists(
    st.fixed_dictionaries({"id": LEAVES, "inner": st.lists(st.dictionaries(TEXTS | st.just("id"), LEAVES))}),
    max_size=6,
)


@settings(deadline=None, max_examples=200)
@given(ALIKE, st.sampled_from([1, 20, 100, 1 << 20]), st.sampled_from([None, 1]))
def test_rows_that_begin_alike_are_those_of_the_whole_tree(
    listed: list[Any], piece: int, indent: int | None
) -> None:
    text = json.dumps({"questions": listed, "more": [{"id": 1}, {"id": 2}]}, indent=indent)
    assert rows_of(text, piece) == listed


@pytest.mark.parametrize("after", ["oops", '{"id": oops}', '{"id": 4,}', '{"id": 4', '{"id": 4}}', '"\\x"'])
def test_a_fault_among_rows_that_begin_alike_comes_after_the_rows_ahead_of_it(
    after: str, tmp_path: Path
) -> None:
    path = tmp_path / "questions.json"
    path.write_text(f'{{"questions": [{{"id": 1}}, {{"id": 2}}, {{"id": 3}}, {after}, {{"id": 5}}]}}')
    found = []
    with pytest.raises(HvxError, match="not valid JSON"):
        found.extend(Rows(path, "questions"))
    assert found[:3] == [(0, {"id": 1}), (1, {"id": 2}), (2, {"id": 3})]
    assert len(found) == 3 + (after == '{"id": 4}}')


@pytest.mark.parametrize("piece", [1, 2, 5, 1 << 20])
def test_a_file_cut_anywhere_is_refused(piece: int) -> None:
    text = json.dumps(
        {
            "info": {"a": [1.5e-3, True]},
            "questions": [{"question": "a?", "image_id": 1}, 22.5, "\u00e9"],
            "license": 1,
        }
    )
    assert len(rows_of(text, piece)) == 3
    for length in range(len(text)):
        with pytest.raises(HvxError, match=r"questions\.json: not valid JSON"):
            rows_of(text[:length], piece)


@pytest.mark.parametrize(
    "text",
    [
        '{"questions": [1,]}',
        '{"questions": [1 2]}',
        '{"questions": [1}',
        '{"questions": [1], }',
        '{"questions" [1]}',
        '{"questions": [1]} 2',
        '{"questions": [1], "a": nul}',
        '{"questions": [1x]}',
        '{"questions": [1], "questions": [2]}',
        '{"questions": ' + "[" * 100_000 + "}",
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_what_is_no_json_is_refused(text: str, piece: int) -> None:
    with pytest.raises(HvxError, match=r"questions\.json: not valid JSON"):
        rows_of(text, piece)


def test_the_place_of_a_fault_is_counted_from_the_start_of_the_file() -> None:
    text = '{"questions": [' + "1, " * 1000 + "oops]}"
    with pytest.raises(HvxError) as raised:
        rows_of(text, 64)
    assert str(raised.value).endswith(f"Expecting value: char {text.index('oops')}")
