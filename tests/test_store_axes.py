"""The named dimensions of a run's files, as xarray and plain h5py read them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from made_runs import DIGEST, items

from hvx.store.schema import FIELDS
from hvx.store.writer import write_shard, write_solid, write_view

CROP = {"crop": {"scaled_to": [48, 48]}, "run_digest": DIGEST}
DIMENSIONS = {
    "question_id": ("question",),
    "top_answers": ("question", "rank"),
    "tokens": ("question", "token"),
    "token_z": ("question", "token"),
    "attention": ("question", "glimpse", "grid_row", "grid_column"),
    "heatmap": ("question", "row", "column"),
    "block_heatmaps": ("question", "block", "row", "column"),
    "block_heatmap_scale": ("question", "block"),
    "gradient": ("question", "channel", "row", "column"),
}


@pytest.fixture(params=["shard", "view", "solid"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    shards = [tmp_path / "shards" / f"{number:05d}.h5" for number in range(2)]
    for number, shard in enumerate(shards):
        write_shard(shard, items(number), CROP | {"shard": number}, [])
    if request.param == "shard":
        return shards[1]
    write = write_view if request.param == "view" else write_solid
    write(tmp_path / "explanations.h5", shards, CROP)
    return tmp_path / "explanations.h5"


def test_xarray_shows_every_dataset_with_named_dimensions(path: Path) -> None:
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        assert set(FIELDS) <= set(data.variables)
        for name, dimensions in DIMENSIONS.items():
            assert data[name].dims == dimensions, name
        for name, field in FIELDS.items():
            assert data[name].dims == field.dimensions, name
            assert data[name].attrs["long_name"] == field.long_name != "", name
            assert data[name].attrs["units"] == field.units, name
        assert data["question"].dims == ("question",)


def test_positions_of_cells_are_pixels_of_the_networks_input(path: Path) -> None:
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        for axis in ("row", "column"):  # 24 cells over 48 pixels
            np.testing.assert_allclose(data[axis], 1 + 2 * np.arange(24))
            assert data[axis].attrs["units"] == "pixel"
        for axis in ("grid_row", "grid_column"):  # 3 cells
            np.testing.assert_allclose(data[axis], [8, 24, 40])
        assert data["rank"].values.tolist() == [1, 2, 3, 4, 5]
        assert data["block"].values.tolist() == data["channel"].values.tolist() == [0, 1, 2]
        assert data["glimpse"].values.tolist() == [0, 1]
        longest = data.sizes["token"]
        assert data["token"].values.tolist() == list(range(longest)) and longest == 3
        # The same place by its coordinate in two maps of different sizes.
        assert data["heatmap"].sel(row=24, method="nearest").row in (23, 25)
        assert data["attention"].sel(grid_row=24).shape == (data.sizes["question"], 2, 3)


def test_an_item_is_selected_by_its_text(path: Path) -> None:
    made = items(1)
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        found = data.sel(question=str(made["question"][2]))
        assert int(found["question_id"]) == made["question_id"][2]
        np.testing.assert_array_equal(found["heatmap"], made["heatmap"][2])


def test_a_shard_without_items_is_written_too(tmp_path: Path) -> None:
    empty = {name: values[:0] for name, values in items(0).items()}
    write_shard(tmp_path / "a.h5", empty, CROP, [])
    with h5py.File(tmp_path / "a.h5") as file:
        assert [dimension.label for dimension in file["heatmap"].dims] == ["question", "row", "column"]


def test_without_the_images_size_cells_are_counted(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5", items(0), {"crop": {}}, [])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["grid_row"][:].tolist() == [0, 1, 2]
        assert file["grid_row"].attrs["units"] == "1"
