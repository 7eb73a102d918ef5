"""Multiscales: what does the OME-Zarr metadata of a group say about one of its arrays?

Versions 0.4 (attribute ``multiscales``) and 0.5 (``multiscales`` under ``ome``), https://ngff.openmicroscopy.org.
1. Find the dataset whose path is the array's.
2. Apply its transformations in order, then those of the whole image: scale and translation for each axis.
3. The axes of type ``space`` are the spatial ones; they must come last. Channels and time have no world unit.
4. Lengths become nanometers, whatever their unit, so that all levels and images share one world unit. Without
   units, numbers are taken as they are. Then they must be whole: 0.4 micrometer is 400, but 0.4 is refused.

The translation is taken for the place where the first voxel begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blockflow.arrays.axes import Axes
from blockflow.errors import MetadataError
from blockflow.geometry import coordinate_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockflow.geometry import Coordinate

_NANOMETERS = {
    "angstrom": 0.1,
    "picometer": 1e-3,
    "nanometer": 1.0,
    "nm": 1.0,
    "micrometer": 1e3,
    "um": 1e3,
    "\u00b5m": 1e3,  # micro sign
    "\u03bcm": 1e3,  # Greek mu
    "millimeter": 1e6,
    "mm": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
}

_NOISE = 1e-12
"""How far from whole a number may be, relative to its size: floats say 0.1 + 0.2 is 0.30000000000000004."""


def with_multiscales(known: Axes, attributes: Mapping[str, Any], path: str, ndim: int, where: str) -> Axes | None:
    """What is known, completed from the attributes of a group; None if they do not speak of the array.

    Args:
        known: What is known already is not looked at.
        attributes: Of the group.
        path: Of the array, from the group.
        ndim: How many axes the array has.
        where: The group, for messages.

    Raises:
        MetadataError: The metadata is malformed, or its numbers are not whole.

    >>> axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    >>> scale = {"type": "scale", "scale": [0.4, 0.4]}
    >>> datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    >>> image = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    >>> with_multiscales(Axes(), image, "0", 2, "cells.zarr").voxel_size
    (400, 400)
    """
    try:
        for image in attributes.get("ome", attributes).get("multiscales", ()):
            for dataset in image["datasets"]:
                if dataset["path"] == path:
                    return _completed(known, image, dataset, ndim, where)
    except MetadataError:
        raise
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise MetadataError(
            f"{where}: multiscales must be as in OME-Zarr 0.4 or 0.5 ({type(error).__name__}: {error}); "
            "pass voxel_size= and offset="
        ) from error
    return None


def _completed(known: Axes, image: Mapping[str, Any], dataset: Mapping[str, Any], ndim: int, where: str) -> Axes:
    where = f"{where}: multiscales of {dataset['path']!r}"
    axes = image["axes"]
    if len(axes) != ndim:
        raise MetadataError(f"{where} must name {ndim} axes, as many as the array has, got {len(axes)}")
    spatial = axes[_first_spatial(axes, where) :]
    units = [axis.get("unit") for axis in spatial]
    factors = _factors(units, where)
    transformations = [*dataset["coordinateTransformations"], *image.get("coordinateTransformations", ())]
    scale, translation = _composed(transformations, ndim, where)

    def world(values: list[float], what: str, argument: str) -> Coordinate:
        lengths = [value * factor for value, factor in zip(values[-len(spatial) :], factors, strict=True)]
        for axis, length in zip(spatial, lengths, strict=True):
            if abs(length - round(length)) > _NOISE * max(1.0, abs(length)):
                raise MetadataError(
                    f"{where} must have a {what} of whole world units (nanometers if there is a unit): "
                    f"axis {axis['name']!r} has {length}; pass {argument}="
                )
        return coordinate_of([round(length) for length in lengths], what)

    names = tuple(axis["name"] for axis in axes)
    labels = None if None in units else tuple("nanometer" if u in _NANOMETERS else u for u in units)
    return Axes(
        offset=known.offset or world(translation, "translation", "offset"),
        voxel_size=known.voxel_size or world(scale, "scale", "voxel_size"),
        axis_names=known.axis_names or names,
        units=known.units or labels,
    )


def _first_spatial(axes: list[Any], where: str) -> int:
    """The index of the first spatial axis; an axis without a type is spatial if it is called x, y or z."""
    kinds = [axis.get("type", "space" if axis["name"] in ("x", "y", "z") else None) for axis in axes]
    first = kinds.index("space") if "space" in kinds else len(kinds)
    if first == len(kinds) or set(kinds[first:]) != {"space"}:
        raise MetadataError(f"{where} must have its spatial axes last, got axes of type {kinds}")
    return first


def _factors(units: list[str | None], where: str) -> list[float]:
    """What makes nanometers of the numbers, for each spatial axis."""
    if all(unit in _NANOMETERS for unit in units):
        return [_NANOMETERS[str(unit)] for unit in units]
    if len(set(units)) > 1:
        raise MetadataError(
            f"{where} must have lengths as units, or one unit on all spatial axes, got {units}; "
            "pass voxel_size= and offset="
        )
    return [1.0] * len(units)


def _composed(transformations: list[Any], ndim: int, where: str) -> tuple[list[float], list[float]]:
    """Scale and translation that do what the transformations do one after the other."""
    scale, translation = [1.0] * ndim, [0.0] * ndim
    for transformation in transformations:
        kind = transformation["type"]
        if kind not in ("identity", "scale", "translation"):
            raise MetadataError(
                f"{where} must have transformations of type scale or translation, got {kind!r}; "
                "pass voxel_size= and offset="
            )
        numbers = transformation[kind] if kind != "identity" else [1.0] * ndim
        if kind == "translation":
            translation = [t + n for t, n in zip(translation, numbers, strict=True)]
        else:
            scale = [s * n for s, n in zip(scale, numbers, strict=True)]
            translation = [t * n for t, n in zip(translation, numbers, strict=True)]
    return scale, translation
