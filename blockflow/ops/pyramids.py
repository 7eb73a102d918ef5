"""Pyramids: how does a large image get smaller and smaller copies that viewers can open?

The result is a multiscale image of OME-Zarr 0.5 (0.4 in a group of zarr format 2): a group with one array for each
level, and metadata that says how large their voxels are. Levels are made one after the other, each from the one before,
in blocks that are whole chunks (or shards) of the level that is written. The group's metadata is written in the end, so
what says that it is a pyramid is one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import zarr

from blockflow.arrays.array import Array
from blockflow.arrays.chunking import INNER_CHUNK_BYTES, shrunk
from blockflow.arrays.consolidated import drop_consolidated
from blockflow.arrays.multiscales import scaled_unit
from blockflow.arrays.opening import open_ds
from blockflow.arrays.places import place_of
from blockflow.arrays.preparing import prepare_ds
from blockflow.errors import GeometryError, PlanError
from blockflow.geometry import Roi
from blockflow.ops.image_groups import check_new, level_prefix, list_label, path_inside
from blockflow.ops.inputs import opened, put_into_place
from blockflow.ops.mapping import below, map_blocks, run_map
from blockflow.ops.reduction import Method, reduced
from blockflow.ops.request import MapRequest
from blockflow.plan.flags import check_flags
from blockflow.plan.grid import Grid
from blockflow.plan.per_axis import per_axis
from blockflow.plan.storage import chunk_shape

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from blockflow.plan.block import Block

__all__ = ["downsample"]

_BLOCK_BYTES = 2**24
"""What a block writes at most, if that is more than one chunk, uncompressed; it reads a window for each voxel of it."""

_MOST_SPATIAL = 3
"""Spatial axes that an OME-Zarr image may have."""

_CHANNEL, _TIME = frozenset(("c", "ch", "channel", "channels")), frozenset(("t", "time"))
"""Names of axes of channels and of time."""

_NOT_SPATIAL = _CHANNEL | _TIME
"""Names of axes along which no voxels are put together."""

_SMALLEST = 64
"""Voxels: levels are added until no axis that gets smaller has more."""


def downsample(
    image: Any,
    group: str | os.PathLike[str] | zarr.Group,
    *,
    factor: int | Sequence[int] = 2,
    levels: int | None = None,
    method: Method = "mean",
    chunks: Sequence[int] | None = None,
    shards: Sequence[int] | None = None,
    name: str = "image",
    overwrite: bool = False,
    num_workers: int | None = None,
    launcher: Any = None,
    run_dir: str | os.PathLike[str] | None = None,
    reset: bool = False,
    accept_change: bool = False,
    take_over: bool = False,
    progress: bool = True,
) -> list[Array]:
    """Make an OME-Zarr multiscale image.

    >>> import tempfile
    >>> import numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> image, options = np.arange(64).reshape(8, 8), {"num_workers": 0, "progress": False}
    >>> levels = downsample(image, f"{folder.name}/x.zarr", levels=3, **options)
    >>> [(level.shape, level.voxel_size) for level in levels]
    [((8, 8), (1, 1)), ((4, 4), (2, 2)), ((2, 2), (4, 4))]
    >>> folder.cleanup()

    Args:
        image: A source as for :func:`~blockflow.ops.map_blocks`. If it is a zarr array in `group` it is the first
            level, else it is copied into it.
        group: The group of the pyramid; made if it is not there. Levels are called ``0``, ``1``, ... and are new, or of
            a run with the same `run_dir` that goes on.
        factor: How many voxels of a level, along each axis, make one of the next; 1 leaves an axis as it is.
        levels: How many there are, the first one included; if not given, until axes are no longer than 64 voxels.
        method: "mean" (images), "mode" (labels), "max", "min" or "nearest".
        chunks: Voxels per axis, channels included; those of the image if not given and it has any.
        shards: Voxels per axis, channels included; those of the image if not given and it has any.
        name: Of the image, in the metadata. If the group holds an image of another name, the levels of this one are
            called ``name/0``, ``name/1``, ... Label images of an image belong into groups of their own:
            ``group="x.zarr/labels/cells"``, which are listed in the attributes of the group ``labels``.
        overwrite: Delete levels that are there and were not made by a run with this `run_dir`; else they are refused.
        num_workers: As for :func:`~blockflow.ops.map_blocks`.
        launcher: As for :func:`~blockflow.ops.map_blocks`.
        run_dir: As for :func:`~blockflow.ops.map_blocks`.
        reset: As for :func:`~blockflow.ops.map_blocks`.
        accept_change: As for :func:`~blockflow.ops.map_blocks`.
        take_over: As for :func:`~blockflow.ops.map_blocks`.
        progress: As for :func:`~blockflow.ops.map_blocks`.

    Returns:
        The levels, as :func:`~blockflow.arrays.open_ds` opens them. All begin at the same offset; the last voxel of an
        axis may stand for fewer voxels than the others, and reach beyond the image.

    Raises:
        PlanError: An argument that cannot be meant.
        GeometryError: A factor that does not fit the axes, or chunks that do not fit one another.
        ArrayError: Something else is in the group.
    """
    check_flags(overwrite=overwrite, reset=reset, accept_change=accept_change, take_over=take_over, progress=progress)
    if method not in get_args(Method):
        raise PlanError(f"method must be one of {', '.join(map(repr, get_args(Method)))}, got {method!r}")
    source = opened(image, "r", "image")
    dims = source.spatial_dims if isinstance(source, Array) else len(source.shape)
    source = put_into_place(source, None, dims, "image")
    _check_spatial(source)
    source = _named(source)
    factors = [_positive("factor", each) for each in per_axis("factor", factor, dims)]
    if levels is not None:
        _positive("levels", levels)
    shapes = _shapes(source.shape[source.channel_dims :], factors, levels)
    options: dict[str, Any] = {
        "num_workers": num_workers,
        "launcher": launcher,
        "reset": reset,
        "accept_change": accept_change,
        "take_over": take_over,
        "progress": progress,
    }
    layout = _layout(source, chunks, shards)
    prefix, inside = level_prefix(group, name), path_inside(group, source)
    paths = [inside if inside and not number else f"{prefix}{number}" for number in range(len(shapes))]
    made = range(1 if inside else 0, len(shapes))
    run_dirs = [below(run_dir, f"level_{number}") for number in made]
    check_new(group, [paths[number] for number in made], run_dirs, source, overwrite)
    first = source
    if not inside:
        first = _prepared(source, group, paths[0], shapes[0], source.voxel_size, layout)
        level_0 = below(run_dir, "level_0")
        map_blocks(_same, source, out=first, grid=_grid_over(first), name="level_0", run_dir=level_0, **options)
    arrays = [first]
    for number, shape in enumerate(shapes[1:], start=1):
        array = _next_level(arrays[-1], group, paths[number], shape, factors, layout)
        run_map(
            MapRequest(
                function=partial(_shrink, arrays[-1], tuple(factors), method),
                sources=(),
                out=array,
                grid=_grid_over(array),
                call="block",
                name=f"level_{number}",
                run_dir=below(run_dir, f"level_{number}"),
                also_read=(arrays[-1],),
                **options,
            )
        )
        arrays.append(array)
    _describe(group, arrays, paths, name, method)
    list_label(group)
    return [open_ds(group, path) for path in paths]


def _check_spatial(source: Array) -> None:
    """Refuse an image whose channels or time points would be averaged: which axes are spatial is not guessed."""
    names = source.axis_names or ()
    odd = [name for name in names[source.channel_dims :] if name.lower() in _NOT_SPATIAL]
    if source.spatial_dims > _MOST_SPATIAL or odd:
        said = f" called {', '.join(names)}" if names else ""
        raise GeometryError(
            f"image must have {_MOST_SPATIAL} spatial axes at most, and none of channels or time among them, got "
            f"{source.spatial_dims} axes{said} of shape {source.shape}: say which are spatial, the last ones, with "
            f"Array(data, voxel_size={(1,) * min(_MOST_SPATIAL, source.spatial_dims - max(1, len(odd)))})"
        )


def _named(source: Array) -> Array:
    """An image with names for all axes, which OME-Zarr demands: z, y, x and c where it has none."""
    channels = source.channel_dims
    if source.axis_names is None:
        if channels > 1:
            raise GeometryError(
                f"image must have names for its axes, as {channels} of them are not spatial: pass an Array with "
                "axis_names=, such as ('t', 'c', 'z', 'y', 'x')"
            )
        names = ("c",) * channels + ("z", "y", "x")[_MOST_SPATIAL - source.spatial_dims :]
        return Array(source.data, source.offset, source.voxel_size, axis_names=names, units=source.units)
    kinds = [_kind(name) for name in source.axis_names[:channels]]
    if "time" in kinds[1:] or channels > 2 or (channels == 2 and kinds[0] != "time"):
        raise GeometryError(
            "image must have a time axis, then one of channels, then the spatial ones, got axes called "
            f"{', '.join(source.axis_names)}"
        )
    return source


def _kind(name: str) -> str | None:
    """The type that OME-Zarr has for an axis that is not spatial; None for one that it does not know."""
    return "time" if name.lower() in _TIME else "channel" if name.lower() in _CHANNEL else None


def _shrink(source: Array, factors: tuple[int, ...], method: Method, block: Block, out: Array) -> None:
    """Write one block of a level."""
    roi = block.write_roi.intersect(out.roi)
    out[roi] = reduced(source.to_ndarray(roi.intersect(source.roi)), factors, method)


def _positive(what: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise PlanError(f"{what} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _shapes(shape: Sequence[int], factors: Sequence[int], levels: int | None) -> list[tuple[int, ...]]:
    """The spatial shape of each level.

    >>> _shapes((200, 90), (2, 2), None), _shapes((3, 3), (1, 2), 3)
    ([(200, 90), (100, 45), (50, 23)], [(3, 3), (3, 2), (3, 1)])
    """
    if max(factors) == 1 and levels != 1:
        raise PlanError(f"factor must be larger than 1 on some axis, got {factors}")
    shapes = [tuple(shape)]
    while len(shapes) < levels if levels is not None else _is_large(shapes[-1], factors):
        shapes.append(tuple(-(-n // factor) for n, factor in zip(shapes[-1], factors, strict=True)))
    return shapes


def _is_large(shape: Sequence[int], factors: Sequence[int]) -> bool:
    return any(n > _SMALLEST for n, factor in zip(shape, factors, strict=True) if factor > 1)


def _layout(
    source: Array, chunks: Sequence[int] | None, shards: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunk and shard shape of all levels, channels included."""
    if chunks is None:
        chunks = chunk_shape(source.data, "chunks")
        if chunks is None:
            channels, extents = source.shape[: source.channel_dims], source.shape[source.channel_dims :]
            rounded = tuple(1 << (n - 1).bit_length() for n in extents)
            chunks = (*channels, *shrunk(rounded, source.dtype.itemsize, INNER_CHUNK_BYTES))
        elif shards is None:
            shards = getattr(source.data, "shards", None)
    return tuple(chunks), None if shards is None else tuple(shards)


