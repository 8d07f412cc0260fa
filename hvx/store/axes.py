"""Names the axes of a run's datasets with HDF5 dimension scales, as xarray and netCDF readers expect."""

from __future__ import annotations

import h5py
import numpy as np

from hvx.store.schema import AXES, FIELDS, FIRST_AXIS, Axis


def name_axes(file: h5py.File, image_size: int | None) -> None:
    """Give each dataset of the schema its dimension scales, its unit and its long name.

    The scale of the first axis is the dataset of the questions' texts. The scale of a spatial axis has the
    centers of its cells in pixels of the network's input, so that maps of different sizes are aligned.

    Args:
        file: with the datasets, none of which has a scale yet.
        image_size: side of the network's input in pixels; spatial axes are numbered from 0 if None.
    """
    scales: dict[str, h5py.Dataset] = {FIRST_AXIS: file[FIRST_AXIS]}
    scales[FIRST_AXIS].make_scale(FIRST_AXIS)
    for name, field in FIELDS.items():
        if name not in file:
            continue
        dataset = file[name]
        dataset.attrs["long_name"], dataset.attrs["units"] = field.long_name, field.units
        for number, dimension in enumerate(field.dimensions):
            if dimension not in scales:
                axis = AXES[field.axes[number - 1]]
                scales[dimension] = _scale(file, axis, dataset.shape[number], image_size)
            dataset.dims[number].label = dimension
            if dataset != scales[dimension]:  # a scale cannot have a scale
                dataset.dims[number].attach_scale(scales[dimension])


def _scale(file: h5py.File, axis: Axis, length: int, image_size: int | None) -> h5py.Dataset:
    """A new dimension scale with the positions along an axis."""
    positions = np.arange(axis.first, axis.first + length)
    if axis.pixels and image_size and length:
        scale = file.create_dataset(
            axis.name, data=((positions + 0.5) * image_size / length).astype(np.float32)
        )
        scale.attrs["units"] = "pixel"
    else:
        scale = file.create_dataset(axis.name, data=positions.astype(np.int32))
        scale.attrs["units"] = "1"
    scale.attrs["long_name"] = axis.long_name
    scale.make_scale(axis.name)
    return scale
