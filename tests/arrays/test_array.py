"""Does an array read and write just the voxels that a ROI means?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from blockflow.arrays import Array
from blockflow.errors import ArrayError, GeometryError, OutOfBoundsError, ValueLossError
from blockflow.geometry import Roi, coordinate_of

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["ndarray", "fortran", "zarr2", "zarr3", "sharded", "window", "view"]
KINDS: list[Kind] = ["ndarray", "fortran", "zarr2", "zarr3", "sharded", "window", "view"]
Draw = Callable[[st.SearchStrategy[Any]], Any]
MARGIN = 4
"""How many voxels around the array the model knows of; ROIs are drawn from these."""


def stored(kind: Kind, voxels: np.ndarray[Any, Any]) -> Any:
    """These voxels as data of some kind."""
    if kind == "fortran":
        return np.asfortranarray(voxels)
    if not kind.startswith(("zarr", "sharded")):
        return voxels.copy()
    chunks = tuple(min(n, 3) for n in voxels.shape)
    data = zarr.create_array(
        MemoryStore(),
        shape=voxels.shape,
        dtype=voxels.dtype,
        chunks=chunks,
        shards=tuple(2 * n for n in chunks) if kind == "sharded" else None,
        zarr_format=2 if kind == "zarr2" else 3,
    )
    data[...] = voxels
    return data


class Model:
    """An array and what it should be: a numpy canvas with a margin around it, and its place."""

    def __init__(self, draw: Draw) -> None:
        dims = draw(st.integers(1, 3))
        self.channels = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
        self.extents = [draw(st.integers(1, 7)) for _ in range(dims)]
        self.sizes = [draw(st.integers(1, 5)) for _ in range(dims)]
        self.offset = [draw(st.integers(-50, 50)) for _ in range(dims)]
        shape = (*self.channels, *self.extents)
        voxels = np.arange(1, 1 + np.prod(shape), dtype="int32").reshape(shape)
        around = [(0, 0)] * len(self.channels) + [(MARGIN, MARGIN)] * dims
        self.canvas = np.pad(voxels, around)
        self.inside = np.pad(np.ones_like(voxels, dtype=bool), around)
        self.kind = draw(st.sampled_from(KINDS))
        if self.kind in ("window", "view"):  # a part of a larger array, on zarr or in memory
            larger = np.pad(voxels, [(0, 0)] * len(self.channels) + [(2, 1)] * dims)
            begin = [o - 2 * s for o, s in zip(self.offset, self.sizes, strict=True)]
            whole = Array(stored("zarr3" if self.kind == "window" else "ndarray", larger), begin, self.sizes)
            extent = [n * s for n, s in zip(self.extents, self.sizes, strict=True)]
            self.array = whole[Roi(self.offset, extent)]
        else:
            self.array = Array(stored(self.kind, voxels), self.offset, self.sizes)

    def roi_and_key(self, draw: Draw, margin: int) -> tuple[Roi, tuple[Any, ...]]:
        """A ROI on the grid, and the index of its voxels on the canvas."""
        begin, end = [], []
        for n in self.extents:
            begin.append(draw(st.integers(-margin, n + margin - 1)))
            end.append(draw(st.integers(begin[-1] + 1, n + margin)))
        roi = Roi(
            [o + b * s for o, b, s in zip(self.offset, begin, self.sizes, strict=True)],
            [(e - b) * s for b, e, s in zip(begin, end, self.sizes, strict=True)],
        )
        return roi, (..., *(slice(b + MARGIN, e + MARGIN) for b, e in zip(begin, end, strict=True)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_reads_and_writes_equal_those_of_a_numpy_canvas(data: st.DataObject) -> None:
    draw = data.draw
    model = Model(draw)
    array = model.array
    for _ in range(draw(st.integers(1, 4))):
        roi, key = model.roi_and_key(draw, margin=0)
        target = model.canvas[key]
        value = draw(st.sampled_from(["scalar", "full", "spatial", "channels", "array"]))
        new: Any = draw(st.integers(-(10**6), 10**6))
        if value != "scalar":
            lead = {"spatial": (), "channels": (1,) * len(model.channels)}.get(value, model.channels)
            shape = (*lead, *target.shape[len(model.channels) :])
            new = new + np.arange(np.prod(shape)).reshape(shape)
        model.canvas[key] = new
        array[roi] = Array(new, roi=roi, voxel_size=model.sizes) if value == "array" else new

        roi, key = model.roi_and_key(draw, margin=MARGIN)
        if model.inside[key].all():
            np.testing.assert_array_equal(array.to_ndarray(roi), model.canvas[key])
            np.testing.assert_array_equal(array[roi].to_ndarray(), model.canvas[key])
            assert array[roi].roi == roi
        else:
            for refused in (array.to_ndarray, array.__getitem__):
                with pytest.raises(OutOfBoundsError, match="roi must lie in the array"):
                    refused(roi)
            before = array.to_ndarray()
            with pytest.raises(OutOfBoundsError, match="roi must lie in the array"):
                array[roi] = 7
            np.testing.assert_array_equal(array.to_ndarray(), before)
        fill = draw(st.integers(-9, 9))
        np.testing.assert_array_equal(
            array.to_ndarray(roi, fill_value=fill), np.where(model.inside[key], model.canvas[key], fill)
        )
    inner: tuple[Any, ...] = (..., *(slice(MARGIN, -MARGIN) for _ in model.extents))
    np.testing.assert_array_equal(array.to_ndarray(), model.canvas[inner])
    np.testing.assert_array_equal(np.asarray(array), model.canvas[inner])


def test_the_tutorial_in_memory() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 512, 512), "uint8")
    array = Array(data=image, roi=Roi((0, 0), (512, 512)), voxel_size=coordinate_of((1, 1), "voxel_size"))
    head = Roi(offset=(320, 150), shape=(180, 150))
    assert isinstance(array[head], Array)
    np.testing.assert_array_equal(array[head].to_ndarray(), image[:, 320:500, 150:300])
    np.testing.assert_array_equal(array.to_ndarray(head), image[:, 320:500, 150:300])
    np.testing.assert_array_equal(array[1:, 5:7], image[1:, 5:7])


def test_attributes() -> None:
    array = Array(np.zeros((2, 3, 4), "uint8"), (10, 20), (2, 5), axis_names=["c", "y", "x"], units=["nm", "nm"])
    assert (array.offset, array.voxel_size, array.roi) == ((10, 20), (2, 5), Roi((10, 20), (6, 20)))
    assert (array.shape, array.dtype, array.spatial_dims, array.channel_dims) == (
        (2, 3, 4),
        np.dtype("uint8"),
        2,
        1,
    )
    assert (array.axis_names, array.units) == (("c", "y", "x"), ("nm", "nm"))
    part = array[Roi((10, 25), (2, 5))]
    assert (part.axis_names, part.units, part.offset) == (("c", "y", "x"), ("nm", "nm"), (10, 25))
    assert repr(array) == (
        "<Array [10:16, 20:40] (6, 20), voxel size (2, 5), shape (2, 3, 4), dtype uint8, on numpy.ndarray>"
    )


def test_without_offset_and_voxel_size_all_axes_are_spatial() -> None:
    assert Array(np.zeros((2, 3))).roi == Roi((0, 0), (2, 3))
    assert Array(np.zeros((2, 3)), roi=Roi((5,), (3,))).channel_dims == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_belongs_to_the_reader(kind: Kind) -> None:
    array = Array(stored(kind, np.zeros((4, 4))))
    array = array[Roi((0, 0), (2, 4))] if kind in ("window", "view") else array
    for read in (
        array.to_ndarray(),
        array.to_ndarray(Roi((0, 0), (1, 1))),
        array.to_ndarray(Roi((0, 0), (1, 1)), fill_value=0),
        array[1:2],
        array[0, 0:2],
    ):
        read[...] = 1
    assert not array.to_ndarray().any()


def test_numpy_gets_the_voxels_as_its_protocol_says() -> None:
    voxels = np.arange(4.0)
    array, on_zarr = Array(voxels), Array(stored("zarr3", voxels))
    for source in (array, on_zarr):
        assert np.array(source, dtype="uint8").tolist() == [0, 1, 2, 3]
        assert source.__array__(copy=True).flags.owndata
    assert array.__array__(copy=False).base is voxels
    for source, dtype in ((on_zarr, None), (array, np.uint8)):
        with pytest.raises(ValueError, match=r"^the voxels of <Array .*> cannot be had without a copy$"):
            source.__array__(dtype, copy=False)


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        array = Array(file.create_dataset("raw", (2, 4, 4), "uint8", chunks=True), (8, 0), (2, 2))
        array[Roi((10, 0), (2, 2))] = [[[1]], [[2]]]
        assert array[Roi((10, 0), (4, 4))].to_ndarray()[:, 0, 0].tolist() == [1, 2]
        assert array.to_ndarray(Roi((6, 0), (2, 2)), fill_value=9).ravel().tolist() == [9, 9]


def test_a_part_is_a_view_that_writes_through() -> None:
    for kind in ("ndarray", "zarr3"):
        array = Array(stored(kind, np.zeros((4, 4), "uint8")))
        part = array[Roi((1, 1), (3, 3))][Roi((2, 2), (2, 1))]
        part[part.roi] = 1
        np.testing.assert_array_equal(np.argwhere(array.to_ndarray()), [[2, 2], [3, 2]])


def test_a_part_of_zarr_is_not_read_before_it_must() -> None:
    store = MemoryStore()
    data = zarr.create_array(store, shape=(4, 4), chunks=(2, 2), dtype="uint8")
    part = Array(data)[Roi((0, 0), (2, 2))]
    data[0, 0] = 9
    assert part.to_ndarray()[0, 0] == 9
    assert (part.shape, part.dtype) == ((2, 2), np.uint8)


def test_writes_cast_as_the_tutorial_needs() -> None:
    labels, smooth = Array(np.zeros((2, 2), "uint32")), Array(stored("zarr3", np.zeros((2, 2), "float32")))
    labels[labels.roi] = np.array([[1, 2], [3, 2**32 - 1]])
    smooth[smooth.roi] = np.full((2, 2), 0.1)
    assert labels.to_ndarray().tolist() == [[1, 2], [3, 2**32 - 1]]
    assert (smooth.to_ndarray() == np.float32(0.1)).all()


class Nothing:
    shape = (2, 2)
    dtype = np.dtype("uint8")

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        part: np.ndarray[Any, Any] = np.zeros((2, 2), "uint8")[key]
        return part


def test_anything_array_like_can_be_read() -> None:
    array = Array(Nothing(), voxel_size=(3, 3))
    assert array.to_ndarray(Roi((0, 3), (3, 3))).tolist() == [[0]]
    assert array[Roi((0, 3), (3, 3))].to_ndarray().tolist() == [[0]]
    with pytest.raises(ArrayError, match="read-only"):
        array[array.roi] = 1


ARRAY = Array(np.zeros((3, 8, 8), "uint8"), (0, 40), (4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": [[1, 2]]}, "data must be array-like, with shape, dtype and []: list has no shape"),
        (
            {"data": np.zeros((3, 4)), "offset": (0, 0), "roi": Roi((0, 0), (3, 4))},
            "pass offset or roi, not both: got (0, 0) and [0:3, 0:4] (3, 4)",
        ),
        (
            {"data": np.zeros((3, 84, 84)), "roi": Roi((0, 0), (64, 64)), "voxel_size": (1, 1)},
            "roi must have the shape of the data times the voxel size, (84, 84), got (64, 64)",
        ),
        (
            {"data": np.zeros((3, 4)), "roi": Roi((0, 0), (3, 4)), "voxel_size": (1,)},
            "offset and voxel_size must have as many axes: got (0, 0) and (1,)",
        ),
        ({"data": np.zeros((3, 4)), "roi": (3, 4)}, "roi must be a Roi, got tuple: (3, 4)"),
        (
            {"data": np.zeros((3, 4)), "axis_names": ["y"]},
            "axis_names must be 2 strings, one for each axis they name, got ['y']",
        ),
        (
            {"data": np.zeros((3, 4)), "axis_names": "yx"},
            "axis_names must be 2 strings, one for each axis they name, got 'yx'",
        ),
        (
            {"data": np.zeros((3, 4)), "voxel_size": (1,), "units": ["nm", 3]},
            "units must be 1 strings, one for each axis they name, got ['nm', 3]",
        ),
        ({"data": np.float64(3)}, "voxel_size must have one axis or more, at most those of (): got ()"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GeometryError) as info:
        Array(**arguments)
    assert str(info.value) == message


@pytest.mark.parametrize(
    ("roi", "fill_value", "error", "message"),
    [
        (
            Roi((-4, 40), (8, 8)),
            None,
            OutOfBoundsError,
            "roi must lie in the array: axis 0 has [-4, 4) outside [0, 32); "
            "pass fill_value= to to_ndarray to read beyond the array",
        ),
        (
            Roi((0, 40), (8, 36)),
            None,
            OutOfBoundsError,
            "roi must lie in the array: axis 1 has [40, 76) outside [40, 72); "
            "pass fill_value= to to_ndarray to read beyond the array",
        ),
        (
            Roi((0, 41), (4, 4)),
            None,
            GeometryError,
            "roi must lie on the voxel grid (offset (0, 40), voxel size (4, 4)): axis 1 has [41, 45); "
            "the nearest ROI around it is [0:4, 40:48] (4, 8)",
        ),
        (
            Roi((0, 0, 0), (1, 1, 1)),
            0,
            GeometryError,
            "roi must have 2 axes like the array, got 3: [0:1, 0:1, 0:1] (1, 1, 1)",
        ),
        ("all", 0, GeometryError, "roi must be a Roi, got str: 'all'"),
        (
            None,
            256,
            ValueLossError,
            "fill_value must be from 0 to 255 to be stored as uint8, got 256 to 256; "
            "use a wider dtype or convert them first",
        ),
        (
            None,
            np.nan,
            ValueLossError,
            "fill_value must be from 0 to 255 to be stored as uint8, got nan to nan; "
            "use a wider dtype or convert them first",
        ),
        (None, [0, 1, 2], ValueLossError, "fill_value must be a single value, got an array of shape (3,)"),
    ],
)
def test_reads_that_are_refused(roi: Any, fill_value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as info:
        ARRAY.to_ndarray(roi, fill_value=fill_value)
    assert str(info.value) == message


def test_a_part_beyond_the_array_is_refused() -> None:
    with pytest.raises(OutOfBoundsError) as info:
        ARRAY[Roi((-4, 40), (8, 8))]
    assert str(info.value) == (
        "roi must lie in the array: axis 0 has [-4, 4) outside [0, 32); "
        "read with to_ndarray(roi, fill_value=...) to go beyond the array"
    )


def test_a_coordinate_is_no_index() -> None:
    with pytest.raises(ArrayError) as info:
        ARRAY[coordinate_of((0, 40), "key")]
    assert str(info.value) == (
        "a Coordinate is in world units, an index in voxels: for the voxel at (0, 40) "
        "pass a Roi of one voxel, for voxel indices a plain tuple"
    )


INSIDE = Roi((0, 40), (8, 12))
"""2 x 3 voxels of ARRAY."""


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        (
            slice(None),
            0,
            ArrayError,
            "voxels are written by Roi, got slice; the whole array is array[array.roi]",
        ),
        (
            Roi((0, 68), (8, 8)),
            0,
            OutOfBoundsError,
            "roi must lie in the array: axis 1 has [68, 76) outside [40, 72); "
            "write the part inside: cut the roi and the values to array.roi",
        ),
        (
            INSIDE,
            -1,
            ValueLossError,
            "values must be from 0 to 255 to be stored as uint8, got -1 to -1; use a wider dtype or convert them first",
        ),
        *(
            (
                INSIDE,
                np.zeros(shape),
                GeometryError,
                f"values must have the shape of the roi in voxels, (2, 3), after channels that fit (3,): got {shape}",
            )
            for shape in [(2, 2), (3,), (1, 1), (1,), (3, 1, 1), (2, 2, 3), (1, 3, 2, 3), (3, 3, 2)]
        ),
        (
            INSIDE,
            Array(np.zeros((2, 3)), (0, 40), (8, 8)),
            GeometryError,
            "the values must have the array's voxel size (4, 4), got (8, 8)",
        ),
        (
            INSIDE,
            Array(np.zeros((2, 3)), (4, 40), (4, 4)),
            GeometryError,
            "the values must cover the roi [0:8, 40:52] (8, 12), they cover [4:12, 40:52] (8, 12); "
            "cut them with values[roi] or pass an ndarray",
        ),
    ],
)
def test_writes_that_are_refused_write_nothing(key: Any, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as info:
        ARRAY[key] = value
    assert str(info.value) == message
    assert not ARRAY.to_ndarray().any()


def test_read_only_data_is_not_written() -> None:
    data = np.zeros((2, 2))
    data.flags.writeable = False
    store = MemoryStore()
    zarr.create_array(store, shape=(2, 2), dtype="uint8")
    for frozen in (data, zarr.open_array(store, mode="r")):
        array = Array(frozen)
        for target in (array, array[array.roi]):
            with pytest.raises(ArrayError) as info:
                target[target.roi] = 1
            assert str(info.value) == "the array is read-only; open it with open_ds(..., mode='a')"