def _same(image: NDArray[Any]) -> NDArray[Any]:
    return image


def _next_level(
    before: Array, group: Any, name: str, shape: tuple[int, ...], factors: Sequence[int], layout: Any
) -> Array:
    voxel_size = [size * factor for size, factor in zip(before.voxel_size, factors, strict=True)]
    return _prepared(before, group, name, shape, voxel_size, layout)


def _prepared(
    like: Array, group: Any, name: str, shape: tuple[int, ...], voxel_size: Sequence[int], layout: Any
) -> Array:
    """An array of a level; the one that is there if it is the same."""
    chunks, shards = layout
    return prepare_ds(
        group,
        name,
        total_roi=Roi(like.offset, [n * size for n, size in zip(shape, voxel_size, strict=True)]),
        voxel_size=voxel_size,
        dtype=like.dtype,
        num_channels=like.shape[: like.channel_dims] or None,
        chunks=chunks,
        shards=shards,
        axis_names=like.axis_names,
        units=like.units,
    )


def _grid_over(array: Array) -> Grid:
    """Blocks of some whole chunks, or shards."""
    unit = (array.data.shards or array.data.chunks)[array.channel_dims :]
    extents = array.shape[array.channel_dims :]
    block = list(unit)
    voxel = array.dtype.itemsize * int(np.prod(array.shape[: array.channel_dims], dtype=np.int64))
    while int(np.prod(block, dtype=np.int64)) * voxel * 2 <= _BLOCK_BYTES:
        short = [axis for axis, (n, extent) in enumerate(zip(block, extents, strict=True)) if n < extent]
        if not short:
            break
        block[min(short, key=lambda axis: block[axis])] *= 2
    return Grid.regular(extents, block, offset=array.offset, voxel_size=array.voxel_size)


