"""Files and folders that are whole or absent, and what is said where one cannot be had."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hvx.errors import HvxError
from hvx.files import atomic_directory, atomic_write, read_json, sha256, write_json

Write = Callable[[Path], None]


def everything(folder: Path) -> set[str]:
    """All that lies under a folder, hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def write_file(path: Path, text: str = "new") -> None:
    with atomic_write(path) as part:
        part.write_text(text)


def write_folder(path: Path) -> None:
    with atomic_directory(path) as part:
        (part / "inside").write_text("new")


def break_a_file(path: Path, error: BaseException) -> None:
    with atomic_write(path) as part:
        part.write_text("half")
        raise error


def break_a_folder(path: Path, error: BaseException) -> None:
    with atomic_directory(path) as part:
        (part / "deep").mkdir()
        (part / "deep" / "file").write_text("half")
        raise error


def test_a_file_appears_on_a_clean_exit_and_nothing_else_does(tmp_path: Path) -> None:
    write_file(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert everything(tmp_path) == {"file"}


def test_a_file_is_not_there_while_it_is_written(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as part:
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
    with failure, atomic_write(tmp_path / "file"):
        pass
    assert everything(tmp_path) == set()


def test_another_file_that_fails_in_the_body_is_named_too(tmp_path: Path) -> None:
    failure = pytest.raises(HvxError, match=f"^{tmp_path / 'file'}: .*No such file.*{tmp_path / 'other'}")
    with failure, atomic_write(tmp_path / "file"):
        (tmp_path / "other").read_text()


def test_a_folder_appears_whole_on_a_clean_exit(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "a" / "folder") as part:
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


# Symbolic links: what they lead to is written, and they stay.


@pytest.mark.parametrize("old", [None, "old"])
def test_a_link_to_a_file_is_written_through(tmp_path: Path, old: str | None) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "near" / "link"
    link.parent.mkdir()
    link.symlink_to("../far/target")
    if old is not None:
        target.write_text(old)
    with atomic_write(link) as part:
        assert part.parent == target.parent
        part.write_text("new")
        assert (target.read_text() if target.exists() else None) == old
    assert target.read_text() == "new"
    assert link.is_symlink() and link.readlink() == Path("../far/target")
    assert everything(tmp_path) == {"far", "far/target", "near", "near/link"}


def test_a_chain_of_links_is_written_through_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to("target")
    write_file(tmp_path / "first")
    assert (tmp_path / "target").read_text() == "new"
    assert (tmp_path / "first").is_symlink() and (tmp_path / "second").is_symlink()
    assert everything(tmp_path) == {"first", "second", "target"}


def test_a_body_that_raises_leaves_a_link_and_its_target_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(ValueError, match="broken"):
        break_a_file(tmp_path / "link", ValueError("broken"))
    assert (tmp_path / "target").read_text() == "old"
    assert everything(tmp_path) == {"target", "link"}


@pytest.mark.parametrize("write", [write_file, write_folder])
@pytest.mark.parametrize(
    ("leads_to", "reason"),
    [("link", "Too many levels of symbolic links"), ("gone/target", "No such file or directory")],
)
def test_a_link_that_leads_to_no_folder_is_an_error(
    tmp_path: Path, write: Write, leads_to: str, reason: str
) -> None:
    link = tmp_path / "link"
    link.symlink_to(leads_to)
    with pytest.raises(HvxError, match=f"^{link}: cannot be written: {reason}"):
        write(link)
    assert link.is_symlink()
    assert everything(tmp_path) == {"link"}


def test_a_link_to_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with pytest.raises(HvxError, match=f"^{tmp_path / 'link'}: cannot be written: is a folder or a device"):
        write_file(tmp_path / "link")
    assert everything(tmp_path) == {"folder", "link"}


def test_a_link_to_an_empty_folder_is_filled_and_one_to_a_full_folder_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    write_folder(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "empty" / "inside").read_text() == "new"
    with pytest.raises(HvxError) as refused:
        write_folder(tmp_path / "link")
    assert str(refused.value) == f"{tmp_path / 'link'}: already exists and is not empty; give a new folder"
    assert everything(tmp_path) == {"empty", "empty/inside", "link"}


def test_without_leave_to_make_folders_a_missing_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "file"
    with (
        pytest.raises(HvxError, match=f"^{path}: cannot be written: No such file or directory"),
        atomic_write(path, parents=False),
    ):
        raise AssertionError("the body ran")
    assert everything(tmp_path) == set()


# File systems that lack something.


def failing(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> list[str]:
    """Let a call of the operating system fail; the calls made."""
    calls: list[str] = []

    def fail(*given: object, **more: object) -> None:
        calls.append(call)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    return calls


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EROFS, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_that_cannot_flush_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    calls = failing(monkeypatch, "fsync", number)
    write_file(tmp_path / "file")
    assert calls == ["fsync"]
    assert (tmp_path / "file").read_text() == "new"
    assert everything(tmp_path) == {"file"}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_at_the_flush_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "file").write_text("old")
    failing(monkeypatch, "fsync", number)
    with pytest.raises(HvxError) as refused:
        write_file(tmp_path / "file")
    assert str(refused.value) == f"{tmp_path / 'file'}: cannot be written: {os.strerror(number)}"
    assert (tmp_path / "file").read_text() == "old"
    assert everything(tmp_path) == {"file"}


def write_private(path: Path) -> None:
    """As safetensors does."""
    with atomic_write(path) as part:
        part.touch(0o600)


@pytest.mark.parametrize(
    ("number", "passes"),
    [
        (errno.EPERM, True), (errno.EROFS, True), (errno.ENOSYS, True), (errno.ENOTSUP, True),
        (errno.EIO, False), (errno.EACCES, False),
    ],
)  # fmt: skip
def test_a_file_system_without_modes_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    calls = failing(monkeypatch, "chmod", number)
    if passes:
        write_private(tmp_path / "file")
    else:
        with pytest.raises(HvxError, match=f"cannot be written: {os.strerror(number)}"):
            write_private(tmp_path / "file")
    assert calls == ["chmod"]
    assert everything(tmp_path) == ({"file"} if passes else set())


def test_a_file_gets_the_usual_mode_whatever_its_writer_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        write_private(tmp_path / "file")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
        calls = failing(monkeypatch, "chmod", errno.EIO)  # not called where nothing is to be changed
        write_file(tmp_path / "other")
        assert calls == [] and (tmp_path / "other").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_names_of_files_that_are_not_utf_8_come_back_from_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"photo \xff\xe9.png")
    for indent in (None, 1):
        write_json(tmp_path / "value.json", {name: [name, "Straße \u2028 \U0001f600"]}, indent)
        assert read_json(tmp_path / "value.json", "a value") == {name: [name, "Straße \u2028 \U0001f600"]}
    text = (tmp_path / "value.json").read_bytes().decode("utf-8")
    assert r"photo \udcff\udce9.png" in text and "Straße" in text
    assert text.endswith("}\n")
