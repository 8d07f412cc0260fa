"""Heat maps stored smaller or in 8 bits: what is kept, and what a run says of its size."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Tiny
from PIL import Image
from test_worker import columns_of, explanations

from hvx.cli.main import main
from hvx.config import Config, HeatmapConfig
from hvx.errors import HvxError
from hvx.run.explain import Options, explain_split
from hvx.run.local import local_engine
from hvx.store.heatmaps import from_8_bits, is_finite_half, shrunk, to_8_bits
from hvx.store.reader import RunReader

CPU = torch.device("cpu")


def test_a_smaller_map_holds_the_means_of_squares() -> None:
    maps = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    small = shrunk(maps, 4)
    assert small.shape == (2, 3, 4, 4)
    for n, block, row, column in np.ndindex(2, 3, 4, 4):
        square = maps[n, block, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        assert abs(float(small[n, block, row, column]) - float(square.mean())) < 1e-12
    assert shrunk(maps, None) is maps and shrunk(maps, 12) is maps


def test_square_roots_in_eight_bits_are_off_by_half_a_step_at_most() -> None:
    maps = np.random.default_rng(0).gamma(2, 3, (5, 2, 7, 6)).astype(np.float32)
    maps[1, 0] *= 1e5
    maps[2, 1] *= 1e-5
    maps[3, 0] = 0
    stored, factor = to_8_bits(maps)
    assert stored.dtype == np.uint8 and factor.shape == (5, 2) and factor.dtype == np.float32
    back = from_8_bits(stored, factor)
    assert back.dtype == np.float32 and back.shape == maps.shape
    off = np.abs(np.sqrt(back) - np.sqrt(maps)).max((2, 3))
    assert (off <= np.sqrt(factor) / 2 * (1 + 1e-3)).all()
    np.testing.assert_allclose(back.max((2, 3)), maps.max((2, 3)), rtol=1e-6)
    assert (stored.max((2, 3)) == 255).sum() == 9 and factor[3, 0] == 0 and not back[3, 0].any()


def test_each_half_precision_number_is_known_as_finite_or_not() -> None:
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert [is_finite_half(numbers[index : index + 1]) for index in range(2**16)] == np.isfinite(
        numbers
    ).tolist()
    assert is_finite_half(numbers[np.isfinite(numbers)]) and is_finite_half(numbers[:0])


@pytest.fixture(scope="module")
def small_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny split's run with heat maps of 16×16 in 8 bits."""
    run = tmp_path_factory.mktemp("small") / "run"
    explain_split(_config(tiny, run, 16, "uint8"), local_engine(CPU))
    return run


def _config(tiny: Tiny, run: Path, size: int | None, dtype: str) -> Config:
    return tiny.load(run, explain__heatmap__size=size or "null", explain__heatmap__dtype=dtype)


@pytest.mark.parametrize("pack", [False, True])
def test_items_and_columns_are_the_full_maps_reduced(
    tiny: Tiny, finished_run: Path, small_run: Path, tmp_path: Path, pack: bool
) -> None:
    if pack:
        run = tmp_path / "run"
        shutil.copytree(small_run, run)
        explain_split(_config(tiny, run, 16, "uint8"), local_engine(CPU), Options(pack=True))
        shutil.rmtree(run / "shards")
    else:
        run = small_run
    with RunReader(run) as reader, RunReader(finished_run) as whole:
        assert reader.heatmap_size == (16, 16)
        column = reader.column("heatmap")
        assert column.dtype == np.float32 and len(reader) == len(whole)
        for number in range(len(reader)):
            expected = whole[number].heatmap.reshape(16, 4, 16, 4).mean((1, 3))
            own = reader[number].heatmap
            np.testing.assert_array_equal(own, column[number])
            # Half a step of 8 bits at the peak, and the half precision of the whole map.
            assert np.abs(own - expected).max() <= (1 / 255 + 1e-3) * expected.max()
    with h5py.File(run / "explanations.h5") as file:
        assert file["heatmap"].dtype == np.uint8
        assert file["heatmap_scale"].dtype == np.float32


