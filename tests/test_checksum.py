"""Damage to a run's files: every bit is guarded, and HDF5 is given no file that it could stumble over."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import Tiny, hvx
from made_runs import ITEMS, items, written

from hvx.errors import HvxError
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.run.verify import verify
from hvx.store.checksum import BLOCK, open_verified, verify_checksum, write_checksum
from hvx.store.reader import RunReader
from hvx.store.schema import FIELDS

OF_SOME = (
    "block_heatmaps", "textual_attention", "heatmap_scale", "block_heatmap_scale", "word_heatmaps",
    "word_heatmap_scale", "score", "word_attention", "phrase_attention",
)  # fmt: skip
"""Datasets of networks that have several blocks, or attend to words, and of 8-bit maps."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two shards."""
    return written(tmp_path / "run", solid=False)


def flipped(path: Path, place: int, bit: int) -> None:
    """Flip a bit of a file; a second time, the file is what it was."""
    with path.open("r+b", buffering=0) as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def everything(run: Path) -> dict[str, bytes]:
    """All that a reader gives of a run."""
    reader = RunReader(run)
    try:
        found = {name: reader.column(name) for name in FIELDS if name not in OF_SOME}
        each = [reader[number] for number in range(len(reader))]
    finally:
        reader.close()
    return {name: repr(column.tolist()).encode() for name, column in found.items()} | {
        "items": repr([(item.tokens, item.token_z, item.heatmap.tolist()) for item in each]).encode()
    }


def test_plain_h5py_reads_a_sealed_file(run: Path) -> None:
    with h5py.File(run / "explanations.h5", "r") as view:
        for name, values in items(1).items():
            found = view[name].asstr()[ITEMS:] if FIELDS[name].fill == "" else view[name][ITEMS:]
            wanted = values.astype(str) if FIELDS[name].fill == "" else values
            np.testing.assert_array_equal(found, wanted.astype(found.dtype))


@pytest.mark.parametrize("name", ["shards/00001.h5", "explanations.h5"])
def test_every_flipped_bit_is_found(run: Path, name: str) -> None:
    path, chance = run / name, random.Random(0)
    size = path.stat().st_size
    assert verify_checksum(path) is None
    places = [0, 12, 80, 200, BLOCK - 1, BLOCK, BLOCK + 8, size - 1]
    for place in [*places, *(chance.randrange(size) for _ in range(300))]:
        bit = chance.randrange(8)
        flipped(path, place, bit)
        assert verify_checksum(path), place
        flipped(path, place, bit)
    assert verify_checksum(path) is None


