"""A run read from its shards: few files open, each the run's own, nothing from outside of the run folder."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, Tiny
from made_runs import DIGEST, ITEMS, items, written

from hvx.errors import HvxError
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.run.verify import verify
from hvx.store import shards
from hvx.store.checksum import BLOCK, sealed_digest, write_checksum
from hvx.store.reader import RunReader
from hvx.store.schema import FIELDS, IDS, TEXT, VERSION, run_digest
from hvx.store.shards import OPEN_FILES, ShardEntry, ShardFiles, shard_mismatch
from hvx.store.writer import write_shard, write_solid, write_view


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return written(tmp_path / "run", solid=False)


def many(run: Path, count: int) -> Path:
    """A run of ``count`` shards."""
    paths = [run / "shards" / f"{number:05d}.h5" for number in range(count)]
    for number, path in enumerate(paths):
        write_shard(path, items(number % 7) | _ids(number), {"shard": number, "run_digest": DIGEST}, [])
    write_view(run / "explanations.h5", paths, {"crop": {}, "run_digest": DIGEST})
    about = {"identity": {}, "image": {}, "images": "images", "shards": count, "packed": False}
    about["integer_ids"] = ["question_id", "image_id"]
    (run / "run.json").write_text(json.dumps(about))
    return run


def _ids(number: int) -> dict[str, np.ndarray]:
    return {"question_id": 100 * number + np.arange(ITEMS)}


def resealed(path: Path, change: Callable[[h5py.File], None]) -> None:
    """Change a file of a run and seal it again, as somebody would who wants it to be accepted."""
    with h5py.File(path, "r+") as file:
        change(file)
    write_checksum(path)


def test_the_digest_of_a_run_depends_on_every_key_and_on_nothing_else() -> None:
    assert run_digest({"a": 1, "b": [None, "é"]}) == run_digest({"b": [None, "é"], "a": 1})
    assert len({run_digest(one) for one in ({}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": None})}) == 6
    assert run_digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of "{}"


def test_columns_and_items_are_those_of_the_shards(run: Path) -> None:
    parts = [items(0), items(1)]
    with RunReader(run) as reader:
        assert len(reader) == 2 * ITEMS
        for name, field in FIELDS.items():
            column = reader.column(name)
            assert column.dtype == (np.int64 if name in IDS else field.dtype), name
            start = 0
            for part in parts:
                own = part[name]
                cut = column[start : start + len(own)][(slice(None), *map(slice, own.shape[1:]))]
                np.testing.assert_array_equal(cut, own, name)
                if field.axes == "T" and own.shape[1] < column.shape[1]:
                    beyond = column[start : start + len(own), own.shape[1] :]
                    assert all(x == field.fill or (x != x and field.fill != field.fill) for x in beyond.flat)
                start += len(own)
        for number in (*range(2 * ITEMS), -1):
            item, part = reader[number], parts[number // ITEMS if number >= 0 else 1]
            row = number % ITEMS
            assert item.question_id == part["question_id"][row]
            assert item.image_digest == part["image_digest"][row]
            assert item.zero_gradient == part["zero_gradient"][row]
            assert item.answer_type == part["answer_type"][row]
            assert item.question_type == part["question_type"][row]
            np.testing.assert_array_equal(item.heatmap, part["heatmap"][row].astype(np.float32))
            np.testing.assert_array_equal(item.block_heatmaps, part["block_heatmaps"][row].astype(np.float32))
        with pytest.raises(IndexError):
            reader[2 * ITEMS]


def test_a_column_costs_few_open_files_and_no_shard_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = many(tmp_path / "run", 40)
    opened = h5py.File
    held: list[h5py.File] = []
    most = 0

    def counted(*args: object, **kwargs: object) -> h5py.File:
        nonlocal most
        file = opened(*args, **kwargs)
        held.append(file)
        most = max(most, sum(bool(one) for one in held))
        return file

    monkeypatch.setattr(h5py, "File", counted)
    with RunReader(run) as reader:
        ids = reader.column("question_id")
        assert ids.tolist() == [100 * n + k for n in range(40) for k in range(ITEMS)]
        assert reader[3 * 39].question_id == 3900
    assert most <= OPEN_FILES + 2  # the view, and a shard that is checked as it is opened
    assert not any(held)


def test_more_shards_than_the_process_may_open_files(tmp_path: Path) -> None:
    run = many(tmp_path / "run", 100)
    code = (
        "import sys; from pathlib import Path; from hvx.store.reader import RunReader\n"
        "r = RunReader(Path(sys.argv[1]))\n"
        "print(r.column('question_id').sum(), r.column('answer')[-1], r[299].question_id, r[0].question_id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, run], capture_output=True, text=True, cwd=REPOSITORY, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    total = sum(100 * n + k for n in range(100) for k in range(ITEMS))
    assert done.stdout == f"{total} {items(99 % 7)['answer'][-1]} 9902 0\n"


def test_an_item_opens_its_own_shard_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of shards: neither opening a run nor reading an item visits the others."""
    run = many(tmp_path / "run", 30)
    checked: list[Path] = []
    check = shards.verify_checksum
    monkeypatch.setattr(
        shards, "verify_checksum", lambda path, depth: checked.append(path) or check(path, depth)
    )
    reader = RunReader(run)
    assert checked == []
    assert reader[3 * 17 + 1].question_id == 1701
    assert reader[3 * 17 + 2].question_id == 1702
    assert checked == [run / "shards" / "00017.h5"]


