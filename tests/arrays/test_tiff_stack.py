"""Is a folder of TIFF planes read as if it were one array, and little of it?"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from blockflow.arrays.tiff_stack import TiffStack
from blockflow.errors import ArrayError, ArrayNotFoundError, MetadataError

if TYPE_CHECKING:
    from pathlib import Path

tifffile = pytest.importorskip("tifffile", reason="needs the extra 'tiff'")

PLANES: Any = np.random.default_rng(0).integers(0, 60000, (12, 7, 9)).astype(np.uint16)


def write(folder: Path, planes: Any = PLANES, **options: Any) -> Path:
    folder.mkdir()
    for number, plane in enumerate(planes):
        tifffile.imwrite(folder / f"z{number}.tif", plane, **options)
    return folder


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_any_part_is_read(tmp_path: Path, compression: Any, byteorder: Any) -> None:
    stack = TiffStack(write(tmp_path / "planes", compression=compression, byteorder=byteorder))
    assert (stack.shape, stack.dtype) == (PLANES.shape, PLANES.dtype)
    for each in (stack, pickle.loads(pickle.dumps(stack))):
        for key in [
            ...,
            3,
            -1,
            (slice(2, 11, 3), 2),
            (slice(None), slice(1, 4), slice(-3, None)),
            (..., 5),
            slice(4, 4),
        ]:
            assert_array_equal(each[key], PLANES[key])
    assert_array_equal(np.asarray(stack), PLANES)
    assert len(stack._decoded) <= 4


def test_pages_of_a_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", PLANES, photometric="minisblack")
    assert_array_equal(TiffStack(tmp_path / "x.tif")[2:5, 1], PLANES[2:5, 1])


def test_colours_are_a_last_axis(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype("u1")
    assert_array_equal(TiffStack(write(tmp_path / "planes", colours, photometric="rgb"))[1:3, 2:4], colours[1:3, 2:4])


def test_order_of_the_names(tmp_path: Path) -> None:
    folder = write(tmp_path / "planes")
    assert [file.name for file, _ in TiffStack(folder).planes][:3] == ["z0.tif", "z1.tif", "z2.tif"]
    assert [file.name for file, _ in TiffStack(folder, natural=False).planes][:3] == ["z0.tif", "z1.tif", "z10.tif"]


def test_a_plane_that_is_like_no_other_is_named_when_it_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "planes")
    tifffile.imwrite(folder / "z7.tif", PLANES[0, :5])
    stack = TiffStack(folder)
    assert_array_equal(stack[:7], PLANES[:7])
    with pytest.raises(MetadataError) as info:
        stack[7]
    assert str(info.value) == (
        "all planes must be alike: the first has shape (7, 9) and dtype uint16, plane 7 (z7.tif) has (5, 9) and uint16"
    )


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArrayNotFoundError, match="no TIFF file or folder of them at"):
        TiffStack(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArrayNotFoundError, match="no TIFF file in"):
        TiffStack(tmp_path / "empty")
    (tmp_path / "text.tif").write_text("this is no image")
    with pytest.raises(MetadataError, match=r"text.tif is no TIFF file: "):
        TiffStack(tmp_path / "text.tif")
    stack = TiffStack(write(tmp_path / "planes"))
    with pytest.raises(ArrayError, match=r"a TIFF stack takes integers, slices and .* as an index, got list"):
        stack[[1, 2]]
    with pytest.raises(IndexError, match="too many indices"):
        stack[0, 0, 0, 0]
    (tmp_path / "planes" / "z3.tif").unlink()
    with pytest.raises(ArrayNotFoundError, match=r"a plane of the stack is missing: .*z3.tif"):
        stack[3]
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        ArrayError,
        match=r"^TIFF files need tifffile, which is not installed: pip install tifffile \(or .*-nd\[tiff\]'\)$",
    ):
        stack[4]


def test_a_compression_that_is_not_known_here_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path / "planes")
    name = tmp_path / "planes" / "z0.tif"
    tifffile.imwrite(name, PLANES[0], compression="zlib")
    with tifffile.TiffFile(name, mode="r+") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(50000)  # Zstandard: imagecodecs knows it, and Python from 3.14 on
    with pytest.raises(
        MetadataError, match=r"z0.tif cannot be decoded(: its compression needs imagecodecs, which| \()"
    ):
        TiffStack(tmp_path / "planes")


def test_a_compressed_plane_that_is_damaged_is_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path / "planes")
    name = tmp_path / "planes" / "z0.tif"
    tifffile.imwrite(name, PLANES[0], compression="zlib")
    with tifffile.TiffFile(name) as tiff:
        begin, length = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    with name.open("r+b") as file:
        file.seek(begin)
        file.write(b"\xff" * length)
    with pytest.raises(MetadataError, match=r"z0.tif cannot be decoded \(.*\): it is damaged, or its compression"):
        TiffStack(tmp_path / "planes")
