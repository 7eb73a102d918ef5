"""Multiscales: what does the OME-Zarr metadata of a group say about one of its arrays?

Versions 0.4 (attribute ``multiscales``), 0.5 and 0.6 (``multiscales`` under ``ome``), https://ngff.openmicroscopy.org.
1. Find the dataset whose path is the array's.
2. Apply its transformations in order, then those of the whole image: scale and translation for each axis. In 0.6 those
   of the whole image lead into other coordinate systems, and are not applied.
3. The axes of type ``space`` are the spatial ones; they must come last. Channels and time have no world unit.
4. Lengths become nanometers, whatever their unit, so that all levels and images share one world unit. Without
   units, numbers are taken as they are.
5. World units are whole numbers. Where a level of the image has fractions, all its levels get a finer unit: picometers
   and so on for lengths, else tenths, hundredths, ... of the unit, which the label says: ``"0.1"``, ``"0.1 pixel"``.

A translation is where the *centre* of the first voxel lies, if the centre of the first voxel of level 0 lies at that of
level 0. So a level begins at its translation - (its scale - the scale of level 0) / 2. Where no level has a
translation, nothing is said about where they lie to each other, and all begin at 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from blockflow.arrays.axes import Axes
from blockflow.errors import MetadataError
from blockflow.geometry import coordinate_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blockflow.geometry import Coordinate

_NANOMETERS = {
    "angstrom": 0.1,
    "zeptometer": 1e-12,
    "attometer": 1e-9,
    "femtometer": 1e-6,
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

_LONG_NAMES = {"nm": "nanometer", "mm": "millimeter"} | dict.fromkeys(("um", "\u00b5m", "\u03bcm"), "micrometer")
"""What OME-Zarr calls units that have short names."""

_TENTH = re.compile(r"0\.0*1")
"""A part of a unit, as a number."""

_FINER = {0: "nanometer", 3: "picometer", 6: "femtometer", 9: "attometer", 12: "zeptometer"}
"""Units of length, by how many decimal places they are finer than nanometers."""


def with_multiscales(known: Axes, attributes: Mapping[str, Any], path: str, ndim: int, where: str) -> Axes | None:
    """What is known, completed from the attributes of a group; None if they do not speak of the array.

    Args:
        known: What is known already is not looked at.
        attributes: Of the group.
        path: Of the array, from the group.
        ndim: How many axes the array has.
        where: The group, for messages.

    Raises:
        MetadataError: The metadata is malformed, or its numbers are not whole beside a known offset or voxel size.

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
            f"{where}: multiscales must be as in OME-Zarr 0.4 to 0.6 ({type(error).__name__}: {error}); "
            "pass voxel_size= and offset="
        ) from error
    return None


def scaled_unit(label: str | None) -> tuple[float, str | None]:
    """Return what the numbers of a unit of ours are multiplied with, and the unit that OME-Zarr knows them in.

    >>> scaled_unit("nm"), scaled_unit("0.1"), scaled_unit("0.01 pixel"), scaled_unit(None)
    ((1.0, 'nanometer'), (0.1, None), (0.01, 'pixel'), (1.0, None))
    """
    if label is None:
        return 1.0, None
    number, _, unit = label.partition(" ")
    if _TENTH.fullmatch(number):
        return float(number), unit or None
    return 1.0, _LONG_NAMES.get(label, label)


def _completed(known: Axes, image: Mapping[str, Any], dataset: Mapping[str, Any], ndim: int, where: str) -> Axes:
    where = f"{where}: multiscales of {dataset['path']!r}"
    axes = _axes_of(image, dataset)
    if len(axes) != ndim:
        raise MetadataError(f"{where} must name {ndim} axes, as many as the array has, got {len(axes)}")
    spatial = axes[_first_spatial(axes, where) :]
    units = [axis.get("unit") for axis in spatial]
    factors = _factors(units, where)
    placed = known.voxel_size is not None or known.offset is not None
    levels = [dataset] if placed else image["datasets"]
    (scale, corner), *others = (_level(image, each, ndim, factors, where) for each in (dataset, *levels))
    lengths = all(unit in _NANOMETERS for unit in units)
    steps = (0,) if placed else tuple(_FINER) if lengths else range(max(_FINER) + 1)
    pairs = [
        (number, size)
        for sizes, corners in others
        for size, at in zip(sizes, corners, strict=True)
        for number in (size, at)
    ]
    finer = next((step for step in steps if all(_is_whole(n, size, step) for n, size in pairs)), steps[-1])

    def world(values: list[float], what: str, argument: str) -> Coordinate:
        for axis, length, size in zip(spatial, values, scale, strict=True):
            if not _is_whole(length, size, finer):
                raise MetadataError(
                    f"{where} must have a {what} of whole world units (nanometers if there is a unit): "
                    f"axis {axis['name']!r} has {length}; pass {argument}="
                )
        return coordinate_of([round(length * 10**finer) for length in values], what)

    return Axes(
        offset=known.offset or world(corner, "translation", "offset"),
        voxel_size=known.voxel_size or world(scale, "scale", "voxel_size"),
        axis_names=known.axis_names or tuple(axis["name"] for axis in axes),
        units=known.units or _labels(units, finer, lengths=lengths),
    )


def _axes_of(image: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[Any]:
    """The axes of an image; in 0.6, those of the coordinate system that a level is put into."""
    if "coordinateSystems" not in image:
        return list(image["axes"])
    output = dataset["coordinateTransformations"][-1].get("output")
    name = output.get("name") if isinstance(output, dict) else output
    systems = {system["name"]: system for system in image["coordinateSystems"]}
    return list(systems[name]["axes"])


def _level(
    image: Mapping[str, Any], dataset: Mapping[str, Any], ndim: int, factors: list[float], where: str
) -> tuple[list[float], list[float]]:
    """Voxel size and corner of a level, for each spatial axis, in nanometers or as the numbers are."""
    whole = () if "coordinateSystems" in image else image.get("coordinateTransformations", ())
    levels = [_flat(each.get("coordinateTransformations", ())) for each in image["datasets"]]
    own = _flat(dataset["coordinateTransformations"])
    scale, translation = _composed([*own, *whole], ndim, where)
    if any(step["type"] == "translation" for steps in levels for step in steps):
        first, _ = _composed([*levels[0], *whole], ndim, where)
        translation = [t - (s - s_0) / 2 for t, s, s_0 in zip(translation, scale, first, strict=True)]
    used = slice(ndim - len(factors), None)
    sizes = [value * factor for value, factor in zip(scale[used], factors, strict=True)]
    return sizes, [value * factor for value, factor in zip(translation[used], factors, strict=True)]


def _flat(transformations: Any) -> list[Any]:
    """Transformations, with those of sequences one by one."""
    steps: list[Any] = []
    for each in transformations:
        steps.extend(_flat(each["transformations"]) if each["type"] == "sequence" else [each])
    return steps


def _is_whole(length: float, size: float, finer: int) -> bool:
    """Whether a length is a whole number of units, but for noise; a voxel of this size may have been taken off it."""
    number, voxel = length * 10.0**finer, abs(size) * 10.0**finer
    return abs(number - round(number)) <= _NOISE * max(1.0, abs(number), voxel)


def _labels(units: list[str | None], finer: int, *, lengths: bool) -> tuple[str, ...] | None:
    """The units of the world, for each spatial axis."""
    if lengths:
        return (_FINER[finer],) * len(units)
    if finer:
        tenth = f"0.{'0' * (finer - 1)}1"
        return tuple(tenth if unit is None else f"{tenth} {unit}" for unit in units)
    return None if None in units else tuple(map(str, units))


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
