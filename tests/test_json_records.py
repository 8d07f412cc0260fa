"""Rows of files: the same as of the whole tree, whatever holds them, and refused in one line otherwise."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvx.data import compressed
from hvx.data.json_records import VQARecords
from hvx.errors import HvxError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(st.sampled_from(["info", "a", "]"]), VALUES, max_size=4)


def rows_of(data: str | bytes) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.json"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return [row for _, row in VQARecords(path, "questions")]


def error_of(data: str | bytes) -> str:
    with pytest.raises(HvxError) as raised:
        rows_of(data)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@settings(deadline=None, max_examples=100)
@given(TREES, st.lists(VALUES, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_rows_are_those_of_the_whole_tree(
    tree: dict[str, Any], listed: list[Any], indent: int | None, escaped: bool
) -> None:
    text = json.dumps(tree | {"questions": listed} | tree, indent=indent, ensure_ascii=escaped)
    assert rows_of(text) == listed
    assert rows_of(json.dumps(listed, indent=indent, ensure_ascii=escaped)) == listed


def test_a_file_cut_anywhere_is_refused() -> None:
    tree = {"info": {"a": [1.5e-3, True]}, "questions": [{"question": "a?"}, 22.5, "é"], "license": 1}
    text = json.dumps(tree)
    assert len(rows_of(text)) == 3
    for length in range(len(text)):
        assert "not valid JSON" in error_of(text[:length])


@pytest.mark.parametrize(
    "text",
    ['{"questions": [1,]}', '{"questions": [1 2]}', '{"questions": [1}', '{"questions": [1], }',
     '{"questions" [1]}', '{"questions": [1]} 2', '{"questions": [1], "a": nul}', '{"questions": [1x]}',
     '{"questions": ' + "[" * 100_000 + "}", b'{"questions": ["\xff"]}'],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    assert "not valid JSON" in error_of(text)


def test_a_key_that_occurs_twice_is_refused() -> None:
    assert error_of('{"questions": [1], "questions": [2]}').endswith("the key 'questions' occurs twice")
    row = '{"question": "a?"}'
    assert error_of(f'{{"05": {row}, "5": {row}, "05": {row}}}').endswith("the key '05' occurs twice")


def test_rows_by_question_id_get_it_as_a_text() -> None:
    rows = rows_of('{"05": {"question": "a?"}, "5": {"question": "b?"}}')
    assert [row["question_id"] for row in rows] == ["05", "5"]


@pytest.mark.parametrize(
    "text", ["3", "null", "{}", '{"questions": {"0": {}}}', '{"questions": null}', '{"a": [1]}']
)
def test_what_holds_no_rows_says_what_was_expected(text: str) -> None:
    said = error_of(text)
    assert "expected an object with a list 'questions', a list of rows, or a row a line" in said
    assert "JSON Lines" in said


TREE = json.dumps({"questions": [{"question": "é?"}]}).encode()


def zipped(**files: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__MACOSX", "__MACOSX/"), data)
    return held.getvalue()


def test_packed_files_are_read_as_the_file_in_them() -> None:
    for data in (gzip.compress(TREE, mtime=0), zipped(a=TREE), zipped(a=TREE, __MACOSXa=b"x")):
        assert rows_of(data) == [{"question": "é?"}]
    lines = b'{"question": "a?"}\n{"question": "b?"}\n'
    assert len(rows_of(gzip.compress(lines, mtime=0))) == len(rows_of(zipped(**{"q.jsonl": lines}))) == 2


def test_a_zip_of_several_files_names_them() -> None:
    said = error_of(zipped(train=TREE, val=TREE))
    assert "holds 2 files ('train', 'val'); expected a zip with one file" in said
    assert "holds 0 files" in error_of(zipped())


@pytest.mark.parametrize(
    "data", [gzip.compress(TREE, mtime=0)[:-6], zipped(a=TREE)[:-30], b"\x1f\x8bnot gzip", b"PK\x03\x04"]
)
def test_a_damaged_packed_file_is_one_line(data: bytes) -> None:
    assert "questions.json: cannot be" in error_of(data)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b"[" + b" " * (compressed.FREE_BYTES + 1) + b"]"
    for data in (gzip.compress(bomb, mtime=0), zipped(a=bomb)):
        assert "decompression bomb" in error_of(data)
    monkeypatch.setattr(compressed, "MOST_BYTES", 10)
    assert "more than 10 when unpacked" in error_of(gzip.compress(TREE, mtime=0))
