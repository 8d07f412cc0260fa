"""Where a gallery goes: a new folder whole or not at all, an earlier gallery file by file, nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hvx.errors import HvxError
from hvx.gallery.folder import MANIFEST, MARK, gallery_folder

PAGE = ("index.html", MARK, "data/items-000000.js", "photos/0000/0000000.jpg")


def write(output: Path, *names: str, text: str = "new") -> None:
    with gallery_folder(output) as folder:
        for name in names or PAGE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


def fail(output: Path, error: Exception) -> None:
    """Write half a gallery, then meet an error."""
    with gallery_folder(output) as folder:
        (folder / "index.html").write_text("half")
        assert output.exists() == (folder.parent.parent == output)
        raise error


def held(folder: Path) -> dict[str, str]:
    """Every file of a folder with its text, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def manifest(*names: str) -> str:
    return "".join(f"{name}\n" for name in sorted(names))


def test_a_new_folder_holds_the_files_and_their_list(tmp_path: Path) -> None:
    write(tmp_path / "a" / "gallery")
    assert held(tmp_path) == {
        **{f"a/gallery/{name}": "new" for name in PAGE},
        f"a/gallery/{MANIFEST}": manifest(*PAGE),
    }
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["gallery"]


def test_a_new_folder_is_absent_until_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(HvxError, match="no luck"):
        fail(tmp_path / "gallery", HvxError("no luck"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "gallery").mkdir()
    before = (tmp_path / "gallery").stat().st_ino
    write(tmp_path / "gallery")
    assert (tmp_path / "gallery").stat().st_ino == before
    assert held(tmp_path / "gallery") == {**dict.fromkeys(PAGE, "new"), MANIFEST: manifest(*PAGE)}


def test_files_of_the_user_stay_and_files_of_the_earlier_gallery_go(tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    write(gallery, *PAGE, "maps/0001/0001000.jpg", "data/items-000001.js", text="old")
    own = {"notes.txt": "x", "photos/0000/mine.jpg": "x", "photos/more/0000000.jpg": "x", ".hidden": "x"}
    for name, text in own.items():
        (gallery / name).parent.mkdir(exist_ok=True)
        (gallery / name).write_text(text)
    write(gallery)
    assert held(gallery) == {**own, **dict.fromkeys(PAGE, "new"), MANIFEST: manifest(*PAGE)}
    assert not (gallery / "maps").exists()  # emptied by this


def test_a_failed_build_leaves_the_earlier_gallery_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "gallery", text="old")
    before = held(tmp_path)
    with pytest.raises(HvxError, match="no luck"):
        fail(tmp_path / "gallery", HvxError("no luck"))
    assert held(tmp_path) == before


def test_a_file_of_the_user_that_is_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    write(gallery, text="old")
    (gallery / "maps" / "0000").mkdir(parents=True)
    (gallery / "maps" / "0000" / "0000000.jpg").write_text("mine")
    before = held(tmp_path)
    with pytest.raises(HvxError) as error:
        write(gallery, *PAGE, "maps/0000/0000000.jpg")
    assert str(error.value) == (
        f"{gallery}/maps/0000/0000000.jpg: the gallery needs this name, and no earlier gallery wrote this "
        "file; move it, or give a new folder"
    )
    assert held(tmp_path) == before


@pytest.mark.parametrize("names", [("index.html",), (MARK,), ("notes.txt",), ("data/kinds.js",)])
def test_a_folder_of_anything_else_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / "full" / name).parent.mkdir(parents=True)
        (tmp_path / "full" / name).write_text("mine")
    with pytest.raises(HvxError) as error:
        write(tmp_path / "full")
    assert str(error.value) == (
        f"{tmp_path / 'full'}: not empty, and holds no {MANIFEST} as an earlier gallery would; "
        "give a new folder"
    )
    assert held(tmp_path / "full") == dict.fromkeys(names, "mine")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HvxError) as error:
        write(tmp_path / "file")
    assert str(error.value) == f"{tmp_path / 'file'}: is a file; give the name of a folder"
    assert held(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize(
    "name",
    [
        "../mine.txt",
        "/etc/passwd",
        "notes.txt",
        "data/../../mine.txt",
        "photos/0000/0000000.jpg/x",
        "photos/000/0000000.jpg",
        "photos/0000/000000.jpg",
        "data/index-000.js",
        "data/items-00000.js",
        "Index.html",
        "index.htm",
        "",
    ],
)
def test_a_manifest_cannot_name_files_of_others(tmp_path: Path, name: str) -> None:
    gallery = tmp_path / "gallery"
    write(gallery, text="old")
    (tmp_path / "mine.txt").write_text("mine")
    (gallery / MANIFEST).write_text(f"index.html\n{name}\n{MARK}\n")
    with pytest.raises(HvxError) as error:
        write(gallery)
    assert str(error.value) == (
        f"{gallery / MANIFEST}: line 2: {name!r} is no file of a gallery; give a new folder"
    )
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (gallery / "index.html").read_text() == "old"


OTHERS = ("gallery.css", "data/kinds.js", "data/index-12345.js", "maps/0012/0012345.jpg",
          "photos/10000/10000000.jpg")  # fmt: skip


@pytest.mark.parametrize("name", [*PAGE, *OTHERS])
def test_a_manifest_may_name_all_that_a_gallery_writes(tmp_path: Path, name: str) -> None:
    write(tmp_path / "gallery", MARK, name)
    write(tmp_path / "gallery", MARK)
    assert held(tmp_path / "gallery") == {MARK: "new", MANIFEST: manifest(MARK)}


def test_a_symlink_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    (tmp_path / "dangling").symlink_to("disk/later")
    write(tmp_path / "link", text="old")
    write(tmp_path / "link")
    assert (tmp_path / "link").readlink() == Path("disk")
    assert held(tmp_path / "disk") == {**dict.fromkeys(PAGE, "new"), MANIFEST: manifest(*PAGE)}
    for path in (tmp_path / "disk").iterdir():
        path.rename(tmp_path / path.name)
    write(tmp_path / "dangling")
    assert (tmp_path / "dangling").readlink() == Path("disk/later")
    assert held(tmp_path / "disk" / "later") == {**dict.fromkeys(PAGE, "new"), MANIFEST: manifest(*PAGE)}
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["later"]


def test_a_folder_of_the_gallery_that_is_now_a_symlink_is_refused(tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    write(gallery, text="old")
    (gallery / "photos").rename(tmp_path / "mine")
    (gallery / "photos").symlink_to(tmp_path / "mine")
    with pytest.raises(HvxError) as error:
        write(gallery)
    assert str(error.value) == (
        f"{gallery / 'photos'}: is a symlink where the gallery has a folder; give a new folder"
    )
    assert held(tmp_path / "mine") == {"0000/0000000.jpg": "old"}


def killed_at(output: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a gallery and stop, as a killed process does, when ``name`` is about to be moved into place."""
    replace = Path.replace

    class Killed(BaseException):
        pass

    def stop(self: Path, target: Path) -> Path:
        if self.name == name:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        patch.setattr("hvx.gallery.folder._remove", lambda folder: None)
        with pytest.raises(Killed):
            write(output, "data/kinds.js", *PAGE)


@pytest.mark.parametrize("name", ["index.html", MARK])
def test_a_process_killed_between_two_galleries_leaves_what_the_next_one_replaces(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = tmp_path / "gallery"
    write(gallery, *PAGE, "data/items-000001.js", text="old")
    (gallery / "notes.txt").write_text("mine")
    killed_at(gallery, name, monkeypatch)
    assert not (gallery / MARK).exists()  # so that the page says that it is not whole
    assert set(PAGE) | {"data/kinds.js", "data/items-000001.js"} == set(
        (gallery / MANIFEST).read_text().split()
    )
    write(gallery)
    assert held(gallery) == {
        "notes.txt": "mine", **dict.fromkeys(PAGE, "new"), MANIFEST: manifest(*PAGE)
    }  # fmt: skip


@pytest.mark.parametrize("exists", [False, True])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, exists: bool) -> None:
    gallery = tmp_path / "gallery"
    if exists:
        gallery.mkdir()
    left = [tmp_path / ".gallery.hvx-gallery.part", *([gallery / ".hvx-gallery.part"] if exists else [])]
    for folder in left:
        (folder / "built" / "photos").mkdir(parents=True)
        (folder / "built" / "photos" / "0.jpg").write_text("left")
    write(gallery)
    assert held(tmp_path) == {
        **{f"gallery/{name}": "new" for name in PAGE}, f"gallery/{MANIFEST}": manifest(*PAGE)
    }  # fmt: skip
    assert not any(folder.exists() for folder in left)


def test_a_hidden_folder_that_is_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine" / "built").mkdir(parents=True)
    (tmp_path / "mine" / "built" / "file").write_text("mine")
    (tmp_path / ".gallery.hvx-gallery.part").symlink_to("mine")
    write(tmp_path / "gallery")
    assert held(tmp_path / "mine") == {"built/file": "mine"}
    assert (tmp_path / "gallery" / "index.html").read_text() == "new"


def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with gallery_folder(tmp_path / "gallery"):
        other = os.fork()
        if not other:
            try:
                write(tmp_path / "gallery")
            except HvxError as error:
                os._exit(7 if re.search("process .* is writing", str(error)) else 8)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 7
    assert held(tmp_path) == {f"gallery/{MANIFEST}": ""}


def test_no_room_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(HvxError) as error:
        fail(tmp_path / "gallery", OSError(28, "No space left on device", "x.jpg"))
    assert str(error.value) == (f"{tmp_path / 'gallery'}: cannot be written: No space left on device (x.jpg)")
    assert list(tmp_path.iterdir()) == []
