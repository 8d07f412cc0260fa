"""Files and folders that are whole or absent, and what is said where one cannot be had."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hvx.errors import HvxError
from hvx.files import read_json, sha256, whole_file, whole_folder, write_json

Write = Callable[[Path], None]


def everything(folder: Path) -> set[str]:
    """All that lies under a folder, hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def write_file(path: Path, text: str = "new") -> None:
    with whole_file(path) as part:
        part.write_text(text)


def write_folder(path: Path) -> None:
    with whole_folder(path) as part:
        (part / "inside").write_text("new")


def break_a_file(path: Path, error: BaseException) -> None:
    with whole_file(path) as part:
        part.write_text("half")
        raise error


def break_a_folder(path: Path, error: BaseException) -> None:
    with whole_folder(path) as part:
        (part / "deep").mkdir()
        (part / "deep" / "file").write_text("half")
        raise error


def test_a_file_appears_on_a_clean_exit_and_nothing_else_does(tmp_path: Path) -> None:
    write_file(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert everything(tmp_path) == {"file"}


def test_a_file_is_not_there_while_it_is_written(tmp_path: Path) -> None:
    with whole_file(tmp_path / "file") as part:
        part.write_text("half")
        assert not (tmp_path / "file").exists()
        assert part.parent == tmp_path


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    write_file(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert everything(tmp_path) == {"file"}


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), HvxError("refused")])
def test_a_body_that_raises_leaves_the_folder_as_it_was(
    tmp_path: Path, error: BaseException, old: str | None
) -> None:
    target = tmp_path / "file"
    if old is not None:
        target.write_text(old)
    with pytest.raises(type(error)) as raised:
        break_a_file(target, error)
    assert raised.value is error
    assert everything(tmp_path) == ({"file"} if old else set())
    assert old is None or target.read_text() == old


def test_missing_folders_above_a_file_are_made(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b" / "file")
    assert everything(tmp_path) == {"a", "a/b", "a/b/file"}


def test_a_file_in_place_of_a_folder_is_refused_before_the_body_runs(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("old")
    for folder in (tmp_path / "full", tmp_path):
        with pytest.raises(HvxError, match=f"^{folder}: cannot be written: is a folder"):
            break_a_file(folder, AssertionError("the body ran"))
    assert everything(tmp_path) == {"full", "full/kept"}


def test_a_device_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(HvxError, match=f"^{pipe}: cannot be written"):
        write_file(pipe)
    assert pipe.is_fifo()
    assert everything(tmp_path) == {"pipe"}


@pytest.mark.parametrize("below", ["file/new", "file/deep/new"])
@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_file_where_a_folder_is_needed_is_named(tmp_path: Path, write: Write, below: str) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(HvxError, match=f"^{tmp_path / below}: cannot be written: .*{tmp_path / 'file'}"):
        write(tmp_path / below)
    assert everything(tmp_path) == {"file"}
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("name", ["n" * 250, "n" * 300])
def test_a_name_that_is_too_long_is_an_error_that_names_it(tmp_path: Path, write: Write, name: str) -> None:
    with pytest.raises(HvxError, match=f"^{tmp_path / name}: cannot be written: File name too long"):
        write(tmp_path / name)
    assert everything(tmp_path) == set()


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize("path", [Path(), Path("/")])
def test_a_path_without_a_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HvxError, match=f"^{path}: is a folder"):
        write(path)
    assert everything(tmp_path) == set()


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    failure = pytest.raises(HvxError, match=f"^{tmp_path / 'file'}: cannot be written: No such file")
    with failure, whole_file(tmp_path / "file"):
        pass
    assert everything(tmp_path) == set()


def test_another_file_that_fails_in_the_body_is_named_too(tmp_path: Path) -> None:
    failure = pytest.raises(HvxError, match=f"^{tmp_path / 'file'}: .*No such file.*{tmp_path / 'other'}")
    with failure, whole_file(tmp_path / "file"):
        (tmp_path / "other").read_text()


def test_a_folder_appears_whole_on_a_clean_exit(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a" / "folder") as part:
        (part / "inside").write_text("new")
        assert not (tmp_path / "a" / "folder").exists()
    assert everything(tmp_path) == {"a", "a/folder", "a/folder/inside"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write_folder(tmp_path / "folder")
    assert everything(tmp_path) == {"folder", "folder/inside"}


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), HvxError("refused")])
def test_a_body_that_raises_leaves_no_folder(
    tmp_path: Path, error: BaseException, there_before: bool
) -> None:
    target = tmp_path / "folder"
    if there_before:
        target.mkdir()
    with pytest.raises(type(error)) as raised:
        break_a_folder(target, error)
    assert raised.value is error
    assert everything(tmp_path) == ({"folder"} if there_before else set())


def test_a_folder_that_holds_something_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("old")
    (tmp_path / "file").write_text("old")
    for path in (tmp_path / "full", tmp_path / "file"):
        with pytest.raises(HvxError, match=f"^{path}: already exists"):
            write_folder(path)
    assert everything(tmp_path) == {"full", "full/kept", "file"}


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    value = {"question": "wie heißt das Tier?", "ids": [1, -2, 3.5], "none": None}
    for indent in (None, 1):
        write_json(tmp_path / "value.json", value, indent)
        assert read_json(tmp_path / "value.json", "a value") == value
    assert "heißt" in (tmp_path / "value.json").read_text(encoding="utf-8")


def test_json_that_cannot_be_made_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [1, object()])
    assert read_json(path, "a value") == [1]
    assert everything(tmp_path) == {"value.json"}


def test_a_missing_json_file_says_what_was_wanted(tmp_path: Path) -> None:
    path = tmp_path / "absent.json"
    with pytest.raises(HvxError) as raised:
        read_json(path, "the split's questions")
    assert str(raised.value) == f"{path}: no such file (the split's questions)"


def test_a_folder_or_a_path_below_a_file_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    for path in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(HvxError, match=rf"^{path}: cannot be read \(a value\): "):
            read_json(path, "a value")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"{'a': 1}", b"[1,]", b"nan", b"\xff\xfe\xff", b"[" * 100_000, b'{"a":' * 100_000,
        b"9" * 5000, b"\x89PNG\r\n\x1a\n",
    ],
    ids=["empty", "cut", "quotes", "comma", "word", "bytes", "deep list", "deep object", "long", "image"],
)  # fmt: skip
def test_what_is_not_json_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(HvxError, match=rf"^{path}: not valid JSON \(a value\): ") as raised:
        read_json(path, "a value")
    assert "\n" not in str(raised.value)


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(path, "a value") == {"a": 1}


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert sha256(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_the_digest_of_no_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(HvxError, match=f"^{path}: cannot be read: "):
            sha256(path)
