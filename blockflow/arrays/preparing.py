"""Preparing: how does an empty array come to be, once, whoever asks for it first?

1. Work out the layout from the arguments, and let zarr make its documents in memory: what is wrong with them
   is found before anything is written.
2. If no array is there, store the documents, each only if it is not there yet, the one that makes it an array
   last: of several processes the first wins, and a reader sees either no array or a whole one.
3. Open what is there now and compare. The same layout is kept with its data, whoever made it and when;
   another one is refused with what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zarr
from zarr.storage import MemoryStore

from blockflow.arrays.axes import Axes, attributes_of, labels_of
from blockflow.arrays.consolidated import drop_consolidated
from blockflow.arrays.formats import check_made
from blockflow.arrays.layout import Layout, ZarrFormat, layout_of, planned_layout
from blockflow.arrays.opening import node_at, open_place
from blockflow.arrays.places import Place, place_of
from blockflow.arrays.store_calls import wait_for
from blockflow.errors import ArrayError
from blockflow.paths import is_path, local_path
from blockflow.plan.flags import checked_flag

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    from zarr.abc.store import Store

    from blockflow.arrays.array import Array
    from blockflow.geometry import Roi


def prepare_ds(
    path: str | os.PathLike[str] | zarr.Group | Store,
    name: str | None = None,
    total_roi: Roi | None = None,
    voxel_size: Iterable[int] | None = None,
    dtype: npt.DTypeLike | None = None,
    write_size: Iterable[int] | None = None,
    num_channels: int | Sequence[int] | None = None,
    *,
    chunks: Iterable[int] | None = None,
    shards: Iterable[int] | None = None,
    fill_value: Any = 0,
    compressors: Any = "auto",
    zarr_format: ZarrFormat | None = None,
    axis_names: Iterable[str] | None = None,
    units: Iterable[str] | None = None,
    overwrite: bool = False,
) -> Array:
    """Make an empty array in a zarr store, or open the one that is there if it has this layout.

    Safe to call by many processes at once, and again when a run is resumed: data that is there stays.

    Args:
        path: Of the store, or of the array itself (``'x.zarr/raw'``); or a zarr group or store.
        name: Of the array in the store, if the path does not say it. Groups on the way are made.
        total_roi: What the array covers, in world units; a multiple of the voxel size. Required.
        voxel_size: World units per voxel and spatial axis; one if not given.
        dtype: Of one voxel: boolean, integer, float or complex. Required.
        write_size: What one block writes, in world units. Chunks (shards, if given) divide it, so that no two
            blocks share one; the chunk grid begins at the offset of the total ROI, as the blocks should.
        num_channels: The length of a channel axis before the spatial ones, or of each of several (time points and
            channels); no such axis if not given.
        chunks: Voxels per axis, channels included. If not given, the largest divisor of the write size (or of
            the shard) that has at most 8 MiB (1 MiB in a shard) uncompressed.
        shards: Voxels per axis, channels included; multiples of the chunks. Zarr format 3 only.
        fill_value: What voxels are before anything is written.
        compressors: As for ``zarr.create_array``.
        zarr_format: If not given, that of the group the array lies in, else 3.
        axis_names: One for each axis, channels included.
        units: One for each spatial axis; a label.
        overwrite: Delete an array that is there, whatever its layout. Only for one process, before the run.

    Returns:
        The array, opened to read and write.

    Raises:
        GeometryError: Sizes do not fit one another; a block would share a chunk or shard with its neighbour.
        ValueLossError: The dtype cannot hold the fill value.
        PlanError: `overwrite` is not True or False.
        ArrayError: The dtype cannot be stored, the path is a URL or that of another format, or something else is at
            this place. Nothing was written.

    >>> import tempfile
    >>> from blockflow.geometry import Roi
    >>> folder = tempfile.TemporaryDirectory()
    >>> array = prepare_ds(f"{folder.name}/out.zarr", "smoothed", total_roi=Roi((0, 0), (512, 512)),
    ...     voxel_size=(4, 4), dtype="float32", write_size=(256, 256), num_channels=3)
    >>> array.shape, array.data.chunks
    ((3, 128, 128), (3, 64, 64))
    >>> folder.cleanup()
    """
    checked_flag("overwrite", overwrite)
    if is_path(path):
        check_made(local_path(path, "path") / (name or ""), "path", path)
    place = place_of(path, name, read_only=False)
    there, found_format = _look_around(place, zarr_format)
    layout = planned_layout(
        total_roi,
        voxel_size,
        dtype,
        write_size=write_size,
        num_channels=num_channels,
        chunks=chunks,
        shards=shards,
        fill_value=fill_value,
        zarr_format=found_format,
    )
    axes = Axes(
        offset=layout.offset,
        voxel_size=layout.voxel_size,
        axis_names=labels_of(axis_names, len(layout.shape), "axis_names"),
        units=labels_of(units, len(layout.offset), "units"),
    )
    documents = _documents(layout, axes, place.path, compressors)
    if there and overwrite:
        wait_for(place.store.delete_dir(place.path))
    if overwrite or not there:
        _store(documents, place, replace=overwrite)
        drop_consolidated(place)
    array = open_place(place, "r+", Axes())
    differences = layout.differences(layout_of(array))
    if differences:
        raise ArrayError(
            f"another array is at {place}: {differences}; "
            "open it with open_ds, take another name, or pass overwrite=True to delete it"
        )
    return array


def _look_around(place: Place, asked: ZarrFormat | None) -> tuple[bool, ZarrFormat]:
    """Whether an array is at the place, and the format that it has or must have."""
    if asked not in (None, 2, 3):
        raise ArrayError(f"zarr_format must be 2 or 3, got {asked!r}")
    if place.store.read_only:
        raise ArrayError(f"{place} cannot be prepared: its store was opened read-only")
    here = node_at(place, "r+")
    if isinstance(here, zarr.Group):
        raise ArrayError(f"{place} is a group; pass the name of an array in it")
    parents = []
    for above in place.ancestors:
        node = node_at(above, "r+")
        if isinstance(node, zarr.Array):
            raise ArrayError(f"{place} cannot be prepared: {above} is an array, and only groups hold arrays")
        if node is not None:
            parents.append(node.metadata.zarr_format)
    if asked and parents and asked != parents[0]:
        raise ArrayError(f"zarr_format must be {parents[0]} like that of the group {place} lies in, got {asked}")
    found = [] if here is None else [here.metadata.zarr_format]
    return here is not None, asked or (*found, *parents, 3)[0]


def _documents(layout: Layout, axes: Axes, path: str, compressors: Any) -> dict[str, Any]:
    """The metadata documents of the array and of the groups above it, by key, as zarr writes them."""
    documents: dict[str, Any] = {}
    attributes, older = attributes_of(axes), layout.zarr_format == 2
    if older and axes.axis_names is not None:
        attributes["_ARRAY_DIMENSIONS"] = list(axes.axis_names)  # what xarray knows names by in format v2
    zarr.create_array(
        MemoryStore(documents),
        name=path or None,
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=layout.chunks,
        shards=layout.shards,
        fill_value=layout.fill_value,
        compressors=compressors,
        zarr_format=layout.zarr_format,
        attributes=attributes,
        dimension_names=None if older else axes.axis_names,
        chunk_key_encoding={"name": "v2", "separator": "/"} if older else None,
    )
    return documents


def _store(documents: dict[str, Any], place: Place, *, replace: bool) -> None:
    own = f"{place.path}/" if place.path else ""

    async def store_all() -> None:
        # Groups first; .zarray last, as it is what makes an array of a folder with .zattrs.
        for key in sorted(documents, key=lambda key: (key.startswith(own), key.endswith(".zarray"))):
            if replace and key.startswith(own):
                await place.store.set(key, documents[key])
            else:
                await place.store.set_if_not_exists(key, documents[key])

    wait_for(store_all())