def test_the_file_unused_for_longest_is_closed_first(tmp_path: Path) -> None:
    run = many(tmp_path / "run", OPEN_FILES + 1)
    paths = [run / "shards" / f"{n:05d}.h5" for n in range(OPEN_FILES + 1)]
    files = ShardFiles(run, [ShardEntry(path, ITEMS, sealed_digest(path)) for path in paths], DIGEST)
    first = [files.datasets(place).file for place in range(OPEN_FILES)]
    assert all(first)
    assert files.datasets(0).file is first[0]
    files.datasets(OPEN_FILES)
    assert [bool(file) for file in first] == [True, False, *[True] * (OPEN_FILES - 2)]
    assert files.locate(0) == (0, 0)
    assert files.locate(ITEMS - 1) == (0, ITEMS - 1)
    assert files.locate(ITEMS) == (1, 0)
    files.close()
    assert not any(first)


def test_a_shard_replaced_while_the_run_is_open_is_reported(run: Path) -> None:
    """`hvx explain --retry-failed` adds an item at a shard's beginning: all others move."""
    reader = RunReader(run)
    ids = reader.column("question_id")
    reader[0]
    more = items(0, ITEMS + 1)
    write_shard(run / "shards" / "00000.h5", more, {"shard": 0, "run_digest": DIGEST}, [])
    assert [reader[n].question_id for n in range(ITEMS)] == ids[:ITEMS].tolist()  # still open: the old one
    reader._shards.close()  # type: ignore[union-attr]
    for read in (lambda: reader[0], lambda: reader.column("question_id")):
        with pytest.raises(HvxError) as raised:
            read()
        assert str(raised.value) == (
            f"{run / 'shards' / '00000.h5'}: replaced since explanations.h5 listed it; read the run again "
            "once `hvx explain` has finished"
        )
    with pytest.raises(HvxError, match="replaced since"):
        RunReader(run)[0]
    assert reader[ITEMS].question_id == ids[ITEMS]


