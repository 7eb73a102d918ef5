"""Is a folder of TIFF planes read as if it were one array, and little of it?"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from blockflow.arrays.tiff_stack import TiffStack
from blockflow.errors import ArrayError, ArrayNotFoundError, MetadataError, PlanError

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


def test_planes_behind_one_page_as_imagej_writes_files_of_more_than_4_gb(tmp_path: Path) -> None:
    name = tmp_path / "x.tif"
    tifffile.imwrite(name, PLANES, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(name) as tiff:
        assert len(tiff.pages) == 1
    for stack in (TiffStack(name), pickle.loads(pickle.dumps(TiffStack(name)))):
        assert (stack.shape, stack.dtype, stack.axes) == (PLANES.shape, PLANES.dtype, "ZYX")
        assert_array_equal(stack[...], PLANES)
        assert_array_equal(stack[-1, 2:4], PLANES[-1, 2:4])
    with name.open("r+b") as file:
        file.truncate(name.stat().st_size - PLANES[0].nbytes)
    with pytest.raises(MetadataError, match=r"x.tif is truncated: its metadata tell of 12 planes, it holds 1"):
        TiffStack(name)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
def test_axes_are_those_of_the_metadata(tmp_path: Path, kind: str, compression: Any) -> None:
    image = PLANES.reshape(2, 3, 2, 7, 9)
    options: Any = {"imagej": {"imagej": True}, "ome": {"ome": True}, "shaped": {"photometric": "minisblack"}}[kind]
    metadata = None if kind == "shaped" else {"axes": "TZCYX"}
    tifffile.imwrite(tmp_path / "x.tif", image, compression=compression, metadata=metadata or {}, **options)
    stack = TiffStack(tmp_path / "x.tif")
    assert stack.shape == image.shape
    assert stack.axes == "TZCYX" or kind == "shaped"
    for key in [..., (1, slice(None), 1), (-1, 2, 0, 3), (slice(None), slice(1, 3), slice(None, None, 2), ..., 5)]:
        assert_array_equal(stack[key], image[key])


def test_one_of_several_images_of_a_file(tmp_path: Path) -> None:
    name = tmp_path / "x.tif"
    with tifffile.TiffWriter(name) as tiff:
        tiff.write(PLANES, photometric="minisblack")
        tiff.write(PLANES[:3, :4], photometric="minisblack")
    with pytest.raises(
        MetadataError, match=r"x.tif holds 2 images \(0: \(12, 7, 9\), 1: \(3, 4, 9\)\): choose one with"
    ):
        TiffStack(name)
    assert_array_equal(TiffStack(name, series=0)[...], PLANES)
    assert_array_equal(TiffStack(name, series=1)[...], PLANES[:3, :4])
    wrong: Any
    for wrong in (2, -1, True, "0"):
        with pytest.raises(PlanError, match=r"series must be a whole number from 0 to 1 for .*x.tif, got "):
            TiffStack(name, series=wrong)
    with pytest.raises(PlanError, match="series= chooses an image of a file"):
        TiffStack(tmp_path, series=0)


@pytest.mark.parametrize("where", [0, 5])
@pytest.mark.parametrize("one_page", [True, False])
def test_a_file_of_many_planes_in_a_folder_is_refused(tmp_path: Path, where: int, one_page: bool) -> None:
    folder = write(tmp_path / "planes")
    layout: Any = {"imagej": True, "truncate": True} if one_page else {"photometric": "minisblack"}
    tifffile.imwrite(folder / f"z{where}.tif", PLANES[:4], **layout)
    with pytest.raises(MetadataError, match=rf"each file of a folder must be one plane, and .*z{where}.tif holds 4"):
        TiffStack(folder)[where]


def test_a_missing_plane_is_named_at_once_unless_gaps_are_meant(tmp_path: Path) -> None:
    folder = write(tmp_path / "planes")
    (folder / "z9.tif").unlink()
    with pytest.raises(ArrayNotFoundError, match=r"there is no z9.tif between z8.tif and z10.tif in .*planes"):
        TiffStack(folder)
    assert_array_equal(TiffStack(folder, gaps=True)[...], np.delete(PLANES, 9, 0))
    wrong: Any = "no"
    for flags in ({"gaps": wrong}, {"natural": wrong}):
        with pytest.raises(PlanError, match="must be True or False, got 'no'"):
            TiffStack(folder, **flags)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("where", [0, 5])
def test_a_truncated_plane_of_a_folder_is_named(tmp_path: Path, where: int, compression: Any) -> None:
    folder = write(tmp_path / "planes", compression=compression)
    name = folder / f"z{where}.tif"
    with name.open("r+b") as file:
        file.truncate(name.stat().st_size - 20)
    with pytest.raises(MetadataError, match=rf"z{where}.tif is truncated: its pixels end at byte"):
        TiffStack(folder)[where]


def test_a_plane_that_is_truncated_later_is_named(tmp_path: Path) -> None:
    stack = TiffStack(write(tmp_path / "planes"))
    assert_array_equal(stack[3], PLANES[3])
    name = tmp_path / "planes" / "z3.tif"
    with name.open("r+b") as file:
        file.truncate(name.stat().st_size - 20)
    with pytest.raises(MetadataError, match=r"z3.tif is truncated: plane 3 ends after the file"):
        stack[3]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_file_of_pages_never_has_fewer_planes(tmp_path: Path, compression: Any) -> None:
    whole = tmp_path / "whole.tif"
    with tifffile.TiffWriter(whole) as tiff:
        for plane in PLANES:
            tiff.write(plane, compression=compression, contiguous=False, metadata=None)
    content = whole.read_bytes()
    name = tmp_path / "x.tif"
    for length in range(0, len(content), 23):
        name.write_bytes(content[:length])
        with pytest.raises((MetadataError, ArrayNotFoundError), match=r"x.tif"):
            TiffStack(name)[...]
    name.write_bytes(content)
    assert_array_equal(TiffStack(name)[...], PLANES)


def test_files_of_an_ome_tiff_that_are_missing(tmp_path: Path) -> None:
    name = tmp_path / "x.ome.tif"
    tifffile.imwrite(name, PLANES, metadata={"axes": "ZYX"}, compression="zlib")
    with tifffile.TiffFile(name) as tiff:
        description = tiff.pages[0].description
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="z{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(12)
    )
    head, _, rest = description.partition("<TiffData")
    description = head + planes + rest.partition("/>")[2] if "/>" in rest else description
    for z in range(12):
        tifffile.imwrite(tmp_path / f"z{z}.ome.tif", PLANES[z], description=description, metadata=None)
    name.unlink()
    assert_array_equal(TiffStack(tmp_path)[...], PLANES)
    assert TiffStack(tmp_path / "z0.ome.tif").shape == PLANES.shape
    (tmp_path / "z7.ome.tif").unlink()
    with pytest.raises(ArrayNotFoundError, match=r"a plane of the stack is missing: .*z0.ome.tif tells of plane 7"):
        TiffStack(tmp_path / "z0.ome.tif")