@pytest.mark.parametrize("solid", [False, True])
def test_a_run_with_a_flipped_bit_reads_the_same_or_is_refused(tmp_path: Path, solid: bool) -> None:
    """HDF5 meets none that could make it crash: this process would not outlive that."""
    run, chance = written(tmp_path / "run", solid), random.Random(1)
    whole = everything(run)
    path = run / "explanations.h5" if solid else run / "shards" / "00000.h5"
    lines = []
    size = path.stat().st_size
    for place in range(0, size, size // 251):
        bit = chance.randrange(8)
        flipped(path, place, bit)
        try:
            assert everything(run) == whole, place
        except HvxError as error:
            lines.append(str(error))
        flipped(path, place, bit)
    assert len(lines) > 100
    assert all(line.startswith(str(run)) and ": damaged (" in line for line in lines)
    assert everything(run) == whole


def test_the_core_is_all_but_the_chunked_numbers(run: Path) -> None:
    path = run / "shards" / "00000.h5"
    with h5py.File(path, "r") as file:
        chunks = [
            file[name].id.get_chunk_info(0)
            for name in (
                "heatmap",
                "attention",
                "gradient",
                "block_heatmaps",
                "word_heatmaps",
                "word_heatmaps",
            )
        ]  # of a question's two words each has a chunk
    for chunk in chunks:
        for place in (chunk.byte_offset, chunk.byte_offset + chunk.size - 1):
            flipped(path, place, 3)
            assert verify_checksum(path, "core") is None and verify_checksum(path) == "its bytes changed"
            flipped(path, place, 3)
    numbers = sum(
        ITEMS * chunk.size for chunk in chunks
    )  # the chunks of a dataset differ little in what they pack to
    step = path.stat().st_size // 1000
    found = sum(_found(path, place) for place in range(0, path.stat().st_size, step)) * step
    assert abs(path.stat().st_size - numbers - found) < path.stat().st_size / 20


def _found(path: Path, place: int) -> bool:
    flipped(path, place, 0)
    found = verify_checksum(path, "core") is not None
    flipped(path, place, 0)
    return found


def test_a_flipped_number_is_refused_by_its_own_checksum(run: Path) -> None:
    with h5py.File(run / "shards" / "00001.h5", "r") as file:
        chunk = file["heatmap"].id.get_chunk_info(1)
    flipped(run / "shards" / "00001.h5", chunk.byte_offset + chunk.size // 2, 5)
    reader = RunReader(run)
    assert [reader[number].question_id for number in (0, 1, 2, 3, 5)] == [0, 1, 2, 100, 102]
    with pytest.raises(HvxError, match="damaged"):
        reader[ITEMS + 1]
    with pytest.raises(HvxError, match="damaged"):
        reader.column("heatmap")


def test_a_damaged_shard_costs_its_own_items_alone(run: Path) -> None:
    with (run / "shards" / "00001.h5").open("rb+") as file:
        file.truncate(BLOCK + 2000)
    reader = RunReader(run)
    assert [reader[number].question_id for number in range(ITEMS)] == [0, 1, 2]
    for read in (lambda: reader[ITEMS], lambda: reader[-1], lambda: reader.column("answer")):
        with pytest.raises(HvxError, match=r"00001\.h5: damaged \(another length.*--verify"):
            read()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no seal"),
        (b"hvx sha256 ", "no seal"),
        (b"\x89HDF\r\n\x1a\n" + bytes(4000), "no seal"),
        (bytes(BLOCK), "no seal"),
    ],
)
def test_a_file_without_a_seal_is_damaged(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "00000.h5"
    path.write_bytes(content)
    for depth in ("length", "core", "all"):
        assert reason in str(verify_checksum(path, depth))
    with pytest.raises(HvxError, match="no seal"), open_verified(path):
        pass


def test_an_absent_file_is_damaged(tmp_path: Path) -> None:
    assert verify_checksum(tmp_path / "00000.h5", "length") == "No such file or directory"


def test_many_spans_of_numbers_leave_the_smallest_to_the_core(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(BLOCK) + random.Random(2).randbytes(100_000))
    spans = [(BLOCK + 1000 * n, BLOCK + 1000 * n + 10 * (n + 1)) for n in range(60)]
    write_checksum(path, spans)
    assert verify_checksum(path) is None
    for n, (start, end) in enumerate(spans):
        for place, inside in ((start, n >= 40), (end - 1, n >= 40), (end, False), (start - 1, False)):
            if place < BLOCK:
                continue
            flipped(path, place, 1)
            assert verify_checksum(path)
            assert (verify_checksum(path, "core") is None) == inside, (n, place)
            flipped(path, place, 1)


@pytest.mark.parametrize("fault", ["block", "tables", "text", "numbers", "truncated", "view", "view gone"])
def test_damage_is_found_named_set_aside_and_made_again(
    tiny: Tiny, finished_run: Path, tmp_path: Path, fault: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shard, view = run / "shards" / "00001.h5", run / "explanations.h5"
    with h5py.File(shard, "r") as file:
        numbers = file["heatmap"].id.get_chunk_info(0).byte_offset
        text = shard.read_bytes().index(file["question"][0])
    places = {"block": 100, "tables": BLOCK + 60, "text": text, "numbers": numbers}
    struck = view if fault.startswith("view") else shard
    if fault in places:
        flipped(shard, places[fault], 4)
    elif fault == "truncated":
        shard.write_bytes(shard.read_bytes()[:-1000])
    elif fault == "view":
        flipped(view, view.stat().st_size // 2, 1)
    else:
        view.unlink()
    done = hvx("info", run, "--verify")
    assert done.returncode == 3, done.stderr
    if fault != "view gone":
        assert f"{struck}: damaged (" in done.stdout
        assert struck.with_name(f"{struck.name}.damaged").is_file() and not struck.exists()
    explain_split(tiny.load(run, explain__gradient=True), local_engine(torch.device("cpu")))
    assert everything(run) == everything(finished_run)
    assert hvx("info", run, "--verify").returncode == 0


def test_a_packed_run_goes_without_its_shards(tmp_path: Path) -> None:
    run = written(tmp_path / "run", solid=True)
    whole = everything(run)
    assert verify(run).finished
    flipped(run / "shards" / "00001.h5", 5000, 1)
    found = verify(run)
    assert list(found.damaged) == [run / "shards" / "00001.h5"]
    assert (found.whole, found.absent, found.finished, found.read_only) == (1, 0, True, False)
    assert everything(run) == whole
    found = verify(run)
    assert (found.whole, found.absent, found.finished, found.damaged) == (1, 0, True, {})
    shutil.rmtree(run / "shards")
    found = verify(run)
    assert (found.finished, found.absent, found.damaged) == (True, 0, {})
    assert everything(run) == whole
    flipped(run / "explanations.h5", 5000, 1)
    found = verify(run)
    assert list(found.damaged) == [run / "explanations.h5"] and found.absent == 2 and not found.finished