def test_a_shard_replaced_between_its_check_and_its_opening_is_reported(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, path = RunReader(run), run / "shards" / "00000.h5"
    open_file = shards.open_hdf5

    def late(opened: Path) -> h5py.File:
        write_shard(path, items(5), {"shard": 0, "run_digest": DIGEST}, [])
        return open_file(opened)

    monkeypatch.setattr(shards, "open_hdf5", late)
    with pytest.raises(HvxError, match=r"00000\.h5: replaced since explanations\.h5 listed it"):
        reader[0]


@pytest.mark.parametrize("fault", ["copied", "another run", "no label"])
def test_a_shard_that_is_not_the_runs_is_found(run: Path, tmp_path: Path, fault: str) -> None:
    first, second = (run / "shards" / f"0000{n}.h5" for n in range(2))
    if fault == "copied":
        shutil.copy(first, second)
        reason = "it is shard 0"
    else:
        label = {"shard": 1, "run_digest": run_digest({"checkpoint_sha256": "other"})}
        write_shard(second, items(1), label if fault == "another run" else {"crop": {}}, [])
        reason = "it belongs to another run"
    assert shard_mismatch(second, 1, DIGEST) == reason
    assert shard_mismatch(first, 0, DIGEST) is None
    write_view(run / "explanations.h5", [first, second], {"crop": {}, "run_digest": DIGEST})
    with pytest.raises(
        HvxError, match=rf"00001\.h5: not this run's shard 00001: {reason}; run `hvx explain`"
    ):
        RunReader(run).column("question_id")
    assert RunReader(run)[0].question_id == 0
    found = verify(run)
    assert (found.whole, found.damaged, found.finished) == (1, {second: reason}, False)
    assert not second.exists()
    assert second.with_name("00001.h5.damaged").exists()


def test_a_view_of_another_run_is_refused(run: Path) -> None:
    (run / "run.json").write_text(
        (run / "run.json").read_text().replace('"identity": {}', '"identity": {"a": 1}')
    )
    with pytest.raises(HvxError, match=r"explanations\.h5: belongs to another run than .*run\.json"):
        RunReader(run)


@pytest.mark.parametrize("version", [1, 2, VERSION + 1])
@pytest.mark.parametrize("solid", [False, True])
def test_a_run_of_another_schema_is_refused_in_one_line(tmp_path: Path, solid: bool, version: int) -> None:
    run = written(tmp_path / "run", solid)

    def older(file: h5py.File) -> None:
        file.attrs["schema_version"] = version

    resealed(run / "explanations.h5", older)
    with pytest.raises(HvxError) as raised:
        RunReader(run)
    assert str(raised.value) == (
        f"{run / 'explanations.h5'}: schema version {version}; this hvx reads {VERSION}; "
        "run `hvx explain` into a new folder"
    )


# What leads out of the run folder


def _external_link(file: h5py.File, secret: Path) -> None:
    del file["answer"]
    file["answer"] = h5py.ExternalLink(str(secret), "answer")


def _soft_link(file: h5py.File, secret: Path) -> None:
    del file["answer"]
    file["answer"] = h5py.SoftLink("/question")


def _external_storage(file: h5py.File, secret: Path) -> None:
    del file["probability"]
    file.create_dataset("probability", (ITEMS,), np.float32, external=[(str(secret), 0, 4 * ITEMS)])


def _virtual(file: h5py.File, secret: Path) -> None:
    del file["answer"]
    layout = h5py.VirtualLayout((ITEMS,), TEXT)
    layout[:] = h5py.VirtualSource(str(secret), "answer", (ITEMS,), TEXT)
    file.create_virtual_dataset("answer", layout)


def _group(file: h5py.File, secret: Path) -> None:
    del file["answer"]
    file.create_group("answer")


@pytest.mark.parametrize("solid", [False, True])
@pytest.mark.parametrize("change", [_external_link, _soft_link, _external_storage, _virtual, _group])
def test_datasets_that_lie_elsewhere_are_refused(
    tmp_path: Path, solid: bool, change: Callable[[h5py.File, Path], None]
) -> None:
    run = written(tmp_path / "run", solid)
    secret = tmp_path / "secret.h5"
    shutil.copy(written(tmp_path / "other", False) / "shards" / "00000.h5", secret)
    path = run / "explanations.h5" if solid else run / "shards" / "00000.h5"
    resealed(path, lambda file: change(file, secret))
    if not solid:
        write_view(run / "explanations.h5", [run / "shards" / "00001.h5"], {"crop": {}, "run_digest": DIGEST})
        _list_shard(run, path)
    name = "probability" if change is _external_storage else "answer"
    with pytest.raises(HvxError, match=rf"{path.name}: {name}: .*; a run holds its own data"):
        RunReader(run).column(name)
    with pytest.raises(HvxError, match=rf"{path.name}: {name}: .*; a run holds its own data"):
        RunReader(run)[0]
    with pytest.raises(HvxError, match=rf"{path.name}: {name}: .*; a run holds its own data"):
        write_solid(tmp_path / "copy.h5", [path], {})


def _list_shard(run: Path, path: Path) -> None:
    """Have the view list a shard with the digest that it has now."""

    def change(file: h5py.File) -> None:
        file["index/shard"][0] = path.name
        file["index/digest"][0] = sealed_digest(path)

    resealed(run / "explanations.h5", change)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.h5",
        "/etc/passwd",
        "run.json",
        "shards/00000.h5",
        "0.h5",
        "000000.h5",
        "0000٠.h5",
        "00000.h5\n",
    ],
)
def test_a_view_lists_shards_of_the_run_alone(run: Path, name: str) -> None:
    def change(file: h5py.File) -> None:
        file["index/shard"][0] = name

    resealed(run / "explanations.h5", change)
    with pytest.raises(HvxError, match="which is no shard of the run") as raised:
        RunReader(run)
    assert repr(name) in str(raised.value)


