"""Is each level of a pyramid what the whole level before gives, and does it say where it lies?"""

from __future__ import annotations

import warnings
from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from zarr.errors import ZarrUserWarning

from blockflow import Local, Roi
from blockflow.arrays import Array, open_ds, prepare_ds
from blockflow.errors import GeometryError, PlanError
from blockflow.ops import downsample
from blockflow.ops.reduction import reduced

if TYPE_CHECKING:
    from pathlib import Path

HERE: dict[str, Any] = {"num_workers": 0, "progress": False}
THERE: dict[str, Any] = {"launcher": Local(2), "progress": False}


def by_hand(image: Any, factors: Any, method: str) -> Any:
    """One window after the other."""
    shape = [-(-n // f) for n, f in zip(image.shape, factors, strict=True)]
    result = np.zeros(shape, image.dtype)
    for place in product(*map(range, shape)):
        window = image[tuple(slice(i * f, (i + 1) * f) for i, f in zip(place, factors, strict=True))].ravel().tolist()
        if method == "mean":
            exact = sum(window) / len(window)
            result[place] = exact if image.dtype.kind == "f" else int(np.floor(exact + 0.5))
        elif method == "mode":
            votes = Counter(window)
            result[place] = min(value for value in votes if votes[value] == max(votes.values()))
        else:
            result[place] = {"max": max(window), "min": min(window), "nearest": window[0]}[method]
    return result


class TestReduced:
    @given(
        data=st.data(),
        shape=st.lists(st.integers(1, 7), min_size=1, max_size=3),
        dtype=st.sampled_from(["u1", "i2", "i8", "u4", "f8"]),
        method=st.sampled_from(["mean", "mode", "max", "min", "nearest"]),
    )
    def test_equals_windows_by_hand(self, data: Any, shape: list[int], dtype: str, method: Any) -> None:
        factors = [data.draw(st.integers(1, 3)) for _ in shape]
        low = 0 if dtype[0] == "u" else -3
        image = np.random.default_rng(data.draw(st.integers(0, 99))).integers(low, 4, shape).astype(dtype)
        assert_array_equal(reduced(image, factors, method), by_hand(image, factors, method))

    def test_large_values_do_not_wrap(self) -> None:
        assert reduced(np.full((4, 4), 65535, np.uint16), (4, 4), "mean").tolist() == [[65535]]
        assert reduced(np.full(3, 2**31 - 1, np.int32), (3,), "mean").tolist() == [2**31 - 1]
        assert reduced(np.array([True, True, False]), (3,), "mean").tolist() == [True]

    def test_channels_stay(self) -> None:
        image = np.arange(16).reshape(2, 2, 4)
        assert_array_equal(reduced(image, (2, 2), "max"), np.stack([reduced(part, (2, 2), "max") for part in image]))


class TestDownsample:
    @pytest.mark.parametrize("where", [HERE, THERE], ids=["here", "workers"])
    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_levels_and_metadata(self, where: Any, zarr_format: Any, tmp_path: Path) -> None:
        image = np.random.default_rng(0).integers(0, 255, (3, 21, 30)).astype("u1")
        source = Array(image, (40, 8), (8, 4), axis_names=("c", "y", "x"), units=("nanometer", "nanometer"))
        group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
        levels = downsample(source, group, levels=3, chunks=(3, 4, 8), **where)
        expected = image
        for number, level in enumerate(levels):
            assert_array_equal(level.to_ndarray(), expected)
            expected = reduced(expected, (2, 2), "mean")
            assert level.data.chunks == (3, 4, 8)
            attributes = open_ds(tmp_path / "a.zarr", str(number), "a").data.attrs
            attributes.put({})
            again = open_ds(tmp_path / "a.zarr", str(number))  # from the metadata of the group alone
            assert again.offset == (40, 8)
            assert again.voxel_size == (8 * 2**number, 4 * 2**number)
            assert again.axis_names == ("c", "y", "x")

    def test_a_level_that_is_there_is_the_first_one_and_shards_are_kept(self, tmp_path: Path) -> None:
        first = prepare_ds(
            tmp_path / "a.zarr", "s0", Roi((0, 0), (300, 40)), dtype="u2", chunks=(16, 8), shards=(32, 32)
        )
        first[first.roi] = np.arange(300 * 40).reshape(300, 40)
        group = zarr.open_group(tmp_path / "a.zarr")
        group.attrs["ome"] = {"omero": {"id": 1}, "multiscales": [{"name": "other"}, {"name": "image"}]}
        options: dict[str, Any] = {"factor": (2, 1), "method": "max", "run_dir": tmp_path / "run", **THERE}
        downsample(first, tmp_path / "a.zarr", **options)
        levels = downsample(first, tmp_path / "a.zarr", **options)
        assert [level.shape for level in levels] == [(300, 40), (150, 40), (75, 40), (38, 40)]
        assert levels[1].data.shards == (32, 32)
        assert_array_equal(levels[1].to_ndarray(), first.to_ndarray()[1::2])
        said: Any = zarr.open_group(tmp_path / "a.zarr").attrs["ome"]
        assert [image["name"] for image in said["multiscales"]] == ["other", "image"]
        assert [each["path"] for each in said["multiscales"][1]["datasets"]] == ["s0", "1", "2", "3"]
        assert said["omero"] == {"id": 1}

    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_what_zarr_alone_finds(self, zarr_format: Any, tmp_path: Path) -> None:
        """Times and channels, names of axes, units, centres, keys with slashes, and no copy that is out of date."""
        group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
        group.create_group("other")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)  # format v3 has not specified it yet
            zarr.consolidate_metadata(group.store)
        image = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 8, 8)).astype("u1")
        source = Array(image, (0, 6, 8), (40, 6, 4), axis_names=tuple("tczyx"), units=("nm", "nm", "0.1 pixel"))
        downsample(source, tmp_path / "a.zarr", factor=(1, 2, 2), levels=3, chunks=(1, 1, 4, 4, 4), **HERE)
        found = zarr.open_group(tmp_path / "a.zarr", mode="r")
        assert "1" in found
        attributes: Any = found.attrs.asdict()
        (said,) = attributes["multiscales"] if zarr_format == 2 else attributes["ome"]["multiscales"]
        assert said["axes"] == [
            {"name": "t", "type": "time"},
            {"name": "c", "type": "channel"},
            {"name": "z", "type": "space", "unit": "nanometer"},
            {"name": "y", "type": "space", "unit": "nanometer"},
            {"name": "x", "type": "space", "unit": "pixel"},
        ]
        level: Any = found["2"]
        steps = said["datasets"][2]["coordinateTransformations"]
        assert steps[0]["scale"] == [1, 1, 40, 24, 1.6]
        assert steps[1]["translation"] == pytest.approx([0, 0, 0, 6 + 9, 0.8 + 0.6])
        assert level.shape == (2, 3, 4, 2, 2)
        if zarr_format == 3:
            assert level.metadata.dimension_names == ("t", "c", "z", "y", "x")
        else:
            assert level.attrs["_ARRAY_DIMENSIONS"] == ["t", "c", "z", "y", "x"]
            assert (tmp_path / "a.zarr/2/0/0/0/0/0").is_file()
        assert_array_equal(level[1, 2], reduced(reduced(image[1, 2], (1, 2, 2), "mean"), (1, 2, 2), "mean"))

    def test_axes_without_names_get_those_of_ome_zarr(self, tmp_path: Path) -> None:
        for channels, names in ((0, ("y", "x")), (1, ("c", "y", "x"))):
            image = Array(np.zeros((2,) * channels + (8, 8)), voxel_size=(1, 1))
            downsample(image, tmp_path / f"{channels}.zarr", levels=2, **HERE)
            level: Any = zarr.open_array(tmp_path / f"{channels}.zarr/1")
            assert level.metadata.dimension_names == names

    def test_names_of_dimensions_are_passed_on(self, tmp_path: Path) -> None:
        source = zarr.create_array(tmp_path / "s.zarr", shape=(8, 8), dtype="u1", dimension_names=("row", "column"))
        downsample(tmp_path / "s.zarr", tmp_path / "a.zarr", levels=2, **HERE)
        level: Any = zarr.open_array(tmp_path / "a.zarr/1")
        assert level.metadata.dimension_names == source.metadata.dimension_names  # type: ignore[union-attr]

    def test_channels_before_time_are_refused(self, tmp_path: Path) -> None:
        image = Array(np.zeros((2, 2, 8, 8)), voxel_size=(1, 1), axis_names=tuple("ctyx"))
        with pytest.raises(GeometryError, match=r"a time axis, then one of channels, .* got axes called c, t, y, x"):
            downsample(image, tmp_path / "a.zarr", **HERE)

    def test_one_level_is_a_copy(self, tmp_path: Path) -> None:
        (level,) = downsample(np.arange(10), tmp_path / "a.zarr", levels=1, **HERE)
        assert level.to_ndarray().tolist() == list(range(10))

    def test_refused(self, tmp_path: Path) -> None:
        image = np.zeros((8, 8))
        with pytest.raises(
            PlanError, match="method must be one of 'mean', 'mode', 'max', 'min', 'nearest', got 'median'"
        ):
            downsample(image, tmp_path / "a.zarr", method="median", **HERE)  # type: ignore[arg-type]
        with pytest.raises(PlanError, match="factor must be a whole number of at least 1, got 0"):
            downsample(image, tmp_path / "a.zarr", factor=0, **HERE)
        with pytest.raises(GeometryError, match="factor must be one value, or one for each of 2 axes"):
            downsample(image, tmp_path / "a.zarr", factor=(2, 2, 2), **HERE)
        with pytest.raises(PlanError, match="factor must be larger than 1 on some axis"):
            downsample(image, tmp_path / "a.zarr", factor=1, **HERE)
        with pytest.raises(PlanError, match="levels must be a whole number of at least 1, got 0"):
            downsample(image, tmp_path / "a.zarr", levels=0, **HERE)
        with pytest.raises(GeometryError, match="image must have names for its axes, as 2 of them are not spatial"):
            downsample(Array(np.zeros((2, 2, 4)), voxel_size=(1,)), tmp_path / "a.zarr", **HERE)
        with pytest.raises(GeometryError, match="image must have 3 spatial axes at most"):
            downsample(np.zeros((2,) * 5), tmp_path / "b.zarr", levels=1, **HERE)
