"""Axes: what do attributes say about where an array lies and what its axes are?

``voxel_size`` (ours) and ``resolution`` (older tools) mean the same: world units per voxel, one for each
spatial axis. ``offset`` is where the first voxel begins. ``axis_names`` has one name for each axis, ``units``
one for each spatial axis. World units are whole numbers; what is not whole is refused, never rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blockflow.errors import GeometryError, MetadataError
from blockflow.geometry import Coordinate, coordinate_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What is known about the axes of an array; None is unknown."""

    offset: Coordinate | None = None
    """World units, one for each spatial axis."""
    voxel_size: Coordinate | None = None
    """World units, one for each spatial axis."""
    axis_names: Iterable[str] | None = None
    """One for each axis, channels included."""
    units: Iterable[str] | None = None
    """One for each spatial axis."""

    @property
    def located(self) -> bool:
        """Whether offset and voxel size are known."""
        return self.offset is not None and self.voxel_size is not None


def with_attributes(known: Axes, attributes: Mapping[str, Any], where: str) -> Axes:
    """What is known, completed from the attributes of an array. What is known already is not looked at.

    Raises:
        MetadataError: ``voxel_size`` and ``resolution`` differ, or an attribute is not what it should be.

    >>> with_attributes(Axes(), {"resolution": [4, 40], "offset": [0, 80]}, "raw").voxel_size
    (4, 40)
    """
    voxel_size = known.voxel_size
    if voxel_size is None:
        voxel_size = _whole(attributes, "voxel_size", "voxel_size", where)
        resolution = _whole(attributes, "resolution", "voxel_size", where)
        if None not in (voxel_size, resolution) and voxel_size != resolution:
            raise MetadataError(
                f"{where}: attributes voxel_size {voxel_size} and resolution {resolution} must be the same; "
                "correct one of them or pass voxel_size="
            )
        voxel_size = resolution if voxel_size is None else voxel_size
    return Axes(
        offset=_whole(attributes, "offset", "offset", where) if known.offset is None else known.offset,
        voxel_size=voxel_size,
        axis_names=_strings(attributes, "axis_names", where) if known.axis_names is None else known.axis_names,
        units=_strings(attributes, "units", where) if known.units is None else known.units,
    )


def attributes_of(axes: Axes) -> dict[str, Any]:
    """The attributes that say this. The voxel size stands there twice, for tools that know one name only.

    >>> attributes_of(Axes(offset=Coordinate(0, 0), voxel_size=Coordinate(4, 4)))
    {'offset': [0, 0], 'voxel_size': [4, 4], 'resolution': [4, 4]}
    """
    said = {
        "offset": axes.offset,
        "voxel_size": axes.voxel_size,
        "resolution": axes.voxel_size,
        "axis_names": axes.axis_names,
        "units": axes.units,
    }
    return {key: list(value) for key, value in said.items() if value is not None}


def labels_of(labels: Iterable[str] | None, count: int, what: str) -> tuple[str, ...] | None:
    """Names or units given by the user, one for each axis they are about.

    Raises:
        GeometryError: Not that many strings.

    >>> labels_of(["y", "x"], 2, "axis_names")
    ('y', 'x')
    """
    if labels is None:
        return None
    result = () if isinstance(labels, str) else tuple(labels)
    if len(result) != count or not all(isinstance(label, str) for label in result):
        raise GeometryError(f"{what} must be {count} strings, one for each axis they name, got {labels!r}")
    return result


def _whole(attributes: Mapping[str, Any], key: str, argument: str, where: str) -> Coordinate | None:
    if key not in attributes:
        return None
    try:
        return coordinate_of(attributes[key], key)
    except GeometryError as error:
        raise MetadataError(f"{where}: attribute {error}; pass {argument}= in whole world units") from None


def _strings(attributes: Mapping[str, Any], key: str, where: str) -> tuple[str, ...] | None:
    if key not in attributes:
        return None
    value = attributes[key]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise MetadataError(f"{where}: attribute {key} must be a list of strings, got {value!r}; pass {key}=")
    return tuple(value)