@pytest.mark.parametrize(("first", "second"), [("00001.h5", "00001.h5"), ("00001.h5", "00000.h5")])
def test_a_view_lists_each_shard_once_and_in_order(run: Path, first: str, second: str) -> None:
    def change(file: h5py.File) -> None:
        file["index/shard"][:] = [first, second]

    resealed(run / "explanations.h5", change)
    with pytest.raises(HvxError, match=rf"explanations\.h5: lists {second} after {first}$"):
        RunReader(run)


@pytest.mark.parametrize("name", ["index", "index/shard", "index/items", "index/digest"])
@pytest.mark.parametrize("soft", [False, True])
def test_the_index_of_a_view_is_its_own(run: Path, tmp_path: Path, name: str, soft: bool) -> None:
    other = written(tmp_path / "other", False) / "explanations.h5"

    def change(file: h5py.File) -> None:
        file.move(name, "aside")
        file[name] = h5py.SoftLink("/aside") if soft else h5py.ExternalLink(str(other), name)

    resealed(run / "explanations.h5", change)
    last = name.split("/")[-1]
    with pytest.raises(HvxError, match=rf"explanations\.h5: {last}: a link to elsewhere"):
        RunReader(run)


def _no_answers(file: h5py.Group) -> None:
    del file["answer"]


def _short(file: h5py.Group) -> None:
    del file["answer"]
    file.create_dataset("answer", data=["red"] * (ITEMS - 1), dtype=TEXT)


def _flat(file: h5py.Group) -> None:
    del file["heatmap"]
    file.create_dataset("heatmap", data=np.zeros((ITEMS, 24), np.float16))


@pytest.mark.parametrize(
    ("change", "name"), [(_no_answers, "answer"), (_short, "answer"), (_flat, "heatmap")]
)
@pytest.mark.parametrize("solid", [False, True])
def test_datasets_of_other_shapes_are_refused(
    tmp_path: Path, solid: bool, change: Callable[[h5py.File], None], name: str
) -> None:
    """And no row is filled in their place."""
    run = written(tmp_path / "run", solid)
    if solid:
        resealed(run / "explanations.h5", change)
        with pytest.raises(HvxError, match=f"not the explanations of a run: {name}"):
            RunReader(run)
        return
    resealed(run / "shards" / "00000.h5", change)
    _list_shard(run, run / "shards" / "00000.h5")
    with pytest.raises(HvxError, match="damaged"):
        RunReader(run).column(name)


@pytest.mark.parametrize("missing", [False, True])
def test_the_shapes_that_a_view_lists_are_checked(run: Path, missing: bool) -> None:
    def change(file: h5py.File) -> None:
        if missing:
            del file["index"].attrs["answer"]
        else:
            file["index"].attrs["heatmap"] = (2 * ITEMS, 24)

    resealed(run / "explanations.h5", change)
    reason = "answer is missing" if missing else r"heatmap has the shape \(6, 24\), for 6 items"
    with pytest.raises(HvxError, match=reason):
        RunReader(run)


