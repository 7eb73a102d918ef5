"""Do other OME-Zarr libraries put our pyramids where we do, and we theirs? Those that are not installed are skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from blockflow.arrays import Array, open_ds
from blockflow.ops import downsample

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # of other libraries

IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 64)).astype("u1")
MICROMETERS = {"z": 0.4, "y": 0.325, "x": 0.325}


@pytest.fixture(params=[2, 3], ids=["0.4", "0.5"])
def ours(request: Any, tmp_path: Path) -> tuple[int, str]:
    """The zarr format and the path of a pyramid of ours: voxels of 40, 4, 4 nm, corner at 0, 8, 0."""
    path = str(tmp_path / "a.zarr")
    group = zarr.open_group(path, mode="w", zarr_format=request.param)
    source = Array(IMAGE, (0, 8, 0), (40, 4, 4), axis_names=("z", "y", "x"), units=("nanometer",) * 3)
    downsample(source, group, levels=3, num_workers=0, progress=False)
    return request.param, path


def test_ome_zarr_models(ours: tuple[int, str]) -> None:
    zarr_format, path = ours
    models: Any = pytest.importorskip("ome_zarr_models.v04" if zarr_format == 2 else "ome_zarr_models.v05")
    models.Image.from_zarr(zarr.open_group(path, mode="r"))


def test_ome_zarr_py_reads(ours: tuple[int, str]) -> None:
    io: Any = pytest.importorskip("ome_zarr.io")
    reader: Any = pytest.importorskip("ome_zarr.reader")
    node = next(iter(reader.Reader(io.parse_url(ours[1]))()))
    assert [level.shape for level in node.data] == [(64,) * 3, (32,) * 3, (16,) * 3]
    assert node.metadata["coordinateTransformations"][2][1]["translation"] == [60, 14, 6]


def test_ngff_zarr_reads(ours: tuple[int, str]) -> None:
    ngff: Any = pytest.importorskip("ngff_zarr")
    level = ngff.from_ngff_zarr(ours[1]).images[2]
    assert level.scale == {"z": 160, "y": 16, "x": 16}
    assert level.translation == {"z": 60, "y": 14, "x": 6}


def test_xarray_reads(ours: tuple[int, str]) -> None:
    xarray: Any = pytest.importorskip("xarray")
    levels = xarray.open_zarr(ours[1], consolidated=False, drop_variables=["1", "2"])
    assert levels["0"].dims == ("z", "y", "x")


def test_tensorstore_reads(ours: tuple[int, str]) -> None:
    tensorstore: Any = pytest.importorskip("tensorstore")
    store = {"driver": "file", "path": f"{ours[1]}/0"}
    spec = {"driver": "zarr" if ours[0] == 2 else "zarr3", "kvstore": store}
    assert (tensorstore.open(spec, open=True).result().read().result() == IMAGE).all()


def test_funlib_persistence_reads(ours: tuple[int, str]) -> None:
    persistence: Any = pytest.importorskip("funlib.persistence")
    level = persistence.open_ds(f"{ours[1]}/1")
    assert (tuple(level.voxel_size), tuple(level.roi.offset)) == ((80, 8, 8), (0, 8, 0))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_of_ome_zarr_py(version: str, tmp_path: Path) -> None:
    writer: Any = pytest.importorskip("ome_zarr.writer")
    formats: Any = pytest.importorskip("ome_zarr.format")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    writer.write_image(IMAGE, group, axes="zyx", fmt=formats.format_from_version(version), scale=MICROMETERS)
    check_levels(tmp_path / "a.zarr", ("0.001",) * 3)


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
def test_of_ngff_zarr(version: str, tmp_path: Path) -> None:
    ngff: Any = pytest.importorskip("ngff_zarr")
    units = dict.fromkeys("zyx", "micrometer")
    image = ngff.to_ngff_image(IMAGE, dims=list("zyx"), scale=MICROMETERS, axes_units=units)
    levels = ngff.to_multiscales(image, scale_factors=[2, 4])
    ngff.to_ngff_zarr(str(tmp_path / "a.zarr"), levels, version=version)
    check_levels(tmp_path / "a.zarr", ("nanometer",) * 3)


def check_levels(path: Path, units: tuple[str, ...]) -> None:
    said: Any = zarr.open_group(path, mode="r", use_consolidated=False).attrs.asdict()
    datasets = said.get("ome", said)["multiscales"][0]["datasets"]
    assert len(datasets) >= 3
    for dataset in datasets:
        level = open_ds(path / dataset["path"])
        smaller = [64 // n for n in level.shape]
        assert level.offset == (0, 0, 0)
        assert level.voxel_size == tuple(size * n for size, n in zip((400, 325, 325), smaller, strict=True))
        assert (level.units, level.axis_names) == (units, ("z", "y", "x"))
