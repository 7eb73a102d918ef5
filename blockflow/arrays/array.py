"""Array: which voxels does a ROI in world units mean, and may they be read or written?

1. The ROI must lie on the voxel grid, which begins at the array's offset; it is never rounded (grid.py).
2. Reads inside give the voxels; reads that reach outside are filled if a fill value is given, else refused.
3. Writes must lie inside, fit in shape, and keep their values in the array's dtype.

The spatial axes are the last ones of the data; what comes before them are channels, which a ROI takes whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from blockflow.arrays.axes import labels_of
from blockflow.arrays.casting import cast, cast_scalar
from blockflow.arrays.foreign import in_numpy
from blockflow.arrays.grid import grid_of, voxels_of
from blockflow.arrays.handles import portable, restore
from blockflow.arrays.window import Window, writable
from blockflow.arrays.writing import write_voxels
from blockflow.errors import ArrayError, GeometryError, OutOfBoundsError
from blockflow.geometry import Box, Coordinate, Roi, box_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class Array:
    """Voxels that are addressed by ROI in world units.

    Args:
        data: A numpy array, memmap, zarr array, h5py dataset, or anything else with ``shape``, ``dtype`` and
            ``[]``. It is held, not copied. Channel axes come first.
        offset: Where the first voxel begins, in world units; zero if not given.
        voxel_size: World units per voxel, one number for each spatial axis; these are the last axes of the
            data. One world unit on every axis if not given.
        roi: In place of the offset: the region the data covers, in world units.
        axis_names: One name for each axis of the data, channels included.
        units: One unit for each spatial axis; a label, nothing is converted.

    Raises:
        GeometryError: The arguments do not fit the data or one another.
        ArrayError: The data is masked, or of a dtype that numpy has not.

    >>> array = Array(np.arange(12).reshape(3, 4), offset=(0, 40), voxel_size=(10, 10))
    >>> array.roi
    [0:30, 40:80] (30, 40)
    >>> array.to_ndarray(Roi((10, 60), (20, 20)))
    array([[ 6,  7],
           [10, 11]])
    >>> array[Roi((0, 40), (10, 20))] = -1
    >>> array[0]
    array([-1, -1,  2,  3])
    """

    __slots__ = ("axis_names", "data", "offset", "units", "voxel_size")

    data: Any
    """What holds the voxels: as given, or a view or window of it for an array made by ``array[roi]``."""
    offset: Coordinate
    """Where the first voxel begins, in world units."""
    voxel_size: Coordinate
    """World units per voxel and spatial axis."""
    axis_names: tuple[str, ...] | None
    """One for each axis of the data."""
    units: tuple[str, ...] | None
    """One for each spatial axis."""

    def __init__(
        self,
        data: Any,
        offset: Iterable[int] | None = None,
        voxel_size: Iterable[int] | None = None,
        *,
        roi: Roi | None = None,
        axis_names: Iterable[str] | None = None,
        units: Iterable[str] | None = None,
    ) -> None:
        for attribute in ("shape", "dtype", "__getitem__"):
            if not hasattr(data, attribute):
                raise GeometryError(
                    f"data must be array-like, with shape, dtype and []: {type(data).__name__} has no {attribute}"
                )
        if offset is not None and roi is not None:
            raise GeometryError(f"pass offset or roi, not both: got {offset} and {roi}")
        if roi is not None:
            offset = [begin for begin, _ in box_of(roi, "roi")]
        self.data = in_numpy(data, "data")
        self.offset, self.voxel_size = grid_of(offset, voxel_size, tuple(data.shape))
        if roi is not None and roi.shape != self.roi.shape:
            raise GeometryError(
                f"roi must have the shape of the data times the voxel size, {self.roi.shape}, got {roi.shape}"
            )
        self.axis_names = labels_of(axis_names, len(data.shape), "axis_names")
        self.units = labels_of(units, self.spatial_dims, "units")

    @property
    def roi(self) -> Roi:
        """What the array covers, in world units, half-open."""
        extents = self.data.shape[self.channel_dims :]
        return Roi(self.offset, [n * size for n, size in zip(extents, self.voxel_size, strict=True)])

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis, channel axes first."""
        return tuple(self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of one voxel."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    @property
    def spatial_dims(self) -> int:
        """How many axes a ROI has; the last ones of the data."""
        return len(self.voxel_size)

    @property
    def channel_dims(self) -> int:
        """How many axes of the data come before the spatial ones."""
        return len(self.data.shape) - len(self.voxel_size)

    def to_ndarray(self, roi: Roi | None = None, fill_value: Any = None) -> np.ndarray[Any, Any]:
        """Read voxels into a new numpy array of shape (channels..., voxels of the ROI).

        Args:
            roi: In world units, on the voxel grid; everything if not given.
            fill_value: Stands for the voxels outside the array. Without it, reaching outside is an error.

        Raises:
            GeometryError: The ROI is not on the voxel grid.
            OutOfBoundsError: The ROI reaches outside the array and there is no fill value.
            ValueLossError: The dtype cannot hold the fill value.

        >>> Array(np.array([1, 2, 3])).to_ndarray(Roi((-1,), (3,)), fill_value=0)
        array([0, 1, 2])
        """
        fill = None if fill_value is None else cast_scalar(fill_value, self.dtype, "fill_value")
        if roi is None:
            return self._read(self._whole)
        wanted = voxels_of(roi, self.offset, self.voxel_size)
        if fill is None:
            self._check_inside(roi, wanted, "pass fill_value= to to_ndarray to read beyond the array")
            return self._read(wanted)
        inside = tuple((max(b, 0), min(e, n)) for (b, e), (_, n) in zip(wanted, self._whole, strict=True))
        if inside == wanted:
            return self._read(wanted)
        result = np.full(self._shape_of(wanted), fill, self.dtype)
        if all(begin < end for begin, end in inside):
            shifted = tuple((b - o, e - o) for (b, e), (o, _) in zip(inside, wanted, strict=True))
            result[self._key(shifted)] = self.data[self._key(inside)]
        return result

    def __getitem__(self, key: Any) -> Any:
        """A ROI gives an :class:`Array` of that part, not read yet; any other index a new numpy array.

        Raises:
            GeometryError: The ROI is not on the voxel grid.
            OutOfBoundsError: The ROI reaches outside the array.
            ArrayError: The index is a :class:`Coordinate`, which is in world units.
        """
        if isinstance(key, Coordinate):
            raise ArrayError(
                f"a Coordinate is in world units, an index in voxels: for the voxel at {key} "
                "pass a Roi of one voxel, for voxel indices a plain tuple"
            )
        if not isinstance(key, Roi):
            return _owned(self.data[key])
        voxels = voxels_of(key, self.offset, self.voxel_size)
        self._check_inside(key, voxels, "read with to_ndarray(roi, fill_value=...) to go beyond the array")
        if isinstance(self.data, np.ndarray) and not isinstance(self.data, np.memmap):
            data: Any = self.data[self._key(voxels)]
        else:
            channels = tuple(range(n) for n in self.data.shape[: self.channel_dims])
            data = Window(self.data, channels + tuple(range(*pair) for pair in voxels))
        return Array(data, key.offset, self.voxel_size, axis_names=self.axis_names, units=self.units)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write values into a ROI.

        A scalar goes into every voxel; an array must have the ROI's spatial shape, and its channel axes are
        broadcast as numpy does; an :class:`Array` must cover just this ROI with the same voxel size.

        Raises:
            GeometryError: The ROI is not on the voxel grid, or the values do not fit it.
            OutOfBoundsError: The ROI reaches outside the array.
            ValueLossError: The dtype cannot hold the values.
            ArrayError: The index is not a ROI, or the array is read-only.
        """
        if not isinstance(key, Roi):
            raise ArrayError(
                f"voxels are written by Roi, got {type(key).__name__}; the whole array is array[array.roi]"
            )
        if not writable(self.data):
            raise ArrayError("the array is read-only; open it with open_ds(..., mode='a')")
        voxels = voxels_of(key, self.offset, self.voxel_size)
        self._check_inside(key, voxels, "write the part inside: cut the roi and the values to array.roi")
        if isinstance(value, Array):
            self._check_place(value, key)
        values = cast(np.asarray(value), self.dtype, "values")
        if values.ndim:
            values = _fitted(values, self._shape_of(voxels), self.spatial_dims)
        write_voxels(self.data, self._key(voxels), values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """All voxels, so that ``numpy.asarray(array)`` and matplotlib work."""
        result = np.asarray(self.data[...], dtype=dtype)
        shared = isinstance(self.data, np.ndarray) and np.may_share_memory(result, self.data)
        if copy is False and not shared:
            raise ValueError(f"the voxels of {self} cannot be had without a copy")  # as numpy's protocol says
        return result.copy() if copy else result

    def __reduce__(self) -> tuple[Any, ...]:
        place = (tuple(self.offset), tuple(self.voxel_size), self.axis_names, self.units)
        return _restore_array, (portable(self.data), *place)

    def __repr__(self) -> str:
        kind = type(self.data)
        return (
            f"<Array {self.roi}, voxel size {self.voxel_size}, shape {self.shape}, "
            f"dtype {self.dtype}, on {kind.__module__.partition('.')[0]}.{kind.__name__}>"
        )

    @property
    def _whole(self) -> Box:
        return tuple((0, n) for n in self.data.shape[self.channel_dims :])

    def _check_inside(self, roi: Roi, voxels: Box, hint: str) -> None:
        for axis, ((begin, end), (_, n)) in enumerate(zip(voxels, self._whole, strict=True)):
            if begin < 0 or end > n:
                raise OutOfBoundsError(
                    f"roi must lie in the array: axis {axis} has [{roi.begin[axis]}, {roi.end[axis]}) "
                    f"outside [{self.roi.begin[axis]}, {self.roi.end[axis]}); {hint}"
                )

    def _key(self, voxels: Box) -> tuple[slice, ...]:
        channels = (slice(0, extent) for extent in self.data.shape[: self.channel_dims])
        return (*channels, *(slice(*pair) for pair in voxels))

    def _shape_of(self, voxels: Box) -> tuple[int, ...]:
        return (*self.data.shape[: self.channel_dims], *(end - begin for begin, end in voxels))

    def _read(self, voxels: Box) -> np.ndarray[Any, Any]:
        part = _owned(self.data[self._key(voxels)])
        if part.shape != self._shape_of(voxels):
            raise ArrayError(
                f"data must give arrays of the shape that its slices have, {self._shape_of(voxels)}: "
                f"{type(self.data).__module__}.{type(self.data).__name__} gave {part.shape}"
            )
        return part

    def _check_place(self, value: Array, roi: Roi) -> None:
        if value.voxel_size != self.voxel_size:
            raise GeometryError(
                f"the values must have the array's voxel size {self.voxel_size}, got {value.voxel_size}"
            )
        if value.roi != roi:
            raise GeometryError(
                f"the values must cover the roi {roi}, they cover {value.roi}; "
                "cut them with values[roi] or pass an ndarray"
            )


def _fitted(values: np.ndarray[Any, Any], shape: tuple[int, ...], dims: int) -> np.ndarray[Any, Any]:
    """The values broadcast over the channel axes, and over those only."""
    channels = len(shape) - dims
    own = values.shape[: max(values.ndim - dims, 0)]
    fits = values.shape[len(own) :] == shape[channels:] and len(own) <= channels
    if not fits or any(n not in (1, m) for n, m in zip(own[::-1], shape[:channels][::-1], strict=False)):
        raise GeometryError(
            f"values must have the shape of the roi in voxels, {shape[channels:]}, "
            f"after channels that fit {shape[:channels]}: got {values.shape}"
        )
    return np.broadcast_to(values, shape)


def _owned(part: Any) -> np.ndarray[Any, Any]:
    """A numpy array that nobody else holds: sources in memory answer with views of themselves."""
    result = np.asarray(part)
    return result if result.flags.owndata and result.flags.writeable else result.copy()


def _restore_array(data: Any, *place: Any) -> Array:
    offset, voxel_size, axis_names, units = place
    return Array(restore(data), offset, voxel_size, axis_names=axis_names, units=units)