def test_each_blocks_map_has_a_factor_of_its_own() -> None:
    made = explanations()
    assert made.block_heatmaps is not None
    square = made.heatmap[..., :4], made.block_heatmaps[..., :4].clone()
    made = replace(made, heatmap=square[0], block_heatmaps=square[1], word_heatmaps=None)
    assert made.block_heatmaps is not None
    made.block_heatmaps[:, 0] *= 1000
    stored = HeatmapConfig(size=2, dtype="uint8")
    stacked, _ = columns_of(made, stored)
    blocks = made.block_heatmaps.shape[1]
    assert stacked["block_heatmaps"].shape == (3, blocks, 2, 2)
    assert stacked["block_heatmap_scale"].shape == (3, blocks)
    assert stacked["heatmap"].shape == (3, 2, 2) and stacked["heatmap_scale"].shape == (3,)
    assert stacked["heatmap"].dtype == stacked["block_heatmaps"].dtype == np.uint8
    back = from_8_bits(stacked["block_heatmaps"], stacked["block_heatmap_scale"])
    expected = shrunk(made.block_heatmaps, 2).numpy()
    assert (np.abs(back - expected) <= expected.max((2, 3), keepdims=True) / 250).all()


@pytest.mark.parametrize(("size", "near"), [(63, "8, 16, 32, 64"), (128, "8, 16, 32, 64"), (24, "32, 64")])
def test_a_size_that_does_not_divide_the_images_is_refused(
    tiny: Tiny, tmp_path: Path, size: int, near: str
) -> None:
    with pytest.raises(HvxError) as raised:
        explain_split(_config(tiny, tmp_path / "run", size, "float16"), local_engine(CPU))
    said = str(raised.value)
    assert said.startswith("explain.heatmap.size: expected a divisor of 64") and said.endswith(f"not {size}")
    assert near in said
    assert not (tmp_path / "run").exists()


def test_every_command_reads_small_maps(small_run: Path, finished_run: Path, tmp_path: Path) -> None:
    for name, made in (("small", small_run), ("whole", finished_run)):
        run = tmp_path / "runs" / name  # measuring writes into a run, and others share these
        shutil.copytree(made, run)
        for command in (
            ["figure", run, "-o", tmp_path / f"{name}.png", "--rows", 2, "--outline", "--width", 600],
            ["gallery", run, "-o", tmp_path / name],
            ["info", run],
            ["measure", run, "-o", tmp_path / f"measure {name}", "--sample", 12, "--curves", 2, "--sanity", 0,
             "--methods", "attention,gradient", "--device", "cpu"],
        ):  # fmt: skip
            done = CliRunner().invoke(main, [str(part) for part in command])
            assert done.exit_code == 0, done.output
        assert json.loads((tmp_path / f"measure {name}" / "measure.json").read_text())
    assert "heat maps:    16×16" in CliRunner().invoke(main, ["info", str(small_run)]).output
    with Image.open(tmp_path / "small.png") as small, Image.open(tmp_path / "whole.png") as whole:
        apart = np.abs(np.asarray(small.convert("L"), float) - np.asarray(whole.convert("L"), float))
    assert small.size == whole.size and 0 < apart.mean() < 4


def test_another_size_or_dtype_is_another_run(tiny: Tiny, small_run: Path) -> None:
    for size, dtype in ((16, "float16"), (32, "uint8"), (None, "uint8")):
        with pytest.raises(HvxError, match="holds a run with another heatmap"):
            explain_split(_config(tiny, small_run, size, dtype), local_engine(CPU))


Usage = namedtuple("Usage", "total used free")


def test_a_run_that_the_disk_has_no_room_for_is_refused_before_it_begins(
    tiny: Tiny, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 100_000
    monkeypatch.setattr("hvx.run.size.shutil.disk_usage", lambda path: Usage(0, 0, free))
    monkeypatch.setattr("hvx.run.size._MUCH", 0)
    run = tmp_path / "run"
    with pytest.raises(HvxError) as raised:
        explain_split(tiny.load(run), local_engine(CPU))
    assert str(raised.value).startswith(f"{run}: the run needs about ")
    assert "and 100 kB are free; explain.heatmap {size, dtype} makes it smaller" in str(raised.value)
    assert not run.exists()
    # What is there needs no room again.
    explain_split(tiny.load(finished_run, explain__gradient=True), local_engine(CPU))


def test_the_size_of_a_large_run_is_said_first(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hvx.run.size._MUCH", 100_000)
    lines: list[str] = []
    run = tmp_path / "run"
    explain_split(tiny.load(run), local_engine(CPU), log=lines.append)
    about = json.loads((run / "run.json").read_text())
    assert about["finished"]
    size = sum(path.stat().st_size for path in (run / "shards").iterdir())
    said = next(line for line in lines if " explanations take about " in line)
    assert said.startswith(f"{run}: ")
    number, unit = said.rsplit(" ", 2)[1:]
    expected = float(number) * {"kB": 1e3, "MB": 1e6}[unit]
    assert 0.6 < expected / size < 1.7
