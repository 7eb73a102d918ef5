"""Opening: how does a path become an array, and where does it lie in the world?

Offset, voxel size and the names of axes come from the first of these that says them:
1. what the caller passes,
2. the attributes of the array (axes.py), and for names its ``dimension_names``,
3. the OME-Zarr metadata of the groups above it, nearest first (multiscales.py),
4. offset zero and voxel size one; all axes are spatial then.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import zarr
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, ZarrUserWarning
from zarr.storage import LocalStore

from blockflow.arrays.array import Array
from blockflow.arrays.axes import Axes, with_attributes
from blockflow.arrays.formats import nothing_at
from blockflow.arrays.multiscales import with_multiscales
from blockflow.arrays.places import Place, place_of
from blockflow.errors import ArrayError, ArrayNotFoundError, GeometryError, MetadataError
from blockflow.geometry import coordinate_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable


Mode = Literal["r", "r+", "a"]
ZarrMode = Literal["r", "r+"]

_LISTED = 20
"""Members of a group that a message names at most."""

DAMAGE = (AttributeError, KeyError, TypeError, ValueError)
"""What zarr raises when a metadata document is not what it should be."""


def open_ds(
    path: str | os.PathLike[str] | zarr.Group | zarr.Array[Any] | Store,
    name: str | None = None,
    mode: Mode = "r",
    *,
    voxel_size: Iterable[int] | None = None,
    offset: Iterable[int] | None = None,
    axis_names: Iterable[str] | None = None,
    units: Iterable[str] | None = None,
) -> Array:
    """Open an array of a zarr store, format v2 or v3, and read where it lies; no voxel is read.

    Args:
        path: Of the store, or of the array itself (``'x.zarr/raw'``); or a zarr group, array or store.
        name: Of the array in the store, if the path does not say it.
        mode: ``'r'`` to read, ``'r+'`` or ``'a'`` to read and write. Nothing is ever created.
        voxel_size: World units per voxel and spatial axis, in place of what the metadata says.
        offset: Where the first voxel begins, in world units, in place of what the metadata says.
        axis_names: In place of what the metadata says.
        units: In place of what the metadata says.

    Raises:
        ArrayNotFoundError: There is no array; the message lists what is there.
        MetadataError: The metadata is damaged, contradicts itself, or is not in whole world units.
        GeometryError: Offset and voxel size do not fit the array.
        ArrayError: Another mode, or a place that cannot be meant.

    >>> import tempfile, zarr
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = zarr.open_group(f"{folder.name}/sample.zarr").create_array(
    ...     "raw", shape=(3, 8, 8), dtype="uint8", attributes={"resolution": [4, 4], "offset": [0, 32]})
    >>> open_ds(f"{folder.name}/sample.zarr", "raw").roi
    [0:32, 32:64] (32, 32)
    >>> folder.cleanup()
    """
    if mode not in get_args(Mode):
        advice = "; prepare_ds makes arrays, with overwrite=True anew" if str(mode).startswith(("w", "x")) else ""
        raise ArrayError(f"mode must be 'r', 'r+' or 'a', got {mode!r}{advice}")
    known = Axes(
        offset=None if offset is None else coordinate_of(offset, "offset"),
        voxel_size=None if voxel_size is None else coordinate_of(voxel_size, "voxel_size"),
        axis_names=axis_names,
        units=units,
    )
    read_only = mode == "r"
    return open_place(place_of(path, name, read_only=read_only), "r" if read_only else "r+", known)


def open_place(place: Place, mode: ZarrMode, known: Axes) -> Array:
    """The array at a place; what is known of its axes goes before its metadata."""
    data = open_zarr(place, mode)
    axes = with_attributes(known, data.attrs.asdict(), str(place))
    if axes.axis_names is None:
        axes = replace(axes, axis_names=_dimension_names(data))
    if not axes.located:
        axes = _with_groups(axes, data, place)
    try:
        return Array(data, axes.offset, axes.voxel_size, axis_names=axes.axis_names, units=axes.units)
    except GeometryError as error:
        raise MetadataError(f"{place}: {error}; pass voxel_size=, offset=, axis_names= or units=") from error


def _dimension_names(data: zarr.Array[Any]) -> tuple[str, ...] | None:
    """The names that zarr (format v3) or xarray (format v2) has for all axes, if they are different ones."""
    names: Any = getattr(data.metadata, "dimension_names", None) or data.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if len(set(names)) == data.ndim == len(names) else None


def open_zarr(place: Place, mode: ZarrMode) -> zarr.Array[Any]:
    """The zarr array at a place.

    Raises:
        ArrayNotFoundError: There is none; the message lists what is there.
        MetadataError: Its metadata is damaged.
        ArrayError: The store is read-only and the mode is not.
    """
    if mode == "r+" and place.store.read_only:
        raise ArrayError(f"{place} cannot be opened with mode 'r+' or 'a': its store was opened read-only")
    node = node_at(place, mode)
    if isinstance(node, zarr.Array):
        return node
    if isinstance(place.store, LocalStore):
        if place.missing and not place.store.root.exists():
            raise ArrayNotFoundError(f"no array at {place}: {nothing_at(place.store.root)}")
        if place.missing:
            raise ArrayNotFoundError(f"no array at {place}: {place.store.root} is a file, and no zarr store")
    for above in (place, *place.ancestors):
        group = node_at(above, "r")
        if isinstance(group, zarr.Group):
            raise ArrayNotFoundError(f"no array at {place}: the group {above} holds {_members(group)}")
    raise ArrayNotFoundError(f"no array at {place}: {Place(place.store, '')} is no zarr group")


def node_at(place: Place, mode: ZarrMode) -> zarr.Array[Any] | zarr.Group | None:
    """The zarr array or group at a place, or None.

    Raises:
        MetadataError: There is something, but its metadata is damaged.
    """
    if place.missing:
        return None
    try:
        return _settled(place, mode if _opens_read_only(place.store) else "r+")
    except FileNotFoundError:
        return None
    except DAMAGE as error:
        raise _damaged(place, error) from error


def _opens_read_only(store: Store) -> bool:
    """Whether zarr can open a store with mode ``'r'``: it is read-only, or makes read-only copies of itself."""
    return store.read_only or type(store).with_read_only is not Store.with_read_only


def _settled(place: Place, mode: ZarrMode) -> zarr.Array[Any] | zarr.Group:
    """What zarr finds, even if it is being made just now.

    Zarr looks for an array, then for a group: an array may appear in between. And it reads the two documents
    of format v2, array and attributes, at once: both may appear in between, and the array be seen without its
    attributes.
    """
    try:
        node = zarr.open(place.store, path=place.path, mode=mode)
    except ContainsArrayError:
        node = None
    if node is None or (isinstance(node, zarr.Array) and node.metadata.zarr_format == 2 and not node.attrs):
        node = zarr.open(place.store, path=place.path, mode=mode)
    return node


def _with_groups(known: Axes, array: zarr.Array[Any], place: Place) -> Axes:
    zarr_format = array.metadata.zarr_format
    mode: ZarrMode = "r" if _opens_read_only(place.store) else "r+"
    for above in place.ancestors:
        try:  # its format being known, this costs a third of the search that node_at makes
            group = zarr.open_group(
                above.store, path=above.path, mode=mode, zarr_format=zarr_format, use_consolidated=False
            )
        except FileNotFoundError:
            continue
        except DAMAGE as error:
            raise _damaged(above, error) from error
        inside = place.path.removeprefix(above.path).strip("/")
        axes = with_multiscales(known, group.attrs.asdict(), inside, array.ndim, str(above))
        if axes is not None:
            return axes
    return known


def _damaged(place: Place, error: Exception) -> MetadataError:
    return MetadataError(f"{place} has metadata that zarr cannot read ({type(error).__name__}: {error})")


def _members(group: zarr.Group) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)  # files that are not zarr's are none of its members
        try:
            names = sorted(group.keys())
        except DAMAGE:
            return "members that zarr cannot read"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(map(repr, names[:_LISTED])) or "nothing") + more
