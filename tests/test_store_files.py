"""The files of a run in detail: seal, attributes, layout, and what a reader reports of wrong ones."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import threading
from dataclasses import FrozenInstanceError
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_runs import DIGEST, ITEMS, items, written

from hvx.errors import HvxError
from hvx.store import checksum
from hvx.store.checksum import BLOCK, open_hdf5, open_verified, sealed_digest, verify_checksum, write_checksum
from hvx.store.reader import RunReader
from hvx.store.schema import AXES, FIELDS, IDS, METHOD, VERSION
from hvx.store.sink import Sink, new_hdf5
from hvx.store.writer import write_shard, write_solid, write_view

# The seal


def sealed(path: Path, body: bytes, spans: list[tuple[int, int]] | None = None) -> str:
    """A sealed file of this body; returns the text of its seal."""
    path.write_bytes(bytes(BLOCK) + body)
    write_checksum(path, spans or [])
    return path.read_bytes()[:BLOCK].rstrip(b"\0").decode("ascii")


def sha(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_seal_is_written_out_as_documented(tmp_path: Path) -> None:
    body, path = bytes(range(256)) * 8, tmp_path / "a.h5"
    assert BLOCK == 1024
    whole = sha(body)
    assert sealed(path, body) == f"hvx sha256 {whole} of 2048 core {whole} without\n"
    assert sealed_digest(path) == whole
    kept = repr([(1024, 1034), (1044, 1124), (1134, 3072)]).encode()
    core = sha(kept, body[:10], body[20:100], body[110:])
    text = f"hvx sha256 {whole} of 2048 core {core} without 1034-1044 1124-1134\n"
    assert sealed(path, body, [(1124, 1134), (1034, 1044)]) == text
    assert path.read_bytes()[BLOCK:] == body
    # Spans that touch are one.
    assert sealed(path, body, [(1040, 1044), (1124, 1134), (1034, 1040)]) == text
    assert sealed(path, body, [(1034, 1044), (1130, 1134), (1124, 1126), (1126, 1130)]) == text
    assert (
        verify_checksum(path, "all")
        is verify_checksum(path, "core")
        is verify_checksum(path, "length")
        is None
    )


def test_a_file_larger_than_what_is_read_at_once_is_digested_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(range(250))
    for piece in (1, 7, 125, 249, 250, 251):
        monkeypatch.setattr(checksum, "_PIECE", piece)
        assert sealed(tmp_path / "a.h5", body).startswith(f"hvx sha256 {sha(body)} of 250 ")
    monkeypatch.undo()
    assert checksum._PIECE == 2**20


def test_the_largest_twenty_spans_stay_out_of_the_core(tmp_path: Path) -> None:
    spans = [(2000 + 100 * n, 2000 + 100 * n + 10 + n) for n in range(22)]
    text = sealed(tmp_path / "a.h5", bytes(10_000), spans)
    listed = " ".join(f"{start}-{end}" for start, end in spans[2:])
    assert text.endswith(f" without {listed}\n")
    assert text.count("-") == 20


def test_a_seal_that_no_writer_makes_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    text = sealed(path, bytes(2000), [(1100, 1200), (1300, 1400)])
    for old, new in [
        ("1100-1200 1300-1400", "1300-1400 1100-1200"),  # out of order
        ("1100-1200", "1200-1100"),
        ("1100-1200", "1023-1200"),  # in the block
        ("1300-1400", "1300-3025"),  # beyond the end
        ("1100-1200", "01100-1200"),
        ("hvx", "HVX"),
    ]:
        changed = text.replace(old, new)
        assert changed != text
        path.write_bytes(changed.encode().ljust(BLOCK, b"\0") + bytes(2000))
        assert verify_checksum(path, "length") == "no seal at its beginning", new
        assert sealed_digest(path) == ""
    path.write_bytes(text.encode().ljust(BLOCK - 1, b"\0") + b"x" + bytes(2000))
    assert verify_checksum(path, "length") == "no seal at its beginning"
    path.write_bytes(text.encode().ljust(BLOCK, b"\0") + bytes(2000))
    assert verify_checksum(path) is None


def test_each_depth_finds_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    sealed(path, bytes(2000), [(1100, 1200)])
    whole = path.read_bytes()
    for place, found in [
        (1024, (None, "its bytes changed", "its bytes changed")),
        (1099, (None, "its bytes changed", "its bytes changed")),
        (1100, (None, None, "its bytes changed")),
        (1199, (None, None, "its bytes changed")),
        (1200, (None, "its bytes changed", "its bytes changed")),
    ]:
        path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
        assert (
            verify_checksum(path, "length"),
            verify_checksum(path, "core"),
            verify_checksum(path, "all"),
        ) == found, place
        assert verify_checksum(path) == found[2]
    for longer in (whole + b"\0", whole[:-1]):
        path.write_bytes(longer)
        assert verify_checksum(path, "length") == verify_checksum(path) == "another length than its seal says"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM])
def test_what_says_nothing_of_the_file_is_an_error_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a.h5"
    sealed(path, b"abc")
    monkeypatch.setattr(Path, "open", fails)
    for read in (verify_checksum, sealed_digest):
        with pytest.raises(HvxError) as raised:
            read(path)
        assert str(raised.value) == f"{path}: cannot be read: {os.strerror(number)}"


def test_a_file_on_a_bad_disk_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "open", fails)
    assert verify_checksum(tmp_path / "a.h5") == "Input/output error"


def test_an_error_in_use_of_a_sealed_file_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / "run", False) / "shards" / "00000.h5"
    with pytest.raises(HvxError) as raised, open_verified(path) as file:
        file["nothing"]
    assert str(raised.value).startswith(f"{path}: damaged (")
    assert str(raised.value).endswith(
        "); `hvx info RUN --verify` sets it aside and `hvx explain` makes it again"
    )
    assert len(str(checksum.damaged(path, "x" * 500))) < len(str(path)) + 300


def test_files_are_read_without_hdf5s_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(h5py, "File", lambda *args, **kwargs: calls.append((args, kwargs)))
    open_hdf5(tmp_path)
    assert calls == [((tmp_path, "r"), {"locking": False})]


# What is written


AXIS_NAMES = {axis.name for axis in AXES.values()}


def test_datasets_have_the_schemas_types_chunks_and_checksums(tmp_path: Path) -> None:
    run = written(tmp_path / "run", False)
    with h5py.File(run / "shards" / "00001.h5") as file:
        assert set(file) == set(FIELDS) | AXIS_NAMES
        for name, field in FIELDS.items():
            dataset = file[name]
            assert dataset.dtype == field.dtype, name
            large = name in ("attention", "heatmap", "block_heatmaps", "word_heatmaps", "gradient")
            each = (1, 1, *dataset.shape[2:]) if name == "word_heatmaps" else (1, *dataset.shape[1:])
            assert dataset.chunks == (each if large else None), name
            assert dataset.fletcher32 is large
            assert dataset.compression is None
        assert file.attrs["schema_version"] == VERSION == 6
        assert file.attrs["method"] == METHOD
        assert file.attrs["failures"] == "[]"
        assert (file.attrs["shard"], file.attrs["run_digest"]) == (1, DIGEST)
        assert file.userblock_size == BLOCK
    for solid in (False, True):
        path = written(tmp_path / f"run {solid}", solid) / "explanations.h5"
        with h5py.File(path) as file:
            assert json.loads(file.attrs["crop"]) == {}
            assert file["heatmap"].chunks == ((1, 24, 24) if solid else None)
            assert np.isnan(file["token_z"][0, 2:]).all()
            assert file["tokens"].asstr()[0, 2:].tolist() == [""]
            assert ("index" in file) is not solid


def test_numbers_too_large_for_half_precision_become_its_largest(tmp_path: Path) -> None:
    made = items(0)
    made["heatmap"] = np.full((ITEMS, 2, 2), [[1e6, -1e6], [65504, 3]])
    made["probability"] = np.full(ITEMS, 1e6, np.float32)
    write_shard(tmp_path / "a.h5", made, {}, [])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["heatmap"][0].tolist() == [[65504, -65504], [65504, 3]]
        assert file["probability"][0] == 1e6


def test_failures_and_attributes_are_stored_as_json(tmp_path: Path) -> None:
    failures = [{"question_id": 3, "reason": "é"}]
    write_shard(tmp_path / "a.h5", items(0), {"crop": {"a": [1]}, "shard": 5, "run_digest": "d"}, failures)
    with h5py.File(tmp_path / "a.h5") as file:
        assert json.loads(file.attrs["failures"]) == failures
        assert json.loads(file.attrs["crop"]) == {"a": [1]}
        assert (file.attrs["shard"], file.attrs["run_digest"]) == (5, "d")


def test_a_field_that_every_network_has_cannot_be_left_out(tmp_path: Path) -> None:
    made = items(0)
    del made["gradient"], made["attention"]
    write_shard(tmp_path / "a.h5", made, {}, [])
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) & set(FIELDS) == set(FIELDS) - {"gradient", "attention"}
    del made["answer"]
    with pytest.raises(KeyError, match="answer"):
        write_shard(tmp_path / "b.h5", made, {}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("solid", [False, True])
def test_shards_without_items_are_left_out_of_the_whole(tmp_path: Path, solid: bool) -> None:
    run = tmp_path / "run"
    paths = [run / "shards" / f"0000{number}.h5" for number in range(3)]
    for number, path in enumerate(paths):
        label = {"shard": number, "run_digest": DIGEST}
        write_shard(path, items(number, 0 if number == 1 else ITEMS), label, [])
    whole = run / "explanations.h5"
    (write_solid if solid else write_view)(whole, paths, {"run_digest": DIGEST})
    (run / "run.json").write_text(
        json.dumps({"identity": {}, "image": {}, "images": "", "integer_ids": list(IDS)})
    )
    with RunReader(run) as reader:
        assert reader.column("question_id").tolist() == [0, 1, 2, 200, 201, 202]
        assert [reader[place].question_id for place in (2, 3)] == [2, 200]
        np.testing.assert_array_equal(reader.column("tokens")[3:], items(2)["tokens"])
        np.testing.assert_array_equal(reader.column("heatmap")[:3], items(0)["heatmap"])
    whole.unlink()
    with pytest.raises(HvxError) as raised:
        (write_solid if solid else write_view)(whole, paths[1:2], {})
    assert str(raised.value) == f"{run}: not one question of the split could be explained; see failures.jsonl"
    assert not whole.exists()


# What a reader says


@pytest.mark.parametrize("solid", [False, True])
def test_a_reader_says_what_the_run_has(tmp_path: Path, solid: bool) -> None:
    with RunReader(written(tmp_path / "run", solid)) as reader:
        assert (len(reader), reader.glimpses, reader.blocks) == (6, 2, 3)
        assert reader.heatmap_size == (24, 24)
        assert reader.attends_to_words is True
        assert reader.attribute("crop") == {}
        assert reader.about["shards"] == 2
        item = reader[-6]
        assert item.question_id == reader[0].question_id == 0
        with pytest.raises(FrozenInstanceError):
            item.answer = "another"  # type: ignore[misc]
        assert len(item.tokens) == len(item.token_z) == len(item.textual_attention) == 2
        top = items(0)
        pairs = zip(top["top_answers"][0], top["top_probabilities"][0].tolist(), strict=True)
        assert item.top_answers == tuple(pairs)
        for beyond in (6, -7):
            with pytest.raises(IndexError):
                reader[beyond]


@pytest.mark.parametrize("solid", [False, True])
def test_a_run_of_a_small_network_has_no_maps_of_attention_or_blocks(tmp_path: Path, solid: bool) -> None:
    run = tmp_path / "run"
    made = items(0)
    for name in ("attention", "block_heatmaps", "gradient", "textual_attention"):
        del made[name]
    path = run / "shards" / "00000.h5"
    write_shard(path, made, {"shard": 0, "run_digest": DIGEST}, [])
    (write_solid if solid else write_view)(run / "explanations.h5", [path], {"run_digest": DIGEST})
    (run / "run.json").write_text(
        json.dumps({"identity": {}, "image": {}, "images": "", "integer_ids": list(IDS)})
    )
    with RunReader(run) as reader:
        assert (reader.glimpses, reader.blocks, reader.attends_to_words) == (0, 0, False)
        item = reader[1]
        assert item.attention.shape == item.block_heatmaps.shape == (0, 1, 1)
        assert item.textual_attention == []


@pytest.mark.parametrize(
    "about", [[], {}, {"identity": [], "image": {}, "images": ""}, {"identity": {}, "image": {}, "images": 3}]
)
def test_a_file_that_describes_no_run_is_refused(tmp_path: Path, about: object) -> None:
    run = written(tmp_path / "run", False)
    (run / "run.json").write_text(json.dumps(about))
    with pytest.raises(HvxError) as raised:
        RunReader(run)
    assert str(raised.value) == f"{run / 'run.json'}: not the description of a run"


def test_a_run_that_lacks_files_says_what_to_do(tmp_path: Path) -> None:
    run = written(tmp_path / "run", False)
    (run / "shards" / "00001.h5").unlink()
    with pytest.raises(HvxError) as raised:
        RunReader(run)
    assert str(raised.value) == f"{run}: shards are missing from the run; run `hvx explain` again"
    (run / "explanations.h5").unlink()
    with pytest.raises(HvxError) as raised:
        RunReader(run)
    assert str(raised.value) == (
        f"{run}: the run is not finished (no explanations.h5); run `hvx explain` again"
    )


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.png", "deep/../../a.png"])
def test_an_image_outside_of_the_folder_of_images_is_refused(tmp_path: Path, path: str) -> None:
    run, made = tmp_path / "run", items(0)
    made["image_path"] = np.array([path, "deep/a..png", "a.png"], object)
    shard = run / "shards" / "00000.h5"
    write_shard(shard, made, {"shard": 0, "run_digest": DIGEST}, [])
    write_view(run / "explanations.h5", [shard], {"run_digest": DIGEST})
    (run / "run.json").write_text(
        json.dumps({"identity": {}, "image": {}, "images": "", "integer_ids": list(IDS)})
    )
    with RunReader(run) as reader:
        with pytest.raises(HvxError) as raised:
            reader[0]
        assert str(raised.value) == f"{run}: image_path: '{path}' leads out of the images' folder"
        assert [reader[place].image_path for place in (1, 2)] == ["deep/a..png", "a.png"]


@pytest.mark.parametrize("name", ["top_probabilities", "top_answers"])
def test_answers_and_probabilities_that_differ_in_number_are_refused(tmp_path: Path, name: str) -> None:
    run, made = tmp_path / "run", items(0)
    made[name] = made[name][:, :4]
    shard = run / "shards" / "00000.h5"
    write_shard(shard, made, {"shard": 0, "run_digest": DIGEST}, [])
    write_view(run / "explanations.h5", [shard], {"run_digest": DIGEST})
    (run / "run.json").write_text(
        json.dumps({"identity": {}, "image": {}, "images": "", "integer_ids": list(IDS)})
    )
    with RunReader(run) as reader, pytest.raises(HvxError, match=r"damaged \(zip\(\) argument 2 is"):
        reader[0]


@pytest.mark.parametrize("name", ["items", "digest"])
def test_an_index_whose_columns_differ_in_length_is_refused(tmp_path: Path, name: str) -> None:
    run = written(tmp_path / "run", False)
    with h5py.File(run / "explanations.h5", "r+") as file:
        values = file["index"][name][:]
        del file["index"][name]
        file["index"][name] = [*values, values[0]]
    write_checksum(run / "explanations.h5")
    with pytest.raises(HvxError, match="not the explanations of a run: zip"):
        RunReader(run)


# The sink


def test_a_sink_writes_reads_and_places_as_a_file(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb+", buffering=0) as file:
        sink = Sink(file)
        assert sink.write(memoryview(b"abcdef")) == 6
        assert (sink.tell(), sink.seek(2), sink.read(3), sink.tell()) == (6, 2, b"cde", 5)
        assert (sink.seek(-1, 2), sink.read(), sink.read()) == (5, b"f", b"")
        buffer = bytearray(4)
        assert (sink.seek(4), sink.readinto(memoryview(buffer)), bytes(buffer)) == (4, 2, b"ef\0\0")
        assert sink.truncate(3) == 3
        sink.flush()
        sink.check()
    assert (tmp_path / "a").read_bytes() == b"abc"


def test_a_write_in_parts_is_completed(tmp_path: Path) -> None:
    class Slow(FileIO):
        def write(self, data: object) -> int:
            return super().write(bytes(data)[:2])  # type: ignore[call-overload]

    with Slow(tmp_path / "a", "w+") as file:
        assert Sink(file).write(memoryview(np.arange(5, dtype=np.int16))) == 5
        assert (tmp_path / "a").read_bytes() == np.arange(5, dtype=np.int16).tobytes()


def test_the_first_failure_of_a_sink_is_raised(tmp_path: Path) -> None:
    class Failing(FileIO):
        def truncate(self, size: int | None = None) -> int:
            raise OSError(errno.EIO, f"truncate to {size}")

    with Failing(tmp_path / "a", "w+") as file:
        sink = Sink(file)
        assert (sink.truncate(5), sink.truncate(6)) == (5, 6)
        with pytest.raises(OSError, match="truncate to 5"):
            sink.check()
        sink.seek(0)
        assert sink.write(memoryview(b"abc")) == 3
        assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_write_is_raised_after_it(tmp_path: Path, number: signal.Signals) -> None:
    came: list[int] = []
    before = signal.signal(number, lambda got, frame: came.append(got))
    try:
        made = new_hdf5(tmp_path / "a", BLOCK)
        file, sink = made.__enter__()
        signal.raise_signal(number)
        file.attrs["a"] = 1
        assert (came, sink.stopped) == ([], [number])
        with pytest.raises(KeyboardInterrupt):
            made.__exit__(None, None, None)
        assert came == [number]
    finally:
        signal.signal(number, before)


def test_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    seen: list[object] = []
    before = signal.getsignal(signal.SIGINT)

    def write() -> None:
        with new_hdf5(tmp_path / "a", BLOCK):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert seen == [before]
    with h5py.File(tmp_path / "a") as file:
        assert file.userblock_size == BLOCK
