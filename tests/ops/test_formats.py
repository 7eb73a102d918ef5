"""Is it said, before anything runs, which formats are read and written, and what is not there?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blockflow import Roi, map_blocks
from blockflow.arrays import open_ds, prepare_ds
from blockflow.arrays.formats import nothing_at
from blockflow.errors import ArrayError, ArrayNotFoundError, MetadataError

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = np.arange(64, dtype=np.uint8).reshape(8, 8)
HERE: dict[str, Any] = {"grid": 4, "num_workers": 0, "progress": False}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x.tif", "TIFF is only read, got .*x.tif.*; outputs that are made are zarr arrays .* and '.npy' files"),
        ("x.TIFF", "TIFF is only read"),
        ("x.h5/data", "must exist if it is in an HDF5 file"),
        ("x.png", "'.png' files are not"),
        ("volume.n5", "'.n5' files are not"),
        ("x.nii.gz", "'.gz' files are not"),
    ],
)
def test_formats_that_are_not_made(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ArrayError, match=message):
        map_blocks(np.copy, IMAGE, out=tmp_path / path, **HERE)
    with pytest.raises(ArrayError, match=message):
        prepare_ds(tmp_path / path, total_roi=Roi((0,), (8,)), dtype="u1")
    assert not list(tmp_path.iterdir())


def test_formats_that_are_made(tmp_path: Path) -> None:
    for path in ("x.npy", "new/folder/y.npy", "x.zarr/raw", "x.zarr/image.tif", "plain", "out.v2", "a:b"):
        made = map_blocks(np.copy, IMAGE, out=tmp_path / path, **HERE)
        np.testing.assert_array_equal(np.asarray(made), IMAGE)


def test_tiff_files_that_are_there_are_not_written(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "x.tif", IMAGE[None])
    (tmp_path / "folder").mkdir()
    tifffile.imwrite(tmp_path / "folder" / "z0.tif", IMAGE)
    before = (tmp_path / "x.tif").read_bytes()
    for path in ("x.tif", "folder"):
        with pytest.raises(ArrayError, match="out must be of a format that is written, and TIFF is only read"):
            map_blocks(np.copy, IMAGE, out=tmp_path / path, **HERE)
    assert (tmp_path / "x.tif").read_bytes() == before


@pytest.mark.parametrize(
    "name", ["simple.zarr/raw", "simple.npy", "simple.tif", "simple.h5/raw", "simple.png", "simple"]
)
def test_a_typing_mistake_names_what_is_similar(tmp_path: Path, name: str) -> None:
    (tmp_path / f"sample{(tmp_path / name.split('/')[0]).suffix}").mkdir()
    first = name.split("/")[0]
    with pytest.raises(ArrayNotFoundError, match=rf"nothing is at .*there is no '{first}' in {tmp_path}; similar: 'sa"):
        map_blocks(np.copy, tmp_path / name, **HERE)


def test_nothing_at_a_path_whose_folders_are_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert nothing_at(tmp_path / "a" / "b" / "c") == f"nothing is at {tmp_path}/a/b/c: there is no 'a' in {tmp_path}"
    assert f"there is no 'b' in {tmp_path}/file" in nothing_at(tmp_path / "file" / "b")


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("text")
    (tmp_path / "bad.npy").write_text("text")
    with pytest.raises(ArrayError, match=r"source 0 must be a zarr array, .*got the file"):
        map_blocks(np.copy, tmp_path / "notes", **HERE)
    with pytest.raises(ArrayError, match=r"source 0 cannot be mapped as a \.npy file"):
        map_blocks(np.copy, tmp_path / "bad.npy", **HERE)
    with pytest.raises((ArrayNotFoundError, MetadataError), match="is a file, and no zarr store"):
        open_ds(tmp_path / "notes")


def test_a_group_with_many_members_is_not_listed_whole(tmp_path: Path) -> None:
    import zarr

    group = zarr.open_group(tmp_path / "x.zarr")
    for number in range(25):
        group.create_group(f"g{number:02}")
    with pytest.raises(ArrayNotFoundError, match="'g19' and 5 more"):
        open_ds(tmp_path / "x.zarr", "raw")


def test_a_mask_by_path(tmp_path: Path) -> None:
    mask = prepare_ds(tmp_path / "x.zarr", "mask", Roi((0, 0), (8, 8)), dtype="u1", write_size=(4, 4))
    mask[Roi((0, 0), (4, 8))] = 1
    found = map_blocks(np.copy, IMAGE, mask=tmp_path / "x.zarr" / "mask", **HERE)
    np.testing.assert_array_equal(found[:4], IMAGE[:4])
    assert not found[4:].any()