def test_the_view_is_not_read_beyond_its_index(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 visits every shard's mapping as it opens a virtual dataset."""
    opened: set[str] = set()
    get = h5py.Group.__getitem__

    def noted(self: h5py.Group, name: str) -> object:
        if Path(self.file.filename).name == "explanations.h5":
            opened.add(name)
        return get(self, name)

    monkeypatch.setattr(h5py.Group, "__getitem__", noted)
    with RunReader(run) as reader:
        assert (reader.glimpses, reader.blocks, reader.attends_to_words) == (2, 3, True)
        assert (reader.heatmap_size, reader[4].question_id) == ((24, 24), 101)
        reader.column("answer")
    assert {"index", "shard", "items", "digest"} <= opened
    assert not opened & set(FIELDS)


def test_a_view_of_other_shards_is_written_again(tiny: Tiny, finished_run: Path, tmp_path: Path) -> None:
    """A shard that was computed elsewhere and copied into the folder is the run's, but not the view's."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    config = tiny.load(run, explain__gradient=True)
    assert explain_split(config, local_engine(torch.device("cpu"))).done_now == 0
    path = run / "shards" / "00000.h5"

    def change(file: h5py.File) -> None:
        file["probability"][0] = 0.125

    resealed(path, change)
    with pytest.raises(HvxError, match="replaced since"):
        RunReader(run)[0]
    found = verify(run)
    view = run / "explanations.h5"
    assert (found.damaged, found.finished) == ({view: "00000.h5 was replaced after it was listed"}, False)
    assert found.whole == len(list((run / "shards").glob("*.h5")))
    assert explain_split(config, local_engine(torch.device("cpu"))).done_now == 0
    assert RunReader(run)[0].probability == 0.125
    view.write_bytes((written(tmp_path / "other", False) / "explanations.h5").read_bytes())
    assert verify(run).damaged == {view: "it belongs to another run"}


def test_a_run_of_an_older_schema_is_refused_by_hvx_explain(
    tiny: Tiny, finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    about = json.loads((run / "run.json").read_text())
    assert about["identity"].pop("schema_version") == VERSION
    (run / "run.json").write_text(json.dumps(about))
    with pytest.raises(HvxError) as raised:
        explain_split(tiny.load(run, explain__gradient=True), local_engine(torch.device("cpu")))
    assert str(raised.value) == (
        f"{run}: holds a run with another schema_version (None, now {VERSION}); "
        "give explain.run a new folder, or delete this one"
    )
    assert not list(run.rglob("*.damaged"))


@pytest.mark.parametrize("name", ["explanations.h5", "shards/00000.h5", "shards"])
def test_a_symbolic_link_out_of_the_run_folder_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (run / name).rename(outside)
    (run / name).symlink_to(outside)
    with pytest.raises(HvxError, match="leads out of the run folder; copy the file into it"):
        RunReader(run).column("question_id")


def test_a_run_may_itself_be_a_symbolic_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    assert len(RunReader(tmp_path / "link").column("answer")) == 2 * ITEMS


def test_a_file_that_cannot_be_opened_is_not_called_damaged(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else `--verify` would set aside what is whole, for want of file descriptors."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(24, "Too many open files")

    reader = RunReader(run)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(HvxError, match=r"00000\.h5: cannot be read: Too many open files"):
        reader[0]


def test_a_view_that_lists_fewer_items_than_it_has_is_refused(run: Path) -> None:
    def change(file: h5py.File) -> None:
        file["index/items"][0] = ITEMS - 1

    resealed(run / "explanations.h5", change)
    with pytest.raises(
        HvxError, match=r"not the explanations of a run: question_id has the shape \(6,\), for 5"
    ):
        RunReader(run)


def test_user_block_and_index_are_as_documented(run: Path) -> None:
    with h5py.File(run / "explanations.h5", "r") as view:
        assert view.userblock_size == BLOCK
        assert view["index/shard"].asstr()[:].tolist() == ["00000.h5", "00001.h5"]
        assert view["index/items"][:].tolist() == [ITEMS, ITEMS]
        digests = [sealed_digest(run / "shards" / f"0000{n}.h5") for n in range(2)]
        assert view["index/digest"].asstr()[:].tolist() == digests
        assert view.attrs["run_digest"] == DIGEST
        shapes = {name: tuple(view["index"].attrs[name]) for name in view["index"].attrs}
        assert shapes == {name: view[name].shape for name in FIELDS}
    with h5py.File(run / "shards" / "00001.h5", "r") as shard:
        assert (shard.attrs["shard"], shard.attrs["run_digest"]) == (1, DIGEST)