def _describe(group: Any, arrays: Sequence[Array], paths: Sequence[str], name: str, method: str) -> None:
    """Write the metadata of the image, in place of what is said about one of this name."""
    place = place_of(group, None, read_only=False)
    drop_consolidated(place)
    node = zarr.open_group(place.store, path=place.path, mode="r+")
    first = arrays[0]
    spatial = first.spatial_dims
    names: tuple[str, ...] = first.axis_names or ()
    parts, units = zip(*map(scaled_unit, first.units or (None,) * spatial), strict=True)
    axes: list[dict[str, Any]] = [
        {"name": each} | ({} if _kind(each) is None else {"type": _kind(each)}) for each in names[: first.channel_dims]
    ]
    for each, unit in zip(names[first.channel_dims :], units, strict=True):
        axes.append({"name": each, "type": "space"} | ({} if unit is None else {"unit": unit}))

    def world(lengths: Sequence[float]) -> list[float]:
        return [float(length * part) for length, part in zip(lengths, parts, strict=True)]

    def centre(array: Array) -> list[float]:
        sizes = zip(array.offset, array.voxel_size, first.voxel_size, strict=True)
        return world([begin + (size - size_0) / 2 for begin, size, size_0 in sizes])

    ones, zeros = [1.0] * first.channel_dims, [0.0] * first.channel_dims
    datasets = [
        {
            "path": path,
            "coordinateTransformations": [
                {"type": "scale", "scale": ones + world(array.voxel_size)},
                {"type": "translation", "translation": zeros + centre(array)},
            ],
        }
        for array, path in zip(arrays, paths, strict=True)
    ]
    image: dict[str, Any] = {"name": name, "axes": axes, "datasets": datasets, "type": method}
    said: Any = node.attrs.asdict()
    older = node.metadata.zarr_format == 2
    ome = said if older else said.get("ome", {})
    others = [other for other in ome.get("multiscales", ()) if other.get("name") != name]
    if older:
        node.attrs["multiscales"] = [*others, image | {"version": "0.4"}]
    else:
        node.attrs["ome"] = ome | {"version": "0.5", "multiscales": [*others, image]}
