"""Does an image never take, or destroy, the arrays of another one?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

from blockflow import Roi
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.errors import ArrayError, GeometryError, PlanError
from blockflow.ops import downsample

if TYPE_CHECKING:
    from pathlib import Path

HERE: dict[str, Any] = {"levels": 2, "num_workers": 0, "progress": False}
RAW = np.random.default_rng(0).integers(0, 200, (16, 16)).astype("u1")
OTHER = (RAW > 100).astype("u1")


def paths_of(group: Path) -> dict[str, list[str]]:
    said: Any = zarr.open_group(group).attrs["ome"]
    return {image["name"]: [each["path"] for each in image["datasets"]] for image in said["multiscales"]}


def test_a_second_image_of_another_name_has_paths_of_its_own(tmp_path: Path) -> None:
    group = tmp_path / "a.zarr"
    downsample(RAW, group, name="raw", **HERE)
    levels = downsample(OTHER, group, name="cells", method="mode", **HERE)
    assert paths_of(group) == {"raw": ["0", "1"], "cells": ["cells/0", "cells/1"]}
    assert_array_equal(open_ds(group, "0").to_ndarray(), RAW)
    assert_array_equal(levels[0].to_ndarray(), OTHER)
    downsample(RAW, group, name="cells", overwrite=True, **HERE)
    assert paths_of(group)["cells"] == ["cells/0", "cells/1"]
    assert_array_equal(open_ds(group, "cells/0").to_ndarray(), RAW)


def test_a_second_image_of_the_same_name_is_refused_or_asked_for(tmp_path: Path) -> None:
    group = tmp_path / "a.zarr"
    downsample(RAW, group, **HERE)
    for image in (OTHER, RAW):
        with pytest.raises(
            ArrayError, match=r"something is at .*a.zarr/0, and not of a run .*overwrite=True to delete"
        ):
            downsample(image, group, **HERE)
        with pytest.raises(ArrayError, match="something is at"):
            downsample(image, group, run_dir=tmp_path / "another", **HERE)
    assert not (tmp_path / "another").exists()
    assert_array_equal(open_ds(group, "0").to_ndarray(), RAW)
    downsample(OTHER, group, overwrite=True, **HERE)
    assert_array_equal(open_ds(group, "0").to_ndarray(), OTHER)


def test_an_array_that_is_no_level_is_not_taken(tmp_path: Path) -> None:
    group = tmp_path / "a.zarr"
    source = prepare_ds(group, "raw", Roi((0, 0), (16, 16)), dtype="u1", chunks=(8, 8))
    source[source.roi] = RAW
    alike = prepare_ds(group, "1", Roi((0, 0), (8, 8)), (2, 2), dtype="u1", chunks=(8, 8))
    alike[alike.roi] = 7
    with pytest.raises(ArrayError, match="something is at"):
        downsample(source, group, **HERE)
    assert (alike.to_ndarray() == 7).all()


def test_a_run_goes_on_with_its_own_levels(tmp_path: Path) -> None:
    group = tmp_path / "a.zarr"
    downsample(RAW, group, run_dir=tmp_path / "run", **HERE)
    levels = downsample(RAW, group, run_dir=tmp_path / "run", **HERE)
    assert_array_equal(levels[0].to_ndarray(), RAW)


def test_the_image_is_found_in_the_group_by_any_name(tmp_path: Path) -> None:
    group = tmp_path / "a.zarr"
    source = prepare_ds(group, "0", Roi((0, 0), (16, 16)), dtype="u1", chunks=(8, 8))
    source[source.roi] = RAW
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    (tmp_path / "level").symlink_to("a.zarr/0")
    for other in (tmp_path / "level", tmp_path / "link.zarr" / "0", zarr.open_array(f"{tmp_path}/link.zarr/0")):
        levels = downsample(other, group, overwrite=True, **HERE)
        assert paths_of(group) == {"image": ["0", "1"]}
        assert_array_equal(levels[0].to_ndarray(), RAW)
    assert_array_equal(source.to_ndarray(), RAW)


def test_label_images_are_listed(tmp_path: Path) -> None:
    group = tmp_path / "a.zarr"
    downsample(RAW, group, **HERE)
    with pytest.raises(PlanError, match=r"pass group='.*a\.zarr/labels/NAME'"):
        downsample(OTHER, group, name="labels", **HERE)
    for name in ("nuclei", "cells"):
        downsample(OTHER, group / "labels" / name, method="mode", **HERE)
    assert zarr.open_group(group / "labels").attrs["ome"] == {"version": "0.5", "labels": ["cells", "nuclei"]}
    zarr.open_group(tmp_path / "b.zarr", zarr_format=2)
    downsample(OTHER, tmp_path / "b.zarr" / "labels" / "cells", **HERE)
    assert zarr.open_group(tmp_path / "b.zarr" / "labels").attrs["labels"] == ["cells"]


@pytest.mark.parametrize("name", ["", "../x", "a/../b", "a//b"])
def test_a_name_that_cannot_be_a_folder(tmp_path: Path, name: str) -> None:
    downsample(RAW, tmp_path / "a.zarr", name="raw", **HERE)
    with pytest.raises(PlanError, match="name must be one of a folder"):
        downsample(OTHER, tmp_path / "a.zarr", name=name, **HERE)


def test_overwrite_is_a_flag(tmp_path: Path) -> None:
    downsample(RAW, tmp_path / "a.zarr", **HERE)
    with pytest.raises(PlanError, match="overwrite must be True or False, got 'no'"):
        downsample(OTHER, tmp_path / "a.zarr", overwrite="no", **HERE)  # type: ignore[arg-type]
    assert_array_equal(open_ds(tmp_path / "a.zarr", "0").to_ndarray(), RAW)


def test_places_are_kept(tmp_path: Path) -> None:
    image = Array(RAW, offset=(40, 8), voxel_size=(8, 4), axis_names=("y", "x"))
    downsample(RAW, tmp_path / "a.zarr", name="raw", **HERE)
    levels = downsample(image, tmp_path / "a.zarr", name="placed", **HERE)
    assert (levels[1].offset, levels[1].voxel_size) == ((40, 8), (16, 8))


@pytest.mark.parametrize(
    ("image", "axes"),
    [
        (np.zeros((2, 8, 8, 8)), "4 axes of shape"),
        (Array(np.zeros((2, 8, 8, 8)), axis_names=("c", "z", "y", "x")), "4 axes called c, z, y, x"),
        (Array(np.zeros((2, 8, 8)), axis_names=("t", "y", "x")), "3 axes called t, y, x"),
        (np.zeros((2, 2, 8, 8, 8)), "5 axes of shape"),
    ],
)
def test_channels_are_not_guessed(tmp_path: Path, image: Any, axes: str) -> None:
    with pytest.raises(GeometryError, match=f"3 spatial axes at most, and none of channels or time .*{axes}"):
        downsample(image, tmp_path / "a.zarr", **HERE)
    assert not list(tmp_path.iterdir())


def test_channels_that_are_said_stay_apart(tmp_path: Path) -> None:
    image = np.zeros((2, 8, 8, 8), "u1")
    image[0] = 200
    levels = downsample(Array(image, voxel_size=(1, 1, 1)), tmp_path / "a.zarr", **HERE)
    assert levels[1].to_ndarray().max(axis=(1, 2, 3)).tolist() == [200, 0]
